"""When to retry and how long to wait before: settings and pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import mktime_tz, parsedate_tz
from typing import Literal

MAX_SERVER_WAIT = 120.0
"""The longest wait requested by a server, in seconds, that is honoured."""

QUOTA_CODES = ("insufficient_quota", "credit_balance_exhausted")
"""The codes or types of errors that say that a quota is used up, which no retry can help."""

_MAX_PLAUSIBLE_WAIT = 366 * 24 * 3600.0
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_RETRIED_STATUSES = (408, 409, 429)


@dataclass(frozen=True)
class BackoffStrategy:
    """How waits grow if the server requests no specific wait."""

    initial_interval: int = 500
    """The first wait, in milliseconds."""

    max_interval: int = 8000
    """The longest wait, in milliseconds."""

    exponent: float = 2.0
    """The factor by which each wait grows."""

    max_elapsed_time: int = 3_600_000
    """No retry begins later than this after the call's start, in milliseconds."""

    def __post_init__(self) -> None:
        for name in ("initial_interval", "max_interval", "exponent", "max_elapsed_time"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name}: expected a finite number of at least 0, got {value}")


@dataclass(frozen=True)
class RetryConfig:
    """What is retried and how often.

    Failures to connect, connections lost before the response's headers, and the statuses 408, 409, 429 and 500 or
    above are retried, unless the server sends `x-should-retry: false` or the quota is used up.
    """

    strategy: Literal["backoff", "none"] = "backoff"
    """`backoff`, or `none` for a single attempt."""

    backoff: BackoffStrategy = field(default_factory=BackoffStrategy)
    """How long to wait."""

    retry_connection_errors: bool = True
    """Whether failures without a response are retried too."""

    max_retries: int = 2
    """The maximum number of attempts after the first."""

    retry_read_timeouts: bool = False
    """Whether to retry after a read timeout. The server may still be processing the request, and billing it."""

    def __post_init__(self) -> None:
        if self.strategy not in ("backoff", "none"):
            raise ValueError(f"strategy: expected 'backoff' or 'none', got {self.strategy!r}")
        if not isinstance(self.backoff, BackoffStrategy):
            raise TypeError(f"backoff: expected a BackoffStrategy, got {type(self.backoff).__name__}")
        for name in ("retry_connection_errors", "retry_read_timeouts"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}: expected True or False, got {type(getattr(self, name)).__name__}")
        if isinstance(self.max_retries, bool) or not isinstance(self.max_retries, int):
            raise TypeError(
                f"max_retries: expected an integer, got {type(self.max_retries).__name__};"
                " 0 or strategy='none' turns retries off"
            )
        if self.max_retries < 0:
            raise ValueError(f"max_retries: expected at least 0, got {self.max_retries}")

    @property
    def limit(self) -> int:
        """The most attempts after the first, with the strategy taken into account."""
        return self.max_retries if self.strategy == "backoff" else 0


def check_retries(value: object, name: str = "retries") -> RetryConfig:
    """Check an option that holds a `RetryConfig`; `name` is the option's, for messages.

    Raises:
        TypeError: it is not a `RetryConfig`; `None` is ambiguous, so it is refused.
    """
    if isinstance(value, RetryConfig):
        return value
    if value is None:
        raise TypeError(
            f"{name}: None is ambiguous; leave it out for the client's settings,"
            " or give utils.RetryConfig(strategy='none') for a single attempt"
        )
    raise TypeError(f"{name}: expected a utils.RetryConfig, got {type(value).__name__}")


def should_retry_status(status: int, headers: Mapping[str, str], code: object = None, type_: object = None) -> bool:
    """Return whether an error response is retryable; the server's own `x-should-retry` decides first."""
    should_retry = headers.get("x-should-retry", "").strip().lower()
    if should_retry in ("true", "false"):
        return should_retry == "true"
    if code in QUOTA_CODES or type_ in QUOTA_CODES:
        return False
    return status in _RETRIED_STATUSES or status >= 500


def server_wait(headers: Mapping[str, str], now: float) -> float | None:
    """Return how many seconds the server asks the client to wait; `None` for no value or an implausible one.

    `retry-after-ms` (0 means now) takes precedence over `Retry-After` in seconds or as a date. A value that is not
    positive, not finite, longer than a year or unreadable is ignored.

    Args:
        headers: the response's headers, with names looked up in lower case.
        now: seconds since 1970, to compare dates with.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None and 0 <= milliseconds <= _MAX_PLAUSIBLE_WAIT * 1000:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is None and text:
        seconds = _seconds_until(text, now)
    return seconds if seconds is not None and 0 < seconds <= _MAX_PLAUSIBLE_WAIT else None


def backoff_delay(retry: int, strategy: BackoffStrategy, jitter: float) -> float:
    """Return the seconds to wait before retry number `retry` (0 is the first), shortened by up to a quarter.

    Args:
        retry: how many retries there have been.
        strategy: how waits grow.
        jitter: a random number from 0 to 1.
    """
    try:
        grown = strategy.initial_interval * strategy.exponent**retry
    except OverflowError:
        grown = math.inf
    return min(grown, strategy.max_interval) / 1000 * (1 - 0.25 * jitter)


def retry_delay(
    retry: int, headers: Mapping[str, str], strategy: BackoffStrategy, *, now: float, jitter: float
) -> float | None:
    """Return the seconds to wait before the next attempt; `None` if the server asks for more than `MAX_SERVER_WAIT`."""
    wait = server_wait(headers, now)
    if wait is None:
        return backoff_delay(retry, strategy, jitter)
    return wait if wait <= MAX_SERVER_WAIT else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text and "_" not in text else None
    except ValueError:
        return None
    return value if value is not None and math.isfinite(value) else None


def _seconds_until(text: str, now: float) -> float | None:
    if text.strip()[:3].lower() not in _WEEKDAYS:
        return None
    try:
        parsed = parsedate_tz(text)
        return mktime_tz(parsed) - now if parsed else None
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
