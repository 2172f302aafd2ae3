"""Representations of models that stay readable: long lists, dicts and texts are shortened."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from itertools import islice
from typing import Any

MAX_LENGTH = 1000
"""How many characters a representation may have."""

_MAX_DEPTH = 8
_LIMITS = ((24, 400), (3, 100), (1, 50))
"""How many items and how many characters are kept, from the most generous try to the last."""


def shorten(instance: Any, base: type[Any]) -> str:
    """Return `Class(field=value, …)` of the set fields of a dataclass, in at most `MAX_LENGTH` characters.

    Inside it, instances of `base` are shortened in the same way unless they have a `__repr__` of their own.
    """
    text = ""
    for items, characters in _LIMITS:
        text = _Shortener(items, characters, base).instance(instance, 0)
        if len(text) <= MAX_LENGTH:
            return text
    return f"{text[: MAX_LENGTH - 1]}…"


class _Shortener:
    def __init__(self, max_items: int, max_characters: int, base: type[Any]) -> None:
        self._max_items = max_items
        self._max_characters = max_characters
        self._base = base

    def instance(self, value: Any, depth: int) -> str:
        """Return the fields that are set."""
        values = {field.name: getattr(value, field.name) for field in fields(value) if field.repr}
        rendered = (
            f"{name}={self._value(item, depth + 1)}"
            for name, item in values.items()
            if item is not None and not (isinstance(item, dict) and not item)
        )
        return f"{type(value).__name__}({', '.join(rendered)})"

    def _value(self, value: Any, depth: int) -> str:
        if depth > _MAX_DEPTH:
            return "…"
        if type(value) is str:
            return self._text(value)
        if type(value) is list:
            return f"[{self._items(value, len(value), lambda item: self._value(item, depth + 1))}]"
        if type(value) is tuple:
            comma = "," if len(value) == 1 else ""
            return f"({self._items(value, len(value), lambda item: self._value(item, depth + 1))}{comma})"
        if type(value) is dict:
            return f"{{{self._items(value.items(), len(value), lambda item: self._pair(item, depth + 1))}}}"
        if isinstance(value, self._base) and type(value).__repr__ is self._base.__repr__:
            return self.instance(value, depth + 1)
        rendered = repr(value)
        return rendered if len(rendered) <= self._max_characters else f"{rendered[: self._max_characters]}…"

    def _text(self, value: str) -> str:
        if len(value) <= self._max_characters:
            return repr(value)
        return f"{value[: self._max_characters]!r}… ({len(value):,} characters)"

    def _pair(self, pair: tuple[Any, Any], depth: int) -> str:
        return f"{self._value(pair[0], depth)}: {self._value(pair[1], depth)}"

    def _items(self, values: Iterable[Any], count: int, show: Callable[[Any], str]) -> str:
        rendered = [show(item) for item in islice(values, self._max_items)]
        if count > len(rendered):
            rendered.append(f"… {count - len(rendered):,} more")
        return ", ".join(rendered)
