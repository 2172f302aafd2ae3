"""Time limits for connecting and for each read."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
import requests

from gpt.models import errors
from tests.support.client import COMPLETION, OK, ONCE, create, make, request, silent_server, text
from tests.support.http_server import ScriptedResponse, ScriptedServer, sse_response
from tests.support.raw_server import RawServer, read_request

CHUNK = {"choices": [{"text": "a", "index": 0, "finish_reason": None}]}


@pytest.fixture
def silent() -> Iterator[RawServer]:
    """Yield a server that takes requests and says nothing."""
    with silent_server() as server:
        yield server


@pytest.fixture
def full() -> Iterator[str]:
    """Yield the URL of a server whose backlog is full, so that connecting takes for ever."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        for each in waiting:
            each.close()


@pytest.mark.parametrize("own", [True, False])
def test_timeout_waiting_for_the_response_raises_naming_the_option(silent: RawServer, own: bool) -> None:
    """A server that takes longer than the read timeout is an APITimeoutError that names it and the option."""
    client = None if own else requests.Session()
    with make(silent.url, timeout=(5, 0.1), client=client) as s, pytest.raises(errors.APITimeoutError) as caught:
        create(s)
    assert str(caught.value).startswith(f"reading the response of 127.0.0.1:{silent.port} took too long")
    assert str(caught.value).endswith("see timeout=")
    assert isinstance(caught.value, errors.APIConnectionError)
    assert isinstance(caught.value.__cause__, requests.ReadTimeout)


@pytest.mark.parametrize("own", [True, False])
def test_timeout_while_connecting_raises_saying_so(full: str, own: bool) -> None:
    """A connection that is not made in time is an APITimeoutError that says so."""
    client = None if own else requests.Session()
    s = make(full, timeout=(0.1, 5), client=client, retry_config=ONCE)
    with pytest.raises(errors.APITimeoutError, match=r"connecting to 127\.0\.0\.1:\d+ took too long") as caught:
        create(s)
    assert isinstance(caught.value.__cause__, requests.ConnectTimeout)


def test_timeout_of_a_call_overrides_that_of_the_client(silent: RawServer) -> None:
    """The call's timeout wins over the client's, for that call."""
    with make(silent.url, timeout=30) as s, pytest.raises(errors.APITimeoutError):
        create(s, timeout=0.1)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_timeout_in_a_stalled_body_raises_with_the_status(framing: str, own: bool) -> None:
    """A body that is not continued in time is an APITimeoutError with the response's status, under any framing."""
    head = {"length": b"Content-Length: 9", "chunked": b"Transfer-Encoding: chunked", "close": b"Connection: close"}

    def stop_in_the_body(conn: socket.socket, _: int) -> None:
        read_request(conn)
        conn.sendall(
            b"HTTP/1.1 200 OK\r\n" + head[framing] + b"\r\n\r\n" + (b"1\r\n{\r\n" if framing == "chunked" else b"{")
        )
        server.stall(conn)

    client = None if own else requests.Session()
    with RawServer(stop_in_the_body) as server, make(server.url, timeout=0.1, client=client) as s:
        with pytest.raises(
            errors.APITimeoutError, match=r"reading the rest of the response of .* took too long"
        ) as caught:
            create(s)
        assert caught.value.status_code == 200
        server.wait_closed(1)


@pytest.mark.parametrize("own", [True, False])
def test_timeout_in_a_stalled_stream_raises_with_partial(own: bool) -> None:
    """A silence between events is an APITimeoutError with what had come; the connection is closed."""
    client = None if own else requests.Session()
    with ScriptedServer() as server, make(server.url, timeout=0.1, client=client) as s:
        server.reply(sse_response(CHUNK, threading.Event()))
        with pytest.raises(errors.APITimeoutError) as caught:
            for _ in s.completions.stream_completion(request()):
                pass
        assert caught.value.partial is not None
        assert caught.value.partial.choices[0].text == "a"
        server.wait_closed(1)


def test_timeout_of_a_read_is_reset_by_stream_comments() -> None:
    """Comments that keep a slow stream alive count as progress: the timeout is per read, not in total."""

    def drip(conn: socket.socket, _: int) -> None:
        read_request(conn)
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        server.drip(conn, b":\n", interval=0.02, limit=50)
        conn.sendall(b"data: " + OK.body + b"\n\ndata: [DONE]\n\n")

    with RawServer(drip) as server, make(server.url, timeout=0.6) as s:
        assert s.completions.stream_completion(request()).collect().choices[0].text == " ok"


def test_timeout_in_a_stalled_error_body_raises_the_status_error() -> None:
    """The status is known, so it is raised, with what came of the body."""
    with ScriptedServer() as server, make(server.url, timeout=0.1, retry_config=ONCE) as s:
        server.reply(ScriptedResponse(500, chunks=[b"half of", threading.Event()], framing="chunked"))
        with pytest.raises(errors.InternalServerError, match="half of") as caught:
            create(s)
        assert caught.value.body == "half of"
        server.wait_closed(1)


def test_timeout_of_none_waits_without_limit() -> None:
    """`None` waits for as long as it takes, in whole or in part."""
    with ScriptedServer() as server:
        server.reply(OK)
        for timeout in (None, (None, 5), (5, None)):
            with make(server.url, timeout=timeout) as s:
                assert text(create(s)) == " ok"
        with make(server.url, timeout=5) as s:
            assert text(create(s, timeout=None)) == " ok"


def test_timeout_of_an_earlier_call_does_not_stay_on_the_connection() -> None:
    """A short timeout or deadline of one call does not hang on to the connection for the next."""
    gate = threading.Event()
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK, OK, ScriptedResponse(200, chunks=[OK.body[:5], gate, OK.body[5:]], framing="chunked"))
        create(s, timeout=0.3)
        create(s, deadline=0.3)
        timer = threading.Timer(0.5, gate.set)
        timer.start()
        assert text(create(s, timeout=None)) == " ok"
        timer.join()
        assert server.connections == 1
    assert COMPLETION["choices"]
