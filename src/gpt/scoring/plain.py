"""The common case of an echo: each token has only whole characters, and together they spell the returned text.

Positions are then sums of lengths, and the context's tokens need not be examined one by one. All other cases are left
to `echo`, which also reports what is wrong; both give the same scores (`tests/scoring/test_plain.py`).
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection
from itertools import accumulate
from math import isnan
from operator import itemgetter
from typing import Any

from ..models.shared.createcompletionresponse import CreateCompletionResponseChoicesLogprobs
from .prompts import Prompt
from .result import Score

_PARTIAL = re.compile("\ufffd|bytes:")
"""What servers write for a part of a character."""

_FLOAT = frozenset((float,))
LEAST_IMPOSSIBLE = 0.01
"""A log-probability is at most 0, except for rounding errors."""


def score_plainly(prompt: Prompt, response: Any, max_tokens: int) -> Score | None:
    """Return the score of a prompt's text, or `None` where the response needs a closer look.

    Args:
        prompt: what was sent.
        response: a completion with one choice.
        max_tokens: how many tokens were to be generated after the prompt.
    """
    choice = response.choices[0]
    lists = choice.logprobs
    if not isinstance(lists, CreateCompletionResponseChoicesLogprobs) or lists.content is not None:
        return None
    tokens: Any = lists.tokens
    logprobs: Any = lists.token_logprobs
    ends = _ends(tokens, choice.text)
    if ends is None or type(logprobs) is not list or len(logprobs) != len(ends) or logprobs[0] is not None:
        return None
    part = _part(prompt, ends, response, max_tokens)
    if part is None or not _are_logprobs(logprobs[max(1, part.start) : part.stop]):
        return None
    top = _top(lists.top_logprobs, part, len(ends))
    if top is None:
        return None
    starts = [0, *ends]
    origin = len(prompt.context) if isinstance(prompt.text, str) else starts[part.start]
    return Score(
        text=prompt.text if isinstance(prompt.text, str) else "".join(tokens[part]),
        tokens=tuple(tokens[part]),
        logprobs=tuple(logprobs[part]),
        offsets=tuple(start - origin for start in starts[part]),
        top_logprobs=top,
    )


def _ends(tokens: Any, text: Any) -> list[int] | None:
    """Return where each token ends in the text that they spell; `None` when they do not, or not in one way."""
    if type(tokens) is not list or not tokens or type(text) is not str or _PARTIAL.search(text):
        return None
    try:
        if not all(tokens) or "".join(tokens) != text:
            return None
    except TypeError:
        return None
    return list(accumulate(map(len, tokens)))


def _part(prompt: Prompt, ends: list[int], response: Any, max_tokens: int) -> slice | None:
    """Find the tokens after the context, without those generated."""
    context, sent = len(prompt.context), prompt.sent
    if isinstance(sent, list):
        ids = response.choices[0].additional_properties.get("prompt_token_ids")
        right = ids in (None, sent) and len(sent) <= len(ends) <= len(sent) + max_tokens
        return slice(context, len(sent)) if right else None
    end = bisect_left(ends, len(sent)) + 1
    if end > len(ends) or ends[end - 1] != len(sent) or not response.choices[0].text.startswith(sent):
        return None
    if end < len(ends) and not max_tokens:
        return None
    return slice(bisect_right(ends, context), end)


def _are_logprobs(values: list[Any]) -> bool:
    return (
        _FLOAT.issuperset(map(type, values))
        and (not values or max(values) <= LEAST_IMPOSSIBLE)
        and not isnan(sum(values))
    )


def _top(entries: Any, part: slice, count: int) -> tuple[dict[str, float], ...] | None:
    """Return the likeliest tokens at each position, sorted; `None` where one needs a closer look."""
    if entries is None:
        return tuple({} for _ in range(part.stop - part.start))
    if type(entries) is not list or len(entries) != count:
        return None
    top: list[dict[str, float]] = []
    for entry in entries[part]:
        if entry is None:
            top.append({})
        elif type(entry) is dict and _are_numbers(entry.values()):
            top.append(dict(sorted(entry.items(), key=itemgetter(1), reverse=True)))
        else:
            return None
    return tuple(top)


def _are_numbers(values: Collection[Any]) -> bool:
    return _FLOAT.issuperset(map(type, values)) and not isnan(sum(values))
