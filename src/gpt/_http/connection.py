"""Our own connections and pools: deadlines, interim responses, sending in one segment, idle connections without a lock.

All code that overrides private parts of urllib3 (2.x) and http.client (3.10 to 3.14) is in this module; code that
only reads them is in `lease.py`. `tests/_http/test_connection.py` fails when one of them changes.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import queue
import socket
import ssl
import time
from collections import deque
from functools import cache
from typing import Any

from urllib3.connection import HTTPConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError
from urllib3.util import Timeout
from urllib3.util.connection import allowed_gai_family

from .._core.deadline import Deadline
from .failures import PhaseTimeoutError

_MIN_TIMEOUT = 0.001
_MAX_JOINED = 64 * 1024
_SLICE = 256 * 1024
_MAX_INTERIM = 100
_MAX_IDLE_SECONDS = 4.0
"""uvicorn, which most servers run on, closes an idle connection after 5 s; a request must not race with that close."""
_PROBE_SECONDS = 1.0


class DeadlineTimeout(Timeout):
    """A urllib3 timeout that also carries a deadline to our own connections."""

    def __init__(self, deadline: Deadline, connect: float | None, read: float | None) -> None:
        super().__init__(connect=connect, read=read)
        self.deadline = deadline

    def clone(self) -> DeadlineTimeout:
        return DeadlineTimeout(self.deadline, self._connect, self._read)  # type: ignore[arg-type]

    @property
    def connect_timeout(self) -> float:
        return max(_MIN_TIMEOUT, self.deadline.cap(self._connect))  # type: ignore[arg-type]

    @property
    def read_timeout(self) -> float:
        return self.deadline.cap(self._read)  # type: ignore[arg-type]


class DeadlineReader(io.RawIOBase):
    """Read from a socket, limiting each read to the time left until the deadline."""

    def __init__(self, raw: Any, sock: Any, deadline: Deadline | None, head: bytes = b"") -> None:
        """Wrap a socket's own reader; `head` are bytes that were read already."""
        self._raw = raw
        self._head = head
        self._limit = sock.gettimeout()
        self.sock = sock
        self.deadline = deadline
        self.exhausted = False
        """Whether reads from the socket have stopped."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.exhausted:
            return None
        if self._head:
            size = min(len(buffer), len(self._head))
            buffer[:size], self._head = self._head[:size], self._head[size:]
            return size
        if self.deadline is not None:
            if self.deadline.expired:
                raise TimeoutError("the deadline has passed")
            self.sock.settimeout(max(_MIN_TIMEOUT, self.deadline.cap(self._limit)))
        return self._raw.readinto(buffer)  # type: ignore[no-any-return]

    def fileno(self) -> int:
        return self._raw.fileno()  # type: ignore[no-any-return]

    def close(self) -> None:
        try:
            self._raw.close()
        finally:
            super().close()


class ResponseFile(io.BufferedReader):
    """The buffer between a socket and http.client, which remembers whether it was closed with bytes left in it."""

    has_rest = False

    def close(self) -> None:
        if not self.closed:
            reader: Any = self.raw
            reader.exhausted = True  # so that `peek` only looks at what is buffered
            with contextlib.suppress(ValueError):
                self.has_rest = bool(self.peek(1))
        super().close()


class Response(http.client.HTTPResponse):
    """An `http.client` response that skips interim responses and reads with a deadline."""

    def __init__(self, deadline: Deadline | None, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp: Any = ResponseFile(DeadlineReader(self.fp.detach(), sock, deadline))

    def _read_status(self) -> tuple[str, int, str]:
        """Read the status line of the final response (RFC 9110, 15.2).

        http.client's `begin` skips only 100. It takes a 103 for the final response, and the next call on the connection
        then gets this call's response. `begin` and urllib3's `_tunnel` call this method; `_read_headers` is a helper of
        http.client. 101 is final: it ends HTTP on this connection, which is then closed.
        """
        for _ in range(_MAX_INTERIM + 1):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == 101:
                return version, status, reason
            http.client._read_headers(self.fp)  # type: ignore[attr-defined]
        raise http.client.HTTPException(f"more than {_MAX_INTERIM} interim responses and no final one")


class IdleConnections:
    """The idle connections of a pool: an unbounded stack in place of urllib3's `LifoQueue`.

    It has no lock: each change is one atomic operation on a deque, so no thread, signal handler, finalizer or forked
    child ever finds it locked. That can happen with a queue, whose `with` block is Python code and can be interrupted.
    """

    def __init__(self, maxsize: int = 0) -> None:
        self._stack: deque[Any] = deque()
        self._closed = False

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Return the most recently used connection; an old one is closed first, and reconnects when it is used.

        Raises:
            queue.Empty: there is none.
        """
        try:
            connection = self._stack.pop()
        except IndexError:
            raise queue.Empty from None
        if _is_old(connection):
            connection.close()
        return connection

    def put(self, connection: Any, block: bool = True) -> None:
        """Keep a connection, or close it after `close`. `None`, urllib3's placeholder for a free slot, is ignored."""
        if connection is None:
            return
        connection.idle_since = time.monotonic()
        self._stack.append(connection)
        if self._closed:
            self.close()
        self._close_old()

    def _close_old(self) -> None:
        """Close the connections at the bottom that will not be used again; another thread may do the same."""
        with contextlib.suppress(IndexError):
            while _is_old(self._stack[0]):
                connection = self._stack.popleft()
                if not _is_old(connection):
                    self._stack.appendleft(connection)
                    return
                connection.close()

    def close(self) -> None:
        """Close all connections, and those that are put later."""
        self._closed = True
        while self._stack:
            try:
                self._stack.pop().close()
            except IndexError:
                return

    def qsize(self) -> int:
        """Return how many there are."""
        return len(self._stack)

    def empty(self) -> bool:
        """Return whether there are none; vcrpy 8.x calls this on `HTTPConnectionPool.pool`."""
        return not self._stack


def _is_old(connection: Any) -> bool:
    return bool(time.monotonic() - connection.idle_since > _MAX_IDLE_SECONDS)


class _ConnectionMixin:
    """Mixin for urllib3's connections: send in one segment under the read timeout, connect within the deadline."""

    limits: Timeout | None = None
    """The timeouts of the call that uses the connection."""
    deadline: Deadline | None = None
    idle_since = 0.0
    request_sent = False
    """Whether the last request was sent completely; urllib3 reads a response even after a broken pipe."""
    _pending: bytearray | None = None
    _connects_itself = True

    def response_class(self, sock: Any, *args: Any, **kwargs: Any) -> Response:
        return Response(self.deadline, sock, *args, **kwargs)

    def request(self: Any, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        """Send a request; connect first, so that the connect timeout applies to connecting only.

        urllib3 2 sends the head and the body separately, both under the connect timeout.
        """
        connection: Any = self
        if connection.is_closed:
            connection.connect()
        self.request_sent = False
        self.timeout = self._send_timeout()  # urllib3 sets it on the socket
        self._pending = bytearray()
        try:
            super().request(method, url, body, headers, **options)  # type: ignore[misc]
            self._flush()
        except TimeoutError as error:
            raise PhaseTimeoutError(str(error), "send") from error
        finally:
            self._pending = None
        self.request_sent = True

    def send(self: Any, data: Any) -> None:
        """Send, joining small parts: one packet and one system call for a small request instead of two.

        Measured: 495 µs of CPU per small call, 566 µs without. `test_connection` checks it by counting segments.

        Large data is sent in slices, each with the full read timeout or the time left until the deadline: `sendall`
        applies the timeout of a plain socket to the whole transfer, and that of a TLS socket not at all.
        """
        if self._pending is not None and isinstance(data, bytes) and len(data) + len(self._pending) <= _MAX_JOINED:
            self._pending += data
            return
        self._flush()
        if not isinstance(data, bytes) or len(data) <= _SLICE:
            self._send_in_time(data)
            return
        view = memoryview(data)
        for start in range(0, len(data), _SLICE):
            self._send_in_time(view[start : start + _SLICE])

    def _flush(self) -> None:
        if self._pending:
            data, self._pending = bytes(self._pending), bytearray()
            self._send_in_time(data)

    def _send_in_time(self: Any, data: Any) -> None:
        seconds = self._send_timeout()
        if self.sock.gettimeout() != seconds:  # setting it is a system call, which releases the GIL
            self.sock.settimeout(seconds)
        super().send(data)  # type: ignore[misc]

    def _send_timeout(self) -> float | None:
        if self.limits is None:
            return None
        seconds = Timeout.resolve_default_timeout(self.limits.read_timeout)
        return None if seconds is None else max(_MIN_TIMEOUT, seconds)

    def _new_conn(self: Any) -> Any:
        """Open a socket; with a deadline, each address of the host gets only the time that is left."""
        if self.deadline is None or not self._connects_itself:
            return super()._new_conn()  # type: ignore[misc]
        name, error = self._dns_host, None
        try:
            for address in _addresses(name, self.port):
                self._dns_host, self.timeout = address, self.limits.connect_timeout
                try:
                    return self._in_time(super()._new_conn())  # type: ignore[misc]
                except ConnectTimeoutError as failed:
                    error = failed
                    if self.deadline.expired:
                        break
        finally:
            self._dns_host = name
        try:
            raise error or ConnectTimeoutError(self, f"{name} has no address")
        finally:
            del error

    def _tunnel(self: Any) -> None:
        super()._tunnel()  # type: ignore[misc]
        self._in_time(self.sock)

    def _in_time(self, sock: Any) -> Any:
        """Limit the next step of connecting (a proxy's CONNECT, TLS) to the time that is left."""
        if self.deadline is not None and self.limits is not None:
            sock.settimeout(self.limits.connect_timeout)
        return sock

    def connect(self: Any) -> None:
        try:
            super().connect()  # type: ignore[misc]
            return
        except TimeoutError:  # in a handshake; urllib3's ConnectTimeoutError is not a builtin one
            if self.proxy is not None or not self._speaks_plain_http():
                raise
        # Outside of the except block: a timeout in its __context__ would be classified as the cause.
        plain = ssl.SSLError(
            1, "[SSL: WRONG_VERSION_NUMBER] the server responds to a plain request, and not to a handshake"
        )
        plain.reason = "WRONG_VERSION_NUMBER"
        raise plain

    def _speaks_plain_http(self: Any) -> bool:
        """Return whether a port that did not respond to a TLS handshake responds to plain HTTP.

        A plain HTTP server takes the handshake for an unfinished request line and waits for its end, so a wrong
        `https://` would end in an unexplained timeout after all retries.
        """
        seconds = _PROBE_SECONDS if self.deadline is None else min(_PROBE_SECONDS, self.deadline.remaining())
        if seconds <= 0:
            return False
        with contextlib.suppress(OSError, HTTPError), super()._new_conn() as sock:  # type: ignore[misc]
            sock.settimeout(seconds)
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return bool(sock.recv(5) == b"HTTP/")
        return False


def _addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host, or the host itself if the lookup fails, so that urllib3 reports the reason."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, allowed_gai_family(), socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return [host]
    return [f"{a[4][0]}%{a[4][3]}" if len(a[4]) == 4 and a[4][3] else str(a[4][0]) for a in found] or [host]


class _PoolMixin:
    """Mixin for urllib3's pools: pass the timeouts and deadline of a call to the connection that it uses."""

    QueueCls = IdleConnections

    @property
    def ConnectionCls(self) -> Any:
        """The class of this pool's connections. A class set by another library, such as vcrpy, is kept."""
        return _connection_class(super().ConnectionCls)  # type: ignore[misc]

    def urlopen(self, *args: Any, **kwargs: Any) -> Any:
        # `_get_conn` receives only `pool_timeout`, which is unused here, so it carries the timeouts of the call.
        kwargs["pool_timeout"] = kwargs.get("timeout")
        return super().urlopen(*args, **kwargs)  # type: ignore[misc]

    def _get_conn(self, timeout: Any = None) -> Any:
        connection = super()._get_conn()  # type: ignore[misc]
        connection.limits = timeout
        connection.deadline = getattr(timeout, "deadline", None)
        return connection


def use_our_pools(manager: Any) -> None:
    """Make a pool manager create our pools and connections, derived from its own classes (HTTP, TLS, SOCKS)."""
    classes = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: _pool_class(cls) for scheme, cls in classes.items()}


@cache
def _pool_class(pool_class: type[Any]) -> type[Any]:
    return type(pool_class.__name__, (_PoolMixin, pool_class), {})


@cache
def _connection_class(connection_class: type[Any]) -> type[Any]:
    if not connection_class.__module__.startswith("urllib3."):
        return connection_class
    itself = connection_class._new_conn is HTTPConnection._new_conn  # SOCKS has a way of its own
    return type(connection_class.__name__, (_ConnectionMixin, connection_class), {"_connects_itself": itself})
