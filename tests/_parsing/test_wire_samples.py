"""Responses as real servers give them: each sample decodes with every field in reach, and goes back unchanged."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from gpt.models import shared
from gpt.models.errors import APIStatusError, InternalServerError, ResponseValidationError, SDKError
from tests.support.client import make, request
from tests.support.fixtures import error_samples, vllm, vllm_names, wire, wire_names
from tests.support.http_server import ScriptedResponse, ScriptedServer, json_response

GOOD = [name for name in wire_names(".json") if name[1:3] < "16"]
RESPONSES = [name for name in vllm_names() if not name.startswith(("stream_", "error_"))]
STREAMS = ["w21.sse", "w22.sse", "w23.sse", "w26.sse", "w27.sse", "w29.sse"]


def without_nulls(value: Any) -> Any:
    """Take away keys that are null; nulls in lists mean something and stay."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def complete(response: ScriptedResponse) -> shared.CreateCompletionResponse:
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(response)
        completion = s.completions.create_completion(request()).create_completion_response
    assert completion is not None
    return completion


def chunks(response: ScriptedResponse) -> list[shared.CreateCompletionResponse]:
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(response)
        stream = s.completions.stream_completion(request())
        came = list(stream)
        finished = {c.index: bool(c.finish_reason) for c in stream.collect().choices}
        assert stream.completed == all(finished.values())
    return came


def sample(name: str) -> shared.CreateCompletionResponse:
    return complete(json_response(wire(name)))


def sample_chunks(name: str) -> list[shared.CreateCompletionResponse]:
    return chunks(ScriptedResponse(200, {"content-type": "text/event-stream"}, wire(name), "chunked"))


def same(left: Any, right: Any) -> bool:
    """Compare as JSON text, where NaN is NaN and the order of keys does not count."""
    return json.dumps(without_nulls(left), sort_keys=True) == json.dumps(without_nulls(right), sort_keys=True)


@pytest.mark.parametrize("name", GOOD)
def test_completion_from_each_sample_writes_back_the_same_json(name: str) -> None:
    """What was decoded gives back the JSON it came from, nulls aside, and reads the same again."""
    decoded = sample(name)
    assert same(decoded.to_dict(), json.loads(wire(name)))
    assert same(json.loads(decoded.to_json()), json.loads(wire(name)))
    again = shared.CreateCompletionResponse.from_json(wire(name))
    assert same(again.to_dict(), decoded.to_dict())
    assert "NaN" in wire(name).decode() or again == decoded


@pytest.mark.parametrize("name", RESPONSES)
def test_completion_recorded_from_vllm_writes_back_the_same_json(name: str) -> None:
    """The same for responses recorded from vLLM."""
    recorded = vllm(name)
    decoded = complete(recorded.response())
    assert same(decoded.to_dict(), json.loads(recorded.body))
    assert all(type(choice) is shared.CreateCompletionResponseChoices for choice in decoded.choices)
    assert type(decoded.usage) is shared.CompletionUsage


@pytest.mark.parametrize("name", STREAMS)
def test_chunk_from_each_sample_stream_writes_back_the_same_json(name: str) -> None:
    """Each chunk of a stream gives back its own JSON."""
    lines = wire(name).replace(b"\r", b"").split(b"\n")
    sent = [json.loads(line[5:]) for line in lines if line.startswith(b"data:") and b"[DONE]" not in line]
    assert same([chunk.to_dict() for chunk in sample_chunks(name)], sent)


@pytest.mark.parametrize("name", [name for name in vllm_names() if name.startswith("stream_")])
def test_chunk_recorded_from_vllm_writes_back_the_same_json(name: str) -> None:
    """The same for streams recorded from vLLM."""
    body = vllm(name).body.encode()
    sent = [json.loads(line[5:]) for line in body.split(b"\n") if line.startswith(b"data:") and b"[DONE]" not in line]
    assert same([chunk.to_dict() for chunk in chunks(vllm(name).response())], sent)


def test_completion_w01_with_the_least_reads_none_for_the_rest() -> None:
    """What is missing reads as `None`."""
    completion = sample("w01.json")
    assert (completion.id, completion.object, completion.created, completion.model) == (
        *("cmpl-1", "text_completion", 1),
        "m",
    )
    choice = completion.choices[0]
    assert (choice.index, choice.text, choice.finish_reason, choice.logprobs) == (0, "a", "stop", None)
    assert (completion.usage, completion.system_fingerprint, completion.additional_properties) == (None, None, {})


def test_completion_w02_with_echo_has_null_for_the_first_logprob() -> None:
    """The first token of an echoed prompt has null for a log-probability."""
    logprobs = sample("w02.json").choices[0].logprobs
    assert logprobs is not None
    assert (logprobs.tokens, logprobs.text_offset) == (["Hi", " yo"], [0, 2])
    assert logprobs.token_logprobs == [None, -1.5]
    assert logprobs.top_logprobs == [None, {" yo": -1.5, " there": -2.25}]


def test_completion_w03_with_extras_of_vllm_keeps_them() -> None:
    """A server's own fields are kept beside the choice's, whatever their type."""
    completion = sample("w03.json")
    extras = completion.choices[0].additional_properties
    assert extras["stop_reason"] == 128001
    assert extras["prompt_logprobs"][1]["42"]["decoded_token"] == " a"
    assert completion.additional_properties == {"service_tier": None, "kv_transfer_params": None, "metrics": None}
    assert completion.usage == shared.CompletionUsage(prompt_tokens=2, total_tokens=3, completion_tokens=1)


def test_completion_w04_with_logprobs_of_llama_cpp_has_them_in_content() -> None:
    """The chat form is in `content`; details of the usage are typed; timings are kept."""
    completion = sample("w04.json")
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert logprobs.content[0]["top_logprobs"][0]["logprob"] == -3.4028234663852886e38
    assert logprobs.tokens is None
    assert completion.usage is not None
    assert completion.usage.prompt_tokens_details == shared.CompletionUsagePromptTokensDetails(cached_tokens=0)
    assert completion.additional_properties["timings"] == {"prompt_n": 3, "predicted_ms": 1.5}


def test_completion_w06_with_unordered_choices_keeps_their_order() -> None:
    """Choices stay in the server's order, and odd reasons as they are."""
    completion = sample("w06.json")
    assert [(c.index, c.text, c.finish_reason) for c in completion.choices] == [
        (1, "B", "stop_sequence"),
        (0, "A", "length"),
    ]
    assert completion.id == ""


def test_completion_w08_w11_with_unknown_finish_reasons_keeps_them() -> None:
    """A finish reason is an open string."""
    assert sample("w08.json").choices[0].finish_reason == "load"
    slow = sample("w11.json")
    assert slow.choices[0].finish_reason == "insufficient_system_resource"
    assert slow.usage is not None
    assert slow.usage.additional_properties == {"prompt_cache_hit_tokens": 0, "prompt_cache_miss_tokens": 2}


def test_completion_w10_with_filter_results_of_azure_keeps_them() -> None:
    """Azure's filter results are in reach; counters that are not sent are `None`."""
    completion = sample("w10.json")
    filtered = completion.choices[0].additional_properties["content_filter_results"]["violence"]
    assert filtered == {"filtered": True, "severity": "high"}
    assert completion.additional_properties["prompt_filter_results"][0]["prompt_index"] == 0
    assert completion.choices[0].finish_reason == shared.CreateCompletionResponseChoicesFinishReason.CONTENT_FILTER
    assert completion.usage is not None
    assert completion.usage.completion_tokens is None


def test_completion_w12_with_values_of_a_wrong_type_keeps_them() -> None:
    """A value of the wrong type in a leaf is kept as it is: neither an error nor a conversion."""
    completion = sample("w12.json")
    assert completion.created == 1698801125.93
    assert (completion.model, completion.usage, completion.choices[0].text) == (None, None, None)
    assert completion.choices[0].logprobs is not None
    assert completion.choices[0].logprobs.token_logprobs == ["None"]  # type: ignore[comparison-overlap]


def test_completion_w13_with_some_logprobs_missing_reads_the_rest() -> None:
    """Each of the four lists may be missing."""
    logprobs = sample("w13.json").choices[0].logprobs
    assert logprobs == shared.CreateCompletionResponseChoicesLogprobs(top_logprobs=[{"k": -0.01}])


def test_completion_w15_with_nan_and_infinity_reads_floats() -> None:
    """NaN and infinities are read as floats."""
    logprobs = sample("w15.json").choices[0].logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs == [-math.inf]
    assert logprobs.top_logprobs is not None
    assert math.isnan(logprobs.top_logprobs[0]["a"])  # type: ignore[index]


LAX = [
    {"choices": []},
    {"choices": [{}], "usage": 5, "created": "today", "id": 7, "model": ["m"]},
    {"choices": [{"text": 5, "logprobs": [1], "index": "0", "finish_reason": 3}], "usage": []},
    {"choices": [{"text": "a", "logprobs": {"tokens": "ab", "top_logprobs": {"a": -1}, "token_ids": [1]}}]},
    {"choices": [{"text": "a"}], "seed": 2**64 - 1, "low": -(2**63), "additional_properties": {"x": None}, "": 1},
    {"choices": [{"text": "a", "message": None, "delta": {"content": "a"}}], "error": None, "warning": "old"},
    {"choices": [{"index": 0}], "__class__": "x", "__dict__": {}, "to_dict": 1},
]


@pytest.mark.parametrize("body", LAX, ids=str)
def test_completion_with_odd_leaves_keeps_them(body: dict[str, Any]) -> None:
    """Anything with a list of objects as `choices` is a completion; what else it holds stays as it came."""
    decoded = complete(json_response(body))
    assert same(decoded.to_dict(), body)
    assert all(isinstance(choice, shared.CreateCompletionResponseChoices) for choice in decoded.choices)


@pytest.mark.parametrize(
    "body", [b'\xef\xbb\xbf{"choices":[]}', b' \n\n{"choices":[]}\n', b'{"choices":[],"x":"\\ud83d"}']
)
def test_response_of_json_that_strict_parsers_refuse_is_read(body: bytes) -> None:
    """A byte-order mark, blank lines, or half of an escaped pair do not spoil a response."""
    assert complete(json_response(body)).choices == []


@pytest.mark.parametrize("content_type", ["application/text", "text/html", "application/problem+json", None])
def test_response_of_json_under_another_content_type_is_read(content_type: str | None) -> None:
    """The body counts, not what its content type says."""
    headers = [("content-type", content_type)] if content_type else []
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(ScriptedResponse(200, headers, b'{"choices":[]}'))
        response = s.completions.create_completion(request())
    assert response.create_completion_response == shared.CreateCompletionResponse(choices=[])
    assert response.content_type == (content_type or "")


# Responses of success that are none


def refuse(response: ScriptedResponse) -> SDKError:
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(response)
        with pytest.raises(SDKError) as caught:
            s.completions.create_completion(request())
        assert len(server.requests) == 1
    return caught.value


def test_response_w16_w17_with_an_error_and_status_200_raises_the_error() -> None:
    """A body with an error raises it, with the class of the status that it names."""
    error = refuse(json_response(wire("w16.json")))
    assert (type(error), error.status_code, error.code) == (InternalServerError, 502, 502)
    assert "responded with 200 and an error inside: Provider returned error (code 502)" in error.message
    error = refuse(json_response(wire("w17.json")))
    assert (type(error), error.status_code) == (APIStatusError, 200)
    assert "Unexpected endpoint or method. (POST /completions)" in error.message


CAUSES = [
    (json_response(wire("w18.json")), "choices: expected a value, got nothing", "llama.cpp's native endpoint"),
    (json_response(wire("w19.json")), "its choices have no text", "the chat endpoint or Mistral's"),
    (json_response({"data": [], "object": "list"}), "choices: expected a value", "leads to another endpoint"),
    (json_response({"choices": None}), "choices: expected a list of objects, got null", "another endpoint"),
    (json_response({"choices": "x"}), "choices: expected a list of objects, got str 'x'", "another endpoint"),
    (json_response({"choices": ["x"]}), "choices[0]: expected an object, got str 'x'", ""),
    (json_response({"choices": [{"delta": {}}]}), "its choices have no text", "the chat endpoint"),
    (json_response(b"data: {}\n\n"), "the body is not JSON", "the server streams although no stream was requested"),
]


@pytest.mark.parametrize(("response", "problem", "cause"), CAUSES, ids=[problem for _, problem, _ in CAUSES])
def test_response_w18_w19_that_is_no_completion_raises_with_the_likely_cause(
    response: ScriptedResponse, problem: str, cause: str
) -> None:
    """A response that is not a completion raises an error with the problem, its first bytes and the likely cause."""
    error = refuse(response)
    assert type(error) is ResponseValidationError
    assert "responded with 200 (application/json), but " in error.message
    assert problem in error.message
    assert repr(response.body[:80]) in error.message
    assert cause in error.message
    assert error.body == response.body.decode()


@pytest.mark.parametrize("page", error_samples("w20.json"), ids=lambda sample: sample.note)
def test_response_w20_of_pages_and_scalars_raises_validation_error(page: Any) -> None:
    """A page, nothing, or a bare value: status, content type and first bytes are shown."""
    error = refuse(page.response())
    assert type(error) is ResponseValidationError
    assert f"responded with 200 ({page.content_type or 'no content type'}), but" in error.message
    assert ("it is empty" if not page.body else repr(page.body.encode()[:80])) in error.message
    assert ("Likely cause: a sign-in page" in error.message) == page.body.startswith("<")


def test_response_of_json_nested_too_deep_raises_validation_error() -> None:
    """JSON nested beyond reason is a typed error, not a crash."""
    for body in (b"[" * 100_000, b'{"choices":' * 100_000, b'{"NaN":' + b"[" * 100_000):
        assert type(refuse(json_response(body))) is ResponseValidationError
