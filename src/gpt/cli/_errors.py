"""How every command ends: 0, 1 (the API, the network or a file failed), 2 (usage error), 130 (Ctrl-C), 141 (closed
pipe); never with a traceback, unless the variable GPT_DEBUG is set.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from ..models import errors
from ._output import note

_PYTHON_OPTION = re.compile(r"\b(timeout|deadline|server_url)=(?=[\s;,)]|$)")
_PYTHON_URL = re.compile(r"\bserver_url='([^']*)'")
_PYTHON_KEY = re.compile(r"security=shared\.Security\([^)]*\), or ")
_PYTHON_ATTRIBUTE = re.compile(r"; [^;]* \.partial")
_PYTHON_EXCEPTION = re.compile(r"\b\w*[Ee]rror: \[Errno -?\d+\] ")


class ErrorHandlingGroup(TyperGroup):
    """The group of all commands; it turns what they raise into one line on stderr and an exit code."""

    def __init__(self, **options: Any) -> None:
        """Make the group. Commands' help is rich's; errors stay plain, so that scripts and logs can read them."""
        super().__init__(**{**options, "rich_markup_mode": None})

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            _use_errors_replace()
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except Exception as error:
            if isinstance(error, typer.Exit | typer.Abort):
                raise
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise _closed_pipe() from None
            if os.environ.get("GPT_DEBUG") or _is_usage_error(error):
                raise
            raise _exit(error) from None
        return result


def _is_usage_error(error: Exception) -> bool:
    """Return whether typer itself reports the error; add advice to an error about an unknown option."""
    if type(error).__name__ == "NoSuchOption" and isinstance(getattr(error, "message", None), str):
        error.message += "; a text that begins with '-' goes after '--'"  # type: ignore[attr-defined]
    return hasattr(error, "exit_code") and hasattr(error, "show")


def _exit(error: Exception) -> typer.Exit:
    if isinstance(error, errors.SDKError):
        note(f"gpt: {for_the_shell(str(error))}")
        return typer.Exit(1)
    if isinstance(error, OSError):
        note(f"gpt: {_with_filename(error)}")
        return typer.Exit(1)
    if isinstance(error, ImportError | RuntimeError):
        note(f"gpt: {error}")
        return typer.Exit(1)
    if isinstance(error, ValueError):
        note(f"gpt: {for_the_shell(str(error))}")
        return typer.Exit(2)
    # A `TypeError` may be a wrong value of --extra or a bug of ours: only the traceback shows which.
    note(f"gpt: {type(error).__name__}: {error} (set GPT_DEBUG=1 to see the traceback)")
    return typer.Exit(2 if isinstance(error, TypeError) else 1)


def _with_filename(error: OSError) -> object:
    """Return the message without the error number if there is a file name."""
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else error


def for_the_shell(message: str) -> str:
    """Replace the names of Python options in the library's messages with those of this command."""
    message = _PYTHON_EXCEPTION.sub("", _PYTHON_KEY.sub("", message))
    message = _PYTHON_URL.sub(r"--server-url \1", message)
    message = _PYTHON_OPTION.sub(lambda found: f"--{found[1].replace('_', '-')}", message)
    return _PYTHON_ATTRIBUTE.sub("", message)


def _closed_pipe() -> typer.Exit:
    """Return the exit of a command whose reader, such as `head`, closed the pipe: 128 + SIGPIPE, without a message."""
    # Otherwise Python tries to flush the remaining output at exit, and reports an error.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return typer.Exit(141)


def _use_errors_replace() -> None:
    """Set `errors="replace"` on stdout and stderr: a terminal that lacks a character shows a question mark."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
