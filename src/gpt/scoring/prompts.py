"""What is to be scored, checked and joined with what comes before it."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Ids = Sequence[int]
"""Token ids; NumPy integer arrays are meant too."""


@dataclass(frozen=True)
class Prompt:
    """One text to score and its context, both texts or both token ids."""

    name: str
    """What messages call it."""

    context: str | list[int]
    text: str | list[int]

    @property
    def sent(self) -> str | list[int]:
        """What goes into the request."""
        return self.context + self.text  # type: ignore[operator]  # of one kind: see make_prompts


def make_prompts(texts: Iterable[Any], context: Any) -> list[Prompt]:
    """Pair each text with its context.

    Raises:
        TypeError: something is neither a text nor token ids, or both are mixed.
        ValueError: a text is empty, or there are not as many contexts as texts.
    """
    if isinstance(texts, str):
        raise TypeError("texts: expected several texts, got a single one; write [text]")
    checked = [_check(text, f"texts[{index}]") for index, text in enumerate(texts)]
    contexts = _contexts(context, checked)
    prompts = []
    for index, (before, text) in enumerate(zip(contexts, checked, strict=True)):
        if not len(text):
            raise ValueError(f"texts[{index}]: expected at least one token, got an empty text")
        if not (type(checked[0]) is type(text) is type(before)):
            raise TypeError(
                f"texts[{index}]: expected texts and contexts to be all texts or all token ids, got a mixture"
            )
        prompts.append(Prompt(f"texts[{index}]", before, text))
    return prompts


def _contexts(context: Any, texts: Sequence[str | list[int]]) -> list[str | list[int]]:
    if context is None:
        return [type(text)() for text in texts]
    several = not isinstance(context, str) and len(context) and not _is_integer(context[0])
    if not several:
        one = _check(context, "context")
        return [one if len(one) else type(text)() for text in texts]
    if len(context) != len(texts):
        raise ValueError(f"context: expected one for all texts or one for each of {len(texts)}, got {len(context)}")
    return [_check(each, f"context[{index}]") for index, each in enumerate(context)]


def _check(value: Any, name: str) -> str | list[int]:
    if isinstance(value, str):
        return str(value)
    try:
        return [operator.index(each) for each in value]
    except TypeError:
        raise TypeError(
            f"{name}: expected a text or a list of token ids, got {type(value).__name__} {str(value)[:40]!r}"
        ) from None


def _is_integer(value: Any) -> bool:
    return hasattr(value, "__index__") and not hasattr(value, "__len__")
