"""`gpt batch`: a file of requests in, a file of completions out."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ..bulk import Summary, run_jsonl
from ..bulk.batch_format import INVALID_LINE_CODES
from ..models import errors
from ._client import LOCAL_MODEL, Deadline, Header, Local, Retries, ServerUrls, Timeout, Verbose, open_clients
from ._errors import for_the_shell
from ._executors import Dask, MaxFailures, Processes, open_executor
from ._output import note
from ._progress import format_summary, open_display


def batch(
    input: Annotated[
        str, typer.Argument(metavar="INPUT", help="Requests, a JSON object a line; .gz is unpacked, '-' is stdin.")
    ],
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="Completions, one a line; an existing file is continued.")
    ],
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME", help="The model for lines that name none.")
    ] = None,
    text: Annotated[bool, typer.Option("--text", metavar="", help="Each line of INPUT is a prompt, not JSON.")] = False,
    max_tokens: Annotated[
        int | None, typer.Option(min=0, metavar="INTEGER", help="max_tokens of lines that name none.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="temperature of lines that name none.")
    ] = None,
    top_p: Annotated[float | None, typer.Option(metavar="NUMBER", help="top_p of lines that name none.")] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, max=1024, metavar="INTEGER", help="How many prompts a request carries at most.")
    ] = 1,
    max_workers: Annotated[
        int, typer.Option("--max-workers", "-w", min=1, metavar="INTEGER", help="Requests at a time, in each process.")
    ] = 16,
    processes: Processes = None,
    dask: Dask = None,
    max_failures: MaxFailures = 100,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", metavar="", help="Send failed lines of OUTPUT again.")
    ] = False,
    server_url: ServerUrls = None,
    local: Local = False,
    timeout: Timeout = None,
    deadline: Deadline = None,
    retries: Retries = None,
    header: Header = None,
    verbose: Verbose = False,
) -> None:
    """Send every request of a file.

    \b
    gpt batch requests.jsonl completions.jsonl --server-url http://localhost:8000/v1 -m my-model
    zcat many.gz | gpt batch - completions.jsonl --batch-size 32 --processes 0
    gpt batch prompts.txt completions.jsonl --text --max-tokens 64 -m my-model
    gpt batch requests.jsonl completions.jsonl --retry-errors

    INPUT has lines of OpenAI's Batch format (custom_id, method, url, body) or
    bare request bodies, or with --text a prompt on each line; OUTPUT gets the
    Batch output format. What is in OUTPUT is not sent again, so a run that was
    killed or stopped goes on when it is started again. The exit code is 1 when
    some lines failed.
    """
    if local and model is None:
        model = LOCAL_MODEL
    fields = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
    started = time.monotonic()
    latest: Summary | None = None

    def show(summary: Summary) -> None:
        nonlocal latest
        latest = summary
        display.show(summary)

    try:
        with (
            open_clients(
                server_url,
                local=local,
                timeout=timeout,
                deadline=deadline,
                retries=retries,
                header=header,
                verbose=verbose,
            ) as clients,
            open_executor(processes, dask) as executor,
            open_display() as display,
        ):
            latest = run_jsonl(
                clients,
                input,
                output,
                model=model,
                text=text,
                defaults={name: value for name, value in fields.items() if value is not None},
                executor=executor,
                max_workers=max_workers,
                batch_size=batch_size,
                max_failures=max_failures or None,
                retry_errors=retry_errors,
                progress=show,
            )
    except (KeyboardInterrupt, errors.SDKError, OSError):
        if latest is not None:
            _conclude(latest, time.monotonic() - started)
            note("stopped; run it again to go on")
        raise
    _conclude(latest, time.monotonic() - started)
    if latest.failed:
        raise typer.Exit(1)


def _conclude(summary: Summary, seconds: float) -> None:
    note(format_summary(summary, seconds))
    if summary.last_error:
        note(f"the last error: {for_the_shell(summary.last_error)}")
    if summary.errors.keys() - INVALID_LINE_CODES:
        note("--retry-errors sends failed lines again")
    elif summary.errors:
        note("these lines were not sent: correct them in INPUT, then use --retry-errors")
