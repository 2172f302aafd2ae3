"""The results of scoring: the score of one text, and the outcome of scoring it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from .._parsing.logprobs import perplexity
from ..models.shared.createcompletionresponse import (
    CreateCompletionResponseChoices,
    CreateCompletionResponseChoicesLogprobs,
)


@dataclass(frozen=True)
class Score:
    """The log-probabilities (natural logarithm) of one text, token by token."""

    text: str
    """What was scored: the text as it was given, without its context; of token ids, the server's text for them."""

    tokens: tuple[str, ...]
    """Its tokens, as the server writes them."""

    logprobs: tuple[float | None, ...]
    """The log-probability of each token, given all before it. Only the first token of a text without a context has
    `None`: there is nothing to predict it from."""

    offsets: tuple[int, ...]
    """Where each token begins in `text`, in characters. Negative for a token that begins in the context: it counts
    whole, since its probability cannot be divided."""

    top_logprobs: tuple[Mapping[str, float], ...] = ()
    """For each token the likeliest ones at its position; empty where the server sent none."""

    logprob_sum: float = field(init=False)
    """The log-probability of the text: the sum over its tokens, `None` left out; NaN when none is left."""

    logprob_mean: float = field(init=False)
    """The mean over the tokens that have one; NaN when none has."""

    perplexity: float = field(init=False)
    """`exp(-logprob_mean)`: 1 for a text that was certain; infinite with a token of probability 0, which servers write
    as -inf, -9999 or -3.4e38."""

    def __post_init__(self) -> None:
        known = [value for value in self.logprobs if value is not None]
        total = _sum(known) if known else math.nan
        mean = total / len(known) if known else math.nan
        object.__setattr__(self, "logprob_sum", total)
        object.__setattr__(self, "logprob_mean", mean)
        object.__setattr__(self, "perplexity", perplexity(known) if known else math.nan)

    @property
    def is_greedy(self) -> bool | None:
        """Whether each token was the likeliest one; `None` when the server sent nothing to compare one with."""
        scored = [place for place, logprob in enumerate(self.logprobs) if logprob is not None]
        if not scored or any(place >= len(self.top_logprobs) or not self.top_logprobs[place] for place in scored):
            return None
        return all(self.logprobs[place] >= max(self.top_logprobs[place].values()) for place in scored)  # type: ignore[operator]

    def to_choice(self) -> CreateCompletionResponseChoices:
        """Return the score in the shape of a completion's choice, which `gpt.view` shows."""
        logprobs = CreateCompletionResponseChoicesLogprobs(
            tokens=list(self.tokens),
            token_logprobs=list(self.logprobs),
            top_logprobs=[dict(each) for each in self.top_logprobs],
            text_offset=[max(0, offset) for offset in self.offsets],
        )
        return CreateCompletionResponseChoices(text=self.text, index=0, logprobs=logprobs, finish_reason=None)

    def _repr_html_(self) -> str:
        from ..view import to_html

        return to_html(self, title=f"perplexity {self.perplexity:.4g}", fragment=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreOutcome:
    """How the scoring of one text ended: with a score or with an error."""

    index: int
    """The number of the text, from 0, in the order in which the texts came."""

    score: Score | None = None

    error: Exception | None = None
    """Why there is no score: one of `gpt.models.errors`, or a `TypeError` or `ValueError` about the text."""


def _sum(values: list[float]) -> float:
    try:
        return math.fsum(values)
    except OverflowError:  # servers write the lowest float for a probability of 0
        return -math.inf
