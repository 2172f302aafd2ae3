"""Threads that never keep a program from ending; otherwise a plain `concurrent.futures` executor."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

_Task = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Threads(Executor):
    """An executor with daemon threads: after Ctrl-C, the exit does not wait minutes for a response in flight."""

    def __init__(self, max_workers: int) -> None:
        self._max_workers = max_workers
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a call and return its future; may be called from any thread."""
        future: Future[Any] = Future()
        self._tasks.put((future, fn, args, kwargs))
        if len(self._threads) < self._max_workers:
            self._start_one()
        return future

    def _start_one(self) -> None:
        with self._starting:
            if len(self._threads) < self._max_workers:
                thread = threading.Thread(target=_work, args=(self._tasks,), name="gpt-bulk", daemon=True)
                self._threads.append(thread)
                thread.start()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads once the queue is empty; with `wait`, until they have ended."""
        for _ in self._threads:
            self._tasks.put(None)
        if wait:
            for thread in self._threads:
                thread.join()


def _work(tasks: queue.SimpleQueue[_Task | None]) -> None:
    while (task := tasks.get()) is not None:
        future, fn, args, kwargs = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)
        del task, future, fn, args, kwargs  # an idle thread must not keep a response alive
