"""Running the command: in this process with what it wrote, or as a process of its own."""

from __future__ import annotations

import sys
from typing import Any

from typer.testing import CliRunner

from gpt.cli import app

GPT = [sys.executable, "-m", "gpt"]
"""The start of a command line, for a process of its own."""


def run(*arguments: object, stdin: str | bytes | None = None) -> Any:
    """Run a command in this process; the result has stdout, stderr and exit_code."""
    return CliRunner().invoke(app, [*map(str, arguments)], input=stdin, prog_name="gpt")


def complete(*arguments: object, stdin: str | bytes | None = None) -> Any:
    """Run `gpt complete` with a model."""
    return run("complete", "-m", "m", *arguments, stdin=stdin)


def batch(*arguments: object) -> Any:
    """Run `gpt batch`."""
    return run("batch", *arguments)
