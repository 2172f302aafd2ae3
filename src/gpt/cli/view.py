"""`gpt view`: a saved answer as text in colours or as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._parsing.accumulate import accumulate
from ..models.shared import CreateCompletionResponse
from ..view import to_html, to_text


def view(
    answer: Annotated[
        typer.FileBinaryRead, typer.Argument(help="The JSON of an answer, or of its chunks; '-' is stdin.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write an HTML page here instead of text to stdout.")
    ] = None,
) -> None:
    """Show how sure the model was of each token of a saved answer, and what else it might have chosen.

    \b
    gpt complete --local --json --logprobs 5 "A class" > answer.json
    gpt view answer.json
    gpt view answer.json -o page.html
    """
    completion = _read(answer.read())
    if output is None:
        show(completion)
    else:
        output.write_text(to_html(completion), encoding="utf-8")
        typer.echo(f"wrote {output}", err=True)


def show(completion: CreateCompletionResponse) -> None:
    """Print an answer's tokens to stdout, in colours on a terminal."""
    from rich.console import Console

    Console(highlight=False).print(to_text(completion), soft_wrap=True)


def _read(data: bytes) -> CreateCompletionResponse:
    """Read one JSON document, or the lines of a stream's chunks."""
    try:
        return CreateCompletionResponse.from_json(data)
    except ValueError as error:
        lines = [line for line in data.splitlines() if line.strip()]
        if len(lines) < 2:
            raise ValueError(f"expected the JSON of an answer: {error}") from None
    try:
        return accumulate(CreateCompletionResponse.from_json(line) for line in lines)
    except ValueError as error:
        raise ValueError(f"expected the JSON of an answer, or a chunk of one on each line: {error}") from None
