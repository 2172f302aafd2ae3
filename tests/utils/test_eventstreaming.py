"""`EventStream`: its own iterator, its state, its errors; and what opening and ending a stream promise."""

from __future__ import annotations

import itertools
import pickle
import signal
import socket
import threading
from typing import Any

import pytest

from gpt.models import errors
from gpt.utils import EventStream
from tests.support.client import OK, ONCE, chunk, make, request
from tests.support.http_server import ScriptedServer, json_response, sse_response
from tests.support.raw_server import RawServer, read_request

THREE = sse_response(chunk("a"), chunk("b"), chunk("c", "stop"))


def texts(chunks: Any) -> list[str | None]:
    return [each.choices[0].text for each in chunks]


def test_stream_iter_after_a_partial_read_continues_with_the_rest() -> None:
    """`islice`, `zip`, `next(iter(s))` and a loop that is left take what they take, and the rest is still there."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(THREE)
        stream = s.completions.stream_completion(request())
        assert iter(stream) is stream
        assert texts(itertools.islice(stream, 1)) == ["a"]
        for number, each in enumerate(stream):
            assert (number, each.choices[0].text) == (0, "b")
            break
        assert texts([next(iter(stream))]) == ["c"]
        assert (list(stream), stream.completed) == ([], True)
        pair = s.completions.stream_completion(request())
        assert [a for a, _ in zip("x", pair, strict=False)] == ["x"]
        assert texts(pair) == ["b", "c"]
        assert server.connections == 1


def test_stream_null_events_are_skipped() -> None:
    """`data: null`, which llama.cpp sends between the choices of several prompts, is skipped, first or later."""
    null = b"data: null\n\n"
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(null, chunk("a", "stop"), null, chunk("b", "stop", index=1), null))
        stream = s.completions.stream_completion(request())
        assert texts(stream) == ["a", "b"]
        assert stream.completed


@pytest.mark.parametrize(("finish", "expected"), [("stop", True), (None, False)])
def test_stream_completed_after_done_tells_whether_every_choice_is_finished(finish: str | None, expected: bool) -> None:
    """`[DONE]` while a choice has no finish reason ends the stream without an error, and shows."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(chunk("a", "stop"), chunk("b", finish, index=1)))
        stream = s.completions.stream_completion(request())
        assert texts(stream) == ["a", "b"]
        assert stream.completed is expected


@pytest.mark.parametrize("body", [b'{"choices": 5}', b"<html>", b'{"error": {"message": "m"}}', b"data; x"])
def test_stream_error_at_the_call_has_an_empty_partial(body: bytes) -> None:
    """What cannot be opened as a stream raises with an empty `.partial`."""
    with ScriptedServer() as server, make(server.url, retry_config=ONCE) as s:
        server.reply(json_response(body))
        with pytest.raises(errors.SDKError) as caught:
            s.completions.stream_completion(request())
    assert caught.value.partial is not None
    assert caught.value.partial.choices == []


def test_stream_read_by_a_second_thread_raises_value_error() -> None:
    """A second thread that reads while one waits is told so, and harms nothing."""
    gate = threading.Event()
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(chunk("a"), gate, chunk("b", "stop")))
        stream = s.completions.stream_completion(request())
        next(stream)
        rest: list[Any] = []
        reader = threading.Thread(target=lambda: rest.extend(stream))
        reader.start()
        while not getattr(stream._events, "gi_running", False):
            pass
        with pytest.raises(ValueError, match="read by another thread"):
            next(stream)
        gate.set()
        reader.join(5)
        assert (texts(rest), stream.completed) == (["b"], True)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such timer")
def test_stream_closed_in_a_signal_handler_ends_the_loop() -> None:
    """A handler that closes the stream its own thread is waiting for ends the loop without an error."""
    never = threading.Event()
    with ScriptedServer() as server, make(server.url, timeout=60) as s:
        server.reply(sse_response(chunk("a"), never))
        stream: EventStream[Any] = s.completions.stream_completion(request())
        before = signal.signal(signal.SIGALRM, lambda *_: stream.close())
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            assert texts(stream) == ["a"]
        finally:
            signal.signal(signal.SIGALRM, before)
        server.wait_closed(1)
        assert not stream.completed


@pytest.mark.parametrize("tail", [b"0", b"0\r\nX: y"], ids=["chunk size", "trailer"])
def test_stream_that_drips_after_done_is_left_after_a_moment(tail: bytes) -> None:
    """The end of the loop waits for at most a quarter of a second in all, however slowly the rest comes."""
    left = threading.Event()

    def serve(conn: socket.socket, _: int) -> None:
        read_request(conn)
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        body = b'data: {"choices":[{"text":"a","finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
        conn.sendall(b"%x\r\n%b\r\n" % (len(body), body) + tail)
        try:
            server.drip(conn, b"0", interval=0.1, limit=200)  # for 20 s
        finally:
            left.set()

    with RawServer(serve) as server, make(server.url, timeout=60) as s:
        assert texts(s.completions.stream_completion(request())) == ["a"]
        assert left.wait(5)


def test_peek_given_white_space_before_a_body_takes_linear_time() -> None:
    """A mark and white space in 200,000 parts, in place of a stream, is read once."""
    from gpt._parsing.stream import _peek

    assert _peek(iter([b"\xef", b"\xbb\xbf", *[b" "] * 200_000, b"da", b"ta: x"])) == b"data: x"
    assert OK.body


CHUNK = {"choices": [{"text": "a", "index": 0, "finish_reason": None}]}


def test_stream_pickled_raises_type_error() -> None:
    """An open stream cannot be pickled; the message says what can."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(CHUNK))
        response = s.completions.create_completion(request(stream=True))
        with pytest.raises(TypeError, match=r"a stream cannot be pickled; pickle what collect\(\) returns"):
            pickle.dumps(response)
        assert response.completion_stream is not None
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(response.completion_stream)
        response.completion_stream.close()
