"""Choose the server of a run that gets the next request, avoiding those that are unreachable or rate limited."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError

from ..models import errors
from ..sdk import Gpt
from .throttle import ServerThrottle

logger = logging.getLogger("gpt.bulk")

_MIN_COOLDOWN = 1.0
_MAX_COOLDOWN = 30.0
_UNREACHABLE_SECONDS = 60.0
"""For how many seconds no server must have been reached before requests fail instead of waiting."""


class ServerState:
    """One server of a run, as one process sees it."""

    def __init__(self, client: Gpt, throttle: ServerThrottle) -> None:
        self.client = client
        self.throttle = throttle
        self.in_flight = 0
        self.accepts_lists: bool | None = None
        """Whether it takes several prompts in one request; `None` until that is known."""

        self.cooldown = 0.0
        """How many seconds it is left unused after its last failure; 0 if it can be reached."""

        self.cooldown_until = 0.0
        self.probed = False
        """Whether a single request was sent since its last failure to see whether it can be reached again."""


class Servers:
    """Chooses a server for each request: of those neither cooling down nor rate limited, the one with fewest in flight.

    A single server is always chosen, so its failures become those of the requests.
    """

    def __init__(
        self,
        servers: Sequence[ServerState],
        clock: Callable[[], float] = time.monotonic,
        *,
        rejects_when_paused: bool = False,
    ) -> None:
        """Start with servers that can all be reached.

        Args:
            servers: the servers of the run; with several, a paused throttle rejects calls, which go to another.
            clock: returns the time in seconds.
            rejects_when_paused: whether to raise instead of waiting while all servers are rate limited.
        """
        self._servers = servers
        self._rejects_when_paused = rejects_when_paused
        self._only = servers[0] if len(servers) == 1 else None
        self._clock = clock
        self._changed = threading.Condition()
        self._unreachable_since: float | None = None
        self._stopped = False

        self.accept_lists = True
        """Whether any server may take several prompts in one request."""

    def mark_lists_refused(self, server: ServerState, reason: str) -> None:
        """Note that a server's prompts are sent one by one from now on."""
        with self._changed:
            if server.accepts_lists is False:
                return
            server.accepts_lists = False
            self.accept_lists = any(each.accepts_lists is not False for each in self._servers)
        logger.warning("%s %s: prompts are sent one by one from now on", server.throttle.name, reason)

    def pause_remaining(self) -> float:
        """Return the seconds for which all servers are still rate limited, 0 if one of them is not."""
        if self._only is not None:
            return self._only.throttle.remaining()
        return min(server.throttle.remaining() for server in self._servers)

    def acquire(self) -> ServerState:
        """Choose a server; wait while none is available, for unreachable ones at most `_UNREACHABLE_SECONDS`.

        Raises:
            CancelledError: the run was stopped, or all servers are rate limited and `rejects_when_paused` is set.
        """
        if self._only is not None:
            return self._only
        with self._changed:
            while (server := self._choose()) is None:
                self._changed.wait(self._seconds_to_next())
            server.in_flight += 1
            return server

    def release(self, server: ServerState, error: Exception | None = None) -> bool:
        """Release a server after a request; return whether the request should go to another server now.

        After a failure to reach it the server is left unused, longer each time, until a single request has reached it.
        """
        if self._only is not None:
            return False
        with self._changed:
            server.in_flight -= 1
            unreachable = is_unreachable(error)
            if unreachable:
                self._cool_down(server)
            elif error is None or isinstance(error, errors.SDKError):
                server.cooldown = server.cooldown_until = 0.0
                self._unreachable_since = None
            self._changed.notify_all()
            rejected = isinstance(error, CancelledError) and not self._stopped
            return rejected or (unreachable and not self._unreachable_for_long())

    def release_unused(self, server: ServerState) -> None:
        """Release a server to which nothing was sent, which shows nothing about it."""
        if self._only is not None:
            return
        with self._changed:
            server.in_flight -= 1
            if server.cooldown and server.probed:
                server.cooldown_until = self._clock()
            self._changed.notify_all()

    @property
    def stopped(self) -> bool:
        """Whether the run was stopped, so that nothing more is to be sent."""
        return self._stopped

    def close(self) -> None:
        """Close the connections to all servers."""
        for server in self._servers:
            server.client.close()

    def stop(self) -> None:
        """Reject all current and future waits for a server."""
        for server in self._servers:
            server.throttle.stop()
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _choose(self) -> ServerState | None:
        if self._stopped:
            raise CancelledError("the run was stopped")
        now = self._clock()
        unpaused = [server for server in self._servers if not server.throttle.remaining()]
        if not unpaused and self._rejects_when_paused:
            raise CancelledError("the run is paused")
        available = [server for server in unpaused if server.cooldown_until <= now]
        if not available and self._unreachable_for_long():
            available = unpaused
        if not available:
            return None
        server = min(available, key=lambda server: server.in_flight)
        if server.cooldown:  # that is over: one request tries it, while the others still wait or use another server
            server.cooldown_until = now + server.cooldown
            server.probed = True
        return server

    def _cool_down(self, server: ServerState) -> None:
        now = self._clock()
        if server.cooldown_until > now and not server.probed:  # requests that fail together count once
            return
        server.probed = False
        if not server.cooldown:
            logger.warning("%s cannot be reached; it is left unused for a while", server.throttle.name)
        server.cooldown = min(max(2 * server.cooldown, _MIN_COOLDOWN), _MAX_COOLDOWN)
        server.cooldown_until = now + server.cooldown
        if self._unreachable_since is None and all(each.cooldown for each in self._servers):
            self._unreachable_since = now

    def _unreachable_for_long(self) -> bool:
        since = self._unreachable_since
        return since is not None and self._clock() - since >= _UNREACHABLE_SECONDS

    def _seconds_to_next(self) -> float:
        now = self._clock()
        seconds = min(max(server.cooldown_until - now, server.throttle.remaining()) for server in self._servers)
        if self._unreachable_since is not None and not self._unreachable_for_long():
            seconds = min(seconds, self._unreachable_since + _UNREACHABLE_SECONDS - now)
        return max(0.001, seconds)


def is_unreachable(error: Exception | None) -> bool:
    """Return whether an error shows that the server cannot be reached: there was no connection, or it was lost."""
    if isinstance(error, errors.APITimeoutError):
        return error.phase == "connect"
    return isinstance(error, errors.APIConnectionError)
