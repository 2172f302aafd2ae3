"""Submit tasks to Dask so that the end of every task is reported. Dask is not imported here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any


def client_of(executor: Any) -> Any:
    """Return the client behind the executor of `Client.get_executor`, `None` for executors of other kinds."""
    client = getattr(executor, "_client", None)
    return client if hasattr(client, "nthreads") and hasattr(executor, "_kwargs") else None


def submit(executor: Any, fn: Callable[..., Any], *args: object) -> Future[Any]:
    """Submit a task as Dask's `ClientExecutor.submit` does (distributed 2026.1 and later), but lose no failure.

    Dask's own future never completes if a task has finished, its worker dies before the result is fetched, and the
    task fails when it is recomputed: that exception is raised inside Dask's event loop and not passed on.
    `_client` and `_kwargs` are private. Without this, the test of a request that kills its workers (`test_dask`)
    hangs occasionally.
    """
    task = client_of(executor).submit(fn, *args, **executor._kwargs)
    future: Future[Any] = Future()
    future.add_done_callback(lambda done: task.cancel() if done.cancelled() else None)
    task.add_done_callback(lambda done: _pass_on(done, future))  # in a thread of Dask's own
    return future


def _pass_on(task: Any, future: Future[Any]) -> None:
    try:
        result, error = task.result(), None
    except CancelledError:  # distributed's is derived from it
        future.cancel()
        future.set_running_or_notify_cancel()
        return
    except BaseException as failed:
        result, error = None, failed
    if not future.set_running_or_notify_cancel():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
