"""Two proxies on loopback: one speaks HTTP and records, one passes TCP on and spoils it on demand."""

from __future__ import annotations

import itertools
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit

from .http_server import Received, parse_request
from .raw_server import LIMIT, RawServer, read_request, reset

Forward = Callable[[bytes], None]


class ForwardProxy:
    """An HTTP proxy: absolute-form requests for http, CONNECT for https.

    with ForwardProxy() as proxy: session.proxies = {"http": proxy.url, "https": proxy.url}
    """

    def __init__(self) -> None:
        self.requests: list[Received] = []
        """The requests it received: `path` is the absolute URL, or host:port for CONNECT; no tunnel's inside."""
        self.tcp = RawServer(self._serve)
        """The accept loop underneath, with its counts and waits."""
        self.url = f"http://{self.tcp.host}:{self.tcp.port}"

    def close(self) -> None:
        """Stop, with every connection."""
        self.tcp.close()

    def __enter__(self) -> ForwardProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tcp.__exit__(kind, error, trace)

    def _serve(self, conn: socket.socket, number: int) -> None:
        data = read_request(conn)
        if not data:
            return
        request = parse_request(data, number)
        self.requests.append(request)
        self.tcp.changed()
        tunnel = request.method == "CONNECT"
        target = urlsplit(f"//{request.path}" if tunnel else request.path)
        try:
            upstream = socket.create_connection((target.hostname, target.port or 80), timeout=LIMIT)
        except OSError:
            conn.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        with upstream:
            if tunnel:
                conn.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                upstream.sendall(_origin_form(data))
            _join(conn, upstream, conn.sendall)


@dataclass(frozen=True)
class Toxic:
    """What a ToxicProxy does to the bytes of the server's responses; counts are per connection."""

    reset_after: int | None = None
    truncate_after: int | None = None
    latency: float = 0.0
    size: int = 65536
    delay: float = 0.0


@dataclass
class _Link:
    """One client's connection through a ToxicProxy, and how much it has passed on under one toxic."""

    conn: socket.socket
    toxic: Toxic
    count: int = 0


class ToxicProxy:
    """Pass TCP on to the server at `target`, a URL, and spoil what comes back for as long as a toxic lasts.

    with ToxicProxy(server.url) as proxy, proxy.reset_after(100): ...  # with a client of proxy.url
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._toxic = Toxic()
        self.tcp = RawServer(self._serve)
        """The accept loop underneath, with its counts and waits."""
        self.url = parts._replace(netloc=f"{self.tcp.host}:{self.tcp.port}").geturl()

    # The toxics, each a context manager; one at a time

    @contextmanager
    def reset_after(self, n_bytes: int) -> Iterator[None]:
        """Pass `n_bytes` of the responses on, then reset the connection."""
        with self._spoiled(Toxic(reset_after=n_bytes)):
            yield

    @contextmanager
    def truncate_after(self, n_bytes: int) -> Iterator[None]:
        """Pass `n_bytes` of the responses on, then close the connection in good order."""
        with self._spoiled(Toxic(truncate_after=n_bytes)):
            yield

    @contextmanager
    def latency(self, seconds: float) -> Iterator[None]:
        """Hold each block of bytes back for `seconds`."""
        with self._spoiled(Toxic(latency=seconds)):
            yield

    @contextmanager
    def slow(self, bytes_per_chunk: int, delay: float) -> Iterator[None]:
        """Pass the responses on in small pieces, with `delay` seconds before each."""
        with self._spoiled(Toxic(size=bytes_per_chunk, delay=delay)):
            yield

    @contextmanager
    def refuse(self) -> Iterator[None]:
        """Drop every connection and refuse new ones."""
        self.tcp.refuse()
        try:
            yield
        finally:
            self.tcp.listen()

    def close(self) -> None:
        """Stop, with every connection."""
        self.tcp.close()

    def __enter__(self) -> ToxicProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tcp.__exit__(kind, error, trace)

    @contextmanager
    def _spoiled(self, toxic: Toxic) -> Iterator[None]:
        self._toxic, before = toxic, self._toxic
        try:
            yield
        finally:
            self._toxic = before

    def _serve(self, conn: socket.socket, number: int) -> None:
        link = _Link(conn, self._toxic)
        with socket.create_connection(self._target, timeout=LIMIT) as upstream:
            _join(conn, upstream, lambda block: self._pass(link, block))

    def _pass(self, link: _Link, block: bytes) -> None:
        if link.toxic is not self._toxic:
            link.toxic, link.count = self._toxic, 0
        self.tcp.release.wait(link.toxic.latency)
        for start in range(0, len(block), link.toxic.size):
            self.tcp.release.wait(link.toxic.delay)
            _send(link, block[start : start + link.toxic.size])


def _send(link: _Link, block: bytes) -> None:
    """Send as much of a block as the toxic lets through, and end the connection where it says."""
    toxic = link.toxic
    end = toxic.truncate_after if toxic.reset_after is None else toxic.reset_after
    block = block if end is None else block[: end - link.count]
    link.conn.sendall(block)
    link.count += len(block)
    if link.count == end:
        raise ConnectionAbortedError if toxic.reset_after is None else ConnectionResetError


def _origin_form(data: bytes) -> bytes:
    """Turn a request to a proxy into one to its server, which then closes the connection after its response."""
    head, gap, body = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    first = re.sub(rb" https?://[^/ ]+/?", b" /", first, count=1)
    kept = [line for line in lines if not re.match(rb"(?i)(proxy-[a-z-]+|connection):", line)]
    return b"\r\n".join([first, *kept, b"Connection: close"]) + gap + body


def _join(client: socket.socket, server: socket.socket, forward: Forward) -> None:
    """Carry bytes both ways until a side ends; the server's go through `forward`, its reset is passed on."""
    up = threading.Thread(target=_carry, args=(client, server), daemon=True)
    up.start()
    ending = socket.SHUT_RDWR
    try:
        for block in _blocks(server):
            forward(block)
    except ConnectionResetError:
        # This sends no FIN but wakes the other thread; while that one reads, close() has no effect.
        ending = socket.SHUT_RD
    except (ConnectionError, TimeoutError):
        pass
    _shutdown(server, socket.SHUT_RDWR)
    _shutdown(client, ending)
    up.join(LIMIT)
    if ending == socket.SHUT_RD:
        reset(client)


def _carry(client: socket.socket, server: socket.socket) -> None:
    with suppress(OSError):
        for block in _blocks(client):
            server.sendall(block)
    _shutdown(server, socket.SHUT_RDWR)


def _blocks(conn: socket.socket) -> Iterator[bytes]:
    return itertools.takewhile(bool, iter(lambda: conn.recv(65536), None))


def _shutdown(conn: socket.socket, how: int) -> None:
    with suppress(OSError):
        conn.shutdown(how)
