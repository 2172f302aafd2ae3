"""Time limits as values: what they parse from, and how a deadline counts down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt._core.deadline import Deadline, parse_timeout


@pytest.mark.parametrize(
    ("value", "expected"),
    [(5, (5.0, 5.0)), (0.5, (0.5, 0.5)), (None, (None, None)), ((1, None), (1.0, None)), ((None, 2), (None, 2.0))],
)
def test_parse_timeout_given_a_number_or_a_pair_gives_both_limits(
    value: object, expected: tuple[float | None, float | None]
) -> None:
    """A number stands for both limits, a pair for each."""
    assert parse_timeout(value) == expected


@given(st.floats(0.001, 1e6), st.lists(st.floats(0, 100), max_size=20))
def test_deadline_remaining_never_grows_and_caps_every_limit(seconds: float, steps: list[float]) -> None:
    """What remains never grows, never falls below zero, and caps every time limit."""
    now = [0.0]
    deadline = Deadline(seconds, clock=lambda: now[0])
    before = deadline.remaining()
    for step in steps:
        now[0] += step
        left = deadline.remaining()
        assert 0 <= left <= before
        assert deadline.expired == (left == 0)
        assert deadline.cap(None) == left
        assert deadline.cap(0.5) == min(0.5, left)
        before = left


def test_deadline_shorten_only_brings_the_end_forward() -> None:
    """`shorten` moves the end to the given distance, and never away."""
    now = [0.0]
    deadline = Deadline(10, clock=lambda: now[0])
    deadline.shorten(4)
    assert deadline.remaining() == 4
    deadline.shorten(8)
    assert deadline.remaining() == 4
