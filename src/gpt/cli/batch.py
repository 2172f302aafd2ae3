"""`gpt batch`: a file of requests in, a file of answers out."""

from __future__ import annotations

import gzip
import time
from pathlib import Path
from typing import Annotated

import typer

from ..bulk import Summary, run_jsonl
from ._client import LOCAL_MODEL, Local, ServerUrl, open_client
from ._progress import Display, conclude, open_display


def batch(
    input: Annotated[
        str, typer.Argument(metavar="INPUT", help="Requests, one JSON object a line; .gz is unpacked, '-' is stdin.")
    ],
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="Answers, one a line; an existing file is continued.")
    ],
    model: Annotated[str | None, typer.Option("--model", "-m", help="The model for lines that name none.")] = None,
    max_workers: Annotated[
        int, typer.Option("--max-workers", "-w", min=1, help="How many requests run at a time.")
    ] = 16,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Ask failed lines of OUTPUT again.")] = False,
    server_url: ServerUrl = None,
    local: Local = False,
) -> None:
    """Answer every request of a file, and go on where an earlier run ended.

    \b
    gpt batch requests.jsonl answers.jsonl -m my-model
    zcat many.gz | gpt batch - answers.jsonl --server-url http://localhost:8000/v1 -w 256
    gpt batch requests.jsonl answers.jsonl --retry-errors

    INPUT has lines of OpenAI's Batch format (custom_id, method, url, body) or bare request bodies; OUTPUT gets the
    Batch output format. What is in OUTPUT is not asked again, so a run that was killed is simply started again. The
    exit code is 1 when some lines failed.
    """
    if local and model is None:
        model = LOCAL_MODEL
    started = time.monotonic()
    latest = Summary(answered=0, failed=0, resumed=0, prompt_tokens=0, completion_tokens=0)

    def note(summary: Summary) -> None:
        nonlocal latest
        latest = summary
        display.show(summary)

    display: Display
    try:
        with (
            open_client(server_url=server_url, local=local) as s,
            open_display(_count_lines(input)) as display,
        ):
            run_jsonl(s, input, output, model=model, max_workers=max_workers, retry_errors=retry_errors, progress=note)
    except KeyboardInterrupt:
        _conclude(latest, started)
        typer.echo("stopped; run it again to go on", err=True)
        raise
    _conclude(latest, started)
    if latest.failed:
        raise typer.Exit(1)


def _conclude(summary: Summary, started: float) -> None:
    typer.echo(conclude(summary, time.monotonic() - started), err=True)
    if summary.last_error:
        typer.echo(f"the last error: {summary.last_error}", err=True)
    if summary.failed:
        typer.echo("--retry-errors asks failed lines again", err=True)


def _count_lines(input: str) -> int | None:
    """Count the lines that are not blank; unknown for stdin."""
    if not Path(input).is_file():
        return None
    try:
        with gzip.open(input) if input.endswith(".gz") else open(input, "rb") as file:
            return sum(1 for line in file if line.strip())
    except (EOFError, gzip.BadGzipFile):
        return None
