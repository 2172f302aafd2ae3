"""How long to wait and whether to retry, as pure functions."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime, formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt.utils import BackoffStrategy, RetryConfig
from gpt.utils.retries import MAX_SERVER_WAIT, backoff_delay, retry_delay, server_wait, should_retry_status

NOW_DATE = datetime(2023, 9, 29, 16, 26, 37, tzinfo=timezone.utc)
NOW = NOW_DATE.timestamp()
DEFAULT = BackoffStrategy()


def date(seconds: float) -> str:
    """Return the HTTP date that many seconds from now."""
    return format_datetime(NOW_DATE + timedelta(seconds=seconds), usegmt=True)


def delay(headers: dict[str, str], retry: int = 0, random: float = 0.0) -> float | None:
    """Return the delay by the default strategy."""
    return retry_delay(retry, headers, DEFAULT, now=NOW, jitter=random)


BACKOFF = 0.5
REFUSED = None

RETRY_AFTER = [
    ("20", 20.0),
    ("0", BACKOFF),
    ("-10", BACKOFF),
    ("60", 60.0),
    ("61", 61.0),
    ("99.5", 99.5),
    ("37.412345", 37.412345),
    (" 7 ", 7.0),
    ("120", 120.0),
    ("120.001", REFUSED),
    ("121", REFUSED),
    ("86400", REFUSED),
    (date(20), 20.0),
    (date(0), BACKOFF),
    (date(-10), BACKOFF),
    (date(60), 60.0),
    (date(61), 61.0),
    (date(120), 120.0),
    (date(121), REFUSED),
    (date(86400), REFUSED),
    ("Fri, 29 Sep 2023 18:26:57 +0200", 20.0),
    ("Friday, 29-Sep-23 16:26:57 GMT", 20.0),
    ("Fri Sep 29 16:26:57 2023", 20.0),
    ("99999999999999999999999999999999999", BACKOFF),
    ("31622401", BACKOFF),
    ("inf", BACKOFF),
    ("-inf", BACKOFF),
    ("nan", BACKOFF),
    ("1_0", BACKOFF),
    ("Zun, 29 Sep 2023 16:26:27 GMT", BACKOFF),
    ("Fri, 29 Sep 100000 16:26:27 GMT", BACKOFF),
    ("Fri, 99 Foo 2023 16:26:27 GMT", BACKOFF),
    ("soon", BACKOFF),
    ("", BACKOFF),
    ("  ", BACKOFF),
]


@pytest.mark.parametrize(("value", "expected"), RETRY_AFTER)
def test_retry_delay_given_retry_after_waits_refuses_or_backs_off(value: str, expected: float | None) -> None:
    """Seconds and dates up to 120 s are waited for, longer ones refused, odd ones ignored for a back-off."""
    assert delay({"retry-after": value}) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "0"}, 0.0),
        ({"retry-after-ms": "0", "retry-after": "60"}, 0.0),
        ({"retry-after-ms": "1500.5", "retry-after": "60"}, 1.5005),
        ({"retry-after-ms": "120000"}, 120.0),
        ({"retry-after-ms": "120001"}, None),
        ({"retry-after-ms": "120001", "retry-after": "1"}, None),
        ({"retry-after-ms": "-1", "retry-after": "3"}, 3.0),
        ({"retry-after-ms": "nan", "retry-after": "3"}, 3.0),
        ({"retry-after-ms": "soon"}, BACKOFF),
        ({"retry-after-ms": "9" * 35}, BACKOFF),
        ({}, BACKOFF),
    ],
)
def test_retry_delay_given_retry_after_ms_prefers_it_to_retry_after(
    headers: dict[str, str], expected: float | None
) -> None:
    """`retry-after-ms` beats `Retry-After`, 0 means now, and what is odd leaves the word to the other header."""
    assert delay(headers) == expected


def test_backoff_delay_for_each_retry_doubles_up_to_its_bound() -> None:
    """Without a word of the server waits double from half a second to eight, for any number of retries."""
    waits = [backoff_delay(retry, DEFAULT, 0.0) for retry in range(7)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert backoff_delay(1100, DEFAULT, 0.0) == 8.0
    assert backoff_delay(10**6, DEFAULT, 0.0) == 8.0


def test_retry_delay_given_jitter_shortens_back_off_by_up_to_a_quarter() -> None:
    """Randomness only shortens a wait, by a quarter at most; a server's own wait is kept to the letter."""
    assert backoff_delay(0, DEFAULT, 1.0) == 0.375
    assert delay({}, random=0.5) == pytest.approx(0.4375)
    assert delay({"retry-after": "20"}, random=1.0) == 20.0


def test_backoff_delay_given_a_custom_strategy_follows_it() -> None:
    """Interval, bound and exponent are the caller's; an exponent of 1 waits evenly."""
    strategy = BackoffStrategy(initial_interval=100, max_interval=350, exponent=3)
    assert [backoff_delay(retry, strategy, 0.0) for retry in range(3)] == [0.1, 0.3, 0.35]
    even = BackoffStrategy(initial_interval=200, exponent=1.0)
    assert [backoff_delay(retry, even, 0.0) for retry in range(3)] == [0.2] * 3


@given(
    retry=st.integers(0, 2000),
    after=st.none() | st.text() | st.floats().map(str) | st.integers().map(str),
    after_ms=st.none() | st.text() | st.floats().map(str) | st.integers().map(str),
    random=st.floats(0, 1),
)
def test_retry_delay_given_any_headers_is_none_or_within_120_seconds(
    retry: int, after: str | None, after_ms: str | None, random: float
) -> None:
    """Whatever the headers say, the delay is `None` or from 0 to 120 seconds."""
    headers = {k: v for k, v in {"retry-after": after, "retry-after-ms": after_ms}.items() if v is not None}
    wait = retry_delay(retry, headers, DEFAULT, now=NOW, jitter=random)
    assert wait is None or 0 <= wait <= MAX_SERVER_WAIT


@given(st.from_regex(r"(Mon|Tue|Sun),? [0-9A-Za-z:,+ -]{0,40}", fullmatch=True))
def test_server_wait_given_any_date_is_finite_or_none(text: str) -> None:
    """Whatever looks like a date is a finite wait or nothing."""
    wait = server_wait({"retry-after": text}, NOW)
    assert wait is None or (math.isfinite(wait) and wait > 0)


def test_server_wait_given_a_date_is_measured_from_now() -> None:
    """A date is as many seconds away as it is from the given moment."""
    assert server_wait({"retry-after": formatdate(NOW + 5, usegmt=True)}, NOW + 2.5) == 2.5


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 520, 524, 529, 599])
def test_should_retry_status_given_a_temporary_status_is_true(status: int) -> None:
    """Busy, broken and overloaded servers are retried."""
    assert should_retry_status(status, {})


@pytest.mark.parametrize("status", [301, 307, 400, 401, 402, 403, 404, 405, 413, 422, 424, 499])
def test_should_retry_status_given_a_final_status_is_false(status: int) -> None:
    """What another attempt cannot help is final."""
    assert not should_retry_status(status, {})


@pytest.mark.parametrize(
    ("status", "header", "expected"),
    [
        (400, "true", True),
        (400, " TRUE ", True),
        (503, "false", False),
        (429, "False", False),
        (503, "maybe", True),
        (400, "", False),
    ],
)
def test_should_retry_status_given_x_should_retry_follows_it(status: int, header: str, expected: bool) -> None:
    """`x-should-retry` decides over the status where it says true or false."""
    assert should_retry_status(status, {"x-should-retry": header}) is expected


@pytest.mark.parametrize("name", ["insufficient_quota", "credit_balance_exhausted"])
def test_should_retry_status_given_a_used_up_quota_is_false(name: str) -> None:
    """No money does not come back within seconds, in whichever field the server says so."""
    assert not should_retry_status(429, {}, name, None)
    assert not should_retry_status(429, {}, None, name)
    assert should_retry_status(429, {}, "rate_limit_exceeded", "requests")
    assert should_retry_status(429, {"x-should-retry": "true"}, name, None)


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda: RetryConfig(max_retries=None), TypeError, "max_retries: expected an integer, got NoneType; 0 or"),  # type: ignore[arg-type]
        (lambda: RetryConfig(max_retries=-1), ValueError, "max_retries: expected at least 0, got -1"),
        (lambda: RetryConfig(max_retries=1.5), TypeError, "max_retries: expected an integer, got float"),  # type: ignore[arg-type]
        (lambda: RetryConfig(max_retries=True), TypeError, "got bool"),
        (lambda: RetryConfig("linear"), ValueError, "strategy: expected 'backoff' or 'none', got 'linear'"),  # type: ignore[arg-type]
        (lambda: RetryConfig("backoff", None), TypeError, "backoff: expected a BackoffStrategy, got NoneType"),  # type: ignore[arg-type]
        (lambda: BackoffStrategy(-1), ValueError, "initial_interval: expected a finite number of at least 0, got -1"),
        (lambda: BackoffStrategy(exponent=math.nan), ValueError, "exponent: expected a finite number"),
        (lambda: BackoffStrategy(max_interval=math.inf), ValueError, "max_interval: expected a finite"),  # type: ignore[arg-type]
        (lambda: BackoffStrategy("1"), TypeError, "initial_interval: expected a number, got str"),  # type: ignore[arg-type]
    ],
)
def test_retry_settings_given_invalid_values_raise_naming_the_field(
    make: Any, kind: type[Exception], said: str
) -> None:
    """Settings are checked where they are made, by name."""
    with pytest.raises(kind, match=said):
        make()


def test_retry_config_given_speakeasys_positional_order_reads_it_the_same() -> None:
    """The settings of Speakeasy's clients read the same here, in milliseconds."""
    config = RetryConfig("backoff", BackoffStrategy(1, 50, 1.1, 100), False)
    assert (config.backoff.initial_interval, config.backoff.max_elapsed_time) == (1, 100)
    assert (config.retry_connection_errors, config.max_retries, config.limit) == (False, 2, 2)
    assert RetryConfig("none", max_retries=5).limit == 0
    assert RetryConfig() == RetryConfig(max_retries=2)
    assert hash(RetryConfig()) == hash(RetryConfig())


@pytest.mark.parametrize("name", ["retry_connection_errors", "retry_read_timeouts"])
@pytest.mark.parametrize("value", ["no", 0, None])
def test_retry_config_given_no_boolean_raises(name: str, value: object) -> None:
    """Every field is checked: what would count as true or false by accident is refused by name."""
    with pytest.raises(TypeError, match=f"^{name}: expected True or False, got"):
        RetryConfig(**{name: value})  # type: ignore[arg-type]
