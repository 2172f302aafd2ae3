"""Where a command writes: a terminal gets text that cannot control it, a pipe or a file gets every byte as it is."""

from __future__ import annotations

import sys

import typer

from ..view.glyphs import printable


def write(data: str | bytes) -> None:
    """Write to stdout at once, text as UTF-8.

    On a terminal, characters that control it are shown by their names (`<ESC>`), those of an incomplete escape
    sequence too, since each is replaced separately. `typer.echo` is not used: it strips ANSI sequences where stdout is
    no terminal.
    """
    if sys.stdout.isatty():
        sys.stdout.write(printable(data.decode("utf-8", "replace") if isinstance(data, bytes) else data))
    else:
        sys.stdout.flush()  # what `print` and typer have buffered comes first
        sys.stdout.buffer.write(data if isinstance(data, bytes) else data.encode("utf-8", "replace"))
    sys.stdout.flush()


def note(text: object) -> None:
    """Write a line for people to stderr; whatever is quoted in it cannot control a terminal or a log."""
    typer.echo(printable(str(text)), err=True)
