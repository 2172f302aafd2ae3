"""Scoring of texts longer than the model's context, window by window, as lm-evaluation-harness does: each token once.

After the first window, each begins with one token of overlap at least; the last one with as many as fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from .._parsing.logprobs import Token
from .alignment import align, spans_by_length
from .jobs import Job, gather, refusal
from .prompts import Prompt
from .result import Score
from .server import ServerInfo


def windowed_job(prompt: Prompt, server: ServerInfo, max_length: int, make_job: Callable[[Prompt], Job]) -> Job:
    """Score a text in requests of at most `max_length` tokens."""
    ids, begin = (prompt.sent, len(prompt.context)) if isinstance(prompt.sent, list) else _encode(prompt, server)
    if len(ids) <= max_length:
        return (yield from make_job(prompt))
    assert isinstance(ids, list)
    parts = [
        Prompt(prompt.name, ids[start:first], ids[first:end])
        for start, first, end in windows(len(ids), begin, max_length)
    ]
    scores = yield from gather([make_job(part) for part in parts])
    return _join(prompt, scores)


def windows(length: int, begin: int, max_length: int) -> Iterator[tuple[int, int, int]]:
    """Divide tokens into windows: the first token of each, the first that it scores, and its end.

    Args:
        length: how many tokens there are.
        begin: the first that is to be scored.
        max_length: how many tokens a window has at most.
    """
    first = begin
    while first < length:
        whole = first == begin < max_length
        end = min(length, max_length if whole else first + max_length - 1)
        yield max(0, end - max_length), first, end
        first = end


def _encode(prompt: Prompt, server: ServerInfo) -> tuple[list[int], int]:
    """Return the token ids of context and text, and how many are the context's.

    Raises:
        errors.ResponseValidationError: a token belongs to both.
    """
    ids = server.encode(str(prompt.sent))
    context = server.encode(str(prompt.context))
    if ids[: len(context)] != context:
        raise refusal(
            f"{prompt.name}: a token crosses the boundary of context and text, so that windows cannot begin there;"
            " put a space at the text's beginning, not at the context's end"
        )
    return ids, len(context)


def _join(prompt: Prompt, scores: Sequence[Score]) -> Score:
    tokens = [token for score in scores for token in score.tokens]
    text = prompt.text if isinstance(prompt.text, str) else "".join(score.text for score in scores)
    aligned = align([Token(token, None) for token in tokens], text)
    spans = aligned.spans if aligned else spans_by_length([Token(token, None) for token in tokens])
    return Score(
        text=text,
        tokens=tuple(tokens),
        logprobs=tuple(logprob for score in scores for logprob in score.logprobs),
        offsets=tuple(span.start for span in spans),
        top_logprobs=tuple(top for score in scores for top in score.top_logprobs),
    )
