"""The throttle that pauses a run's calls to one server when that server asks for a pause."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError

logger = logging.getLogger("gpt.bulk")

_SHORTEST_PAUSE = 0.1
_WORTH_LOGGING = 1.0


class ServerThrottle:
    """Pauses attempts to one server; the transport waits here before each attempt, outside the call's time limits.

    A 429 with a requested wait pauses all calls to that server. The call ends, and the run sends the request again
    later.
    """

    def __init__(
        self,
        max_wait: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        rejects_when_paused: bool = False,
        name: str = "the server",
    ) -> None:
        """Make a throttle that is not paused.

        Args:
            max_wait: after a request for a longer wait, in seconds, nothing is paused and the call decides by itself.
            clock: returns the time in seconds.
            rejects_when_paused: whether a call that would have to wait is rejected, so that its sender can react.
            name: the name of the server, for the log.
        """
        self._max_wait = max_wait
        self._rejects_when_paused = rejects_when_paused
        self._clock = clock
        self.name = name
        self._paused_until = 0.0  # never paused
        self._stopped = False
        self._changed = threading.Condition()

    def pause_for_rate_limit(self, seconds: float) -> bool:
        """Pause all calls for the wait that a 429 requests; do nothing and return `False` if it is above `max_wait`."""
        if seconds > self._max_wait:
            return False
        self.pause(seconds)
        return True

    def pause(self, seconds: float) -> None:
        """Pause all calls for at least this many seconds from now."""
        with self._changed:
            now = self._clock()
            paused_until = now + max(seconds, _SHORTEST_PAUSE)
            if paused_until > max(self._paused_until, now) + _WORTH_LOGGING:
                logger.info("rate limited by %s: nothing is sent there for %.1f s", self.name, seconds)
            self._paused_until = max(self._paused_until, paused_until)

    def remaining(self) -> float:
        """Return the seconds until the pause ends, 0 if there is none."""
        return max(0.0, self._paused_until - self._clock()) if self._paused_until else 0.0

    def wait(self) -> None:
        """Wait until the pause ends.

        Raises:
            CancelledError: the run was stopped meanwhile, or this throttle rejects calls that would wait.
        """
        if not self._stopped and not self.remaining():
            return
        if self._rejects_when_paused:
            raise CancelledError("the run is paused")
        with self._changed:
            while not self._stopped and (seconds := self.remaining()):
                self._changed.wait(seconds)
            if self._stopped:
                raise CancelledError("the run was stopped")

    @property
    def stopped(self) -> bool:
        """Whether the run was stopped, so that nothing more is to be sent."""
        return self._stopped

    def stop(self) -> None:
        """Reject all current and future waits."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
