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
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import orjson

T = TypeVar("T")

EXTRAS = "additional_properties"
"""The field that holds what a server or a caller adds to the typed fields."""

_ORJSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_MAX_DEPTH = 200
_UNIONS = (Union, types.UnionType)


class ShapeError(ValueError):
    """JSON that is not the object it should be. The message names the field, what was expected and what came."""


class Check(NamedTuple):
    """What a scalar field accepts when it is written: exact types first, since they are nearly always it."""

    name: str
    exact: frozenset[type]
    accepted: tuple[type, ...]
    label: str


@dataclass(frozen=True)
class Plan:
    """What is known of one dataclass: computed once, used for every value."""

    cls: type[Any]
    names: tuple[str, ...]
    known: frozenset[str]
    required: tuple[str, ...]
    defaults: dict[str, Any]
    nested: tuple[tuple[str, Callable[[Any, str], Any]], ...]
    checks: tuple[Check, ...]
    hints: dict[str, Any]


def _compile_plan(cls: type[Any]) -> Plan:
    hints = get_type_hints(cls)
    declared = [field for field in fields(cls) if field.name != EXTRAS]
    names = tuple(field.name for field in declared)
    return Plan(
        cls=cls,
        names=names,
        known=frozenset(names),
        required=tuple(f.name for f in declared if f.default is MISSING and f.default_factory is MISSING),
        defaults={f.name: f.default for f in declared if f.default is not MISSING},
        nested=tuple(_nested_decoders(declared, hints)),
        checks=tuple(_scalar_checks(names, hints)),
        hints={name: hints[name] for name in names},
    )


_plans: dict[type[Any], Plan] = {}


def plan_for(cls: type[Any]) -> Plan:
    """Give the plan of a dataclass, compiled from its type hints the first time."""
    plan = _plans.get(cls)
    if plan is None:
        plan = _plans[cls] = _compile_plan(cls)
    return plan


def variants(hint: Any) -> tuple[Any, ...]:
    """List the members of a union without `None`; any other hint is its own only member."""
    members = get_args(hint) if get_origin(hint) in _UNIONS else (hint,)
    return tuple(member for member in members if member is not type(None))


def _nested_decoders(declared: Iterable[Any], hints: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for field in declared:
        strict = field.default is MISSING
        for hint in variants(hints[field.name]):
            if is_dataclass(hint):
                yield field.name, _model_decoder(hint)
            elif get_origin(hint) is list and is_dataclass(get_args(hint)[0]):
                yield field.name, _list_decoder(get_args(hint)[0], strict=strict)


def _model_decoder(cls: Any) -> Callable[[Any, str], Any]:
    def decode_one(value: Any, _path: str) -> Any:
        return decode(cls, value) if type(value) is dict else value

    return decode_one


def _list_decoder(cls: Any, *, strict: bool) -> Callable[[Any, str], Any]:
    def decode_list(value: Any, path: str) -> Any:
        if type(value) is list:
            try:
                return [decode(cls, item) for item in value]
            except ShapeError:
                if strict:
                    raise _first_misfit(cls, value, path) from None
                return value
        if strict:
            raise ShapeError(f"{path}: expected a list of objects, got {describe(value)}")
        return value

    return decode_list


def _first_misfit(cls: Any, values: list[Any], path: str) -> ShapeError:
    for index, value in enumerate(values):
        try:
            decode(cls, value)
        except ShapeError as error:
            return ShapeError(f"{path}[{index}]: {error}")
    raise AssertionError("unreachable: some value did not decode")


def decode(cls: type[T], data: Any) -> T:
    """Build a dataclass from a JSON object without running its `__init__`.

    Raises:
        ShapeError: `data` is not an object, or a required field is missing or misshapen.
    """
    if type(data) is not dict:
        raise ShapeError(f"expected an object, got {describe(data)}")
    plan = plan_for(cls)
    attributes = plan.defaults | data
    attributes[EXTRAS] = extras = {}
    if not plan.known >= data.keys():
        for key in data:
            if key == EXTRAS:
                extras[key] = data[key]
            elif key not in plan.known:
                extras[key] = attributes.pop(key)
    for name in plan.required:
        if name not in data:
            raise ShapeError(f"{name}: expected a value, got nothing")
    for name, convert in plan.nested:
        value = attributes[name]
        if value is not None or name in plan.required:
            attributes[name] = convert(value, name)
    instance = object.__new__(cls)
    instance.__dict__ = attributes
    return instance


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
    """Read with the standard library what orjson refuses by design: NaN, Infinity, a byte-order mark."""
    text = data.decode() if isinstance(data, bytes) else data
    if not ("NaN" in text or "Infinity" in text or text.startswith("\ufeff")):
        raise error
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
            result[name] = _string_keys(value, name) if isinstance(value, Mapping) else value
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
        raise _misfit(value) or TypeError(f"the request cannot be written as JSON: {error}") from None
    # orjson writes NaN and infinities as null without a word, so a null is looked into.
    if b"null" in body and (misfit := _misfit(value)):
        raise misfit
    return body


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
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable) and not isinstance(value, AbstractSet | bytes | bytearray | memoryview):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


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
            yield Check(name, exact, _accepted(members), label)


def _is_checked(member: type) -> bool:
    return member in (int, float, bool, str) or is_dataclass(member) or issubclass(member, Enum)


def _accepted(members: tuple[type, ...]) -> tuple[type, ...]:
    numbers: dict[type, tuple[type, ...]] = {int: (Integral,), float: (Real,)}
    return tuple(kind for member in members for kind in numbers.get(member, (member,)))


def _label(member: type) -> str:
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
    return names.get(member) or ("a string" if issubclass(member, str) else f"a {member.__name__}")


def _check_types(obj: Any) -> None:
    attributes = vars(obj)
    plan = plan_for(type(obj))
    for name, exact, accepted, label in plan.checks:
        value = attributes[name]
        if value is None:
            if name in plan.required:
                raise TypeError(f"{name}: expected {label}, got None")
        elif type(value) not in exact and (isinstance(value, bool) or not isinstance(value, accepted)):
            raise TypeError(
                f"{name}: expected {label}, got {describe(value)} (a server's own form of it can be sent in {EXTRAS})"
            )


def _misfit(value: Any) -> Exception | None:
    """Find the first thing JSON cannot hold and say where it is."""
    return next(_misfits(value, "", 0), None)


def _misfits(value: Any, path: str, depth: int) -> Iterator[Exception]:
    where = path or "the request"
    if depth > _MAX_DEPTH:
        yield ValueError(f"{where}: nested deeper than {_MAX_DEPTH} levels, or contains itself")
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
                yield TypeError(f"{path or 'the request'}: expected string keys, got {describe(key)}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _misfits(item, f"{path}[{index}]", depth + 1)
    else:
        try:
            plain = _plain(value)
        except TypeError:
            yield TypeError(f"{path or 'the request'}: expected a JSON value, got {describe(value)}")
        else:
            yield from _misfits(plain, path, depth + 1)


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
        text = repr(value) if abs(value) < 1e30 else "a huge number"
        return f"{type(value).__name__} {text}"
    if isinstance(value, str):
        return f"str {value!r}" if len(value) <= 20 else f"a str of {len(value)} characters"
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
