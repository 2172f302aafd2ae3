"""Progress and summary of a batch: what they say, and what is left when they end."""

from __future__ import annotations

import logging
from dataclasses import replace

from gpt.bulk import Summary
from gpt.cli._progress import Pace, format_duration, format_progress, format_summary, open_display

COUNT = Summary(
    answered=1200,
    failed=3,
    resumed=203,
    prompt_tokens=10,
    completion_tokens=50_000,
    errors={"a": 1, "b": 2},
    bytes_read=4000,
    bytes_total=16_000,
)


NOTHING = Summary(answered=0, failed=0, resumed=0, prompt_tokens=0, completion_tokens=0)


def test_format_progress_shows_what_is_known() -> None:
    """Progress says what is done and failed, the rates, and the time left, each only where it is known."""
    assert format_progress(COUNT, 100.0, 400) == "1,203 (25 %) done, 3 failed, 10/s, 500 tokens/s, 6:40 left"
    assert format_progress(replace(COUNT, bytes_total=None), 100.0, None) == "1,203 done, 3 failed, 10/s, 500 tokens/s"
    assert format_progress(NOTHING, 0.0, None) == "0 done, 0 failed"
    huge = replace(COUNT, completion_tokens=2**63)
    assert "tokens/s" in format_progress(huge, 1.0, None)


def test_format_summary_counts_errors_by_code() -> None:
    """The end says what was done, in which time, and which errors there were, the commonest first."""
    assert format_summary(COUNT, 100.0) == (
        "1,200 answered, 3 failed (203 of them by earlier runs)\n"
        "1,000 in 1:40, 10/s, 10 prompt and 50,000 completion tokens\n"
        "failed: 2 b, 1 a"
    )
    assert [format_duration(5), format_duration(754), format_duration(3723)] == ["0:05", "12:34", "1:02:03"]


def test_pace_counts_from_the_first_new_line() -> None:
    """The time left is by bytes of the input, without those that were skipped as finished."""
    pace = Pace(0.0)
    resumed = replace(NOTHING, answered=5, resumed=5, bytes_read=0, bytes_total=10_000)
    assert pace.seconds_left(resumed, 1.0) is None
    assert pace.seconds_left(replace(resumed, answered=6, bytes_read=8000), 2.0) is None
    assert pace.seconds_left(replace(resumed, answered=7, bytes_read=9000), 5.0) == 3.0
    assert pace.seconds_left(replace(resumed, answered=8, bytes_total=None), 5.0) is None


def test_open_display_restores_the_log_level() -> None:
    """What is shown of the log while a command runs ends with it."""
    logger = logging.getLogger("gpt.bulk")
    before = logger.level, list(logger.handlers)
    with open_display():
        assert logger.level == logging.INFO
    assert (logger.level, logger.handlers) == before
