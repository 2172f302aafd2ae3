"""Convert dataclasses to JSON bytes and back, by one compiled schema per class.

Reading is lenient about values and strict about shape: values are kept as received, unknown keys are kept in
`additional_properties`, and only a missing required field or one of the wrong shape is an error. Writing leaves out
unset fields and refuses what JSON cannot represent. Independent of HTTP and of the concrete dataclasses.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from numbers import Integral, Real
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import orjson

from .describe import describe_type
from .type_hints import check_field, field_check, is_sequence, union_members
from .unserializable import MAX_DEPTH, find_unserializable

T = TypeVar("T")

EXTRA_FIELDS = "additional_properties"
"""The field that holds what a server or a caller adds to the typed fields."""

MAX_MEMORY = 1024**3
"""The maximum memory, in bytes and by a rough estimate, for what is read from one JSON text."""

_ORJSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_AS_IS = frozenset({str, int, float, bool, list, tuple})
_ESTIMATED_ABOVE = 4 * 1024**2
_BYTES_PER_CONTAINER = 250
_BYTES_PER_VALUE = 64


class ShapeError(ValueError):
    """JSON of the wrong shape. The message names the field, what was expected and what was received."""


class OversizeError(ValueError):
    """JSON that is nested deeper than `MAX_DEPTH`, or would take more memory than `MAX_MEMORY`."""


Build = Callable[[dict[str, Any], bool], Any]
"""Makes an instance from a JSON object; the flag says whether missing required fields become `None`."""


class ClassSchema:
    """The schema of one dataclass, compiled once from its type hints and used for every value."""

    def __init__(self, cls: type[Any]) -> None:
        hints = get_type_hints(cls)
        declared = [field for field in fields(cls) if field.name != EXTRA_FIELDS]
        self.names = tuple(field.name for field in declared)
        self.hints = {name: hints[name] for name in self.names}
        self.required = tuple(f.name for f in declared if f.default is MISSING and f.default_factory is MISSING)
        self.checks = {name: check for name in self.names if (check := field_check(hints[name])) is not None}
        self.build = _compile_build(cls, declared, self)


_schemas: dict[type[Any], ClassSchema] = {}


def class_schema(cls: type[Any]) -> ClassSchema:
    """Return the schema of a dataclass, compiled on first use."""
    schema = _schemas.get(cls)
    if schema is None:
        schema = _schemas[cls] = ClassSchema(cls)
    return schema


# Reading


def _compile_build(cls: type[Any], declared: Iterable[Field[Any]], schema: ClassSchema) -> Build:
    """Compile the function from a JSON object to an instance; it runs for every chunk of every stream."""
    known, required = frozenset(schema.names), schema.required
    defaults = {field.name: field.default for field in declared if field.default is not MISSING}
    inferred = dict.fromkeys(required) | defaults
    factories = {f.name: f.default_factory for f in declared if f.default_factory is not MISSING}
    nested = tuple(_nested(schema.hints))
    post_init = getattr(cls, "__post_init__", None)
    size, new = len(known), object.__new__

    def build(data: dict[str, Any], infer_missing: bool) -> Any:
        attributes = (inferred if infer_missing else defaults) | data
        for name in factories:
            if name not in data:
                attributes[name] = factories[name]()
        extras: dict[str, Any] = {}
        if len(attributes) != size or EXTRA_FIELDS in data:
            for key in data:
                if key not in known:
                    extras[key] = attributes.pop(key)
        attributes[EXTRA_FIELDS] = extras
        for name in required:
            if name not in attributes:
                raise ShapeError(f"{name}: expected a value, got nothing")
        for name, convert in nested:
            value = attributes[name]
            if value is not None or (name in required and not infer_missing):
                attributes[name] = convert(value, infer_missing)
        instance = new(cls)
        instance.__dict__ = attributes
        if post_init is not None:
            post_init(instance)
        return instance

    return build


def _nested(hints: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[Any, bool], Any]]]:
    for name, hint in hints.items():
        for form in union_members(hint):
            if is_dataclass(form):
                yield name, _object_decoder(cast(type[Any], form))
            elif is_sequence(form) and get_origin(form) is list and is_dataclass(get_args(form)[0]):
                yield name, _list_decoder(name, get_args(form)[0])


def _object_decoder(cls: type[Any]) -> Callable[[Any, bool], Any]:
    """Return a function that converts an object and returns anything else unchanged."""
    build = class_schema(cls).build

    def convert(value: Any, infer_missing: bool) -> Any:
        if type(value) is dict:
            return build(value, infer_missing)
        return build(dict(value), infer_missing) if isinstance(value, Mapping) else value

    return convert


def _list_decoder(name: str, cls: type[Any]) -> Callable[[Any, bool], Any]:
    """Return a function that converts a list of objects and raises for anything else."""
    build = class_schema(cls).build

    def convert(values: Any, infer_missing: bool) -> list[Any]:
        if not isinstance(values, Sequence) or isinstance(values, str | bytes | bytearray):
            raise ShapeError(f"{name}: expected a list of objects, got {describe_type(values)}")
        return [
            build(value, infer_missing) if type(value) is dict else convert_other(index, value, infer_missing)
            for index, value in enumerate(values)
        ]

    def convert_other(index: int, value: Any, infer_missing: bool) -> Any:
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping):
            return build(dict(value), infer_missing)
        raise ShapeError(f"{name}[{index}]: expected an object, got {describe_type(value)}")

    return convert


def decode(cls: type[T], data: Any, *, infer_missing: bool = False) -> T:
    """Build a dataclass from a JSON object without running its `__init__`.

    Any mapping is read as an object, any sequence as a list; an instance is returned as it is, as by dataclasses-json.

    Raises:
        ShapeError: `data` is not an object, or a required field is missing or of the wrong shape.
    """
    if type(data) is not dict:
        if isinstance(data, cls):
            return data
        if not isinstance(data, Mapping):
            raise ShapeError(f"expected an object, got {describe_type(data)}")
        data = dict(data)
    return cast(T, class_schema(cls).build(data, infer_missing))


def changed(obj: T, **fields: Any) -> T:
    """Return a copy of a dataclass with some fields changed, without running its `__init__`.

    Measured on the parts of a pack: 1 µs each, 9 by `dataclasses.replace`.
    """
    instance = object.__new__(type(obj))
    instance.__dict__ = {**vars(obj), **fields}
    return instance


def loads(data: bytes | str, *, max_depth: int = MAX_DEPTH) -> Any:
    """Parse JSON; NaN and Infinity, which some servers write, are read as floats.

    Raises:
        OversizeError: the text is nested too deep, or would take too much memory.
        ValueError: the text is not JSON or not UTF-8.
    """
    if len(data) > _ESTIMATED_ABOVE and (memory := _estimate_memory(data)) > MAX_MEMORY:
        raise OversizeError(f"JSON of so many values that it would take some {memory // 1024**2:,} MiB of memory")
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        value = _loads_leniently(data, error)
    if len(data) > 2 * max_depth and _is_deeper(value, max_depth):
        raise OversizeError(f"JSON nested deeper than {max_depth} levels")
    return value


def _loads_leniently(data: bytes | str, error: ValueError) -> Any:
    """Read with the standard library what orjson refuses by design: NaN, Infinity, 1e999, a lone escaped surrogate
    (a token may end in the middle of a surrogate pair), a byte-order mark."""
    # orjson stops at 1,024 levels, with "Recursion limit reached"; the standard library would stop later or earlier.
    if "ecursion" in str(error):
        raise OversizeError("JSON nested too deep") from None
    text = data.decode() if isinstance(data, bytes) else data
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except RecursionError:
        raise OversizeError("JSON nested too deep") from None


def _is_deeper(value: Any, max_depth: int) -> bool:
    """Return whether parsed JSON has more than `max_depth` levels of lists and dicts.

    `gc.get_referents` gives the items of all lists and dicts of a level at once, keys included, and nothing for
    scalars: 8 ns per value, where a loop takes 40 ns. Only for freshly parsed JSON: other objects refer to their
    classes, and so to everything.
    """
    level = [value]
    for _ in range(max_depth):
        level = gc.get_referents(*level)
        if not level:
            return False
    return any(type(item) in (list, dict) for item in level)


def _estimate_memory(data: bytes | str) -> int:
    """Estimate how many bytes the values of a JSON text take; the estimate is too high if a long text has brackets.

    `{"a":"b"},` is 10 bytes of JSON and some 300 in memory; without a bound, 256 MiB of JSON could take 10 GiB.
    """
    marks = ("{", "[", ",") if isinstance(data, str) else (b"{", b"[", b",")
    objects, arrays, commas = (data.count(mark) for mark in marks)  # type: ignore[arg-type]
    return (objects + arrays) * _BYTES_PER_CONTAINER + commas * _BYTES_PER_VALUE


# Writing


def to_payload(obj: Any) -> dict[str, Any]:
    """Return the JSON object of a dataclass: set fields only, extra keys merged last. Values are not copied."""
    return _with_extras(_set_fields(obj), obj)


def _with_extras(values: dict[str, Any], obj: Any) -> dict[str, Any]:
    values.update(vars(obj).get(EXTRA_FIELDS) or ())
    return values


def _set_fields(obj: Any) -> dict[str, Any]:
    attributes = vars(obj)
    result = {}
    for name in class_schema(type(obj)).names:
        value = attributes[name]
        if value is not None:
            result[name] = value if type(value) in _AS_IS else _normalize(value, name)
    return result


def dumps(obj: Any) -> bytes:
    """Write a dataclass as compact JSON, after checking that each typed field holds its type.

    Raises:
        TypeError: a field holds another type than declared, or something JSON has no form for.
        ValueError: NaN, an infinity, a lone surrogate, an integer beyond 64 bits, or more than `MAX_DEPTH` levels.
    """
    return dump_payload(_with_extras(_checked_fields(obj), obj))


def _checked_fields(obj: Any, path: str = "") -> dict[str, Any]:
    """Return the set fields of a dataclass, after checking their types and those of nested dataclasses."""
    schema, values = class_schema(type(obj)), _set_fields(obj)
    for name in schema.required:
        if name not in values:
            expected = schema.checks[name].label if name in schema.checks else "a value"
            raise TypeError(f"{path}{name}: expected {expected}, got None")
    for name, value in values.items():
        check = schema.checks.get(name)
        if check is not None:
            check_field(check, value, f"{path}{name}")
            if is_dataclass(value):
                _checked_fields(value, f"{path}{name}.")
    extras = vars(obj).get(EXTRA_FIELDS)
    if not isinstance(extras, dict | Mapping | None):
        raise TypeError(f"{path}{EXTRA_FIELDS}: expected a dict, got {describe_type(extras)}")
    return values


def dump_payload(value: Mapping[str, Any]) -> bytes:
    """Write a JSON object; errors name the path of what JSON cannot hold."""
    try:
        body = orjson.dumps(value, default=_default, option=_ORJSON_OPTIONS)
    except TypeError as error:
        if problem := find_unserializable(value, _to_json_type):
            raise problem from None
        body = _dump_builtins(value, str(error))
    # orjson silently writes NaN and infinities as null: look for them whenever "null" appears.
    if b"null" in body and (problem := find_unserializable(value, _to_json_type)):
        raise problem
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_deeper(orjson.loads(body), MAX_DEPTH):
        raise find_unserializable(value, _to_json_type) or ValueError(f"nested deeper than {MAX_DEPTH} levels")
    return body


def _dump_builtins(value: Mapping[str, Any], problem: str) -> bytes:
    """Write what orjson refuses although JSON could hold it, such as NumPy arrays of another byte order."""
    try:
        return orjson.dumps(to_builtins(value))
    except TypeError:
        raise TypeError(f"the request cannot be written as JSON: {problem}") from None


def to_builtins(value: Any, *, strict: bool = False, depth: int = MAX_DEPTH) -> Any:
    """Convert to dicts, lists and scalars: dataclasses by their payload, enums by value, arrays by `tolist`.

    What has no JSON form stays as it is, or is a `TypeError` if `strict`.

    Raises:
        ValueError: the value is nested deeper than `depth` levels, or contains itself.
    """
    kind = type(value)
    if kind in (str, int, float, bool, type(None)):
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str | int | float):
        return value
    if depth == 0:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels, or contains itself")
    if kind is list or kind is tuple:
        return [to_builtins(item, strict=strict, depth=depth - 1) for item in value]
    if isinstance(value, Mapping):
        return {key: to_builtins(item, strict=strict, depth=depth - 1) for key, item in value.items()}
    try:
        converted = _to_json_type(value) if strict else _default(value)
    except TypeError:
        if strict:
            raise TypeError(f"expected a JSON value, got {describe_type(value)}") from None
        return value
    return to_builtins(converted, strict=strict, depth=depth - (type(converted) not in (list, dict)))


def _default(value: Any) -> Any:
    """Convert a value that JSON writers do not support to one that they do; the `default` of `orjson.dumps`."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_payload(value)
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


def _to_json_type(value: Any) -> Any:
    """Convert a value as for sending, including types that orjson supports by itself (a UUID)."""
    try:
        return _default(value)
    except TypeError:
        return orjson.loads(orjson.dumps(value, option=_ORJSON_OPTIONS))


def _normalize(value: Any, name: str) -> Any:
    """Convert keys to strings, and an iterator to a list, so that an error can name the position in it."""
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
    raise TypeError(f"{name}: expected string or integer keys, got {describe_type(key)}")
