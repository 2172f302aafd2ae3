"""The base of every model: the dataclasses-json API, implemented by the codec so that it matches what is sent."""

from __future__ import annotations

import json
from typing import Any, ClassVar, TypeVar

from dataclasses_json import DataClassJsonMixin

from . import codec
from .shorten import shorten

M = TypeVar("M", bound="Model")


class Model(DataClassJsonMixin):
    """A dataclass with `to_dict`, `from_dict`, `to_json`, `from_json` and `schema`.

    Fields that are `None` are left out; what is in `additional_properties` is written beside the fields and
    wins over them. Reading keeps values as they came and puts unknown keys into `additional_properties`. An
    object made by `dataclasses.asdict`, which has the extra fields under that name, therefore cannot be read back:
    use `to_dict`.
    """

    json_strict: ClassVar[bool] = False
    """Whether `to_json` checks types and refuses NaN, as the wire does (requests), or writes them (responses)."""

    def __post_init__(self) -> None:
        if vars(self).get(codec.EXTRA_FIELDS, self) is None:
            setattr(self, codec.EXTRA_FIELDS, {})

    def __repr__(self) -> str:
        """Return the fields that are set, long lists and texts shortened. For all of it, see `to_json(indent=2)`."""
        return shorten(self, Model)

    def to_dict(self, encode_json: bool = False) -> dict[str, Any]:
        """Return the JSON object as plain dicts, lists and scalars.

        Args:
            encode_json: whether a value that JSON has no form for is a `TypeError` instead of staying as it is.

        Raises:
            ValueError: it is nested deeper than 200 levels, or contains itself.
        """
        payload: dict[str, Any] = codec.to_builtins(codec.to_payload(self), strict=encode_json)
        return payload

    @classmethod
    def from_dict(cls: type[M], kvs: Any, *, infer_missing: bool = False) -> M:
        """Build the model from a JSON object: any `Mapping`, in which any sequence is a list; an instance is kept.

        Args:
            kvs: the object.
            infer_missing: whether required fields that are missing become `None`.

        Raises:
            ValueError: it is not an object, or a required field is missing or of the wrong shape.
        """
        return codec.decode(cls, kvs, infer_missing=infer_missing)

    def to_json(self, **options: Any) -> str:
        """Write JSON text: compact UTF-8, or as `json.dumps` would with the options given.

        Raises:
            TypeError, ValueError: the wire would refuse it (requests only), or it is nested deeper than 200 levels.
        """
        if self.json_strict:
            compact = codec.dumps(self).decode()
            return json.dumps(self.to_dict(encode_json=True), **options) if options else compact
        return json.dumps(self.to_dict(), **options or {"ensure_ascii": False, "separators": (",", ":")})

    @classmethod
    def from_json(cls: type[M], s: str | bytes | bytearray, *, infer_missing: bool = False, **options: Any) -> M:
        """Build the model from JSON text.

        Args:
            s: the text.
            infer_missing: whether required fields that are missing become `None`.
            options: those of `json.loads`.

        Raises:
            ValueError: it is not JSON, not an object, nested deeper than 200 levels, or a required field is missing
                or of the wrong shape.
        """
        text = bytes(s) if isinstance(s, bytearray) else s
        data = codec.loads(text)
        if options:
            data = json.loads(text, **options)
        return cls.from_dict(data, infer_missing=infer_missing)

    @classmethod
    def schema(cls, **options: Any) -> Any:
        """Return the strict marshmallow schema that checks JSON from outside and loads it to this model.

        Without options it is built once. With options (`many`, `only`, `partial`, …) they go to marshmallow.
        `load` raises `marshmallow.ValidationError`, its messages keyed by field, and nothing else; unknown keys end
        up in `additional_properties`; a required field left out by `only`, `exclude` or `partial` is `None`.
        """
        # marshmallow's fields take a while to load, and few programs need them.
        from .schema import schema_for

        options.pop("infer_missing", None)  # dataclasses-json's; `partial` is marshmallow's name for it
        return schema_for(cls, **options)
