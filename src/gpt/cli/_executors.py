"""Where the requests of a long command are sent from: threads of its own, worker processes, or a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Annotated

import typer

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
MaxFailures = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="INTEGER",
        help="Stop after so many failures in a row that are the server's: no connection, 401, 403, 404, 429, 5xx."
        " 0 is never.",
    ),
]


@contextmanager
def open_executor(processes: int | None, dask: str | None) -> Iterator[Executor | None]:
    """Yield the executor that the options name; `None` for threads of this process."""
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
    with _ignored_sigint():
        for _ in range(processes):  # each starts a worker, as none is idle yet
            pool.submit(int)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    pool.shutdown()


@contextmanager
def _ignored_sigint() -> Iterator[None]:
    """Ignore Ctrl-C, and let processes that are started inherit that: one that is still importing would die of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


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
        raise ImportError("--dask needs distributed: pip install -e '.[dask]' in a clone of the project") from None
    with Client(address) as cluster:  # type: ignore[no-untyped-call]
        # pure=False: Dask would take equal requests for one computation, and give them one completion.
        yield cluster.get_executor(pure=False)
