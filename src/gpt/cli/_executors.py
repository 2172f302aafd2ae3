"""Where the requests of a long command are sent from: threads of its own, worker processes, or a Dask cluster."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from ..bulk.chunk import stop_sending

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

    They are spawned, since a fork would copy the locks of the progress bar's threads. Ctrl-C in a terminal goes to all
    its processes; the workers let requests in flight finish and return the others unsent, which this process waits for.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker)
    queue: Any = None
    try:
        with _sigint_blocked():
            for _ in range(processes):  # starts one worker each (3.10), or all with the first
                pool.submit(os.getpid)
            queue = pool._call_queue  # type: ignore[attr-defined]
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in multiprocessing.active_children():
            worker.terminate()
        if queue is not None:
            threading.Thread(target=_drain, args=(queue,), daemon=True).start()
        raise
    pool.shutdown()


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Block Ctrl-C, also in processes that are started meanwhile, which inherit the mask.

    Otherwise it kills a worker that has not reached `_start_worker` yet. On Windows nothing is inherited.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _drain(queue: Any) -> None:
    """Read what a pool has queued for its dead workers, so that this process can exit.

    Otherwise the thread that writes a chunk larger than a pipe waits for a reader for ever, and the interpreter waits
    for that thread at exit: in Python 3.10 and 3.11 (cpython#94777), and after `shutdown(wait=False)` in later ones.
    `_call_queue` and `_reader` are private; `test_batch_ctrl_c_at_any_moment_ends_the_run` fails when they move.
    """
    with contextlib.suppress(OSError, ValueError):  # the pool has closed it
        while os.read(queue._reader.fileno(), 65536):
            pass


def _start_worker() -> None:
    """Prepare a worker: survive Ctrl-C, and exit when the parent process is killed.

    Otherwise a `ProcessPoolExecutor`'s worker waits for ever for work from a dead parent.
    """
    signal.signal(signal.SIGINT, stop_sending)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
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
        raise ImportError("--dask needs distributed: run pip install '.[dask]' in a clone of gpt-sdk") from None
    with Client(address) as cluster:  # type: ignore[no-untyped-call]
        # pure=False: otherwise Dask treats equal requests as one computation, and returns one completion for all.
        yield cluster.get_executor(pure=False)
