"""What dataclasses share instead of compiling it for each class, which is most of what they cost to import."""

from __future__ import annotations

from dataclasses import fields
from typing import Any


class Value:
    """A dataclass that is shown and compared by its fields."""

    def __repr__(self) -> str:
        """Show the fields that are set."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.repr}  # type: ignore[arg-type]
        shown = [f"{name}={value!r}" for name, value in values.items() if value is not None and value != {}]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        assert isinstance(other, Value)
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(tuple(self._fields().values()))

    def _fields(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.compare}  # type: ignore[arg-type]
