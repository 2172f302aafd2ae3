"""Sends packs that are not full while the run's own thread waits for a slow source."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_LINGER = 0.05
"""How many seconds a pack waits for more requests from a slow source."""


class Linger:
    """A context manager for reading from the source, and a thread that calls `flush` periodically meanwhile.

    `flush` is called at no other time, so what it changes needs no other lock.
    """

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.pulling = False
        """Whether the source is being read."""

    def __enter__(self) -> None:
        self.pulling = True

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.pulling = False

    def start(self) -> None:
        """Start the thread, the first time."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="gpt-bulk-linger", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def is_stale(self, since: float) -> bool:
        """Return whether something has waited longer than `_LINGER`."""
        return time.monotonic() - since > _LINGER

    def _watch(self) -> None:
        while not self._ended.wait(_LINGER):
            with self._lock:
                if self.pulling:
                    self._flush()
