"""A TCP server whose every byte is up to the test, and the accept loop that the other servers are built on.

All is bounded: sockets time out after `LIMIT` seconds, waits after `WAIT`, and `close` ends what runs.
"""

from __future__ import annotations

import itertools
import selectors
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

Handler = Callable[[socket.socket, int], None]

LIMIT = 30.0
"""Seconds that one read or write of a socket, or one wait of a handler, may take."""

WAIT = 5.0
"""Seconds that a test waits for a server to see something, before it fails."""


class RawServer:
    """Run `handler(conn, n)` in a thread of its own for each connection; `n` counts from 1.

    A handler may return or lose its connection at any time; its other errors are raised at the `with`'s end.
    """

    def __init__(self, handler: Handler, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._handler = handler
        self._tls = tls
        self._changed = threading.Condition()
        self._open: dict[int, socket.socket] = {}
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self._closing = threading.Event()
        self._numbers = itertools.count(1)
        self.release = threading.Event()
        """Ends every `stall`; set by the test, and by `close`."""
        self.connections = 0
        """How many connections were accepted in all."""
        self.host = host
        self._listener, self.port = _bind(host, 0)
        self.listen()

    @property
    def url(self) -> str:
        """The base URL for a client of the API."""
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}/v1"

    @property
    def open_connections(self) -> int:
        """How many connections neither side has closed yet, as far as the server has seen."""
        return len(self._open)

    # What a test waits for

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Return as soon as `condition()` holds; it is evaluated again at every change the server notices."""
        with self._changed:
            if not self._changed.wait_for(condition, WAIT):
                raise AssertionError(
                    f"waited {WAIT} s for {what}: {self.connections} accepted, {self.open_connections} open"
                )

    def wait_connections(self, n: int) -> None:
        """Wait until at least `n` connections were accepted."""
        self.wait_for(lambda: self.connections >= n, f"{n} connections")

    def wait_closed(self, n: int) -> None:
        """Wait until at least `n` connections were accepted and have ended."""
        self.wait_for(lambda: self.connections - len(self._open) >= n, f"{n} closed connections")

    def wait_open(self, n: int) -> None:
        """Wait until exactly `n` connections are open."""
        self.wait_for(lambda: len(self._open) == n, f"{n} open connections")

    def changed(self) -> None:
        """Make every `wait_for` look again."""
        with self._changed:
            self._changed.notify_all()

    # What a handler does

    def hold(self, conn: socket.socket, event: threading.Event, seconds: float = LIMIT) -> bool:
        """Wait for `event`; False after `seconds`; ConnectionAbortedError when peer or server closes."""
        end = time.monotonic() + seconds
        while not event.wait(min(0.01, max(0.0, end - time.monotonic()))):
            if self._closing.is_set() or _peer_closed(conn):
                raise ConnectionAbortedError("the connection was closed while its handler waited")
            if time.monotonic() >= end:
                return False
        return True

    def stall(self, conn: socket.socket) -> None:
        """Hold the connection open until `release` is set, the peer leaves or the server closes."""
        self.hold(conn, self.release)

    def drip(self, conn: socket.socket, data: bytes = b" ", *, interval: float = 0.02, limit: int = 500) -> int:
        """Send `data` over and over, byte by byte, until `limit`, `release` or the connection's end."""
        for sent, byte in enumerate(itertools.islice(itertools.cycle(data), limit)):
            if self.hold(conn, self.release, interval):
                return sent
            conn.sendall(bytes([byte]))
        return limit

    # Coming and going

    def listen(self) -> None:
        """Accept connections, again if `refuse` was called."""
        self._listener.listen(512)
        self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._acceptor.start()

    def refuse(self) -> None:
        """Drop every connection and refuse new ones, on the same port, until `listen`."""
        self._stop_listening()
        self.drop()
        self._listener, _ = _bind(self.host, self.port)

    def drop(self) -> None:
        """Close all connections from this side, as a server does with idle ones, and wait for their end."""
        with self._changed:
            victims = dict(self._open)
        for conn in victims.values():
            _shutdown(conn)
        self.wait_for(lambda: not (victims.keys() & self._open.keys()), "the dropped connections to end")

    def close(self) -> None:
        """Stop accepting, end every connection and its thread."""
        self._closing.set()
        self.release.set()
        self._stop_listening()
        with self._changed:
            victims, threads = list(self._open.values()), list(self._threads)
        for conn in victims:
            _shutdown(conn)
        for thread in threads:
            thread.join(WAIT)

    def __enter__(self) -> RawServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is None and self._errors:
            raise self._errors[0]

    def _stop_listening(self) -> None:
        _shutdown(self._listener)
        self._acceptor.join(WAIT)
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        listener.settimeout(0.2)  # for systems where a shutdown does not wake accept()
        while not self._closing.is_set():
            try:
                conn, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self._start(conn)

    def _start(self, conn: socket.socket) -> None:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conn.settimeout(LIMIT)
        with self._changed:
            number = next(self._numbers)
            self.connections += 1
            self._open[number] = conn
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            thread = threading.Thread(target=self._run, args=(conn, number), daemon=True)
            thread.start()
            self._threads.append(thread)
            self._changed.notify_all()

    def _run(self, conn: socket.socket, number: int) -> None:
        try:
            with self._secured(conn, number) as conn:
                if isinstance(conn, ssl.SSLSocket):
                    conn.do_handshake()
                self._handler(conn, number)
        except (ConnectionError, TimeoutError, ssl.SSLError):
            pass
        except BaseException as error:
            self._errors.append(error)
        finally:
            with self._changed:
                del self._open[number]
                self._changed.notify_all()

    def _secured(self, conn: socket.socket, number: int) -> socket.socket:
        if self._tls:
            conn = self._tls.wrap_socket(conn, server_side=True, do_handshake_on_connect=False)
        with self._changed:
            self._open[number] = conn
        if self._closing.is_set():
            _shutdown(conn)
        return conn


def read_request(conn: socket.socket) -> bytes:
    """Read one request, head and body; b"" at a clean end, ConnectionAbortedError at a torn one."""
    data = bytearray()
    while b"\r\n\r\n" not in data:
        block = conn.recv(65536)
        if not block and data:
            raise ConnectionAbortedError("the connection ended inside a request's head")
        if not block:
            return b""
        data += block
    total = data.index(b"\r\n\r\n") + 4 + _content_length(bytes(data))
    while len(data) < total:
        block = conn.recv(1 << 20)
        if not block:
            raise ConnectionAbortedError("the connection ended inside a request's body")
        data += block
    return bytes(data)


def reset(conn: socket.socket) -> None:
    """Close at once with RST, not FIN; what the kernel has not sent yet is lost."""
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    conn.close()


def _content_length(data: bytes) -> int:
    head = data[: data.index(b"\r\n\r\n")].decode("latin-1").lower()
    fields = dict(line.partition(":")[::2] for line in head.split("\r\n")[1:])
    if "transfer-encoding" in fields:
        raise ValueError("these servers read bodies with a Content-Length only; this one came chunked")
    return int(fields.get("content-length", "0"))


def _bind(host: str, port: int) -> tuple[socket.socket, int]:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener, int(listener.getsockname()[1])


def _shutdown(conn: socket.socket) -> None:
    """Wake who reads or writes `conn`, without TLS's own goodbye, which another thread must not send."""
    with suppress(OSError):
        socket.socket.shutdown(conn, socket.SHUT_RDWR)


def _peer_closed(conn: socket.socket) -> bool:
    """Look for the peer's end of the connection without taking a byte, under TLS too."""
    with selectors.DefaultSelector() as selector:
        selector.register(conn, selectors.EVENT_READ)
        if not selector.select(0):
            return False
    return not socket.socket.recv(conn, 1, socket.MSG_PEEK)
