"""What type hints mean for JSON: the types of a field, their names in messages, and what may be written."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import is_dataclass
from enum import Enum
from numbers import Integral, Real
from typing import Any, NamedTuple, Union, cast, get_args, get_origin

from .describe import describe_items

_UNIONS = (Union, types.UnionType)
_NO_LISTS = (str, bytes, bytearray, memoryview, Mapping, AbstractSet)
_NUMBERS: dict[Any, type] = {int: Integral, float: Real}


class FieldCheck(NamedTuple):
    """What a field accepts when it is written."""

    exact: frozenset[type]
    """The types that need no further check."""

    scalars: tuple[type, ...]
    items: tuple[Any, ...]
    """The forms of items, where a sequence is accepted. A mix is left to the server: llama.cpp accepts one."""

    values: tuple[Any, ...]
    """The forms of values, where a mapping is accepted."""

    label: str


def union_members(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union that have a JSON form; any other hint is its own only member.

    `None` is left out, and so are protocols, which stand for values that are converted to another member (arrays).
    """
    members = get_args(hint) if get_origin(hint) in _UNIONS else (hint,)
    return tuple(each for each in members if each is not type(None) and not _is_protocol(each))


def _is_protocol(form: Any) -> bool:
    """Return whether a hint is a protocol, or a sequence of such."""
    return getattr(form, "_is_protocol", False) or (is_sequence(form) and _is_protocol(get_args(form)[0]))


def is_mapping(form: Any) -> bool:
    """Return whether a hint is a mapping with typed values, such as `Mapping[str, float]`."""
    origin = get_origin(form)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def is_sequence(form: Any) -> bool:
    """Return whether a hint is a sequence with typed items, such as `list[int]`."""
    origin = get_origin(form)
    return isinstance(origin, type) and issubclass(origin, Sequence)


def describe_hint(forms: Iterable[Any]) -> str:
    """Return the JSON names of hints, any of which will do: `a string or a list of strings or integers`."""
    forms = tuple(forms)
    names = [_name(form) for form in forms if not is_sequence(form)]
    if items := [item for form in forms if is_sequence(form) for item in union_members(get_args(form)[0])]:
        names.append(f"a list of {_plural(items)}")
    return " or ".join(dict.fromkeys(names))


def _name(form: Any) -> str:
    if is_mapping(form):
        return f"an object of {_plural(union_members(get_args(form)[1]))}"
    if is_dataclass(form) or (isinstance(form, type) and issubclass(form, dict)):
        return "an object"
    if isinstance(form, type) and issubclass(form, str):
        return "a string"
    return {int: "an integer", float: "a finite number", bool: "true or false"}.get(form, str(form))


def _plural(forms: Iterable[Any]) -> str:
    names = {str: "strings", int: "integers", float: "numbers", Any: "values"}
    return " or ".join(
        dict.fromkeys(
            f"lists of {_plural(union_members(get_args(form)[0]))}" if is_sequence(form) else names.get(form, "objects")
            for form in forms
        )
    )


def field_check(hint: Any) -> FieldCheck | None:
    """Return the check of a field; `None` for a hint that is not looked into, such as `Any` or a `Literal`."""
    forms = union_members(hint)
    scalars: tuple[Any, ...] = tuple(form for form in forms if _is_scalar(form) or is_dataclass(form))
    items = tuple(item for form in forms if is_sequence(form) for item in union_members(get_args(form)[0]))
    values = tuple(item for form in forms if is_mapping(form) for item in union_members(get_args(form)[1]))
    if len(scalars) + sum(map(_is_container, forms)) < len(forms):
        return None
    exact: frozenset[type] = frozenset(scalars) | ({int} if float in scalars else set())
    bases: tuple[Any, ...] = tuple(_NUMBERS.get(form, form) for form in scalars)
    return FieldCheck(exact, bases, items, values, _written_label(forms))


def _written_label(forms: tuple[Any, ...]) -> str:
    """Return the name of a hint for errors in writing: a class where reading accepts an object."""
    if len(forms) == 1 and is_dataclass(forms[0]):
        return f"a {cast(type, forms[0]).__name__}"
    return describe_hint(forms).replace("a finite number", "a number")


def check_field(check: FieldCheck, value: Any, where: str) -> None:
    """Raise a `TypeError` that names the field, unless the value has one of its forms."""
    if type(value) not in check.exact and not _accepts(check, value):
        raise TypeError(
            f"{where}: expected {check.label}, got {describe_items(value)}"
            " (a server's own form of it can be sent in additional_properties)"
        )


def _accepts(check: FieldCheck, value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(check.values) and _are_all(check.values, value.values())
    scalar = _python_scalar(value)
    if isinstance(scalar, check.scalars):
        return not isinstance(scalar, bool) or bool in check.scalars
    if not check.items or isinstance(value, _NO_LISTS):
        return False
    # An array's items are left to the server: checking each would cost more than sending them.
    return hasattr(value, "tolist") or (isinstance(value, Iterable) and _are_all(check.items, value))


def _are_all(forms: tuple[Any, ...], values: Iterable[Any]) -> bool:
    """Return whether all items have one of these forms, checking each distinct type once; long lists have few."""
    return all(any(_is_kind(kind, form) for form in forms) for kind in set(map(type, values)))


def _is_kind(kind: type, form: Any) -> bool:
    if issubclass(kind, Enum) or (hasattr(kind, "tolist") and not issubclass(kind, Real)):
        return True  # what stands for another value: an enumeration, an array, a tensor without dimensions
    if is_sequence(form):
        return issubclass(kind, Iterable) and not issubclass(kind, _NO_LISTS)
    base: Any = _NUMBERS.get(form, form)
    return issubclass(kind, base) and (form is bool or kind is not bool)


def _is_scalar(form: Any) -> bool:
    if not isinstance(form, type) or get_origin(form) is not None:
        return False
    return form in (int, float, bool, str) or issubclass(form, Enum)


def _is_container(form: Any) -> bool:
    """Return whether a hint is a mapping or sequence of scalars, or a sequence of such sequences."""
    if not (is_mapping(form) or (is_sequence(form) and get_origin(form) is not tuple)):
        return False
    return all(_is_scalar(item) or _is_container(item) for item in union_members(get_args(form)[-1]))


def _python_scalar(value: Any) -> Any:
    """Convert a NumPy scalar, as a comparison or a reduction returns it, to a Python scalar."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value
