"""Chunks of a stream joined into one response."""

from __future__ import annotations

from typing import Any

import gpt
from gpt._parsing.accumulate import accumulate as collect
from gpt.models import shared
from gpt.utils import EventStream
from tests.support.client import chunk, make, request
from tests.support.http_server import ScriptedServer, sse_response


def open_stream(s: gpt.Gpt) -> EventStream[shared.CreateCompletionResponse]:
    return s.completions.stream_completion(request())


def join(*chunks: dict[str, Any]) -> shared.CreateCompletionResponse:
    return collect(shared.CreateCompletionResponse.from_dict(part) for part in chunks)


def test_collect_after_next_includes_the_events_already_taken() -> None:
    """Events that were taken with `next` are in the whole; a second call gives the same."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(chunk("a"), chunk("b"), chunk("c", "stop")))
        stream = open_stream(s)
        assert next(stream).choices[0].text == "a"
        whole = stream.collect()
        assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("abc", "stop")
        assert stream.collect() == whole
        assert stream.completed


def test_collect_given_interleaved_choices_joins_each_by_index() -> None:
    """Choices are told apart by index, come ordered, and keep what each was sent beside its text."""
    events = [
        chunk("B", index=1, stop_reason=None, token_ids=[7]),
        chunk("A", index=0, stop_reason=None, token_ids=[3]),
        chunk("b", "stop", index=1, stop_reason=128001, token_ids=[8, 9]),
        chunk("a", "length", index=0, token_ids=None),
    ]
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(*events))
        first, second = open_stream(s).collect().choices
    assert (first.index, first.text, first.finish_reason) == (0, "Aa", "length")
    assert (second.index, second.text, second.finish_reason) == (1, "Bb", "stop")
    assert first.additional_properties == {"stop_reason": None, "token_ids": [3]}
    assert second.additional_properties == {"stop_reason": 128001, "token_ids": [7, 8, 9]}


def logprobs(*tokens: str) -> dict[str, Any]:
    return {
        "tokens": list(tokens),
        "token_logprobs": [None if token == "<s>" else -0.5 for token in tokens],
        "top_logprobs": [None if token == "<s>" else {token: -0.5} for token in tokens],
        "text_offset": [0] * len(tokens),
        "token_ids": [1] * len(tokens),
    }


def test_collect_given_logprobs_in_each_chunk_concatenates_the_lists() -> None:
    """Each list of log-probabilities grows chunk by chunk, nulls and a server's own lists included."""
    first, second = chunk("ab"), chunk("c", "stop")
    first["choices"][0]["logprobs"] = logprobs("<s>", "b")
    second["choices"][0]["logprobs"] = logprobs("c")
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(first, second, chunk("")))
        joined = open_stream(s).collect().choices[0].logprobs
    assert joined is not None
    assert joined.to_dict() == logprobs("<s>", "b", "c")


def test_collect_given_chat_logprobs_concatenates_their_content() -> None:
    """The `content` form of llama.cpp is joined as well."""
    pieces = [chunk(token, "stop") for token in "ab"]
    for piece, token in zip(pieces, "ab", strict=True):
        piece["choices"][0]["logprobs"] = {"content": [{"token": token, "logprob": -1.0}]}
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(*pieces))
        joined = open_stream(s).collect().choices[0].logprobs
    assert joined is not None
    assert [entry["token"] for entry in joined.content or ()] == ["a", "b"]


def test_collect_given_several_usages_keeps_the_last() -> None:
    """Usage may come with every chunk, as zeros or null; the last one is kept."""
    zero = {"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}
    last = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}}
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(chunk("a", "stop") | zero, last, {"choices": [], "usage": None}))
        whole = open_stream(s).collect()
    assert whole.usage is not None
    assert whole.usage.total_tokens == 4
    assert [choice.text for choice in whole.choices] == ["a"]


def test_collect_given_choices_without_an_index_uses_their_position() -> None:
    """A missing or null index is read as the position in its chunk."""
    events: list[dict[str, Any]] = [
        {"choices": [{"text": "a"}, {"text": "b", "index": None}]},
        {"choices": [{"text": "c"}]},
    ]
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(*events))
        assert [choice.text for choice in open_stream(s).collect().choices] == ["ac", "b"]


def test_collect_given_other_fields_again_keeps_their_last_value() -> None:
    """Of everything but texts and lists the last value that says something is kept, extras included."""
    whole = join(
        {"id": "a", "model": "m", "choices": [], "prompt_filter_results": [1]},
        {"id": "", "model": None, "choices": [chunk("x")["choices"][0]], "timings": None},
        {"created": 5, "system_fingerprint": "f", "choices": [], "timings": {"n": 1}, "prompt_filter_results": None},
    )
    assert (whole.id, whole.model, whole.created, whole.system_fingerprint) == ("a", "m", 5, "f")
    assert whole.additional_properties == {"prompt_filter_results": [1], "timings": {"n": 1}}


def test_collect_given_top_logprobs_as_a_map_merges_the_maps() -> None:
    """Together's `top_logprobs` is one map in each chunk; none of its tokens is lost."""
    whole = join(
        *({"choices": [{"text": t, "index": 0, "logprobs": {"top_logprobs": {t: -1.0}}}]} for t in ("a", "b", "c"))
    )
    assert whole.choices[0].logprobs is not None
    assert whole.choices[0].logprobs.to_dict() == {"top_logprobs": {"a": -1.0, "b": -1.0, "c": -1.0}}


def test_collect_given_chunks_the_caller_kept_leaves_them_unchanged() -> None:
    """The chunks a caller has kept stay what they were."""
    parts = [{"choices": [{"text": "a", "token_ids": [1], "logprobs": {"tokens": ["a"]}}]} for _ in range(3)]
    chunks = [shared.CreateCompletionResponse.from_dict(part) for part in parts]
    whole = collect(chunks)
    assert [part.to_dict() for part in chunks] == parts
    assert whole.choices[0].logprobs == shared.CreateCompletionResponseChoicesLogprobs(tokens=["a", "a", "a"])
    assert collect(chunks) == whole


def test_collect_given_leaves_of_a_wrong_type_does_not_raise() -> None:
    """Leaves of a wrong type are passed over or kept, never an error."""
    whole = join(
        {"choices": [{"text": 5, "index": [], "logprobs": "x", "finish_reason": ["y"]}]},
        {"choices": [{"text": "a", "logprobs": {"tokens": "abc", "content": {}}, "token_ids": 7}], "usage": 5},
        {"choices": [{"index": -1}, {"index": 2**70, "text": None}]},
    )
    assert [choice.index for choice in whole.choices] == [-1, 0, 2**70]
    assert whole.choices[1].text == "a"


def test_collect_given_no_chunks_returns_a_response_without_choices() -> None:
    """No chunks give an empty response."""
    assert join() == shared.CreateCompletionResponse(choices=[])
