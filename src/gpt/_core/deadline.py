"""Time limits as values: parsing of `timeout` options and a deadline that counts down."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

Timeout = float | tuple[float | None, float | None] | None
"""Seconds for connecting and for each read, `(connect, read)`, or `None` for no limit."""

_LONGEST = 1_000_000_000


def parse_timeout(value: Any, name: str = "timeout") -> tuple[float | None, float | None]:
    """Check a timeout option and return it as `(connect, read)` in seconds.

    Raises:
        TypeError: it is not a number, a pair or `None`.
        ValueError: a number is not positive and finite.
    """
    if isinstance(value, tuple):
        if len(value) != 2:
            raise ValueError(f"{name}: expected (connect, read), got {len(value)} values")
        return parse_seconds(value[0], f"{name}[0]"), parse_seconds(value[1], f"{name}[1]")
    seconds = parse_seconds(value, name)
    return seconds, seconds


def parse_seconds(value: Any, name: str) -> float | None:
    """Check a number of seconds; `None` stands for no limit.

    Raises:
        TypeError: it is not a number or `None`.
        ValueError: it is not positive, or more than a socket timeout can hold.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number of seconds or None, got {type(value).__name__}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: expected a positive number of seconds, got {value} (None means no limit)")
    if value > _LONGEST:
        raise ValueError(f"{name}: expected at most {_LONGEST:,} seconds (None means no limit)")
    return float(value)


class Deadline:
    """A point in time by which something must be done."""

    __slots__ = ("_clock", "_end", "seconds")

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._end = clock() + seconds

    def shorten(self, seconds: float) -> None:
        """Move the deadline to at most this many seconds from now."""
        self._end = min(self._end, self._clock() + seconds)

    def extend(self, seconds: float) -> None:
        """Move the deadline to this many seconds later, for time that does not count."""
        self._end += seconds

    def remaining(self) -> float:
        """Return the seconds left, never less than 0."""
        return max(0.0, self._end - self._clock())

    @property
    def expired(self) -> bool:
        """Whether the moment has passed."""
        return self.remaining() == 0.0

    def cap(self, seconds: float | None) -> float:
        """Shorten a time limit to what is left."""
        remaining = self.remaining()
        return remaining if seconds is None else min(seconds, remaining)
