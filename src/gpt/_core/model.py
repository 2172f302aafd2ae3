"""The base of every model: the dataclasses-json API, carried by the codec so that it agrees with the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from dataclasses_json import DataClassJsonMixin

from . import codec
from .value import Value

M = TypeVar("M", bound="Model")


class Model(Value, DataClassJsonMixin):
    """A dataclass with `to_dict`, `from_dict`, `to_json`, `from_json` and `schema`.

    Fields that are `None` are left out; what is in `additional_properties` is written beside the fields and
    wins over them. Reading keeps values as they came and puts unknown keys into `additional_properties`.
    """

    json_strict: ClassVar[bool] = False
    """Whether `to_json` checks types and refuses NaN, as the wire does (requests), or writes them (answers)."""

    __hash__ = None  # type: ignore[assignment]

    def to_dict(self, encode_json: bool = False) -> dict[str, Any]:
        """Give the JSON object as plain dicts, lists and scalars."""
        return {key: codec.to_plain(value) for key, value in codec.payload(self).items()}

    @classmethod
    def from_dict(cls: type[M], kvs: Any, *, infer_missing: bool = False) -> M:
        """Build the model from a JSON object.

        Raises:
            ValueError: it is not an object, or a required field is missing or misshapen.
        """
        return codec.decode(cls, dict(kvs) if isinstance(kvs, Mapping) else kvs)

    def to_json(self, **options: Any) -> str:
        """Write JSON text: compact UTF-8, or as `json.dumps` would with the options given."""
        if options:
            return json.dumps(self.to_dict(), **options)
        if self.json_strict:
            return codec.dumps(self).decode()
        return json.dumps(self.to_dict(), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls: type[M], s: str | bytes | bytearray, **options: Any) -> M:
        """Build the model from JSON text; options are those of `json.loads`.

        Raises:
            ValueError: it is not JSON, not an object, or a required field is missing or misshapen.
        """
        text = bytes(s) if isinstance(s, bytearray) else s
        options.pop("infer_missing", None)
        return cls.from_dict(json.loads(text, **options) if options else codec.loads(text))

    @classmethod
    def schema(cls, **options: Any) -> Any:
        """Give the strict marshmallow schema that checks JSON from outside and loads it to this model.

        Without options it is built once. With options (`many`, `only`, `partial`, …) they go to marshmallow.
        `load` raises `marshmallow.ValidationError`, its messages keyed by field; unknown keys end up in
        `additional_properties`.
        """
        from .schema import schema_for

        options.pop("infer_missing", None)  # dataclasses-json's; nothing is missing here that could be inferred
        return schema_for(cls, **options)
