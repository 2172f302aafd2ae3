"""What the tests of other clients check and their users suffer from, where no other file of ours holds it."""

from __future__ import annotations

import copy
import gc
import inspect
import os
import socket
import threading
import weakref
from collections import Counter
from typing import Any

import pytest
import requests

from gpt._core import sse
from gpt._http.session import DefaultSession
from gpt.completions import Completions
from gpt.models import errors, operations, shared
from tests.support.client import COMPLETION, OK, chunk, create, make, request, text
from tests.support.http_server import ScriptedServer, json_response, sse_response
from tests.support.proxies import ForwardProxy

BUSY = json_response({"error": "busy"}, 503)


# A call and its response


def test_both_operations_take_the_same_options() -> None:
    """An option of `create_completion` is one of `stream_completion`, by the same name, type and default."""
    plain, streamed = (inspect.signature(f) for f in (Completions.create_completion, Completions.stream_completion))
    assert list(plain.parameters.values()) == list(streamed.parameters.values())


def test_a_request_needs_a_model() -> None:
    """What is missing is named, before there is a call."""
    with pytest.raises(TypeError, match="'model'"):
        shared.CreateCompletionRequest(prompt="Say")  # type: ignore[call-arg]


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_the_raw_response_can_be_read_again(framing: Any) -> None:
    """`raw_response` gives status, headers and the body once more, as requests does."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response(COMPLETION, framing=framing, x_team="a"))
        raw = create(s).raw_response
    assert (raw.status_code, raw.headers["X-TEAM"], raw.json(), raw.json()) == (200, "a", COMPLETION, COMPLETION)


def test_the_cause_of_an_unreadable_response_is_kept() -> None:
    """What the reader tripped over is the error's `__cause__`."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response(b"{oops"), json_response({"id": "x"}))
        for _ in range(2):
            with pytest.raises(errors.ResponseValidationError) as caught:
                create(s)
            assert isinstance(caught.value.__cause__, ValueError)


def test_a_retry_is_the_same_request() -> None:
    """No attempt carries a header that the first did not: no counter, no idempotency key."""
    with ScriptedServer() as server, make(server.url, security=shared.Security(api_key_auth="k")) as s:
        server.reply(BUSY, BUSY, OK)
        assert create(s).retries_taken == 2
        first, *others = [(sent.path, sent.headers, sent.body) for sent in server.requests]
    assert others == [first, first]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, operations.RateLimit()),
        (
            {
                "x-ratelimit-limit-requests": "3000",
                "x-ratelimit-limit-tokens": "250000",
                "x-ratelimit-remaining-requests": "2999",
                "x-ratelimit-remaining-tokens": "249984",
                "x-ratelimit-reset-requests": "20ms",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            operations.RateLimit(3000, 250000, 2999, 249984, 0.02, 360.0),
        ),
        (
            {
                "X-RateLimit-Remaining-Tokens": "-1",
                "X-RateLimit-Reset-Tokens": "55",
                "x-ratelimit-limit-tokens": "many",
            },
            operations.RateLimit(reset_tokens=55.0),
        ),
    ],
    ids=["none", "OpenAI", "Azure"],
)
def test_rate_limits_are_parsed(headers: dict[str, str], expected: operations.RateLimit) -> None:
    """Counts and durations of the headers are numbers; what is absent or odd is `None`."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response(COMPLETION, headers=headers))
        assert create(s).rate_limit == expected


def test_ranges_are_the_servers_to_enforce() -> None:
    """Values that one server refuses and another takes are sent as they are."""
    fields: dict[str, Any] = {
        "best_of": 0,
        "n": 1000,
        "logprobs": -1,
        "max_tokens": -1,
        "presence_penalty": -2,
        "temperature": 9.5,
        "top_p": 0,
        "stop": list("abcdefghijklmnop"),
    }
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        s.completions.create_completion(request(**fields))
        assert server.requests[0].json() == {"model": "m", "prompt": "Say", **fields}


# Connections


def test_connections_are_kept_alive_through_nat() -> None:
    """Our sockets ask TCP to notice a peer that is gone, which urllib3's do not."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(chunk("a"), threading.Event()))
        with s.completions.stream_completion(request()) as stream:
            sock = socket.socket(fileno=os.dup(stream.response.raw.fileno()))
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            if hasattr(socket, "TCP_KEEPIDLE"):
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
            sock.close()


def test_a_copy_that_is_dropped_does_not_close_the_pool() -> None:
    """The connections that a copy shares stay open when it goes."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        other = copy.copy(s)
        assert text(create(other)) == " ok"
        del other
        gc.collect()
        assert text(create(s)) == " ok"
        assert server.connections == 1


def test_copies_leave_nothing_behind() -> None:
    """Copying again and again piles up no objects of ours."""

    def live() -> Counter[type]:
        gc.collect()
        return Counter(type(each) for each in gc.get_objects() if isinstance(each, DefaultSession | Completions))

    with make("http://127.0.0.1:9/v1") as s:
        before = live()
        for _ in range(50):
            copy.copy(s)
            copy.deepcopy(s)
        assert live() == before


def test_an_error_event_is_not_waited_on() -> None:
    """An error inside a stream is raised at once, though the server keeps the connection open, and closes it."""
    with ScriptedServer() as server, make(server.url, timeout=60) as s:
        server.reply(sse_response(chunk("a"), {"error": {"message": "m", "code": 500}}, threading.Event()))
        stream = s.completions.stream_completion(request())
        assert next(stream).choices[0].text == "a"
        with pytest.raises(errors.InternalServerError, match="m"):
            next(stream)
        server.wait_closed(1)


# What servers add that no sample has

STREAMS: dict[str, tuple[list[dict[str, Any]], list[tuple[int, str, str]]]] = {
    "vLLM 0.2.7 says each end twice": (
        [chunk("a", "stop"), {**chunk("", "stop"), "usage": {"total_tokens": 2}}],
        [(0, "a", "stop")],
    ),
    "llama.cpp reports its progress": (
        [{**chunk(""), "prompt_progress": {"total": 9, "processed": 3}}, chunk("a", "length")],
        [(0, "a", "length")],
    ),
    "SGLang goes on after the end": (
        [
            chunk("a", "abort", matched_stop=None),
            chunk("", hidden_states=[[0.5]]),
            {"id": "c", "choices": [], "sglext": {}},
        ],
        [(0, "a", "abort")],
    ),
    "TGI finishes each prompt with a usage of its own": (
        [
            chunk("a", "", index=1),
            {**chunk("b", "eos_token", index=1), "usage": {"total_tokens": 2}},
            {**chunk("c", "length"), "usage": {"total_tokens": 3}},
        ],
        [(0, "c", "length"), (1, "ab", "eos_token")],
    ),
    "LiteLLM leaves out what is null and tells of a fallback": (
        [
            {"object": "chat.completion.chunk", "choices": [], "litellm_fallback": {"model": "x"}},
            {"choices": [{"index": 0, "text": "a", "reasoning_content": "r"}]},
            {"choices": [{"index": 0}]},
            {"choices": [{"index": 0, "finish_reason": "tool_calls"}]},
        ],
        [(0, "a", "tool_calls")],
    ),
    "Azure frames the text by filter results": (
        [
            {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": []},
            chunk("a", "stop"),
            {"choices": [{"index": 0, "content_filter_offsets": {"end_offset": 1}, "finish_reason": None}]},
        ],
        [(0, "a", "stop")],
    ),
    "Together repeats the text in a delta": (
        [
            {"object": "completion.chunk", "choices": [{"text": t, "delta": {"content": t}, "finish_reason": f}]}
            for t, f in (("a", None), ("b", "eos"))
        ],
        [(0, "ab", "eos")],
    ),
    "mlx ends with the chat endpoint's usage": (
        [
            chunk("a", "stop", logprobs={"content": [{}, {"id": 5, "logprob": -1}]}),
            {"object": "chat.completion", "choices": [], "usage": {"total_tokens": 2}},
        ],
        [(0, "a", "stop")],
    ),
    "OpenAI pads its events": ([{**chunk("a", "stop"), "obfuscation": "x7"}], [(0, "a", "stop")]),
}


@pytest.mark.parametrize("done", [True, False], ids=["done", "end"])
@pytest.mark.parametrize("name", STREAMS)
def test_what_servers_stream(name: str, done: bool) -> None:
    """Whatever surrounds the text, it comes whole, with its reason, and with or without `[DONE]`."""
    events, expected = STREAMS[name]
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(*events, done=done))
        stream = s.completions.stream_completion(request())
        whole = stream.collect()
    assert stream.completed
    assert [(choice.index, choice.text, choice.finish_reason) for choice in whole.choices] == expected


REFUSALS: list[tuple[int, dict[str, Any], str, Any]] = [
    (400, {"error": {"code": "content_filter", "message": "filtered", "status": 400, "innererror": {"code": "R"}}},
        "filtered", "content_filter"),
    (400, {"object": "error", "message": "too long", "type": "BadRequestError", "param": None, "code": None},
        "too long", None),
    (401, {"detail": {"error": {"message": "who?", "type": "t", "param": None, "code": "c"}}}, "who?", "c"),
    (403, {"error": "Forbidden"}, "Forbidden", None),
    (404, {"error": {"object": "error", "type": "invalid_request_error", "code": "NOT_FOUND", "message": "no model"}},
        "no model", "NOT_FOUND"),
    (404, {"error": "the generation failed"}, "the generation failed", None),
    (400, {"error": {"message": "cannot unmarshal array", "type": "invalid_request_error", "code": None}},
        "cannot unmarshal array", None),
    (402, {"error": {"code": 402, "message": "pay", "metadata": {"raw": "x"}}, "user_id": "u"}, "pay", 402),
    (500, {"error": {"message": "m", "type": "None", "param": "None", "code": "500", "litellm_call_id": "x"}},
        "m", "500"),
    (503, {"detail": "Service is not available"}, "Service is not available", None),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "said", "code"), REFUSALS, ids=lambda value: str(value)[:30])
def test_how_servers_refuse(status: int, body: dict[str, Any], said: str, code: Any) -> None:
    """The server's own words and code are found, however it wraps them."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response(body, status, x_should_retry="false"))
        with pytest.raises(errors.APIStatusError, match=said) as caught:
            create(s)
    assert (caught.value.status_code, caught.value.code) == (status, code)


def test_a_choice_with_an_error_of_its_own_is_kept() -> None:
    """OpenRouter may put an error beside a choice's text; the text counts and the error is in reach."""
    body = {"choices": [{"text": "a", "finish_reason": "error", "error": {"code": 502, "message": "m"}}]}
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response(body))
        response = create(s).create_completion_response
    assert response is not None
    assert response.choices[0].additional_properties == {"error": {"code": 502, "message": "m"}}


# What reading the code as an adversary brought to light


@pytest.mark.parametrize("own", [True, False], ids=["own", "session"])
@pytest.mark.parametrize("failure", [FileNotFoundError("no key file"), requests.ConnectionError("no vault")], ids=repr)
def test_a_providers_failure_is_not_the_servers(failure: Exception, own: bool) -> None:
    """A key that cannot be fetched is the provider's own exception on either session, once, and nothing is sent."""
    asked = []

    def provider() -> shared.Security:
        asked.append(1)
        raise failure

    with ScriptedServer() as server:
        s = make(server.url, security=provider, client=None if own else requests.Session())
        with pytest.raises(type(failure)) as caught:
            create(s)
        assert (caught.value, asked, server.requests) == (failure, [1], [])


def test_a_failed_stream_is_forgotten_at_once() -> None:
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


def test_the_fast_path_waits_for_a_byte_order_mark() -> None:
    """Half a mark that does not go on to be one belongs to the first line, however the bytes are cut."""
    whole, cut = sse.Decoder(), sse.Decoder()
    stream = (b"\xef", b"data: a\n\n", b"data: b\n\n")
    events = [event for piece in stream for event in cut.feed(piece)]
    assert events == whole.feed(b"".join(stream)) == [sse.Event(b"b")]


def test_options_of_a_call_do_not_look_at_the_environment_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that appears later moves no call to the client's server, whatever its query, headers or path."""
    with ForwardProxy() as proxy, ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        create(s, query={"a": 1})
        create(s, http_headers={"X-A": "1"})
        create(s, server_url=f"{server.url}/other")
        for number in range(40):
            create(s, query={"n": number})
        create(s)
        assert (len(server.requests), len(proxy.requests)) == (44, 0)
