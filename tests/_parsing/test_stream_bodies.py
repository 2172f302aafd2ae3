"""What came in place of a stream: JSON, pages, errors, and streams under another name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpt.models import shared
from gpt.models.errors import (
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    ResponseValidationError,
    SDKError,
)
from tests.support.client import COMPLETION, make, request
from tests.support.fixtures import error_samples
from tests.support.http_server import ScriptedResponse, ScriptedServer, json_response, sse_response


def test_stream_w38_given_json_yields_one_event_or_raises_at_the_call() -> None:
    """One JSON completion is one event; a JSON error raises at the call."""
    good, bad = error_samples("w38.json")
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(good.response(), bad.response())
        stream = s.completions.stream_completion(request())
        assert [chunk.choices[0].text for chunk in stream] == ["a"]
        assert stream.completed
        assert stream.collect().choices[0].finish_reason == "stop"
        with pytest.raises(InternalServerError, match="Provider returned error"):
            s.completions.stream_completion(request())


@pytest.mark.parametrize("sample", error_samples("w20.json"), ids=lambda sample: sample.note)
def test_stream_w20_given_pages_and_scalars_raises_at_the_call(sample: Any) -> None:
    """What is neither a stream nor a completion raises at the call, not "zero events"."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sample.response())
        with pytest.raises(ResponseValidationError):
            s.completions.stream_completion(request())
        assert len(server.requests) == 1


def test_stream_given_an_error_status_raises_at_the_call() -> None:
    """4xx to a stream request raises before there is a stream, even when it is labelled as one."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(
            json_response({"error": {"message": "m"}}, 400),
            sse_response(b'data: {"error":{"message":"m"}}\n\n', status=400),
        )
        for _ in range(2):
            with pytest.raises(BadRequestError, match="m"):
                s.completions.create_completion(request(stream=True))


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/json", "application/octet-stream", "TEXT/Event-Stream"]
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_stream_under_another_content_type_is_recognised_by_its_first_bytes(content_type: str, size: int) -> None:
    """A stream that is called something else is recognised by its first bytes, however they come."""
    text = b'\xef\xbb\xbf\r\n\ndata: {"choices":[{"text":"A","finish_reason":"stop"}]}\r\n\r\ndata: [DONE]\n\n'
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(ScriptedResponse(200, {"content-type": content_type}, framing="chunked", chunks=pieces))
        assert [chunk.choices[0].text for chunk in s.completions.stream_completion(request())] == ["A"]


@pytest.mark.parametrize(("body", "kind", "said"), [
    (b'{"error":{"message":"m","code":401}}', AuthenticationError, "m"),
    (b"<html><title>Sign in</title></html>", ResponseValidationError, "Likely cause: a sign-in page"),
    (b" \n[]", ResponseValidationError, "the body is not a completion: a list of 0"),
])  # fmt: skip
def test_stream_given_a_page_or_json_error_raises_on_the_first_read(
    body: bytes, kind: type[SDKError], said: str
) -> None:
    """JSON and pages under the name of a stream are read for what they are."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(body, done=False))
        stream = s.completions.stream_completion(request())
        with pytest.raises(kind) as caught:
            next(stream)
    assert type(caught.value) is kind
    assert said in caught.value.message
    assert caught.value.partial == shared.CreateCompletionResponse(choices=[])


def test_stream_given_one_json_completion_yields_one_event() -> None:
    """One JSON completion under the name of a stream is one event, in as many lines as it likes."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(b'{\n "choices": [\n {"text": "a"}]}\n', done=False))
        stream = s.completions.stream_completion(request())
        assert [chunk.choices[0].text for chunk in stream] == ["a"]
        assert stream.completed


@pytest.mark.parametrize("field", [b"data: ", b"event: message\ndata: ", b"id: 1\ndata: ", b"retry: 1\ndata: "])
@pytest.mark.parametrize("size", range(1, 7))
def test_stream_without_its_content_type_is_recognised_in_any_pieces(field: bytes, size: int) -> None:
    """However its first field is cut, a stream under another content type is a stream."""
    body = field + json.dumps(COMPLETION).encode() + b"\n\ndata: [DONE]\n\n"
    with ScriptedServer() as server, make(server.url) as s:
        pieces = [body[:size], body[size:]]
        server.reply(ScriptedResponse(200, {"content-type": "text/plain"}, framing="chunked", chunks=pieces))
        assert [chunk.choices[0].text for chunk in s.completions.stream_completion(request())] == [" ok"]


@pytest.mark.parametrize("body", [b"database is down", b"identity provider: denied", b"e", b"retry later"])
def test_stream_given_plain_text_that_begins_like_a_field_raises(body: bytes) -> None:
    """Plain text that begins with the letters of a field is not taken for a stream."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(ScriptedResponse(200, {"content-type": "text/plain"}, body))
        with pytest.raises(ResponseValidationError, match="the body is not JSON"):
            s.completions.stream_completion(request())
