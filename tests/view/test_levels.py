"""Probabilities as people read them, and the colours that stand for them."""

from __future__ import annotations

import pytest

from gpt.view.levels import percent, probability


@pytest.mark.parametrize(
    ("chance", "written"),
    [(1.0, "100 %"), (0.9999, "> 99.9 %"), (0.5, "50.0 %"), (0.0004, "< 0.1 %"), (0.0, "0 %"), (None, "?")],
)
def test_percent_of_almost_certain_is_not_100_and_of_unlikely_not_0(chance: float | None, written: str) -> None:
    """Almost certain is not certain, and unlikely is not impossible."""
    assert percent(chance) == written


@pytest.mark.parametrize(("logprob", "expected"), [(1e-7, 1.0), (0.0, 1.0), (-1e308, 0.0), (None, None)])
def test_probability_of_any_logprob_is_between_0_and_1(logprob: float | None, expected: float | None) -> None:
    """A probability stays between 0 and 1 whatever the server's rounding."""
    assert probability(logprob) == expected
