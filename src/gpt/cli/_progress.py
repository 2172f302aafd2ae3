"""Long work on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import typer

from ..bulk import Summary
from ..view.glyphs import printable

BAR_SECONDS = 0.1
LINE_SECONDS = 10.0


class ProgressDisplay(Protocol):
    """The progress of a run on stderr."""

    def show(self, summary: Summary) -> None:
        """Show the progress of a batch, at a readable rate."""

    def say(self, text: str) -> None:
        """Print a message beside the progress."""


@contextmanager
def open_display() -> Iterator[ProgressDisplay]:
    """Yield a progress bar on a terminal, periodic lines otherwise; also show `gpt.bulk`'s log messages."""
    with _open_bar() if sys.stderr.isatty() else nullcontext(_Lines()) as display:
        handler = _ProgressLogHandler(display)
        logger = logging.getLogger("gpt.bulk")
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield display
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


class _ProgressLogHandler(logging.Handler):
    def __init__(self, display: ProgressDisplay) -> None:
        super().__init__()
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        self._display.say(record.getMessage())


class Pace:
    """The speed of a run, measured from its first new line, since finished lines are skipped almost instantly."""

    def __init__(self, clock: float) -> None:
        self._started = clock
        self._first = clock
        self._first_bytes: int | None = None

    def seconds(self, clock: float) -> float:
        """Return the seconds since the start."""
        return clock - self._started

    def seconds_left(self, summary: Summary, clock: float) -> float | None:
        """Return how long the rest will take by the bytes of the input; `None` where that cannot be known."""
        is_new = summary.answered + summary.failed > summary.resumed
        if self._first_bytes is None:
            if is_new:
                self._first, self._first_bytes = clock, summary.bytes_read
            return None
        done = summary.bytes_read - self._first_bytes
        if not done or summary.bytes_total is None or clock <= self._first:
            return None
        return max(0.0, summary.bytes_total - summary.bytes_read) * (clock - self._first) / done


class _Lines:
    """Lines for a log."""

    def __init__(self) -> None:
        self._shown = time.monotonic()
        self._pace = Pace(self._shown)

    def show(self, summary: Summary) -> None:
        now = time.monotonic()
        if now - self._shown >= LINE_SECONDS:
            self._shown = now
            self.say(format_progress(summary, self._pace.seconds(now), self._pace.seconds_left(summary, now)))

    def say(self, text: str) -> None:
        typer.echo(printable(text), err=True)


@contextmanager
def _open_bar() -> Iterator[ProgressDisplay]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bar(progress)


class _Bar:
    """A bar of rich's that stays on the last line."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._task = progress.add_task("starting", total=None)
        self._pace = Pace(time.monotonic())
        self._shown = 0.0

    def show(self, summary: Summary) -> None:
        now = time.monotonic()
        if now - self._shown >= BAR_SECONDS:
            self._shown = now
            text = format_progress(summary, self._pace.seconds(now), self._pace.seconds_left(summary, now))
            self._progress.update(self._task, completed=summary.bytes_read, total=summary.bytes_total, description=text)

    def say(self, text: str) -> None:
        self._progress.console.print(printable(text), markup=False, highlight=False)


def format_progress(summary: Summary, seconds: float, seconds_left: float | None) -> str:
    """Return the progress of a batch: done, failed, lines and tokens per second, the time left.

    Args:
        summary: the counts.
        seconds: since the start of this run.
        seconds_left: how long the rest will take, if known.
    """
    done = summary.answered + summary.failed
    rate = (done - summary.resumed) / max(seconds, 0.001)
    share = f" ({100 * summary.bytes_read // summary.bytes_total} %)" if summary.bytes_total else ""
    parts = [f"{done:,}{share} done", f"{summary.failed:,} failed"]
    if rate:
        parts += [f"{format_number(rate)}/s", f"{format_number(summary.completion_tokens / seconds)} tokens/s"]
    if seconds_left is not None:
        parts.append(f"{format_duration(seconds_left)} left")
    return ", ".join(parts)


def format_summary(summary: Summary, seconds: float) -> str:
    """Return what a run has done, with the counts of errors by their codes."""
    new = summary.answered + summary.failed - summary.resumed
    earlier = f" ({summary.resumed:,} of them by earlier runs)" if summary.resumed else ""
    lines = [f"{summary.answered:,} answered, {summary.failed:,} failed{earlier}"]
    if new:
        speed = f"{new:,} in {format_duration(seconds)}, {format_number(new / max(seconds, 0.001))}/s"
        tokens = f"{summary.prompt_tokens:,} prompt and {summary.completion_tokens:,} completion tokens"
        lines.append(f"{speed}, {tokens}")
    by_count = sorted(summary.errors.items(), key=lambda item: (-item[1], item[0]))
    if by_count:
        lines.append("failed: " + ", ".join(f"{count:,} {code or 'without a code'}" for code, count in by_count))
    return "\n".join(lines)


def format_duration(seconds: float) -> str:
    """Write a duration as a clock would: 0:05, 12:34, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_number(value: float) -> str:
    """Format a number without decimals, or with one decimal if it is below 10."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
