"""Reading a response's body: in linear time, with bounded memory, and with the likely cause of what is none."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import requests

from gpt._core.unserializable import MAX_DEPTH
from gpt._parsing import completion
from gpt._parsing.completion import MAX_CHOICES, read_completion
from gpt.models import errors
from gpt.models.errors import ResponseValidationError, SDKError
from tests.support.client import create, make, request
from tests.support.http_server import ScriptedResponse, ScriptedServer, json_response


def response() -> requests.Response:
    """Return a response as an error would show it."""
    made = requests.Response()
    made.status_code = 200
    made.url = "http://localhost/v1/completions"
    made.headers["content-type"] = "application/json"
    return made


def body_of(choice: str, count: int) -> bytes:
    return f'{{"choices":[{",".join([choice] * count)}]}}'.encode()


def calls_of(body: bytes) -> int:
    """Return how many functions are called while a body is read: its cost, without a clock."""
    count = 0

    def profile(frame: Any, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        read_completion(response(), body)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("choice", ["{}", '{"text":null}', '{"index":0}', '{"text":null,"message":null}'])
def test_read_completion_given_choices_without_text_takes_linear_time(choice: str) -> None:
    """Choices without text cost what choices with text cost, and no more for each when there are more."""
    few, many = (calls_of(body_of(choice, count)) for count in (100, 1000))
    assert many < 11 * few
    assert many < 3 * calls_of(body_of('{"text":"a"}', 1000))


def test_stream_event_with_16000_choices_without_text_reads_as_a_plain_response() -> None:
    """16,000 choices without text in an event are read as they are in a plain response."""
    body = body_of("{}", 16_000)
    with ScriptedServer() as server, make(server.url, deadline=60) as s:
        server.reply(
            ScriptedResponse(200, [("content-type", "text/event-stream")], b"data: " + body + b"\n\ndata: [DONE]\n\n")
        )
        server.reply(json_response(body))
        (chunk,) = s.completions.stream_completion(request())
        assert s.completions.create_completion(request()).create_completion_response == chunk
    assert len(chunk.choices) == 16_000


@pytest.mark.parametrize("choice", ['{"message":{}}', '{"delta":{}}', '{"text":"a"},{"message":{"content":"b"}}'])
def test_read_completion_given_a_chat_choice_raises_validation_error(choice: str) -> None:
    """One choice with a message and no text is enough."""
    with pytest.raises(ResponseValidationError, match="its choices have no text"):
        read_completion(response(), body_of(choice, 2))


def test_read_completion_given_too_many_choices_raises_validation_error() -> None:
    """More choices than any server gives are refused before they are built, where they take most memory."""
    assert len(read_completion(response(), body_of("{}", MAX_CHOICES)).choices) == MAX_CHOICES
    with pytest.raises(ResponseValidationError, match=r"it has 262,145 choices, of which 262,144 are read"):
        read_completion(response(), body_of("{}", MAX_CHOICES + 1))


OVERSIZE = [
    (body_of('{"text":""}', 4_000_000), "the body is JSON of so many values that it would take some 1,1"),
    (b'{"choices":[],"x":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "the body is JSON nested deeper than 200"),
    (b'{"choices":[],"x":' + b"[" * 1022 + b"]" * 1022 + b"}", "the body is JSON nested deeper than 200"),
    (
        b'{"choices":[],"x":NaN,"y":' + b"[" * 5000 + b"]" * 5000 + b"}",
        "the body is JSON nested (too deep|deeper than 200)",
    ),
]


@pytest.mark.parametrize(("body", "message"), OVERSIZE, ids=[f"{len(body)}" for body, _ in OVERSIZE])
def test_read_completion_given_oversize_json_raises_validation_error(body: bytes, message: str) -> None:
    """What is nested too deep or would take gigabytes is a `ResponseValidationError` that says so."""
    with pytest.raises(ResponseValidationError, match=message):
        read_completion(response(), body)


def test_response_with_a_deeply_nested_error_raises_sdk_error() -> None:
    """A deep error body, in a status of success or not, is an error of the SDK."""
    for status in (200, 400):
        for levels in (150, MAX_DEPTH + 1, 900, 100_000):
            with ScriptedServer() as server, make(server.url) as s:
                server.reply(ScriptedResponse(status, [], b'{"error":' + b"[" * levels + b"]" * levels + b"}"))
                with pytest.raises(SDKError) as caught:
                    s.completions.create_completion(request())
            assert str(caught.value)


def test_completion_text_given_any_choices_is_the_first_ones_or_empty() -> None:
    """`.text` is always a string: `""` for null and where there is no choice."""
    texts = {'{"text":"a"},{"text":"b"}': "a", '{"text":null}': "", "{}": "", '{"text":5}': "", "": ""}
    for choices, text in texts.items():
        assert completion.read_completion(response(), f'{{"choices":[{choices}]}}'.encode()).text == text


def test_response_that_cannot_be_read_raises_with_the_cause() -> None:
    """What the reader tripped over is the error's `__cause__`."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response(b"{oops"), json_response({"id": "x"}))
        for _ in range(2):
            with pytest.raises(errors.ResponseValidationError) as caught:
                create(s)
            assert isinstance(caught.value.__cause__, ValueError)


def test_completion_choice_with_an_error_of_its_own_keeps_text_and_error() -> None:
    """OpenRouter may put an error beside a choice's text; the text counts and the error is in reach."""
    body = {"choices": [{"text": "a", "finish_reason": "error", "error": {"code": 502, "message": "m"}}]}
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response(body))
        response = create(s).create_completion_response
    assert response is not None
    assert response.choices[0].additional_properties == {"error": {"code": 502, "message": "m"}}
