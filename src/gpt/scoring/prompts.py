"""The texts to score, checked and paired with their contexts."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import repeat
from typing import Any

Ids = Sequence[int]
"""Token ids; NumPy integer arrays are meant too."""

_END = object()


@dataclass(frozen=True)
class Prompt:
    """One text to score and its context, both texts or both token ids."""

    name: str
    """Its name in messages."""

    context: str | list[int]
    text: str | list[int]

    @property
    def sent(self) -> str | list[int]:
        """What goes into the request."""
        return self.context + self.text  # type: ignore[operator]  # of one kind: see make_prompt


def iter_prompts(texts: Iterable[Any], context: Any) -> Iterator[Prompt | Exception]:
    """Pair each text with its context as they are needed; an error about a text is yielded in its place.

    Raises:
        TypeError: `texts` is a single text, or `context` neither one nor several.
        ValueError: there are more or fewer contexts than texts.
    """
    if isinstance(texts, str | bytes):
        raise TypeError("texts: expected several texts, got a single one; write [text]")
    return _pairs(texts, _contexts(texts, context))


def make_prompts(texts: Iterable[Any], context: Any) -> list[Prompt]:
    """Pair each text with its context, all at once.

    Raises:
        TypeError: something is neither a text nor token ids, or both are mixed.
        ValueError: a text is empty, or there are not as many contexts as texts.
    """
    prompts = []
    for each in iter_prompts(texts, context):
        if isinstance(each, Exception):
            raise each
        prompts.append(each)
    return prompts


def _pairs(texts: Iterable[Any], contexts: Iterator[Any]) -> Iterator[Prompt | Exception]:
    kind: type | None = None
    count = 0
    for count, text in enumerate(texts, 1):
        context = next(contexts, _END)
        if context is _END:
            raise ValueError(f"context: expected one for all texts or one for each, got {count - 1} for more texts")
        try:
            prompt = make_prompt(text, context, count - 1)
        except (TypeError, ValueError) as error:
            yield error
            continue
        kind = kind or type(prompt.text)
        yield prompt if type(prompt.text) is kind else _mixture(count - 1)
    if not isinstance(contexts, repeat) and next(contexts, _END) is not _END:
        raise ValueError(f"context: expected one for all texts or one for each of {count}, got more")


def make_prompt(text: Any, context: Any, index: int) -> Prompt:
    """Pair a text with its context; `None` is an empty one.

    Raises:
        TypeError: one is neither a text nor token ids, or they are a mixture.
        ValueError: the text is empty.
    """
    name = f"texts[{index}]"
    checked = _check(text, name)
    before = _check("" if context is None else context, f"context[{index}]")
    if not len(checked):
        raise ValueError(f"{name}: expected at least one token, got an empty text")
    if not len(before):
        before = type(checked)()
    if type(checked) is not type(before):
        raise _mixture(index)
    return Prompt(name, before, checked)


def _mixture(index: int) -> TypeError:
    return TypeError(f"texts[{index}]: expected texts and contexts to be all texts or all token ids, got a mixture")


def _contexts(texts: Iterable[Any], context: Any) -> Iterator[Any]:
    if context is None or isinstance(context, str):
        return repeat(context)
    if not isinstance(context, Iterable) or isinstance(context, bytes):
        raise TypeError(f"context: expected a text, token ids, or one for each text, got {type(context).__name__}")
    if isinstance(context, Sized) and hasattr(context, "__getitem__"):
        indexable: Any = context
        if not len(context) or _is_integer(indexable[0]):
            return repeat(context)
        if isinstance(texts, Sized) and len(context) != len(texts):
            raise ValueError(f"context: expected one for all texts or one for each of {len(texts)}, got {len(context)}")
    return iter(context)


def _check(value: Any, name: str) -> str | list[int]:
    if isinstance(value, str):
        return str(value)
    try:
        if not isinstance(value, bytes | Mapping):
            return [operator.index(each) for each in value]
    except TypeError:
        pass
    raise TypeError(f"{name}: expected a text or a list of token ids, got {type(value).__name__} {str(value)[:40]!r}")


def _is_integer(value: Any) -> bool:
    return hasattr(value, "__index__") and not hasattr(value, "__len__")
