"""`gpt view`: a saved completion as text in colours or as a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .._core import codec
from .._parsing.accumulate import accumulate
from ..models.shared import CreateCompletionResponse
from ..view import to_html, to_text
from ._output import note, write


def view(
    file: Annotated[
        typer.FileBinaryRead,
        typer.Argument(
            metavar="FILE", help="JSON of a completion, of its chunks, or lines of `gpt batch`; '-' is stdin."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="PATH", help="Write an HTML page here; '-' is stdout.")
    ] = None,
) -> None:
    """Show how likely each token of a saved completion was.

    \b
    gpt complete --local --json --logprobs 5 "A class" > completion.json
    gpt view completion.json
    gpt view completion.json -o page.html
    """
    completion = _read(file.read())
    if output is None:
        show(completion)
    elif str(output) == "-":
        write(to_html(completion))
    else:
        output.write_text(to_html(completion), encoding="utf-8")
        note(f"wrote {output}")


def show(completion: CreateCompletionResponse) -> None:
    """Print a completion's tokens to stdout, in colours on a terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    colours = console.is_terminal and not console.no_color
    width = console.width if console.is_terminal else None
    console.print(to_text(completion, width=width, legend=colours), soft_wrap=not console.is_terminal)


def _read(data: bytes) -> CreateCompletionResponse:
    """Read one JSON document, the lines of a stream's chunks, or the lines that `gpt batch` wrote."""
    lines = [line for line in data.splitlines() if line.strip()]
    try:
        if lines and _is_of_batch(lines[0]):
            return _read_batch(lines)
        return CreateCompletionResponse.from_json(data)
    except ValueError as error:
        if len(lines) < 2:
            raise ValueError(f"expected the JSON of a completion: {error}") from None
    try:
        return accumulate(CreateCompletionResponse.from_json(line) for line in lines)
    except ValueError as error:
        raise ValueError(f"expected the JSON of a completion, or a chunk of one on each line: {error}") from None


def _is_of_batch(line: bytes) -> bool:
    try:
        record = codec.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and record.keys() >= {"custom_id", "response", "error"}


def _batch_body(line: bytes) -> Any:
    """Return the body of the response in a line of a batch's output; `None` where there is none."""
    response = codec.loads(line).get("response")
    return response.get("body") if isinstance(response, dict) else None


def _read_batch(lines: list[bytes]) -> CreateCompletionResponse:
    """Return one completion with the choices of all lines, numbered in their order; failed lines have none."""
    bodies = [body for body in map(_batch_body, lines) if isinstance(body, dict) and "choices" in body]
    completions = [CreateCompletionResponse.from_dict(body) for body in bodies]
    choices = [choice for completion in completions for choice in completion.choices]
    if not choices:
        raise ValueError("no line of this batch has a completion")
    return replace(completions[0], choices=[replace(choice, index=n) for n, choice in enumerate(choices)])
