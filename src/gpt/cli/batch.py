"""`gpt batch`: a file of requests in, a file of completions out."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Annotated

import typer

from ..bulk import Summary, run_jsonl
from ..bulk.batch_format import INVALID_LINE_CODES
from ..models import errors
from ._client import LOCAL_MODEL, Deadline, Header, Local, Retries, Timeout, Verbose, open_client
from ._progress import format_summary, open_display

Processes = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="INTEGER",
        help="Spread the work over this many processes; 0 is one for each core. Keys: as --dask.",
    ),
]
Dask = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Spread the work over a Dask cluster, such as tcp://scheduler:8786. Workers take OPENAI_API_KEY from their"
        " own environment.",
    ),
]


def batch(
    input: Annotated[
        str, typer.Argument(metavar="INPUT", help="Requests, one JSON object a line; .gz is unpacked, '-' is stdin.")
    ],
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="Completions, one a line; an existing file is continued.")
    ],
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME", help="The model for lines that name none.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, max=1024, metavar="INTEGER", help="How many prompts a request carries at most.")
    ] = 1,
    max_workers: Annotated[
        int, typer.Option("--max-workers", "-w", min=1, metavar="INTEGER", help="Requests at a time, in each process.")
    ] = 16,
    processes: Processes = None,
    dask: Dask = None,
    max_failures: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="INTEGER",
            help="Stop after so many failures in a row that are the server's: no connection, 401, 403, 404, 429, 5xx."
            " 0 is never.",
        ),
    ] = 100,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Send failed lines of OUTPUT again.")] = False,
    server_url: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Base URL, such as http://localhost:8000/v1; may be repeated, for several servers."
            " (default: OPENAI_BASE_URL, or OpenAI's)",
        ),
    ] = None,
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
    gpt batch requests.jsonl completions.jsonl --retry-errors

    INPUT has lines of OpenAI's Batch format (custom_id, method, url, body) or bare request bodies; OUTPUT gets the
    Batch output format. What is in OUTPUT is not sent again, so a run that was killed or stopped goes on when it is
    started again. The exit code is 1 when some lines failed.
    """
    if local and model is None:
        model = LOCAL_MODEL
    started = time.monotonic()
    latest: Summary | None = None

    def note(summary: Summary) -> None:
        nonlocal latest
        latest = summary
        display.show(summary)

    try:
        with ExitStack() as stack:
            clients = [
                stack.enter_context(
                    open_client(
                        server_url=url,
                        local=local,
                        timeout=timeout,
                        deadline=deadline,
                        retries=retries,
                        header=header,
                        verbose=verbose and number == 0,
                    )
                )
                for number, url in enumerate(server_url or [None])
            ]
            executor = stack.enter_context(_open_executor(processes, dask))
            display = stack.enter_context(open_display())
            latest = run_jsonl(
                clients,
                input,
                output,
                model=model,
                executor=executor,
                max_workers=max_workers,
                batch_size=batch_size,
                max_failures=max_failures or None,
                retry_errors=retry_errors,
                progress=note,
            )
    except (KeyboardInterrupt, errors.SDKError, OSError):
        if latest is not None:
            _conclude(latest, time.monotonic() - started)
            typer.echo("stopped; run it again to go on", err=True)
        raise
    _conclude(latest, time.monotonic() - started)
    if latest.failed:
        raise typer.Exit(1)


def _conclude(summary: Summary, seconds: float) -> None:
    typer.echo(format_summary(summary, seconds), err=True)
    if summary.last_error:
        typer.echo(f"the last error: {summary.last_error}", err=True)
    if summary.errors.keys() - INVALID_LINE_CODES:
        typer.echo("--retry-errors sends failed lines again", err=True)
    elif summary.errors:
        typer.echo("these lines were not sent: correct them in INPUT, then use --retry-errors", err=True)


@contextmanager
def _open_executor(processes: int | None, dask: str | None) -> Iterator[Executor | None]:
    if processes is not None and dask is not None:
        raise typer.BadParameter("--processes and --dask exclude each other")
    if dask is not None:
        with _open_cluster(dask) as executor:
            yield executor
    elif processes is not None:
        with _open_pool(processes or os.cpu_count() or 1) as executor:
            yield executor
    else:
        yield None


@contextmanager
def _open_pool(processes: int) -> Iterator[Executor]:
    """Yield worker processes; a second Ctrl-C, or any other exception, does not wait for what they are doing.

    They are spawned: a fork would copy the threads' locks of the progress bar. Ctrl-C on a terminal goes to all
    processes of it; the workers leave it to this one, which lets requests in flight finish.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    pool.shutdown()


def _start_worker() -> None:
    """Prepare a worker: Ctrl-C is not for it, and when this process is killed it ends, too.

    A `ProcessPoolExecutor`'s worker otherwise waits for ever for work from a parent that is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _open_cluster(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise ImportError("--dask needs distributed: pip install 'gpt-sdk[dask]'") from None
    with Client(address) as cluster:  # type: ignore[no-untyped-call]
        # pure=False: Dask would take equal requests for one computation, and give them one completion.
        yield cluster.get_executor(pure=False)
