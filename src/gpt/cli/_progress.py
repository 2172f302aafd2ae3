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

BAR_SECONDS = 0.1
LINE_SECONDS = 10.0


class Display(Protocol):
    """What is shown while work goes on."""

    def show(self, summary: Summary) -> None:
        """Show how a batch stands, as often as is good to look at."""

    def say(self, text: str) -> None:
        """Say something in between."""


@contextmanager
def open_display(total: int | None) -> Iterator[Display]:
    """Give what fits stderr; what a run has to say through `logging` is shown too."""
    with _open_bar(total) if sys.stderr.isatty() else nullcontext(_Lines(total)) as display:
        handler = _Sayer(display)
        logger = logging.getLogger("gpt.bulk")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield display
        finally:
            logger.removeHandler(handler)


class _Sayer(logging.Handler):
    def __init__(self, display: Display) -> None:
        super().__init__()
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        self._display.say(record.getMessage())


class _Lines:
    """Lines for a log."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._started = self._shown = time.monotonic()

    def show(self, summary: Summary) -> None:
        now = time.monotonic()
        if now - self._shown >= LINE_SECONDS:
            self._shown = now
            self.say(describe(summary, self._total, now - self._started))

    def say(self, text: str) -> None:
        typer.echo(text, err=True)


@contextmanager
def _open_bar(total: int | None) -> Iterator[Display]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bar(progress, total)


class _Bar:
    """A bar of rich's that stays on the last line."""

    def __init__(self, progress: Any, total: int | None) -> None:
        self._progress = progress
        self._total = total
        self._task = progress.add_task("starting", total=total)
        self._started = time.monotonic()
        self._shown = 0.0

    def show(self, summary: Summary) -> None:
        now = time.monotonic()
        if now - self._shown >= BAR_SECONDS:
            self._shown = now
            text = describe(summary, self._total, now - self._started)
            self._progress.update(self._task, completed=summary.answered + summary.failed, description=text)

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)


def describe(summary: Summary, total: int | None, seconds: float) -> str:
    """Say how a batch stands: done, failed, requests and tokens a second, the time that it will still take.

    Args:
        summary: the count.
        total: the lines of the input, where that is known.
        seconds: since the start of this run.
    """
    done = summary.answered + summary.failed
    rate = (done - summary.resumed) / max(seconds, 0.001)
    parts = [f"{done:,}/{total:,} done" if total is not None else f"{done:,} done", f"{summary.failed:,} failed"]
    if rate:
        parts += [f"{_figure(rate)}/s", f"{_figure(summary.completion_tokens / seconds)} tokens/s"]
    if rate and total is not None and total > done:
        parts.append(f"{clock((total - done) / rate)} left")
    return ", ".join(parts)


def conclude(summary: Summary, seconds: float) -> str:
    """Say what a run has done."""
    done = summary.answered + summary.failed
    new = done - summary.resumed
    earlier = f" ({summary.resumed:,} of them by earlier runs)" if summary.resumed else ""
    text = f"{summary.answered:,} answered, {summary.failed:,} failed{earlier}"
    if new:
        text += f"\n{new:,} in {clock(seconds)}, {_figure(new / max(seconds, 0.001))}/s"
        text += f", {summary.prompt_tokens:,} prompt and {summary.completion_tokens:,} completion tokens"
    return text


def clock(seconds: float) -> str:
    """Write a duration as a clock would: 0:05, 12:34, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
