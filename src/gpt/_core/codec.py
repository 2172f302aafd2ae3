"""Dataclasses to JSON bytes and back, by one compiled plan per class.

Reading is lax in leaves and strict in shape: values stay as they came, unknown keys are kept in
`additional_properties`, and only a missing or misshapen required field is an error. Writing leaves out what is
unset and refuses what JSON cannot hold. Nothing here knows HTTP or which dataclasses exist.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from numbers import Integral, Real
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import orjson

T = TypeVar("T")

EXTRAS = "additional_properties"
"""The field that holds what a server or a caller adds to the typed fields."""

_ORJSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_MAX_DEPTH = 200
_MAX_PATH = 60
_AS_IS = frozenset({str, int, float, bool, list, tuple})
_UNIONS = (Union, types.UnionType)


class ShapeError(ValueError):
    """JSON that is not the object it should be. The message names the field, what was expected and what came."""


Check = tuple[str, frozenset[type], tuple[type, ...], str]
"""What a scalar field accepts when it is written: its name, the types it nearly always has, all types, in words."""


class Plan:
    """What is known of one dataclass, compiled from its type hints: computed once, used for every value."""

    def __init__(self, cls: type[Any]) -> None:
        hints = get_type_hints(cls)
        declared = [field for field in fields(cls) if field.name != EXTRAS]
        self.names = tuple(field.name for field in declared)
        self.required = tuple(f.name for f in declared if f.default is MISSING and f.default_factory is MISSING)
        self.checks = tuple(_scalar_checks(self.names, hints))
        self.nested = tuple(name for name, _ in _nested(declared, hints))
        self.hints = {name: hints[name] for name in self.names}
        self.build = _compile_build(cls, declared, self.required, hints)
        """Make an instance from a JSON object."""


_plans: dict[type[Any], Plan] = {}


def plan_for(cls: type[Any]) -> Plan:
    """Give the plan of a dataclass, made the first time."""
    plan = _plans.get(cls)
    if plan is None:
        plan = _plans[cls] = Plan(cls)
    return plan


def variants(hint: Any) -> tuple[Any, ...]:
    """List the members of a union without `None`; any other hint is its own only member."""
    members = get_args(hint) if get_origin(hint) in _UNIONS else (hint,)
    return tuple(member for member in members if member is not type(None))


def _compile_build(
    cls: type[Any], declared: Iterable[Field[Any]], required: tuple[str, ...], hints: Mapping[str, Any]
) -> Callable[[dict[str, Any]], Any]:
    """Compile the way from a JSON object to an instance; this runs for every chunk of every stream."""
    known = frozenset(field.name for field in declared)
    defaults = {field.name: field.default for field in declared if field.default is not MISSING}
    nested = tuple(_nested(declared, hints))
    size, new = len(known), object.__new__

    def build(data: dict[str, Any]) -> Any:
        attributes = defaults | data
        extras: dict[str, Any] = {}
        if len(attributes) != size or EXTRAS in data:
            for key in data:
                if key not in known:
                    extras[key] = attributes.pop(key)
        attributes[EXTRAS] = extras
        for name in required:
            if name not in attributes:
                raise ShapeError(f"{name}: expected a value, got nothing")
        for name, convert in nested:
            value = attributes[name]
            if value is not None or name in required:
                attributes[name] = convert(value)
        instance = new(cls)
        instance.__dict__ = attributes
        return instance

    return build


def _nested(declared: Iterable[Field[Any]], hints: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    for field in declared:
        for hint in variants(hints[field.name]):
            if is_dataclass(hint):
                yield field.name, _one(plan_for(cast(type[Any], hint)).build)
            elif get_origin(hint) is list and is_dataclass(get_args(hint)[0]):
                yield field.name, _many(field.name, plan_for(get_args(hint)[0]).build)


def _one(build: Callable[[dict[str, Any]], Any]) -> Callable[[Any], Any]:
    """Convert an object; what is none stays as it came."""
    return lambda value: build(value) if type(value) is dict else value


def _many(name: str, build: Callable[[dict[str, Any]], Any]) -> Callable[[Any], Any]:
    """Convert a list of objects; anything else is an error."""

    def convert(values: Any) -> list[Any]:
        if type(values) is not list:
            raise ShapeError(f"{name}: expected a list of objects, got {describe(values)}")
        return [build(value) if type(value) is dict else misfit(values) for value in values]

    def misfit(values: list[Any]) -> Any:
        index, value = next((i, value) for i, value in enumerate(values) if type(value) is not dict)
        raise ShapeError(f"{name}[{index}]: expected an object, got {describe(value)}")

    return convert


def decode(cls: type[T], data: Any) -> T:
    """Build a dataclass from a JSON object without running its `__init__`.

    Raises:
        ShapeError: `data` is not an object, or a required field is missing or misshapen.
    """
    if type(data) is not dict:
        raise ShapeError(f"expected an object, got {describe(data)}")
    return cast(T, plan_for(cls).build(data))


def loads(data: bytes | str) -> Any:
    """Parse JSON; NaN and Infinity, which some servers write, are read as floats.

    Raises:
        ValueError: the text is not JSON, not UTF-8, or nested too deep.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return _loads_leniently(data, error)


def _loads_leniently(data: bytes | str, error: ValueError) -> Any:
    """Read with the standard library what orjson refuses by design: NaN, Infinity, 1e999, half of an escaped
    surrogate pair (a token may end there), a byte-order mark."""
    if "ecursion" in str(error):
        raise error
    text = data.decode() if isinstance(data, bytes) else data
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except RecursionError:
        raise ValueError("JSON nested too deep") from None


def payload(obj: Any) -> dict[str, Any]:
    """Give the JSON object of a dataclass: set fields only, extra keys merged last. Values are not copied."""
    attributes = vars(obj)
    result = {}
    for name in plan_for(type(obj)).names:
        value = attributes[name]
        if value is not None:
            result[name] = value if type(value) in _AS_IS else _prepared(value, name)
    result.update(attributes.get(EXTRAS) or ())
    return result


def dumps(obj: Any) -> bytes:
    """Write a dataclass as compact JSON, after checking that each typed field holds its type.

    Raises:
        TypeError: a field holds another type than declared, or something JSON has no form for.
        ValueError: NaN, an infinity, a lone surrogate, or an integer beyond 64 bits.
    """
    _check_types(obj)
    return dump_payload(payload(obj))


def dump_payload(value: Mapping[str, Any]) -> bytes:
    """Write a JSON object; errors name the path of what JSON cannot hold."""
    try:
        body = orjson.dumps(value, default=_plain, option=_ORJSON_OPTIONS)
    except TypeError as error:
        if misfit := _misfit(value):
            raise misfit from None
        body = _dump_plainly(value, str(error))
    # orjson writes NaN and infinities as null without a word, so a null is looked into.
    if b"null" in body and (misfit := _misfit(value)):
        raise misfit
    return body


def _dump_plainly(value: Mapping[str, Any], problem: str) -> bytes:
    """Write what orjson refuses although JSON could hold it: NumPy arrays of another byte order, for one."""
    try:
        return orjson.dumps(to_plain(value))
    except TypeError:
        raise TypeError(f"the request cannot be written as JSON: {problem}") from None


def to_plain(value: Any) -> Any:
    """Convert to dicts, lists and scalars: dataclasses by their payload, enums by value, arrays by `tolist`."""
    kind = type(value)
    if kind in (str, int, float, bool, type(None)):
        return value
    if kind is list or kind is tuple:
        return [to_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, str | int | float):
        return value
    try:
        return to_plain(_plain(value))
    except TypeError:
        return value


def _plain(value: Any) -> Any:
    """Reduce what JSON writers do not know to what they do; the `default` of `orjson.dumps`."""
    if is_dataclass(value) and not isinstance(value, type):
        return payload(value)
    if isinstance(value, AbstractSet | bytes | bytearray | memoryview):
        raise TypeError(f"{type(value).__name__} has no JSON form")
    if (as_list := getattr(value, "tolist", None)) is not None:
        return as_list()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _prepared(value: Any, name: str) -> Any:
    """Make keys strings, and a list of what can be iterated only once, so that an error can say where it is."""
    if isinstance(value, Mapping):
        return _string_keys(value, name)
    return list(value) if isinstance(value, Iterator) else value


def _string_keys(value: Mapping[Any, Any], name: str) -> Mapping[str, Any]:
    if all(type(key) is str for key in value):
        return value
    return {_key_text(key, name): item for key, item in value.items()}


def _key_text(key: Any, name: str) -> str:
    if isinstance(key, str):
        return str(key)
    if isinstance(key, Integral) and not isinstance(key, bool):
        return str(int(key))
    raise TypeError(f"{name}: expected string or integer keys, got {describe(key)}")


def _scalar_checks(names: Iterable[str], hints: Mapping[str, Any]) -> Iterator[Check]:
    for name in names:
        members = variants(hints[name])
        if all(isinstance(member, type) and _is_checked(member) for member in members):
            exact = frozenset(members) | ({int} if float in members else set())
            label = " or ".join(dict.fromkeys(_label(member) for member in members))
            yield name, exact, _accepted(members), label


def _is_checked(member: type) -> bool:
    return member in (int, float, bool, str) or is_dataclass(member) or issubclass(member, Enum)


def _accepted(members: tuple[type, ...]) -> tuple[type, ...]:
    numbers: dict[type, tuple[type, ...]] = {int: (Integral,), float: (Real,)}
    return tuple(kind for member in members for kind in numbers.get(member, (member,)))


def _label(member: type) -> str:
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
    return names.get(member) or ("a string" if issubclass(member, str) else f"a {member.__name__}")


def _check_types(obj: Any, path: str = "") -> None:
    attributes = vars(obj)
    plan = plan_for(type(obj))
    for name, exact, accepted, label in plan.checks:
        value = attributes[name]
        if value is None:
            if name in plan.required:
                raise TypeError(f"{path}{name}: expected {label}, got None")
        elif type(value) not in exact and not _is_one_of(_scalar(value), accepted):
            raise TypeError(
                f"{path}{name}: expected {label}, got {describe(value)}"
                f" (a server's own form of it can be sent in {EXTRAS})"
            )
    for name in plan.nested:
        if is_dataclass(attributes[name]):
            _check_types(attributes[name], f"{path}{name}.")
    extras = attributes.get(EXTRAS)
    if type(extras) is not dict and not isinstance(extras, Mapping | None):
        raise TypeError(f"{path}{EXTRAS}: expected a dict, got {describe(extras)}")


def _is_one_of(value: Any, accepted: tuple[type, ...]) -> bool:
    """Tell whether a scalar has one of these types; `True` is no number."""
    return isinstance(value, accepted) and (bool in accepted or not isinstance(value, bool))


def _scalar(value: Any) -> Any:
    """Give the Python scalar of NumPy's, which a comparison or a reduction leaves behind."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _misfit(value: Any) -> Exception | None:
    """Find the first thing JSON cannot hold and say where it is."""
    return next(_misfits(value, "", 0), None)


def _misfits(value: Any, path: str, depth: int) -> Iterator[Exception]:
    where = path or "the request"
    if depth > _MAX_DEPTH:
        yield ValueError(f"{where[:_MAX_PATH]}…: nested deeper than {_MAX_DEPTH} levels, or contains itself")
    elif isinstance(value, str):
        if not _is_unicode(value):
            yield ValueError(f"{where}: a lone surrogate cannot be sent as UTF-8")
    elif isinstance(value, bool) or value is None or isinstance(value, Enum):
        return
    elif isinstance(value, Integral):
        if not -(2**63) <= int(value) < 2**64:
            yield ValueError(f"{where}: expected an integer of at most 64 bits, got a larger one")
    elif isinstance(value, Real):
        if not math.isfinite(value):
            yield ValueError(f"{where}: expected a finite number, got {float(value)}")
    else:
        yield from _misfits_inside(value, path, depth)


def _misfits_inside(value: Any, path: str, depth: int) -> Iterator[Exception]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str) and _is_unicode(key):
                yield from _misfits(item, f"{path}.{key}" if path else key, depth + 1)
            else:
                yield TypeError(f"{path or 'the request'}: expected keys that are text, got {describe(key)}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _misfits(item, f"{path}[{index}]", depth + 1)
    else:
        try:
            plain = _plain(value)
        except TypeError:
            if not _is_written(value):
                yield TypeError(f"{path or 'the request'}: expected a JSON value, got {describe(value)}")
        else:
            yield from _misfits(plain, path, depth + 1)


def _is_written(value: Any) -> bool:
    """Tell whether orjson itself has a form for a value (a UUID has one)."""
    try:
        orjson.dumps(value, option=_ORJSON_OPTIONS)
    except TypeError:
        return False
    return True


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def describe(value: Any) -> str:
    """Name a value's JSON type with a short look at scalars; never the content of strings longer than a word."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{type(value).__name__} {value!r}" if abs(value) < 1e30 or value - value else "a huge number"
    if isinstance(value, str):
        return f"str {value!r}" if len(value) <= 20 else f"a str of {len(value)} characters"
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"
