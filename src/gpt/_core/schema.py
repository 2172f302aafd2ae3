"""Strict marshmallow schemas for the models, built from their type hints.

dataclasses-json's own builder turns 1.7 into 1, takes "3" for an integer and drops unknown keys; JSON from outside
(batch lines, command line) needs stricter checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import Enum
from typing import Any, Literal, get_args, get_origin

from marshmallow import INCLUDE, Schema, ValidationError, fields, post_dump, post_load

from . import codec
from .describe import describe_items
from .type_hints import describe_hint, is_mapping, is_sequence, union_members


class _Checked(fields.Field):
    """A field that accepts a value as it is or says what it expected; it never converts."""

    def __init__(self, hint: Any, **options: Any) -> None:
        super().__init__(**options)
        self._forms = union_members(hint)

    def _deserialize(self, value: Any, attr: str | None, data: Any, partial: Any = None, **_: Any) -> Any:
        for form in self._forms:
            if _matches(value, form):
                _check_nested(value, form, partial)
                return value
        expected = " or ".join(dict.fromkeys(describe_hint((form,)) for form in self._forms))
        raise ValidationError(f"expected {expected}, got {describe_items(value)}")


class _ModelSchema(Schema):
    """Keep unknown keys, load to the model, dump what would be sent."""

    class Meta:
        unknown = INCLUDE

    built_class: type[Any]
    """What it loads to. No model may have a field of this name."""

    def loads(self, json_data: Any, **options: Any) -> Any:
        """Load JSON text, which is read as `from_json` reads it."""
        try:
            data = codec.loads(json_data)
        except ValueError as error:
            raise ValidationError(f"expected JSON, but: {error}") from error
        return self.load(data, **options)

    @post_load
    def _build(self, data: dict[str, Any], **_: Any) -> Any:
        # Required fields have been checked; one that is missing was left out by `only`, `exclude` or `partial`.
        try:
            return codec.decode(self.built_class, data, infer_missing=True)
        except codec.ShapeError as error:
            raise ValidationError(str(error)) from error

    @post_dump(pass_original=True)
    def _dump(self, data: dict[str, Any], original: Any, **_: Any) -> dict[str, Any]:
        """Return what `to_dict` does, of the fields that this schema has."""
        if not isinstance(original, self.built_class):
            return {key: codec.to_builtins(value) for key, value in data.items() if value is not None}
        left_out = set(codec.class_schema(self.built_class).names) - set(self.dump_fields)
        return {k: v for k, v in codec.to_builtins(codec.to_payload(original)).items() if k not in left_out}


_classes: dict[type[Any], type[_ModelSchema]] = {}
_without_options: dict[type[Any], _ModelSchema] = {}


def schema_for(cls: type[Any], **options: Any) -> Schema:
    """Return the schema of a model; without options always the same one."""
    if options:
        return _schema_class(cls)(**options)
    if cls not in _without_options:
        _without_options[cls] = _schema_class(cls)()
    return _without_options[cls]


def _schema_class(cls: type[Any]) -> type[_ModelSchema]:
    if cls not in _classes:
        _classes[cls] = _build_schema_class(cls)
    return _classes[cls]


def _build_schema_class(cls: type[Any]) -> type[_ModelSchema]:
    class_schema = codec.class_schema(cls)
    members: dict[str, Any] = {
        name: _Checked(hint, required=name in class_schema.required, allow_none=type(None) in get_args(hint))
        for name, hint in class_schema.hints.items()
    }
    return type(f"{cls.__name__}Schema", (_ModelSchema,), {**members, "built_class": cls})


def _matches(value: Any, form: Any) -> bool:
    """Return whether a JSON value has the form of a type hint."""
    if form is Any:
        return True
    if is_mapping(form):
        return isinstance(value, Mapping) and all(_matches_any(item, get_args(form)[1]) for item in value.values())
    if is_sequence(form):
        return isinstance(value, list | tuple) and all(_matches_any(item, get_args(form)[0]) for item in value)
    if form is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and value - value == 0
    if form is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if is_dataclass(form):
        return isinstance(value, Mapping)
    if isinstance(form, type) and issubclass(form, Enum):
        return isinstance(value, str) and any(value == member.value for member in form)
    if not isinstance(form, type):
        return get_origin(form) is not Literal or value in get_args(form)
    return isinstance(value, form)


def _matches_any(value: Any, hint: Any) -> bool:
    if value is None:
        return hint is Any or type(None) in get_args(hint)
    return any(_matches(value, form) for form in union_members(hint))


def _check_nested(value: Any, form: Any, partial: Any) -> None:
    """Check the fields of a nested object, which is built together with the outer one."""
    if is_dataclass(form) and isinstance(form, type):
        schema_for(form).load(value, partial=partial)
    elif get_origin(form) is list and is_dataclass(get_args(form)[0]):
        schema_for(get_args(form)[0]).load(value, many=True, partial=partial)
