"""How every command ends: 0, 1 (the API or the system said no), 2 (usage), 130 (Ctrl-C); never with a traceback."""

from __future__ import annotations

import errno
import io
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from ..models import errors


class Commands(TyperGroup):
    """The group of all commands; it turns what they raise into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            _replace_what_the_terminal_cannot_show()
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except (errors.SDKError, ImportError, RuntimeError) as error:
            if isinstance(error, typer.Exit | typer.Abort):
                raise
            raise _exit(1, error) from None
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            raise _exit(1, _named(error)) from None
        except (TypeError, ValueError) as error:
            raise _exit(2, error) from None


def _named(error: OSError) -> object:
    """Leave the number out, where there is a name."""
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else error


def _exit(code: int, error: object) -> typer.Exit:
    typer.echo(f"gpt: {error}", err=True)
    return typer.Exit(code)


def _replace_what_the_terminal_cannot_show() -> None:
    """Print a question mark for what the output's encoding lacks; an answer is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
