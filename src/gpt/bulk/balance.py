"""Which of a run's servers gets the next request, and which of them rest because they cannot be reached."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError

from .._core import url
from ..models import errors
from ..sdk import Gpt

logger = logging.getLogger("gpt.bulk")

_FIRST_REST = 1.0
_LONGEST_REST = 30.0
_PATIENCE = 60.0
"""For how many seconds a run waits while no server can be reached, before requests fail of that."""


class Server:
    """One server of a run, as one process sees it."""

    def __init__(self, client: Gpt) -> None:
        self.client = client
        self.in_flight = 0
        self.accepts_lists: bool | None = None
        """Whether it takes several prompts in one request; `None` until that is known."""

        self.rest = 0.0
        """For how many seconds it rests after its last failure; 0 when it can be reached."""

        self.rests_until = 0.0
        self.probed = False
        """Whether a request is out to see if its rest may end."""


class Servers:
    """Chooses a server for each request: the one with the fewest in flight that does not rest.

    A single server is always chosen, and never rests: then its failures are those of the requests.
    """

    def __init__(self, clients: Sequence[Gpt], clock: Callable[[], float] = time.monotonic) -> None:
        self._servers = [Server(client) for client in clients]
        self._only = self._servers[0] if len(self._servers) == 1 else None
        self._clock = clock
        self._changed = threading.Condition()
        self._unreachable_since: float | None = None
        self._stopped = False

        self.accept_lists = True
        """Whether any server may take several prompts in one request."""

    def mark_lists_refused(self, server: Server, reason: str) -> None:
        """Note that a server's prompts are sent one by one from now on."""
        with self._changed:
            if server.accepts_lists is False:
                return
            server.accepts_lists = False
            self.accept_lists = any(each.accepts_lists is not False for each in self._servers)
        logger.warning("%s %s: prompts are sent one by one from now on", _name(server), reason)

    def acquire(self) -> Server:
        """Choose a server; wait while all of them rest, though not for longer than the run's patience.

        Raises:
            CancelledError: the run was stopped meanwhile.
        """
        if self._only is not None:
            return self._only
        with self._changed:
            while (server := self._choose()) is None:
                self._changed.wait(self._seconds_to_next())
            server.in_flight += 1
            return server

    def release(self, server: Server, error: Exception | None = None) -> bool:
        """Take a server back from a request; return whether its failure is one that another server may not have.

        After a failure to reach it the server rests, each time for longer, until a single request has reached it.
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
            return unreachable and not self._out_of_patience()

    def stop(self) -> None:
        """Turn away everybody who waits for a server."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _choose(self) -> Server | None:
        if self._stopped:
            raise CancelledError("the run was stopped")
        now = self._clock()
        awake = [server for server in self._servers if server.rests_until <= now]
        if not awake and not self._out_of_patience():
            return None
        server = min(awake or self._servers, key=lambda server: server.in_flight)
        if server.rest:  # its rest is over: one request tries it, while all others still wait or go elsewhere
            server.rests_until = now + server.rest
            server.probed = True
        return server

    def _let_rest(self, server: Server) -> None:
        now = self._clock()
        if server.rests_until > now and not server.probed:  # of several requests that fail together one counts
            return
        server.probed = False
        if not server.rest:
            logger.warning("%s cannot be reached; it rests", _name(server))
        server.rest = min(max(2 * server.rest, _FIRST_REST), _LONGEST_REST)
        server.rests_until = now + server.rest
        if self._unreachable_since is None and all(each.rest for each in self._servers):
            self._unreachable_since = now

    def _out_of_patience(self) -> bool:
        since = self._unreachable_since
        return since is not None and self._clock() - since >= _PATIENCE

    def _seconds_to_next(self) -> float:
        soonest = min(server.rests_until for server in self._servers)
        if self._unreachable_since is not None:
            soonest = min(soonest, self._unreachable_since + _PATIENCE)
        return max(0.001, soonest - self._clock())


def _name(server: Server) -> str:
    return url.redact(server.client.sdk_configuration.server_url)


def is_unreachable(error: Exception | None) -> bool:
    """Return whether an error says nothing of the request: there was no connection, or it broke."""
    if isinstance(error, errors.APITimeoutError):
        return error.phase == "connect"
    return isinstance(error, errors.APIConnectionError)
