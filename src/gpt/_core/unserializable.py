"""Find where and why a value cannot be written as JSON, after a writer has refused it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from numbers import Integral, Real
from typing import Any

from .describe import describe_type

MAX_DEPTH = 200
"""The maximum nesting depth of arrays and objects, in all JSON that is read or written.

What is accepted can then also be displayed, compared, copied, pickled and written again, none of which raises a
`RecursionError` at this depth: the interpreter's limit is 1,000 frames, `copy.deepcopy` takes two for each level, and
orjson itself writes no more than 254 levels.
"""

_MAX_PATH = 60

Convert = Callable[[Any], Any]
"""Converts a value that is not a JSON type to one that is; raises a `TypeError` if it cannot."""


def find_unserializable(value: Any, convert: Convert) -> Exception | None:
    """Return an error that names the path of the first thing JSON cannot hold; `None` if there is none."""
    return next(_unserializable(value, "", 0, convert), None)


def _unserializable(value: Any, path: str, depth: int, convert: Convert) -> Iterator[Exception]:
    where = path or "the request"
    if isinstance(value, str):
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
    elif depth >= MAX_DEPTH:
        yield ValueError(f"{where[:_MAX_PATH]}…: nested deeper than {MAX_DEPTH} levels, or contains itself")
    else:
        yield from _unserializable_inside(value, path, depth, convert)


def _unserializable_inside(value: Any, path: str, depth: int, convert: Convert) -> Iterator[Exception]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str) and _is_unicode(key):
                yield from _unserializable(item, f"{path}.{key}" if path else key, depth + 1, convert)
            else:
                yield TypeError(f"{path or 'the request'}: expected keys that are text, got {describe_type(key)}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _unserializable(item, f"{path}[{index}]", depth + 1, convert)
    else:
        try:
            converted = convert(value)
        except TypeError:
            yield TypeError(f"{path or 'the request'}: expected a JSON value, got {describe_type(value)}")
        else:
            # A value that converts to neither may convert to itself endlessly.
            depth += type(converted) not in (list, dict)
            yield from _unserializable(converted, path, depth, convert)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
