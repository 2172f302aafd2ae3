"""What a call returns: the short ways to its content, and how it looks."""

from __future__ import annotations

import copy

import pytest

from tests.support.client import COMPLETION, create, make, request
from tests.support.http_server import ScriptedServer, json_response, sse_response

LONG = {**COMPLETION, "choices": [{"text": "x" * 30_000, "index": 0, "finish_reason": "stop"}]}


def test_completion_of_a_plain_response_is_create_completion_response() -> None:
    """`.completion` needs no check for `None`."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response(COMPLETION))
        result = create(s)
    assert result.completion is result.create_completion_response
    assert result.completion.choices[0].text == " ok"


def test_completion_of_a_stream_raises_and_names_completion_stream() -> None:
    """With `stream=True` there is no completion; the message says what there is, and the result can be copied."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(COMPLETION))
        result = s.completions.create_completion(request(stream=True))
        with pytest.raises(TypeError, match="completion_stream"):
            _ = result.completion
        assert copy.copy(result).completion_stream is result.completion_stream
        assert (repr(result).count("completion_stream"), result._repr_html_()) == (1, None)
        assert result.completion_stream is not None
        result.completion_stream.close()


def test_response_with_a_long_completion_has_a_short_repr_and_its_html() -> None:
    """A long completion does not fill a terminal; a notebook shows it as it shows the completion itself."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response(LONG, headers={"x-request-id": "req-1"}))
        result = create(s)
    assert repr(result) == "<CreateCompletionResponse [200] create_completion_response, request_id='req-1'>"
    assert result._repr_html_() == result.completion._repr_html_()


def test_response_copied_in_this_process_keeps_its_request() -> None:
    """A copy in this process is whole; only what is pickled goes without the request, which has the key."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response(COMPLETION))
        result = create(s)
    assert copy.copy(result).raw_response.request is result.raw_response.request
