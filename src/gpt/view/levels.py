"""From a log-probability to a readable number and one of five levels. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from .._parsing.logprobs import Token, perplexity

LEVELS = (
    (0.90, "90 % and more"),
    (0.50, "50–90 %"),
    (0.20, "20–50 %"),
    (0.05, "5–20 %"),
    (0.00, "under 5 %"),
)
"""The minimum probability of each level, the most certain first, and its name in the legend."""

UNKNOWN = len(LEVELS)
"""The level of a token without a probability."""


def probability(logprob: float | None) -> float | None:
    """Return a probability from 0 to 1. Servers write 0 as -inf, -9999 or -3.4e38; rounding may go above 1."""
    return None if logprob is None else math.exp(min(0.0, logprob))


def level(logprob: float | None) -> int:
    """Return the level of a token, 0 the surest; `UNKNOWN` without a probability."""
    chance = probability(logprob)
    if chance is None:
        return UNKNOWN
    return next(n for n, (least, _) in enumerate(LEVELS) if chance >= least)


def percent(chance: float | None) -> str:
    """Format a probability; values just below 1 or above 0 are not rounded to certain or impossible."""
    if chance is None:
        return "?"
    if 0 < chance < 0.001:
        return "< 0.1 %"
    if 0.999 < chance < 1:
        return "> 99.9 %"
    return f"{chance * 100:.0f} %" if chance in (0, 1) else f"{chance * 100:.1f} %"


@dataclass(frozen=True)
class Summary:
    """The tokens of a choice in three numbers."""

    tokens: int
    perplexity: float | None
    """Of the tokens that have a log-probability; `None` when none has."""
    unlikely: int
    """How many tokens are of the last level."""


def summarise(tokens: Iterable[Token]) -> Summary:
    """Count and average tokens."""
    logprobs = [token.logprob for token in tokens]
    known = [min(0.0, value) for value in logprobs if value is not None]
    unlikely = sum(level(value) == UNKNOWN - 1 for value in logprobs)
    return Summary(len(logprobs), perplexity(known) if known else None, unlikely)


def describe(summary: Summary) -> str:
    """Return the numbers in one line."""
    parts = [f"{summary.tokens} token{'' if summary.tokens == 1 else 's'}"]
    if summary.perplexity is not None:
        infinite = math.isinf(summary.perplexity)
        parts.append(f"perplexity {'∞' if infinite else f'{summary.perplexity:.3g}'}")
        parts.append(f"{summary.unlikely} under 5 %")
    return " · ".join(parts)
