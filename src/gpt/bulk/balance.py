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

_FIRST_REST = 1.0
_LONGEST_REST = 30.0
_PATIENCE = 60.0
"""How many seconds a run waits while no server can be reached, before requests fail."""


class ServerState:
    """One server of a run, as one process sees it."""

    def __init__(self, client: Gpt, throttle: ServerThrottle) -> None:
        self.client = client
        self.throttle = throttle
        self.in_flight = 0
        self.accepts_lists: bool | None = None
        """Whether it takes several prompts in one request; `None` until that is known."""

        self.rest = 0.0
        """How many seconds it is left unused after its last failure; 0 if it can be reached."""

        self.rests_until = 0.0
        self.probed = False
        """Whether a trial request is in flight to see whether it can be reached again."""


class Servers:
    """Chooses a server for each request: of those neither resting nor rate limited, the one with fewest in flight.

    A single server is always chosen and never rests, so its failures become those of the requests.
    """

    def __init__(
        self, servers: Sequence[ServerState], clock: Callable[[], float] = time.monotonic, *, turns_away: bool = False
    ) -> None:
        """Start with servers that can all be reached.

        Args:
            servers: the servers of the run; with several, their throttles reject calls, which then go to another.
            clock: returns the time in seconds.
            turns_away: whether to raise instead of waiting while all servers are rate limited.
        """
        self._servers = servers
        self._turns_away = turns_away
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
        """Choose a server; wait while none is available, but for unreachable ones no longer than `_PATIENCE`.

        Raises:
            CancelledError: the run was stopped, or all servers are rate limited and `turns_away` is set.
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

        After a failure to reach it the server rests, longer each time, until a single request has reached it.
        """
        if self._only is not None:
            return False
        with self._changed:
            server.in_flight -= 1
            unreachable = is_unreachable(error)
            if unreachable:
                self._let_rest(server)
            elif error is None or isinstance(error, errors.SDKError):
                server.rest = server.rests_until = 0.0
                self._unreachable_since = None
            self._changed.notify_all()
            turned_away = isinstance(error, CancelledError) and not self._stopped
            return turned_away or (unreachable and not self._out_of_patience())

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
        open_to_all = [server for server in self._servers if not server.throttle.remaining()]
        if not open_to_all and self._turns_away:
            raise CancelledError("the run is paused")
        awake = [server for server in open_to_all if server.rests_until <= now]
        if not awake and self._out_of_patience():
            awake = open_to_all
        if not awake:
            return None
        server = min(awake, key=lambda server: server.in_flight)
        if server.rest:  # its rest is over: one request tries it, while the others still wait or use another server
            server.rests_until = now + server.rest
            server.probed = True
        return server

    def _let_rest(self, server: ServerState) -> None:
        now = self._clock()
        if server.rests_until > now and not server.probed:  # requests that fail together count once
            return
        server.probed = False
        if not server.rest:
            logger.warning("%s cannot be reached; it rests", server.throttle.name)
        server.rest = min(max(2 * server.rest, _FIRST_REST), _LONGEST_REST)
        server.rests_until = now + server.rest
        if self._unreachable_since is None and all(each.rest for each in self._servers):
            self._unreachable_since = now

    def _out_of_patience(self) -> bool:
        since = self._unreachable_since
        return since is not None and self._clock() - since >= _PATIENCE

    def _seconds_to_next(self) -> float:
        now = self._clock()
        seconds = min(max(server.rests_until - now, server.throttle.remaining()) for server in self._servers)
        if self._unreachable_since is not None and not self._out_of_patience():
            seconds = min(seconds, self._unreachable_since + _PATIENCE - now)
        return max(0.001, seconds)


def is_unreachable(error: Exception | None) -> bool:
    """Return whether an error is unrelated to the request: there was no connection, or it was lost."""
    if isinstance(error, errors.APITimeoutError):
        return error.phase == "connect"
    return isinstance(error, errors.APIConnectionError)
