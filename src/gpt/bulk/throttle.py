"""The place where all workers of a run wait when the server says that one of them came too often."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import requests

from ..hooks import Send
from ..models import errors
from ..utils.retries import server_wait, should_retry_status

logger = logging.getLogger("gpt.bulk")

_SHOULD_RETRY = "x-should-retry"
_HELD = "x-gpt-bulk-held"
_SHORTEST_HOLD = 0.1
_WORTH_A_WORD = 1.0


class Gate:
    """A hook of the run's client: it lets attempts pass, except while the server wants to be left alone.

    A 429 that names its wait closes the gate for everybody in this process and is not retried inside its call, whose
    deadline would run on: the run asks again when the gate is open. Travels to another process as an open gate.
    """

    def __init__(self, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Make an open gate; waits longer than `longest` seconds are not waited for."""
        self._longest = longest
        self._clock = clock
        self._opens = clock()
        self._broken = False
        self._changed = threading.Condition()

    def __call__(self, request: requests.PreparedRequest, send: Send) -> requests.Response:
        self.wait()
        response = send(request)
        if response.status_code == 429:
            self._look_at(response)
        return response

    def _look_at(self, response: requests.Response) -> None:
        seconds = server_wait(response.headers, time.time())
        if not seconds or seconds > self._longest:  # 0 means at once: an ordinary retry
            return
        self.hold(seconds)
        if response.headers.get(_SHOULD_RETRY, "").strip().lower() != "false":
            response.headers[_SHOULD_RETRY] = "false"
            response.headers[_HELD] = str(seconds)

    def hold(self, seconds: float) -> None:
        """Close the gate for at least this many seconds from now."""
        with self._changed:
            opens = self._clock() + max(seconds, _SHORTEST_HOLD)
            if opens > self._opens + _WORTH_A_WORD:
                logger.info("rate limited: everything waits %.1f s", seconds)
            self._opens = max(self._opens, opens)

    def remaining(self) -> float:
        """Give the seconds until the gate opens; 0 when it is open."""
        return max(0.0, self._opens - self._clock())

    def wait(self) -> None:
        """Wait until the gate is open.

        Raises:
            CancelledError: the run was stopped meanwhile.
        """
        if not self._broken and not self.remaining():
            return
        with self._changed:
            while not self._broken and (seconds := self.remaining()):
                self._changed.wait(seconds)
            if self._broken:
                raise CancelledError("the run was stopped")

    def stop(self) -> None:
        """Turn away everybody who waits, or comes."""
        with self._changed:
            self._broken = True
            self._changed.notify_all()

    def __reduce__(self) -> tuple[Any, ...]:
        return Gate, (self._longest,)


def held_for(error: errors.SDKError) -> float | None:
    """Tell for how many seconds the gate was closed because of an error that asking again may mend; unmark it."""
    seconds = error.headers.get(_HELD)
    if seconds is None:
        return None
    for name in (_HELD, _SHOULD_RETRY):
        del error.headers[name]  # type: ignore[attr-defined]
    return float(seconds) if should_retry_status(429, error.headers, error.code, error.type) else None
