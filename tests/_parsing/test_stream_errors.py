"""Streams that fail: which error, its message, its `.partial`, and that nothing is sent twice."""

from __future__ import annotations

import gc
import threading
import weakref
import zlib
from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest

from gpt.models import errors
from gpt.models.errors import (
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    RateLimitError,
    ResponseTooLargeError,
    ResponseValidationError,
    SDKError,
    StreamInterruptedError,
    UnprocessableEntityError,
)
from tests.support.client import COMPLETION, OK, chunk, create, make, request
from tests.support.fixtures import wire
from tests.support.http_server import Framing, ScriptedResponse, ScriptedServer, sse_response

FIRST_BYTES = b'data: {"choices":[{"text":"A"}]}\n\n'
FIRST = {"choices": [{"text": "A", "index": 0, "finish_reason": None}]}


def fail(response: ScriptedResponse, **options: Any) -> tuple[list[str | None], SDKError]:
    """Stream a response that goes wrong: give the texts that came and the error."""
    came: list[str | None] = []
    with ScriptedServer() as server, make(server.url, **options) as s:
        server.reply(response, OK)
        stream = s.completions.stream_completion(request())
        with pytest.raises(SDKError) as caught:
            came.extend(choice.text for chunk in stream for choice in chunk.choices)
        assert not stream.completed
        assert list(stream) == []
        assert len(server.requests) == 1, "a stream was retried after its first event"
        assert create(s).status_code == 200
        s.close()
        server.wait_open(0)
    return came, caught.value


def partial_text(error: SDKError) -> str | None:
    assert error.partial is not None
    return "".join(choice.text or "" for choice in error.partial.choices)


@pytest.mark.parametrize(
    ("sample", "kind", "status", "said"),
    [
        ("w30", InternalServerError, 500, "Internal server error (type InternalServerError, code 500)"),
        ("w31", APIStatusError, 200, "The server had an error (type server_error)"),
        ("w32", InternalServerError, 500, "context shift failed (type server_error, code 500)"),
        ("w33", UnprocessableEntityError, 422, "Input validation error: too long (code 422)"),
    ],
)
def test_stream_error_in_samples_w30_to_w33_raises_the_class_of_its_status(
    sample: str, kind: type[SDKError], status: int, said: str
) -> None:
    """An error event raises what it says, with the class that its own status names."""
    came, error = fail(sse_response(b'data: {"choices":[{"text":"A"}]}\n\n', wire(f"{sample}.sse"), done=False))
    assert type(error) is kind
    assert error.status_code == status
    assert error.message.endswith(f"responded with 200 and an error inside: {said}")
    assert came[0] == "A"
    assert partial_text(error) == "".join(text or "" for text in came)


def test_stream_error_w30_keeps_code_type_and_body() -> None:
    """Code, type and body of an error event are on the exception."""
    _, error = fail(sse_response(wire("w30.sse"), done=False))
    assert (error.code, error.type, error.param) == (500, "InternalServerError", None)
    assert error.body.startswith('{"error":{"message":"Internal server error"')
    assert error.raw_response is not None


IN_STREAM = [
    ('data: {"error":{"message":"m","code":429}}', RateLimitError, "m"),
    ('data: {"error":{"message":"m","code":"500"}}', InternalServerError, "m"),
    ('data: {"error":{"message":"m","http_status_code":422}}', UnprocessableEntityError, "m"),
    ('data: {"error":{"message":"m","status":401}}', AuthenticationError, "m"),
    ('data: {"error":{"message":"m"},"status":400}', BadRequestError, "m"),
    ('data: {"error":{"object":"error","message":"m","type":"x","param":null,"code":400}}', BadRequestError, "m"),
    ('data: {"error":{"message":"m","code":"invalid_api_key","status":401}}', AuthenticationError, "m"),
    ('data: {"error":{"message":"m","code":"429 slow"}}', APIStatusError, "m"),
    ('data: {"error":{"message":"m","code":399}}', APIStatusError, "m"),
    ('data: {"error":{"message":"m","code":600}}', APIStatusError, "m"),
    ('data: {"error":{"message":"m","code":true}}', APIStatusError, "m"),
    ('data: {"error":"boom"}', APIStatusError, "boom"),
    ('data: {"error":{"message":"Compute error."},"message":"Compute error."}', APIStatusError, "Compute error."),
    ('data: {"object":"error","message":"m","code":400}', BadRequestError, "m"),
    ('data: {"text":"m","error_code":50002}', APIStatusError, "m (code 50002)"),
    ('data: {"detail":"m"}', APIStatusError, "m"),
    ('data: {"choices":[{"finish_reason":"error"}],"error":{"code":502,"message":"m"}}', InternalServerError, "m"),
    ('event: error\ndata: {"code":503,"details":"m"}', InternalServerError, "503"),
    ('event: error\ndata: {"message":"m","code":500}', InternalServerError, "m"),
    ("event: error\ndata: it broke", APIStatusError, "it broke"),
    ("event: error\ndata: null", APIStatusError, "an error without a message"),
    ("error: it broke", APIStatusError, "it broke"),
]  # fmt: skip


@pytest.mark.parametrize(("event", "kind", "said"), IN_STREAM, ids=[event for event, _, _ in IN_STREAM])
def test_stream_error_event_in_any_shape_raises_the_class_of_its_status(
    event: str, kind: type[SDKError], said: str
) -> None:
    """Every shape of an error event raises; a status from 400 to 599 in it picks the class."""
    came, error = fail(sse_response(FIRST, event.encode() + b"\n\n"))
    assert type(error) is kind
    assert said in error.message
    assert (came, partial_text(error)) == (["A"], "A")


def test_stream_chunk_with_a_null_error_does_not_raise() -> None:
    """`"error": null` beside choices is not an error."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response({"error": None, **COMPLETION}))
        assert len(list(s.completions.stream_completion(request()))) == 1


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (b"data: {oops\n\n", "an event of the stream is not JSON; it begins b'{oops'"),
        (b"data: boom: worker died\n\n", "an event of the stream is not JSON; it begins b'boom: worker died'"),
        (b'data: {"choices":[{"text":"\xff"}]}\n\n', "an event of the stream is not JSON"),
        (b"data: [1]\n\n", "the body is not a completion: a list of 1"),
        (b'data: {"id":"x"}\n\n', "choices: expected a value, got nothing"),
        (b'data: {"choices":{}}\n\n', "choices: expected a list of objects, got an empty object"),
        (b'data: {"choices":[5]}\n\n', "choices[0]: expected an object, got int 5"),
        (b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n', "its choices have no text"),
        (b"data: " + b"[" * 100_000 + b"\n\n", "an event of the stream is not JSON"),
    ],
)
def test_stream_event_that_cannot_be_read_raises_validation_error(event: bytes, said: str) -> None:
    """What is neither a chunk nor an error is an error of its own, with the first bytes."""
    came, error = fail(sse_response(FIRST, event))
    assert type(error) is ResponseValidationError
    assert said in error.message
    assert "200 (text/event-stream; charset=utf-8)" in error.message
    assert (came, partial_text(error)) == (["A"], "A")


def test_stream_w36_that_ends_unfinished_raises_interrupted_error() -> None:
    """A stream that ends without a finish reason, `[DONE]` or an error raises."""
    came, error = fail(ScriptedResponse(200, {"content-type": "text/event-stream"}, wire("w36.sse"), "chunked"))
    assert type(error) is StreamInterruptedError
    assert (
        "ended without [DONE] before every choice was finished; everything received so far is in .partial"
        in error.message
    )
    assert (came, partial_text(error), error.status_code) == (["a", ""], "a", 200)


def test_stream_with_one_unfinished_choice_raises_interrupted_error() -> None:
    """With several choices each one must be finished."""
    second = {"choices": [{"text": "b", "index": 1, "finish_reason": "stop"}]}
    _, error = fail(sse_response(FIRST, second, done=False))
    assert type(error) is StreamInterruptedError
    assert error.partial is not None
    assert [(c.text, c.finish_reason) for c in error.partial.choices] == [("A", None), ("b", "stop")]


@pytest.mark.parametrize("finish", ["", None, []])
def test_stream_with_an_empty_finish_reason_raises_interrupted_error(finish: object) -> None:
    """TGI's empty finish reason does not end a choice."""
    _, error = fail(sse_response({"choices": [{"text": "A", "index": [], "finish_reason": finish}]}, done=False))
    assert type(error) is StreamInterruptedError


@pytest.mark.parametrize("body", [b": ping\n\n", b"\n", b'data: {"id":"c","obj', wire("w37.sse")])
def test_stream_w37_that_ends_in_its_first_event_raises_interrupted_error(body: bytes) -> None:
    """A stream that ends before its first event is whole brings nothing, and says so."""
    came, error = fail(sse_response(body, done=False))
    assert type(error) is StreamInterruptedError
    assert "before its first event" in error.message or "ended inside an event" in error.message
    assert error.partial is not None
    assert (came, error.partial.choices) == ([], [])


@pytest.mark.parametrize("cut", [True, "fin"], ids=["reset", "closed"])
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_stream_whose_connection_is_lost_raises_and_keeps_what_came(framing: Framing, cut: Any) -> None:
    """However the connection ends too early, what had come is kept, and a torn event is never yielded."""
    gate = threading.Event()
    response = sse_response(FIRST, b'data: {"choices":[{"te', gate, framing=framing, cut=cut)
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(response)
        stream = s.completions.stream_completion(request())
        assert next(stream).choices[0].text == "A"
        gate.set()
        with pytest.raises(StreamInterruptedError) as caught:
            next(stream)
        assert len(server.requests) == 1
    assert partial_text(caught.value) == "A"
    assert f"127.0.0.1:{server.port}" in caught.value.message
    expected = "ended inside an event" if framing == "close" and cut == "fin" else "broke off ("
    assert expected in caught.value.message
    assert (caught.value.__cause__ is not None) == ("broke off" in caught.value.message)


def test_stream_with_damaged_compression_raises_interrupted_error() -> None:
    """Bytes that do not unpack end the stream with a typed error."""
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(b'data: {"choices":[{"text":"A"}]}\n\n') + packer.flush(zlib.Z_SYNC_FLUSH)
    headers = {"content-type": "text/event-stream", "content-encoding": "gzip"}
    came, error = fail(ScriptedResponse(200, headers, framing="chunked", chunks=(packed, b"\xff" * 50)))
    assert type(error) is StreamInterruptedError
    assert (came, partial_text(error)) == (["A"], "A")


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_stream_silent_beyond_the_read_timeout_raises_timeout_error(framing: Framing, gzip: bool) -> None:
    """Silence beyond the read timeout is a timeout error that has what came before."""
    came, error = fail(sse_response(FIRST, threading.Event(), framing=framing, gzip=gzip), timeout=(5, 0.1))
    assert type(error) is APITimeoutError
    assert "reading the rest of the response of" in error.message
    assert (came, partial_text(error)) == (["A"], "A")


def test_stream_of_comments_past_the_deadline_raises_timeout_error() -> None:
    """The deadline counts on through a stream, comments or not, and its error has what came."""
    pings = (b": ping\n\n" for _ in iter(lambda: threading.Event().wait(0.01), None))
    with ScriptedServer() as server, make(server.url, deadline=0.2, timeout=60) as s:
        server.respond_with(
            lambda _: ScriptedResponse(
                200, {"content-type": "text/event-stream"}, framing="chunked", chunks=chain((FIRST_BYTES,), pings)
            )
        )
        stream = s.completions.stream_completion(request())
        assert next(stream).choices[0].text == "A"
        with pytest.raises(APITimeoutError, match="the deadline of 0") as caught:
            next(stream)
        server.wait_closed(1)
    assert partial_text(caught.value) == "A"


def test_stream_silent_past_the_deadline_raises_timeout_error() -> None:
    """The deadline ends a wait that the read timeout would allow."""
    came, error = fail(sse_response(FIRST, threading.Event()), deadline=0.2, timeout=60)
    assert type(error) is APITimeoutError
    assert "the deadline of 0.2 s passed" in error.message
    assert (came, partial_text(error)) == (["A"], "A")


def test_stream_read_slowly_past_the_deadline_raises_timeout_error() -> None:
    """Time that passes between two `next` is the call's, too."""
    with ScriptedServer() as server, make(server.url, deadline=0.05) as s:
        server.reply(sse_response(FIRST, FIRST, COMPLETION))
        stream = s.completions.stream_completion(request())
        assert next(stream).choices[0].text == "A"
        threading.Event().wait(0.1)
        with pytest.raises(APITimeoutError) as caught:
            next(stream)
    assert partial_text(caught.value) == "A"


def test_stream_larger_than_the_limit_raises_too_large_error() -> None:
    """The limit on responses holds for streams; the error says how to raise it and keeps what came."""
    came, error = fail(sse_response(*[FIRST] * 200), max_response_bytes=5000)
    assert type(error) is ResponseTooLargeError
    assert "larger than 5000 bytes, decompressed; max_response_bytes=" in error.message
    assert 0 < len(came) < 200
    assert partial_text(error) == "A" * len(came)


@pytest.mark.parametrize("way", ["iterate", "collect", "next"])
def test_stream_error_in_every_way_of_reading_raises_the_same(way: str) -> None:
    """`for`, `next` and `collect` raise the same error."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(FIRST, b'data: {"error":"boom"}\n\n'))
        stream = s.completions.stream_completion(request())
        read: dict[str, Callable[[], object]] = {
            "collect": stream.collect,
            "iterate": lambda: list(stream),
            "next": lambda: [next(stream), next(stream)],
        }
        with pytest.raises(APIStatusError, match="boom") as caught:
            read[way]()
    assert partial_text(caught.value) == "A"
    assert caught.value.__context__ is None


def test_stream_error_on_an_open_connection_raises_at_once_and_closes_it() -> None:
    """An error inside a stream is raised at once, though the server keeps the connection open, and closes it."""
    with ScriptedServer() as server, make(server.url, timeout=60) as s:
        server.reply(sse_response(chunk("a"), {"error": {"message": "m", "code": 500}}, threading.Event()))
        stream = s.completions.stream_completion(request())
        assert next(stream).choices[0].text == "a"
        with pytest.raises(errors.InternalServerError, match="m"):
            next(stream)
        server.wait_closed(1)


def test_stream_error_once_handled_is_freed_without_garbage_collection() -> None:
    """An error of a stream, and the response on it, wait for no garbage collector."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(chunk("a"), {"error": {"message": "m"}}))

        def fail() -> weakref.ref[errors.SDKError]:
            try:
                list(s.completions.stream_completion(request()))
            except errors.APIStatusError as error:  # pytest.raises would hold it
                return weakref.ref(error)
            raise AssertionError("the stream did not fail")

        gc.collect()
        gc.disable()
        try:
            assert fail()() is None
        finally:
            gc.enable()
