"""Strict marshmallow schemas for the models, built from their type hints.

dataclasses-json's own builder turns 1.7 into 1, takes "3" for an integer and drops unknown keys; JSON from outside
(batch lines, command line) deserves better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from enum import Enum
from typing import Any, get_args, get_origin

from marshmallow import INCLUDE, Schema, ValidationError, fields, post_dump, post_load

from . import codec


class _Checked(fields.Field):
    """A field that accepts a value as it is or says what it expected; it never converts."""

    def __init__(self, hint: Any, **options: Any) -> None:
        super().__init__(**options)
        self._hint = hint

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> Any:
        forms = codec.variants(self._hint)
        for form in forms:
            if _matches(value, form):
                return _loaded(value, form)
        raise ValidationError(_complaint(value, forms))

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_: Any) -> Any:
        return codec.to_plain(value)


class _ModelSchema(Schema):
    """Keep unknown keys, load to the model, dump what the wire would carry."""

    class Meta:
        unknown = INCLUDE

    built_class: type[Any]
    """What it loads to. No model may have a field of this name."""

    @post_load
    def _build(self, data: dict[str, Any], *, partial: Any = None, **_: Any) -> Any:
        if self.partial or partial:
            data = {**dict.fromkeys(codec.plan_for(self.built_class).required), **data}
        return codec.decode(self.built_class, data)

    @post_dump(pass_original=True)
    def _dump(self, data: dict[str, Any], original: Any, **_: Any) -> dict[str, Any]:
        extras = getattr(original, codec.EXTRAS, None) or {}
        return {key: value for key, value in data.items() if value is not None} | dict(codec.to_plain(extras))


_classes: dict[type[Any], type[_ModelSchema]] = {}
_plain: dict[type[Any], _ModelSchema] = {}


def _schema_class(cls: type[Any]) -> type[_ModelSchema]:
    if cls not in _classes:
        _classes[cls] = _build_schema_class(cls)
    return _classes[cls]


def _plain_schema(cls: type[Any]) -> _ModelSchema:
    if cls not in _plain:
        _plain[cls] = _schema_class(cls)()
    return _plain[cls]


def _build_schema_class(cls: type[Any]) -> type[_ModelSchema]:
    plan = codec.plan_for(cls)
    members: dict[str, Any] = {
        name: _Checked(hint, required=name in plan.required, allow_none=type(None) in get_args(hint))
        for name, hint in plan.hints.items()
    }
    return type(f"{cls.__name__}Schema", (_ModelSchema,), {**members, "built_class": cls})


def schema_for(cls: type[Any], **options: Any) -> Schema:
    """Give the schema of a model; without options always the same one."""
    return _schema_class(cls)(**options) if options else _plain_schema(cls)


def _matches(value: Any, form: Any) -> bool:
    """Tell whether a JSON value has the form of a type hint."""
    if form is Any:
        return True
    origin, arguments = get_origin(form), get_args(form)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(_matches(item, arguments[1]) for item in value.values())
    if origin is not None and issubclass(origin, Sequence):
        return isinstance(value, list | tuple) and all(_matches_any(item, arguments[0]) for item in value)
    if form is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and value - value == 0
    if form is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if is_dataclass(form):
        return isinstance(value, Mapping)
    if isinstance(form, type) and issubclass(form, Enum):
        return any(value == member.value for member in form)
    return isinstance(value, form)


def _matches_any(value: Any, hint: Any) -> bool:
    if value is None:
        return hint is Any or type(None) in get_args(hint)
    return any(_matches(value, form) for form in codec.variants(hint))


def _loaded(value: Any, form: Any) -> Any:
    """Load what is nested; everything else stays as it came."""
    if is_dataclass(form) and isinstance(form, type):
        _plain_schema(form).load(value)
        return value
    if get_origin(form) is list and is_dataclass(get_args(form)[0]):
        _schema_class(get_args(form)[0])(many=True).load(value)
    return value


def _complaint(value: Any, forms: tuple[Any, ...]) -> str:
    expected = list(dict.fromkeys(_label(form) for form in forms))
    return f"expected {' or '.join(expected)}, got {_found(value)}"


def _found(value: Any) -> str:
    if isinstance(value, list) and value:
        kinds = dict.fromkeys(codec.describe(item) for item in value[:3])
        return f"a list with {', '.join(kinds)}"
    return codec.describe(value)


def _label(form: Any) -> str:
    origin, arguments = get_origin(form), get_args(form)
    if origin is not None and issubclass(origin, Mapping):
        return f"an object of {_plural(arguments[1])}"
    if origin is not None and issubclass(origin, Sequence):
        return f"a list of {_plural(arguments[0])}"
    if is_dataclass(form) or (isinstance(form, type) and issubclass(form, dict)):
        return "an object"
    if isinstance(form, type) and issubclass(form, str):
        return "a string"
    return {int: "an integer", float: "a finite number", bool: "true or false"}.get(form, str(form))


def _plural(hint: Any) -> str:
    names = {str: "strings", int: "integers", float: "numbers"}
    forms = codec.variants(hint)
    origin = get_origin(forms[0])
    if origin is not None and issubclass(origin, Sequence):
        return f"lists of {_plural(get_args(forms[0])[0])}"
    return names.get(forms[0], "values" if forms[0] is Any else "objects")
