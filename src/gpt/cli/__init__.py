"""The command line: one module a command, registered here. Results go to stdout, everything else to stderr."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from ._errors import ErrorHandlingGroup
from .batch import batch
from .complete import complete
from .doctor import doctor
from .score import score_file
from .serve import serve
from .view import view

app = typer.Typer(
    name="gpt",
    cls=ErrorHandlingGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(complete)
app.command()(batch)
app.command("score")(score_file)
app.command()(view)
app.command()(serve)
app.command()(doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gpt-sdk {__version__}")
        raise typer.Exit


@app.callback()
def _gpt(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Text completions from OpenAI, vLLM, llama.cpp and every server that speaks POST /v1/completions.

    The server is --server-url, or OPENAI_BASE_URL, or OpenAI's; the key is
    OPENAI_API_KEY. With --local the completion comes from a tiny model inside
    the package: no key, no network.
    """


__all__ = ["app"]
