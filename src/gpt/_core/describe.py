"""Short names of values for error messages: the type, and never the content of a longer string."""

from __future__ import annotations

from typing import Any


def describe_type(value: Any) -> str:
    """Return a value's JSON type, with the value itself where it is a short scalar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{type(value).__name__} {value!r}" if abs(value) < 1e30 or value - value else "a huge number"
    if isinstance(value, str):
        return f"str {str(value)!r}" if len(value) <= 20 else f"a str of {len(value)} characters"
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    name = type(value).__name__
    if name.endswith("s"):  # bytes
        return name
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"


def describe_items(value: Any) -> str:
    """Return the type of a value, and of its first items where it is a list that has some."""
    if isinstance(value, list | tuple) and value:
        kinds = dict.fromkeys(describe_type(item) for item in value[:3])
        return f"a {type(value).__name__} with {', '.join(kinds)}"
    return describe_type(value)
