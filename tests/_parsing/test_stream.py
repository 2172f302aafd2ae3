"""Streams that work: events as they come, the end, joining, and what becomes of the connection."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import gpt
from gpt.models import shared
from gpt.utils import EventStream
from tests.support.client import COMPLETION, OK, STREAM, chunk, make, request, stream_text
from tests.support.http_server import Framing, Received, ScriptedResponse, ScriptedServer, sse_response

DONE = b"data: [DONE]\n\n"


def open_stream(s: gpt.Gpt) -> EventStream[shared.CreateCompletionResponse]:
    return s.completions.stream_completion(request())


def texts(stream: EventStream[shared.CreateCompletionResponse]) -> list[str | None]:
    return [choice.text for part in stream for choice in part.choices]


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
def test_stream_event_in_any_framing_arrives_before_the_next_is_sent(framing: Framing, gzip: bool) -> None:
    """An event is there before the server sends the next one, whatever frames and packs the body."""
    gates = [threading.Event() for _ in range(3)]
    pieces = [part for i, gate in enumerate(gates) for part in (chunk(str(i), "stop" if i == 2 else None), gate)]
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(*pieces, framing=framing, gzip=gzip))
        with open_stream(s) as stream:
            for i, gate in enumerate(gates):
                assert next(stream).choices[0].text == str(i)
                gate.set()
            assert list(stream) == []
            assert stream.completed


def test_stream_event_received_in_part_is_yielded_once_complete() -> None:
    """Bytes that complete no event yield none; the rest completes it."""
    gate = threading.Event()
    with ScriptedServer() as server, make(server.url) as s:
        body = b'data: {"choices":[{"text":"a","finish_reason":"stop"}]}\n\n'
        server.reply(sse_response(body[:20], gate, body[20:]))
        with open_stream(s) as stream:
            threading.Timer(0.05, gate.set).start()
            assert next(stream).choices[0].text == "a"
            assert gate.is_set()


def test_stream_call_given_only_headers_returns_before_the_first_event() -> None:
    """With the headers the stream is there; its events may take their time."""
    gate = threading.Event()
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(gate, COMPLETION))
        with open_stream(s) as stream:
            assert not gate.is_set()
            gate.set()
            assert texts(stream) == [" ok"]


def test_create_completion_given_stream_true_returns_a_stream_and_no_completion() -> None:
    """`stream=True` fills one field of the response, `stream_completion` gives that field alone."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(STREAM)
        wrapper = s.completions.create_completion(request(stream=True))
        assert wrapper.create_completion_response is None
        assert wrapper.completion_stream is not None
        assert wrapper.completion_stream.response is wrapper.raw_response
        assert texts(wrapper.completion_stream) == [" ok"]
        assert stream_text(s) == " ok"
        assert [r.json() for r in server.requests] == [{"model": "m", "prompt": "Say", "stream": True}] * 2
        assert {r.header("accept") for r in server.requests} == {"text/event-stream"}


def test_stream_completion_given_stream_false_sends_true_and_keeps_the_request() -> None:
    """The request is copied, and an extra `stream` does not override the call."""
    original = request(stream=False, additional_properties={"stream": False, "top_k": 5})
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(STREAM)
        s.completions.stream_completion(original).collect()
        assert server.requests[0].json() == {"model": "m", "prompt": "Say", "stream": True, "top_k": 5}
    assert original == request(stream=False, additional_properties={"stream": False, "top_k": 5})


def test_create_completion_given_stream_in_the_extras_returns_a_stream() -> None:
    """`additional_properties` wins over the fields, for `stream` as well."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(STREAM)
        wrapper = s.completions.create_completion(request(additional_properties={"stream": True}))
        assert wrapper.completion_stream is not None
        assert wrapper.completion_stream.collect().choices[0].text == " ok"


# The end


@pytest.mark.parametrize("done", [b"data: [DONE]\n\n", b"data:[DONE] \r\n\r\n", b"data: [DONE]", b"data: [DONE]\n"])
def test_stream_done_event_ends_it(done: bytes) -> None:
    """`[DONE]` ends a stream in every spelling, finish reason or not; what follows is not read."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(chunk("a"), done, done=False))
        stream = open_stream(s)
        assert texts(stream) == ["a"]
        assert not stream.completed, "the choice was not finished, and the stream says so"


def test_stream_events_after_done_are_not_decoded() -> None:
    """Events behind `[DONE]`, broken ones too, do not exist."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(chunk("a"), DONE + b"data: {oops\n\n", b"data: more\n\n", done=False))
        assert texts(open_stream(s)) == ["a"]


def test_stream_text_that_says_done_does_not_end_it() -> None:
    """A completion may say `[DONE]` itself."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(chunk("[DONE]"), chunk("!", "stop")))
        assert texts(open_stream(s)) == ["[DONE]", "!"]


@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
def test_stream_without_done_is_completed_when_every_choice_is_finished(framing: Framing) -> None:
    """Without `[DONE]` a stream is whole when every choice it showed has a finish reason."""
    events: tuple[dict[str, Any], ...] = (
        chunk("a", index=1),
        chunk("b", "stop", index=1),
        chunk("c", "length"),
        {"choices": []},
    )
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(*events, done=False, framing=framing))
        stream = open_stream(s)
        assert len(list(stream)) == 4
        assert stream.completed


def test_stream_last_event_without_a_blank_line_is_yielded() -> None:
    """An unfinished event at the end counts when it is whole JSON."""
    body = b'data: {"choices":[{"text":"a","finish_reason":"stop"}]}'
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(body, done=False))
        assert texts(open_stream(s)) == ["a"]


NEWS = b'event: ping\ndata: {"type":"ping"}\n\n: hello\n\nevent: x\n\nid: 7\n\ndata:\n\nevent: time\ndata: 12:00\n\n'


def test_stream_events_without_content_are_skipped() -> None:
    """Pings, comments and events without data are skipped; named events with choices are not."""
    named = b'event: completion\ndata: {"choices":[{"text":"b","finish_reason":"stop"}]}\n\n'
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(b"\xef\xbb\xbf", NEWS, chunk("a"), NEWS, named, NEWS, done=False))
        assert texts(open_stream(s)) == ["a", "b"]


def test_chunk_with_odd_values_is_read_as_sent() -> None:
    """Numbers that JSON does not have, unknown reasons and missing keys are read as they are."""
    odd = b'data: {"choices":[{"logprobs":{"token_logprobs":[null,NaN,-Infinity]}}],"usage":null}\n\n'
    end = b'data: {"choices":[{"index":0,"finish_reason":"eos_token"}]}\n\n'
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(odd, end, done=False))
        choice = open_stream(s).collect().choices[0]
    assert choice.finish_reason == "eos_token"
    assert choice.logprobs is not None
    assert str(choice.logprobs.token_logprobs) == "[None, nan, -inf]"


# The connection


def test_stream_that_ended_gives_its_connection_back() -> None:
    """A stream that ended gives its connection back."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(STREAM)
        assert [stream_text(s) for _ in range(5)] == [" ok"] * 5
        assert server.connections == 1


def test_stream_whose_body_ends_late_gives_its_connection_back() -> None:
    """The end of the body may come in a packet of its own, after `[DONE]`."""
    gate = threading.Event()
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(COMPLETION, DONE, gate, b"\n", done=False), OK)
        stream = open_stream(s)
        threading.Timer(0.02, gate.set).start()
        assert texts(stream) == [" ok"]
        s.completions.create_completion(request())
        assert server.connections == 1


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_stream_that_stays_open_after_done_closes_its_connection(framing: Framing) -> None:
    """After `[DONE]` the client waits no longer than a moment, closes, and goes on elsewhere."""
    never = threading.Event()
    with ScriptedServer() as server, make(server.url, timeout=60) as s:
        server.reply(sse_response(COMPLETION, DONE, never, framing=framing), OK)
        assert stream_text(s) == " ok"
        server.wait_closed(1)
        s.completions.create_completion(request())
        assert server.connections == 2


@pytest.mark.parametrize("framing", ["chunked", "close"])
@pytest.mark.parametrize("way", ["break", "with", "close", "delete"])
def test_stream_left_early_closes_its_connection(way: str, framing: Framing) -> None:
    """Whoever stops half-way hangs up, so that the server can stop as well."""
    never = threading.Event()
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(chunk("a"), b"data: partial\n", never, framing=framing), OK)
        _leave(s, way)
        server.wait_closed(1)
        s.completions.create_completion(request())
        assert server.connections == 2


def _leave(s: gpt.Gpt, way: str) -> None:
    stream = open_stream(s)
    if way == "break":
        for _ in stream:
            break
    elif way == "with":
        with stream:
            next(stream)
    elif way == "close":
        next(stream)
        stream.close()
    assert not stream.completed


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
def test_stream_closed_from_another_thread_ends_the_waiting_reader(framing: Framing, gzip: bool) -> None:
    """A reader that waits for the next event stops, without an error, when the stream is closed elsewhere."""
    never, got = threading.Event(), []
    with ScriptedServer() as server, make(server.url, timeout=60) as s:
        server.reply(sse_response(chunk("a"), never, chunk("b"), framing=framing, gzip=gzip))
        stream = open_stream(s)
        first = threading.Event()

        def read() -> None:
            for part in stream:
                got.append(part.choices[0].text)
                first.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert first.wait(5)
        stream.close()
        reader.join(5)
        assert not reader.is_alive()
        server.wait_closed(1)
    assert (got, stream.completed) == (["a"], False)


def test_stream_closed_while_iterating_yields_no_more_events() -> None:
    """After `close` nothing more comes, not even events that had arrived; `collect` joins what was taken."""
    body = b"".join(b'data: {"choices":[{"text":"%d"}]}\n\n' % i for i in range(5))
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(body))
        stream = open_stream(s)
        taken = []
        for part in stream:
            taken.append(part.choices[0].text)
            stream.close()
        stream.close()
        assert (taken, list(stream), next(stream, None)) == (["0"], [], None)
        assert stream.collect().choices[0].text == "0"
        assert not stream.completed


def test_stream_iterated_after_its_end_yields_nothing() -> None:
    """A stream is read once; `next` says so as iterators do."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(STREAM)
        stream = open_stream(s)
        assert iter(stream) is not None
        assert texts(stream) == [" ok"]
        assert texts(stream) == []
        with pytest.raises(StopIteration):
            next(stream)


def test_stream_repr_in_each_state_shows_the_state_and_no_content() -> None:
    """A stream shows its state and nothing of its content."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(STREAM, sse_response(chunk("secret"), threading.Event()))
        stream = open_stream(s)
        assert repr(stream) == "<EventStream open, 0 events>"
        stream.collect()
        assert repr(stream) == "<EventStream completed, 1 events>"
        with open_stream(s) as stream:
            next(stream)
        assert repr(stream) == "<EventStream closed, 1 events>"


def test_streams_at_the_same_time_do_not_mix() -> None:
    """Streams of one client do not mix."""

    def response(received: Received) -> ScriptedResponse:
        word = received.json()["prompt"]
        return sse_response(*(chunk(f"{word}{i} ") for i in range(3)), chunk("", "stop"))

    with ScriptedServer() as server, make(server.url) as s:
        server.respond_with(response)
        one, two = (s.completions.stream_completion(request(prompt=word)) for word in "xy")
        pairs = list(zip(texts(one), texts(two), strict=True))
    assert pairs == [("x0 ", "y0 "), ("x1 ", "y1 "), ("x2 ", "y2 "), ("", "")]


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
def test_stream_of_each_known_server_is_collected_whole(name: str, done: bool) -> None:
    """Whatever surrounds the text, it comes whole, with its reason, and with or without `[DONE]`."""
    events, expected = STREAMS[name]
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(*events, done=done))
        stream = s.completions.stream_completion(request())
        whole = stream.collect()
    assert stream.completed
    assert [(choice.index, choice.text, choice.finish_reason) for choice in whole.choices] == expected
