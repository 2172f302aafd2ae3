"""A real keep-alive HTTP/1.1 server, with TLS if wanted, that gives scripted responses and keeps each request.

A response's bytes are what the test wrote: no header is added but the framing, and nothing is buffered.
"""

from __future__ import annotations

import atexit
import json
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from http.client import responses
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from .raw_server import RawServer, read_request, reset

if TYPE_CHECKING:
    from typing_extensions import Self

Headers = Mapping[str, str] | Sequence[tuple[str, str]]
Framing = Literal["length", "chunked", "close"]
Piece = bytes | threading.Event


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    method: str
    path: str
    """The target as sent, with its query."""
    headers: list[tuple[str, str]]
    body: bytes
    connection: int
    """The number of the TCP connection it came on, from 1."""

    def header(self, name: str) -> str | None:
        """Return the first value of a header, whatever its case."""
        return next(iter(self.header_all(name)), None)

    def header_all(self, name: str) -> list[str]:
        """Return every value of a header, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def json(self) -> Any:
        """Decode the body; Any, for a test asks it for whatever it has sent."""
        return json.loads(self.body)


@dataclass(frozen=True)
class ScriptedResponse:
    """What the server sends back; `chunks`, if any, take the place of `body`."""

    status: int = 200
    headers: Headers = ()
    body: bytes = b""
    framing: Framing = "length"
    """Content-Length, chunked, or the end of the connection; a header of that name in `headers` wins."""
    chunks: Iterable[Piece] = ()
    """Each bytes goes out as one chunk in one write; an Event is a gate: what follows waits until it is set.
    A generator serves one request only, and "length" reads it in advance; return it from `respond_with`."""
    gzip: bool = False
    """Compress, with a sync flush after each chunk, so that each can be read on arrival."""
    cut: bool | Literal["fin"] = False
    """End the connection too early, after the chunks: True resets it, "fin" closes it in good order.
    The body is then one byte short of its Content-Length, or lacks the last chunk. Elsewhere than on Linux
    a reset may overtake the bytes before it: put a gate between."""


class ScriptedServer:
    """Respond to each request with the next scripted response; the last one repeats.

    with ScriptedServer() as server:
        server.reply(json_answer({"error": "busy"}, 503, retry_after="1"), json_answer({"choices": []}))
    """

    def __init__(self, *, tls: bool = False) -> None:
        self.ca_file = str(certificate().cert) if tls else ""
        """The certificate to trust, of a TLS server."""
        self.requests: list[Received] = []
        """Every request, in the order in which they were read to their end."""
        self._lock = threading.Lock()
        self._script: list[ScriptedResponse] = []
        self._next = 0
        self._respond: Callable[[Received], ScriptedResponse] = self._scripted
        self.tcp = RawServer(self._serve, tls=server_context() if tls else None)
        """The accept loop underneath, for `release`, `refuse` and the other waits."""
        self.url = self.tcp.url
        self.port = self.tcp.port

    def reply(self, *responses: ScriptedResponse) -> None:
        """Queue responses behind those not sent yet; the last one repeats until more are queued."""
        with self._lock:
            self._next = min(self._next, len(self._script))
            self._script += responses
            self._respond = self._scripted

    def respond_with(self, response: Callable[[Received], ScriptedResponse]) -> None:
        """Let a function respond to every request from now on; it runs in the connection's thread."""
        self._respond = response

    @property
    def connections(self) -> int:
        """How many connections were accepted in all."""
        return self.tcp.connections

    @property
    def open_connections(self) -> int:
        """How many connections are open, as far as the server has seen."""
        return self.tcp.open_connections

    def wait_requests(self, n: int) -> None:
        """Wait until at least `n` requests have come."""
        self.tcp.wait_for(lambda: len(self.requests) >= n, f"{n} requests, {len(self.requests)} came")

    def wait_closed(self, n: int) -> None:
        """Wait until at least `n` connections have ended."""
        self.tcp.wait_closed(n)

    def wait_open(self, n: int) -> None:
        """Wait until exactly `n` connections are open."""
        self.tcp.wait_open(n)

    def drop(self) -> None:
        """Close the open connections, as a server does with idle ones."""
        self.tcp.drop()

    def close(self) -> None:
        """Stop, with everything that still runs."""
        self.tcp.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tcp.__exit__(kind, error, trace)

    def _scripted(self, request: Received) -> ScriptedResponse:
        with self._lock:
            if not self._script:
                raise LookupError(f"no response was scripted for {request.method} {request.path}: call server.reply()")
            response = self._script[min(self._next, len(self._script) - 1)]
            self._next += 1
            return response

    def _serve(self, conn: socket.socket, number: int) -> None:
        while data := read_request(conn):
            request = parse_request(data, number)
            self.requests.append(request)
            self.tcp.changed()
            response = self._respond(request)
            leaving = (request.header("connection") or "").lower() == "close"
            if self._send(conn, response, leaving) or leaving:
                return

    def _send(self, conn: socket.socket, response: ScriptedResponse, leaving: bool) -> bool:
        """Send a response; tell whether the connection has ended with it."""
        for piece in render(response, leaving):
            if isinstance(piece, threading.Event):
                self._pass(conn, piece)
            else:
                conn.sendall(piece)
        if response.cut is True:
            reset(conn)
        ends = response.framing == "close" or ("connection", "close") in _lower(response.headers)
        return ends or bool(response.cut)

    def _pass(self, conn: socket.socket, gate: threading.Event) -> None:
        if not self.tcp.hold(conn, gate):
            raise AssertionError("a gate of a response was never set")


def parse_request(data: bytes, connection: int) -> Received:
    """Read a request's bytes, head and body."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return Received(method, path, headers, body, connection)


def render(response: ScriptedResponse, leaving: bool = False) -> Iterator[Piece]:
    """Yield the writes that make a response, one by one, with its gates among them."""
    chunked = response.framing == "chunked"
    pieces: Iterable[Piece] = response.chunks or ((response.body,) if response.body else ())
    pieces = _compressed(pieces, finish=not response.cut) if response.gzip else pieces
    if response.framing == "length":
        pieces = list(pieces)
    length = sum(len(piece) for piece in pieces if isinstance(piece, bytes)) if isinstance(pieces, list) else 0
    head = _head(response, length + bool(response.cut), leaving)
    if response.framing == "length" and not response.chunks:
        yield b"".join([head, *(piece for piece in pieces if isinstance(piece, bytes))])
        return
    yield head
    for piece in pieces:
        if isinstance(piece, bytes) and chunked:
            piece = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""  # an empty chunk would be the last one
        yield piece
    if chunked and not response.cut:
        yield b"0\r\n\r\n"


def _head(response: ScriptedResponse, length: int, leaving: bool) -> bytes:
    headers = _pairs(response.headers)
    present = {name for name, _ in _lower(headers)}
    ours = {"length": ("Content-Length", str(length)), "chunked": ("Transfer-Encoding", "chunked")}
    framing = [ours[response.framing]] if response.framing in ours and response.status not in (204, 304) else []
    if leaving or response.framing == "close":
        framing.append(("Connection", "close"))
    if response.gzip:
        framing.append(("Content-Encoding", "gzip"))
    headers += [(name, value) for name, value in framing if name.lower() not in present]
    lines = [
        f"HTTP/1.1 {response.status} {responses.get(response.status, 'Odd')}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _pairs(headers: Headers) -> list[tuple[str, str]]:
    return list(headers.items() if isinstance(headers, Mapping) else headers)


def _lower(headers: Headers) -> list[tuple[str, str]]:
    return [(name.lower(), value.lower()) for name, value in _pairs(headers)]


def _compressed(pieces: Iterable[Piece], finish: bool) -> Iterator[Piece]:
    packer = zlib.compressobj(wbits=31)
    for piece in pieces:
        if isinstance(piece, bytes):
            yield packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)
        else:
            yield piece
    if finish:
        yield packer.flush()


# Responses in one line


def json_response(
    value: object,
    status: int = 200,
    *,
    headers: Headers = (),
    cut: bool | Literal["fin"] = False,
    **more: str,
) -> ScriptedResponse:
    """Respond with a value as JSON, or bytes as they are; `retry_after="1"` is a header `retry-after: 1`."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return ScriptedResponse(status, _typed("application/json", headers, more), body, cut=cut)


def sse_response(
    *events: Piece | Mapping[str, Any],
    done: bool | None = None,
    framing: Framing = "chunked",
    status: int = 200,
    gzip: bool = False,
    cut: bool | Literal["fin"] = False,
    headers: Headers = (),
    **more: str,
) -> ScriptedResponse:
    """Respond with a stream: bytes go as they are, mappings as `data:` events, Events are gates.

    `done` adds `data: [DONE]`; unsaid, a stream that is not cut has it.
    """
    last = (b"data: [DONE]\n\n",) if (not cut if done is None else done) else ()
    chunks = [_event(event) for event in events]
    content_type = "text/event-stream; charset=utf-8"
    return ScriptedResponse(status, _typed(content_type, headers, more), b"", framing, (*chunks, *last), gzip, cut)


def _event(event: Piece | Mapping[str, Any]) -> Piece:
    if isinstance(event, Mapping):
        return b"data: %b\n\n" % json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
    return event


def _typed(content_type: str, headers: Headers, more: Mapping[str, str]) -> list[tuple[str, str]]:
    pairs = [*_pairs(headers), *((name.replace("_", "-"), value) for name, value in more.items())]
    if any(name == "content-type" for name, _ in _lower(pairs)):
        return pairs
    return [("content-type", content_type), *pairs]


# TLS


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate for 127.0.0.1 and localhost, and its key; gone when the process ends."""

    cert: Path
    key: Path


@cache
def certificate() -> Certificate:
    """Make the process's certificate, once, with the `openssl` program; it passes strict checks too."""
    folder = Path(tempfile.mkdtemp(prefix="gpt-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    (folder / "openssl.cnf").write_text(_OPENSSL_CONFIG)
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -config openssl.cnf -keyout key.pem -out cert.pem"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True, timeout=60)
    return made


def server_context() -> ssl.SSLContext:
    """Make the TLS context of a server with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate().cert, certificate().key)
    return context


_OPENSSL_CONFIG = """\
[req]
distinguished_name = name
x509_extensions = ext
prompt = no
[name]
CN = gpt tests
[ext]
basicConstraints = critical, CA:TRUE
keyUsage = critical, digitalSignature, keyEncipherment, keyCertSign
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = IP:127.0.0.1, DNS:localhost
"""
