"""The deadline: the whole call's time, whatever the server drips.

A server here would go on for far longer than the deadline; a test asserts the error's class and that the server was
abandoned before it had come to its end.
"""

from __future__ import annotations

import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
import requests

import gpt
from gpt.models import errors
from gpt.utils import BackoffStrategy, RetryConfig
from tests.support.client import COMPLETION, OK, QUICK, create, make, request, silent_server, text
from tests.support.http_server import (
    ScriptedResponse,
    ScriptedServer,
    certificate,
    json_response,
    server_context,
    sse_response,
)
from tests.support.proxies import ForwardProxy
from tests.support.raw_server import RawServer, read_request

SECONDS = 0.2
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n"
JSON = HEAD % b"application/json"
EVENTS = HEAD % b"text/event-stream"
CHUNK = {"choices": [{"text": "a", "index": 0, "finish_reason": None}]}
GZIP = b"".join(
    packer.compress(b" ") + packer.flush(zlib.Z_SYNC_FLUSH)
    for packer in [zlib.compressobj(wbits=31)]
    for _ in range(200)
)

DRIPS: dict[str, tuple[bytes, bytes]] = {
    "nothing": (b"", b""),
    "status line": (b"HTTP/1.1 200 ", b"O"),
    "header line": (JSON + b"X-A: ", b"a"),
    "many headers": (JSON, b"X-A: b\r\n"),
    "endless 100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "headers of a 100 Continue": (b"HTTP/1.1 100 Continue\r\n", b"X-A: b\r\n"),
    "body with a length": (JSON + b"Content-Length: 100000\r\n\r\n", b" "),
    "chunked body": (JSON + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "chunk size": (JSON + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "chunk extension": (JSON + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x"),
    "trailers": (JSON + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
    "body to the end": (JSON + b"Connection: close\r\n\r\n", b" "),
    "gzip body": (JSON + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n", GZIP),
    "error body": (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n", b"<"),
    "comments": (EVENTS + b"Connection: close\r\n\r\n", b":\n"),
    "one long event": (EVENTS + b"Connection: close\r\n\r\ndata: ", b"x"),
    "gzip comments": (EVENTS + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n", GZIP),
}


class Dripper:
    """A server that sends a start and then byte after byte, for 20 s if it is let."""

    def __init__(self, start: bytes, drip: bytes, *, tls: bool = False) -> None:
        self.start, self.drip = start, drip
        self.finished: list[int] = []
        self.tcp = RawServer(self._serve, tls=server_context() if tls else None)
        self.url = self.tcp.url

    def _serve(self, conn: socket.socket, number: int) -> None:
        read_request(conn)
        conn.sendall(self.start)
        if self.drip:
            self.tcp.drip(conn, self.drip, interval=0.01, limit=2000)
        else:
            self.tcp.stall(conn)
        self.finished.append(number)


@contextmanager
def dripping(name: str, *, tls: bool = False) -> Iterator[Dripper]:
    """Run a server that drips; at the end it must have been abandoned, once."""
    dripper = Dripper(*DRIPS[name], tls=tls)
    with dripper.tcp:
        yield dripper
        dripper.tcp.wait_closed(1)
        assert dripper.tcp.connections == 1
    assert dripper.finished == []


def late() -> pytest.RaisesExc[errors.APITimeoutError]:
    """Expect the deadline's error."""
    return pytest.raises(errors.APITimeoutError, match="deadline")


def call(s: gpt.Gpt, stream: bool) -> None:
    """Make one call to its end."""
    response = s.completions.create_completion(request(stream=stream))
    if response.completion_stream is not None:
        response.completion_stream.collect()


@pytest.mark.parametrize("name", DRIPS)
def test_deadline_against_a_dripping_server_holds(name: str) -> None:
    """However the server spreads its bytes, the call ends as an APITimeoutError that says so."""
    stream = DRIPS[name][0].startswith(EVENTS)
    with dripping(name) as server, make(server.url, deadline=SECONDS) as s, late() as caught:
        call(s, stream)
    assert re.match(r"the deadline of 0\.2 s passed before 127\.0\.0\.1:\d+ had responded", str(caught.value))


@pytest.mark.parametrize("name", ["nothing", "many headers", "endless 100 Continue", "chunk size", "gzip comments"])
def test_deadline_over_tls_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same over https."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate().cert))
    with dripping(name, tls=True) as server, make(server.url, deadline=2 * SECONDS) as s, late():
        call(s, DRIPS[name][0].startswith(EVENTS))


@pytest.mark.parametrize("name", ["header line", "chunked body", "comments"])
def test_deadline_without_a_read_timeout_holds(name: str) -> None:
    """A deadline alone is enough: `timeout=None` does not take it away."""
    with dripping(name) as server, make(server.url, deadline=SECONDS, timeout=None) as s, late():
        call(s, DRIPS[name][0].startswith(EVENTS))


@pytest.mark.parametrize("name", ["many headers", "body with a length", "comments"])
def test_deadline_through_a_proxy_tunnel_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a CONNECT proxy the deadline holds as well."""
    with ForwardProxy() as proxy, dripping(name, tls=True) as server:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate().cert))
        with make(server.url, deadline=2 * SECONDS) as s, pytest.raises(errors.APITimeoutError, match="deadline"):
            call(s, DRIPS[name][0].startswith(EVENTS))
        assert [sent.method for sent in proxy.requests] == ["CONNECT"]


@pytest.mark.parametrize("drip", [b"", b"X-A: b\r\n"], ids=["nothing", "headers"])
def test_deadline_against_a_dripping_proxy_holds(drip: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that drips its response to CONNECT is abandoned, too."""
    proxy = Dripper(b"HTTP/1.1 200 OK\r\n" if drip else b"", drip)
    with proxy.tcp:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.removesuffix("/v1"))
        with make("https://127.0.0.1:9/v1", deadline=SECONDS) as s, pytest.raises(errors.APITimeoutError):
            create(s)
        proxy.tcp.wait_closed(1)
        assert (proxy.finished, proxy.tcp.connections) == ([], 1)


def test_deadline_during_the_tls_handshake_holds() -> None:
    """A server that accepts and never shakes hands is abandoned."""
    with silent_server(lambda conn: conn.recv(65536)) as server:
        with make(server.url.replace("http:", "https:"), deadline=SECONDS) as s, late():
            create(s)
        server.wait_closed(1)


def test_deadline_across_retries_holds() -> None:
    """Attempts that each fail quickly end with the deadline, however many retries are left."""
    endless = RetryConfig(backoff=BackoffStrategy(20, 20), max_retries=10**6)
    with ScriptedServer() as server, make(server.url, retry_config=endless, deadline=SECONDS) as s:
        server.reply(json_response({"error": "busy"}, 503))
        with pytest.raises((errors.InternalServerError, errors.APITimeoutError)):
            create(s)
        assert 1 < len(server.requests) < 1000


def test_deadline_shorter_than_the_retry_wait_raises_at_once() -> None:
    """When the server asks for a longer wait than is left, its error comes at once, with the wait in it."""
    with ScriptedServer() as server, make(server.url, deadline=30) as s:
        server.reply(json_response({"error": "busy"}, 429, retry_after="60"), OK)
        with pytest.raises(errors.RateLimitError) as caught:
            create(s)
        assert (caught.value.retry_after, len(server.requests)) == (60.0, 1)


def test_deadline_reached_during_a_retry_cuts_it_short() -> None:
    """A retry has only the time that its predecessors left."""

    def fail_then_stall(conn: socket.socket, number: int) -> None:
        read_request(conn)
        if number == 1:
            conn.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        else:
            server.stall(conn)

    with RawServer(fail_then_stall) as server, make(server.url, deadline=SECONDS) as s, late():
        create(s)
        server.wait_closed(2)
        assert server.connections == 2


@pytest.mark.parametrize("own", [True, False])
def test_deadline_between_stream_events_includes_the_consumers_time(own: bool) -> None:
    """Time that the caller spends between two events is time of the call; what had come is in `.partial`."""
    client = None if own else requests.Session()
    with ScriptedServer() as server, make(server.url, deadline=SECONDS, client=client) as s:
        server.reply(sse_response(CHUNK, CHUNK, COMPLETION))
        stream = s.completions.stream_completion(request())
        assert next(stream).choices[0].text == "a"
        time.sleep(SECONDS)
        with pytest.raises(errors.APITimeoutError, match="deadline") as caught:
            next(stream)
        assert caught.value.partial is not None
        assert caught.value.partial.choices[0].text.startswith("a")  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["nothing", "chunked body", "body with a length", "comments"])
def test_deadline_on_a_callers_session_holds_between_reads(name: str) -> None:
    """On a session of the caller's each read is capped and the deadline is looked at between reads."""
    with dripping(name) as server, make(server.url, deadline=SECONDS, client=requests.Session()) as s, late():
        call(s, DRIPS[name][0].startswith(EVENTS))


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("gzip", [False, True])
def test_response_within_the_deadline_is_complete_and_keeps_its_connection(framing: str, gzip: bool) -> None:
    """A call with a deadline that is met is like any other, and gives its connection back."""
    with ScriptedServer() as server, make(server.url, deadline=30) as s:
        response = ScriptedResponse(200, [("content-type", "application/json")], OK.body, framing, gzip=gzip)  # type: ignore[arg-type]
        server.reply(response)
        for _ in range(3):
            assert text(create(s)) == " ok"
        assert text(create(s, deadline=None)) == " ok"
        assert server.connections == (4 if framing == "close" else 1)


def test_stream_within_the_deadline_is_complete_and_keeps_its_connection() -> None:
    """Five streams with a deadline take one connection, and the next call without one works on it."""
    with ScriptedServer() as server, make(server.url, deadline=30) as s:
        server.reply(*[sse_response(CHUNK, COMPLETION)] * 5, OK)
        for _ in range(5):
            assert s.completions.stream_completion(request()).collect().choices[0].text == "a ok"
        assert text(create(s, deadline=None)) == " ok"
        assert server.connections == 1


def test_deadline_of_a_call_overrides_that_of_the_client() -> None:
    """The call's deadline wins, `None` takes the client's away."""
    with dripping("nothing") as server, make(server.url) as s, pytest.raises(errors.APITimeoutError, match="deadline"):
        create(s, deadline=SECONDS)
    with ScriptedServer() as responding, make(responding.url, deadline=1e-9, retry_config=QUICK) as s:
        responding.reply(OK)
        with pytest.raises(errors.APITimeoutError, match="deadline of 1e-09 s"):
            create(s)
        assert text(create(s, deadline=None)) == " ok"


def test_deadline_starts_no_thread_or_timer() -> None:
    """A deadline costs no thread: none starts, even while calls run."""
    names: list[set[str]] = []
    before = threading.enumerate()

    def look(prepared: requests.PreparedRequest, send: Callable[..., requests.Response]) -> requests.Response:
        response = send(prepared)
        names.append({thread.name for thread in threading.enumerate() if thread not in before})
        return response

    with ExitStack() as stack:
        server = stack.enter_context(ScriptedServer())
        s = stack.enter_context(make(server.url, deadline=30, hooks=[look]))
        server.reply(OK)
        create(s)
        create(s)
    assert all("_serve" in name or "_accept" in name or "_run" in name for name in set().union(*names))
