"""Responses that try to hurt: each ends in a typed error, at once, in bounded memory."""

from __future__ import annotations

import json
import socket
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache

import pytest
import requests

import gpt
from gpt.models import errors
from tests.support.client import COMPLETION, OK, ONCE, create, make, request, text
from tests.support.http_server import ScriptedResponse, ScriptedServer, json_response, sse_response
from tests.support.raw_server import RawServer, read_request

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CLOSE = b"Connection: close\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
MEGABYTE = 1 << 20
LIMIT = 4 * MEGABYTE
BOUND = 8 * LIMIT
"""How much memory one call may take on the way to an error, with a response limit of `LIMIT`."""


@contextmanager
def sending(*pieces: bytes, repeat: int = 1, then: bytes = b"") -> Iterator[RawServer]:
    """Run a server that responds with a head, `pieces` over and over, and an end, as long as the client listens."""

    def serve(conn: socket.socket, _: int) -> None:
        read_request(conn)
        head, *rest = pieces
        conn.sendall(head)
        for _ in range(repeat):
            for piece in rest:
                conn.sendall(piece)
        conn.sendall(then)

    with RawServer(serve) as server:
        yield server


def call(s: gpt.Gpt, stream: bool = False) -> None:
    """Make one call to its end."""
    response = s.completions.create_completion(request(stream=stream), retries=ONCE, timeout=5)
    if response.completion_stream is not None:
        response.completion_stream.collect()


def peak_of(do: Callable[[], object]) -> int:
    """Return the most memory that something took, in bytes."""
    tracemalloc.start()
    try:
        do()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


BROKEN: dict[str, tuple[bytes, ...]] = {
    "too many headers": (HEAD, b"X: y\r\n" * 200, b"\r\n{}"),
    "a header line of 1 MiB": (HEAD, b"X: " + b"y" * MEGABYTE, b"\r\n\r\n{}"),
    "a status line of 1 MiB": (b"HTTP/1.1 200 " + b"y" * MEGABYTE,),
    "a negative status": (b"HTTP/1.1 -200 OK\r\n\r\n",),
    "a status of letters": (b"HTTP/1.1 abc OK\r\n\r\n",),
    "a length that is too long": (HEAD, b"Content-Length: 100\r\n\r\n", OK.body[:20]),
    "two lengths": (HEAD, b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", b"{}   "),
    "a length that is too short": (HEAD, b"Content-Length: 20\r\n" + CLOSE, OK.body),
    "a length of 2^63": (HEAD, b"Content-Length: 9223372036854775808\r\n\r\n", b"{"),
    "a length of 2^63 and an event stream": (EVENTS, b"Content-Length: 9223372036854775808\r\n\r\n", b"data: {"),
    "a chunk of 2^63": (HEAD, CHUNKED, b"8000000000000000\r\n{"),
    "a chunk of 2^64": (HEAD, CHUNKED, b"10000000000000000\r\n{"),
    "a negative chunk": (HEAD, CHUNKED, b"-5\r\n{\r\n"),
    "a chunk of garbage": (HEAD, CHUNKED, b"what\r\n{\r\n"),
    "a chunk without an end": (HEAD, CHUNKED, b"5\r\n{}"),
    "no last chunk": (HEAD, CHUNKED, b"2\r\n{}\r\n"),
    "a chunk line of 1 MiB": (HEAD, CHUNKED, b"0" * MEGABYTE),
    "a broken gzip body": (HEAD, b"Content-Encoding: gzip\r\n" + CLOSE, b"\x1f\x8b\x08\x00oops-this-is-no-gzip"),
    "an unknown encoding": (HEAD, b"Content-Encoding: rot13\r\n" + CLOSE, b"{}"),
    "plain text called gzip": (HEAD, b"Content-Encoding: gzip\r\n" + CLOSE, OK.body),
    "an empty gzip body": (HEAD, b"Content-Encoding: gzip\r\n" + CLOSE),
    "invalid UTF-8": (HEAD, CLOSE, b'{"choices": [{"text": "\xff\xfe"}]}'),
    "UTF-16": (HEAD, CLOSE, json.dumps(COMPLETION).encode("utf-16")),
    "NUL bytes": (HEAD, CLOSE, bytes(1000)),
    "deep arrays": (HEAD, CLOSE, b"[" * 100_000 + b"]" * 100_000),
    "deep objects": (HEAD, CLOSE, b'{"choices":' * 100_000 + b"1" + b"}" * 100_000),
    "deep arrays with NaN": (HEAD, CLOSE, b"[NaN," + b"[" * 100_000 + b"]" * 100_001),
    "a deep completion": (HEAD, CLOSE, b'{"choices":[{"text":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}"),
    "a deep error": (HEAD, CLOSE, b'{"error":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "an integer of 10,000 digits": (HEAD, CLOSE, b'{"choices": ' + b"9" * 10_000 + b"}"),
    "a NaN integer of 10,000 digits": (HEAD, CLOSE, b'{"choices": NaN, "x": ' + b"9" * 10_000 + b"}"),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Ty",),
    "101": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n",),
    "304": (b"HTTP/1.1 304 Not Modified\r\n\r\n",),
    "304 with Location": (b"HTTP/1.1 304 Not Modified\r\nLocation: http://[\r\n\r\n",),
}


@pytest.mark.parametrize("own", [True, False], ids=["own", "session"])
@pytest.mark.parametrize("name", BROKEN)
def test_response_broken_in_any_way_raises_a_short_typed_error(name: str, own: bool) -> None:
    """Whatever comes back, a person gets a short message with the host, of one of our classes."""
    with sending(*BROKEN[name]) as server, make(server.url, client=None if own else requests.Session()) as s:
        with pytest.raises(errors.SDKError, match=f"127.0.0.1:{server.port}") as caught:
            call(s)
        server.wait_closed(1)
    assert len(str(caught.value)) < 2000
    assert type(caught.value) is not errors.SDKError


STREAMS: dict[str, tuple[bytes, ...]] = {
    "invalid UTF-8": (EVENTS, CLOSE, b'data: {"choices": [{"text": "\xff"}]}\n\n'),
    "deep JSON": (EVENTS, CLOSE, b'data: {"choices":[{"text":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}\n\n"),
    "a deep error": (EVENTS, CLOSE, b'data: {"error":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n\n"),
    "a chunk of 2^63": (EVENTS, CHUNKED, b"8000000000000000\r\ndata: {"),
    "a negative chunk": (EVENTS, CHUNKED, b"-1\r\ndata: {"),
    "no end": (EVENTS, CHUNKED, b"7\r\ndata: {\r\n"),
    "a broken gzip": (EVENTS, b"Content-Encoding: gzip\r\n" + CLOSE, b"\x1f\x8b\x08\x00oops-this-is-no-gzip"),
    "nothing": (EVENTS, CLOSE),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Type: text/ev",),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n",),
}


@pytest.mark.parametrize("name", STREAMS)
def test_stream_broken_in_any_way_raises_and_closes_the_connection(name: str) -> None:
    """A stream that breaks is a typed error, too, and its connection is closed."""
    with sending(*STREAMS[name]) as server, make(server.url) as s:
        with pytest.raises(errors.SDKError, match=f"127.0.0.1:{server.port}"):
            call(s, stream=True)
        server.wait_closed(1)


ERRORS: dict[str, bytes] = {
    "deep arrays": b"[" * 100_000,
    "a deep error": b'{"error":' * 100_000 + b"1" + b"}" * 100_000,
    "a deep detail": b'{"detail":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
    "900 levels": b'{"error":{"message":' + b'{"message":' * 900 + b'"x"' + b"}" * 900 + b"}}",
    "invalid UTF-8": b'{"error": "\xff"}',
    "NUL": b"\0" * 5000,
    "a long line": b"x" * 500_000,
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("status", [400, 500])
def test_error_body_of_hostile_content_keeps_status_and_short_message(name: str, status: int) -> None:
    """Whatever an error's body is, the status picks the class and the message stays short."""
    with ScriptedServer() as server, make(server.url, retry_config=ONCE) as s:
        server.reply(json_response(ERRORS[name], status))
        with pytest.raises(errors.APIStatusError) as caught:
            create(s)
        assert caught.value.status_code == status
        assert len(str(caught.value)) < 1000


@cache
def bomb(layers: int) -> bytes:
    """Compress 64 MiB of spaces, once or several times."""
    if layers == 0:
        return b" " * 64 * MEGABYTE
    packer = zlib.compressobj(9, wbits=31)
    return packer.compress(bomb(layers - 1)) + packer.flush()


FLOODS: dict[str, tuple[bytes, bytes, bytes]] = {
    "a 1 GiB line": (HEAD, CLOSE, b" " * MEGABYTE),
    "1 GiB in chunks": (HEAD, CHUNKED, b"100000\r\n" + b" " * MEGABYTE + b"\r\n"),
    "1 GiB of one event": (EVENTS, CLOSE + b"data: ", b"x" * MEGABYTE),
    "1 GiB of comments": (EVENTS, CLOSE, b": " + b"x" * MEGABYTE + b"\n"),
    "1 GiB of events": (EVENTS, CLOSE, b"data: " + OK.body + b" " * MEGABYTE + b"\n\n"),
    "1 GiB for a stream": (HEAD, CLOSE, b" " * MEGABYTE),
}


@pytest.mark.parametrize("name", FLOODS)
def test_response_without_end_is_cut_at_max_response_bytes(name: str) -> None:
    """An endless response is cut off at `max_response_bytes`, in plain and stream, and memory stays near the limit."""
    head, start, piece = FLOODS[name]
    with sending(head + start, piece, repeat=1024) as server, make(server.url, max_response_bytes=LIMIT) as s:

        def flood() -> None:
            with pytest.raises(errors.ResponseTooLargeError, match=f"larger than {LIMIT} bytes.*max_response_bytes="):
                call(s, stream="stream" in name or head is EVENTS)

        assert peak_of(flood) < BOUND
        server.wait_closed(1)


def test_error_body_without_end_is_cut_at_one_megabyte() -> None:
    """Of an endless error body a megabyte is read; the status is raised."""
    head = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"
    with sending(head, b"x" * MEGABYTE, repeat=1024) as server, make(server.url) as s:

        def flood() -> None:
            with pytest.raises(errors.BadRequestError) as caught:
                call(s)
            assert len(caught.value.body) <= MEGABYTE

        assert peak_of(flood) < BOUND
        server.wait_closed(1)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", ["json", "stream", "error"])
def test_response_that_is_a_gzip_bomb_is_cut_off_in_bounded_memory(kind: str, layers: int) -> None:
    """What is small on the wire and 64 MiB unpacked is cut off before it is unpacked, packed twice as well."""
    head = {"json": HEAD, "stream": EVENTS, "error": b"HTTP/1.1 400 Bad\r\n"}[kind]
    coding = b"Content-Encoding: " + b", ".join([b"gzip"] * layers) + b"\r\n"
    with sending(head + coding + CLOSE, bomb(layers)) as server, make(server.url, max_response_bytes=LIMIT) as s:

        def explode() -> None:
            with pytest.raises(errors.SDKError):
                call(s, stream=kind == "stream")

        assert peak_of(explode) < BOUND


def test_response_of_unpacked_size_one_byte_over_the_limit_raises() -> None:
    """A response of exactly the limit is read, one byte more is not, compressed or not."""
    size = len(OK.body)
    headers = [("content-type", "application/json")]
    with ScriptedServer() as server:
        for response in (
            OK,
            ScriptedResponse(200, headers, OK.body, "chunked"),
            ScriptedResponse(200, headers, OK.body, gzip=True),
        ):
            server.reply(response, response)
            assert text(create(make(server.url, max_response_bytes=size))) == " ok"
            with pytest.raises(errors.ResponseTooLargeError, match=f"larger than {size - 1} bytes"):
                create(make(server.url, max_response_bytes=size - 1))


def test_stream_beyond_the_limit_raises_with_partial() -> None:
    """The error of a stream over the limit has `.partial`."""
    chunk = {"choices": [{"text": "a" * 1000, "index": 0, "finish_reason": None}]}
    with ScriptedServer() as server, make(server.url, max_response_bytes=3500) as s:
        server.reply(sse_response(*[chunk] * 100))
        with pytest.raises(errors.ResponseTooLargeError, match="larger than 3500 bytes") as caught:
            call(s, stream=True)
        assert caught.value.partial is not None
        assert caught.value.partial.choices[0].text == "a" * 3000


def test_response_with_blank_lines_before_the_json_is_read() -> None:
    """Blank lines before the JSON, for ever so long, are skipped."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response(b"\n" * 100_000 + OK.body))
        assert text(create(s)) == " ok"


def test_client_after_broken_responses_still_works() -> None:
    """After a broken response the same client works on."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response(b"\xff"), json_response(OK.body, cut=True), OK)
        for _ in range(2):
            with suppress(errors.SDKError):
                create(s)
        assert text(create(s)) == " ok"
