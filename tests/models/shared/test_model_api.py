"""The models: dicts and JSON there and back as on the wire, equality, repr, copies, pickles."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpt
from gpt.models import shared
from tests.support.client import COMPLETION, OK, QUICK, create, make, request
from tests.support.fixtures import vllm
from tests.support.http_server import ScriptedServer

MODELS = [getattr(shared, name) for name in shared.__all__ if is_dataclass(getattr(shared, name))]


def full_request() -> shared.CreateCompletionRequest:
    return request(
        model=shared.CreateCompletionRequestModel.DAVINCI_002,
        prompt=np.array([[1, 2]]),
        logit_bias={50256: -100},
        stop=("\n", "é"),
        temperature=0,
        stream_options=shared.CompletionStreamOptions(include_usage=True, additional_properties={"x": None}),
        additional_properties={"top_k": 5, "min_p": None},
    )


FULL = {
    "model": "davinci-002",
    "prompt": [[1, 2]],
    "logit_bias": {"50256": -100},
    "stop": ["\n", "é"],
    "temperature": 0,
    "stream_options": {"include_usage": True, "x": None},
    "top_k": 5,
    "min_p": None,
}


def test_request_as_dict_and_json_equals_what_is_sent() -> None:
    """`to_dict`, `to_json` and the wire agree."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        s.completions.create_completion(full_request())
        received = server.requests[0]
    assert received.json() == FULL
    assert full_request().to_dict() == FULL
    assert full_request().to_json() == received.body.decode()
    assert json.loads(full_request().to_json(indent=2, sort_keys=True)) == FULL


def test_to_dict_given_arrays_and_nested_models_returns_plain_values() -> None:
    """No array, enumeration or dataclass is left, and nothing is shared with the model."""
    original = full_request()
    as_dict = original.to_dict()
    assert {type(value) for value in as_dict.values()} == {str, list, dict, int, type(None)}
    as_dict["stream_options"]["x"] = as_dict["stop"][0] = "changed"
    assert original.to_dict() == FULL


def test_request_from_dict_and_json_equals_the_one_written() -> None:
    """What was written reads as the same request, nested models and unknown keys in their places."""
    read = shared.CreateCompletionRequest.from_dict(FULL)
    assert read == shared.CreateCompletionRequest.from_json(json.dumps(FULL))
    assert read.to_dict() == FULL
    assert read.stream_options == shared.CompletionStreamOptions(include_usage=True, additional_properties={"x": None})
    assert read.additional_properties == {"top_k": 5, "min_p": None}
    assert read.max_tokens is None


def test_response_from_dict_and_json_equals_the_one_from_the_wire() -> None:
    """The public readers and the wire give equal models."""
    recorded = vllm("extras")
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(recorded.response())
        response = s.completions.create_completion(request()).create_completion_response
    assert response == shared.CreateCompletionResponse.from_json(recorded.body)
    assert response == shared.CreateCompletionResponse.from_json(recorded.body.encode())
    assert response == shared.CreateCompletionResponse.from_json(bytearray(recorded.body.encode()))
    assert response == shared.CreateCompletionResponse.from_dict(json.loads(recorded.body))
    assert response != shared.CreateCompletionResponse.from_dict(COMPLETION)


def test_model_decoded_from_a_dict_equals_one_built_by_hand() -> None:
    """It does not show how a model was made."""
    built = shared.CreateCompletionResponse(
        choices=[shared.CreateCompletionResponseChoices(text=" ok", index=0, finish_reason="stop")],
        **{name: COMPLETION[name] for name in ("id", "object", "created", "model")},
    )
    assert shared.CreateCompletionResponse.from_dict(COMPLETION) == built
    assert repr(shared.CreateCompletionResponse.from_dict(COMPLETION)) == repr(built)
    assert replace(built, id="x").to_dict() == {**built.to_dict(), "id": "x"}


def test_from_dict_given_a_dict_leaves_it_unchanged() -> None:
    """`from_dict` does not change the dict it gets."""
    given_dict: dict[str, Any] = {"choices": [{"text": "a", "odd": 1}], "usage": {"x": 1}, "odd": {"a": []}}
    kept = copy.deepcopy(given_dict)
    shared.CreateCompletionResponse.from_dict(given_dict).additional_properties["new"] = 1
    assert given_dict == kept


def test_model_with_large_integers_and_floats_keeps_value_and_type() -> None:
    """Integers to 64 bits and floats keep value and type."""
    text = '{"choices":[],"created":18446744073709551615,"low":-9223372036854775808,"one":1.0,"small":5e-324}'
    read = shared.CreateCompletionResponse.from_json(text)
    assert read.to_json() == text
    assert type(read.additional_properties["one"]) is float


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "expected an object, got a list of 0"),
        ("null", "expected an object, got null"),
        ("{}", "choices: expected a value, got nothing"),
        ('{"choices":5}', "choices: expected a list of objects, got int 5"),
        ('{"choices":[{},"x"]}', r"choices\[1\]: expected an object, got str 'x'"),
        ("{", "unexpected|Expecting"),
    ],
)
def test_from_json_given_no_completion_raises_value_error(text: str, said: str) -> None:
    """`from_json` and `from_dict` name the place, what was expected and what came."""
    with pytest.raises(ValueError, match=said):
        shared.CreateCompletionResponse.from_json(text)


def test_model_given_options_of_dataclasses_json_accepts_them() -> None:
    """Calls written for dataclasses-json go on working."""
    assert request().to_dict(encode_json=True) == request().to_dict() == {"model": "m", "prompt": "Say"}
    assert shared.CompletionUsage.from_dict({}, infer_missing=True) == shared.CompletionUsage()
    read = shared.CompletionUsage.from_json('{"total_tokens": 1.5}', parse_float=str, infer_missing=True)
    assert read.total_tokens == "1.5"  # type: ignore[comparison-overlap]
    assert request().to_json(ensure_ascii=True, separators=(", ", ": ")) == '{"model": "m", "prompt": "Say"}'


def test_to_json_given_nan_raises_for_requests_and_writes_responses() -> None:
    """NaN cannot be sent; in a response it is what the server said."""
    with pytest.raises(ValueError, match="temperature: expected a finite number, got nan"):
        request(temperature=float("nan")).to_json()
    logprobs = shared.CreateCompletionResponseChoicesLogprobs(token_logprobs=[float("nan"), float("-inf")])
    assert logprobs.to_json() == '{"token_logprobs":[NaN,-Infinity]}'


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_model_given_positions_raises_and_shares_no_extras(model: Any) -> None:
    """Positions mean nothing, and no two models share their extras."""
    with pytest.raises(TypeError, match="positional"):
        model("x")
    if "additional_properties" in {field.name for field in fields(model)}:
        one, two = (model.from_dict({"choices": [], "model": "m"}) for _ in range(2))
        one.additional_properties["x"] = 1
        assert "x" not in two.additional_properties


@pytest.mark.parametrize("name", ["stop", "extras", "echo_logprobs_score"])
def test_response_copied_or_pickled_equals_the_original(name: str) -> None:
    """Responses can be pickled and copied, deep or not."""
    response = shared.CreateCompletionResponse.from_json(vllm(name).body)
    assert pickle.loads(pickle.dumps(response)) == response
    deep = copy.deepcopy(response)
    assert deep == copy.copy(response) == response
    deep.choices[0].additional_properties["x"] = 1
    assert deep != response


def test_model_repr_with_nested_models_shows_the_tree() -> None:
    """A model in a terminal can be read, nested ones included."""
    rendered = repr(shared.CreateCompletionResponse.from_dict({**COMPLETION, "usage": {"total_tokens": 3}, "x": 1}))
    assert rendered.startswith("CreateCompletionResponse(choices=[CreateCompletionResponseChoices(text=' ok', index=0")
    assert "usage=CompletionUsage(total_tokens=3)" in rendered
    assert rendered.endswith("additional_properties={'x': 1})")


def test_security_repr_given_a_key_does_not_show_it() -> None:
    """A key is in the dict that was asked for, and in no `repr`."""
    security = shared.Security(api_key_auth="sk-secret")
    assert repr(security) == "Security(api_key_auth='***', header='Authorization')"
    assert f"{security} {[security]}".count("secret") == 0
    assert shared.Security.from_dict(security.to_dict()) == security


def test_finish_reason_from_a_response_is_a_string_equal_to_the_enum() -> None:
    """The enumeration names the known reasons; what the server sends stays a string."""
    reasons = shared.CreateCompletionResponseChoicesFinishReason
    choice = shared.CreateCompletionResponseChoices.from_dict({"finish_reason": "stop"})
    assert choice.finish_reason == reasons.STOP
    assert type(choice.finish_reason) is str
    assert {reason.value for reason in reasons} == {"stop", "length", "content_filter"}


@dataclass(kw_only=True)
class MyRequest(shared.CreateCompletionRequest):
    """A request with a field of one server."""

    top_k: int | None = None


def test_request_subclass_with_own_fields_is_sent_checked_and_read() -> None:
    """Whoever needs one server's field typed makes a subclass; it is sent, checked and read."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        s.completions.create_completion(MyRequest(model="m", top_k=5))
        assert server.requests[0].json() == {"model": "m", "top_k": 5}
    assert MyRequest.from_dict({"model": "m", "top_k": 5}) == MyRequest(model="m", top_k=5)
    with pytest.raises(TypeError, match="top_k: expected an integer, got str 'x'"):
        MyRequest(model="m", top_k="x").to_json()  # type: ignore[arg-type]


LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
CHOICES = st.lists(st.dictionaries(st.text() | st.sampled_from(["text", "index", "logprobs"]), VALUES, max_size=4))
OTHERS = st.dictionaries(st.text() | st.sampled_from(["usage", "id", "additional_properties"]), VALUES, max_size=4)


@given(OTHERS, CHOICES)
def test_response_with_any_fields_writes_them_back_unchanged(
    others: dict[str, Any], choices: list[dict[str, Any]]
) -> None:
    """Whatever a server invents beside and inside `choices` is kept; only nulls of typed fields are left out."""
    body = {**others, "choices": choices}
    read = shared.CreateCompletionResponse.from_dict(body)
    assert shared.CreateCompletionResponse.from_dict(read.to_dict()) == read
    unknown = set(others) - {field.name for field in fields(shared.CreateCompletionResponse)} | (
        {"additional_properties"} & set(others)
    )
    assert {key: read.to_dict()[key] for key in unknown} == {key: others[key] for key in unknown}


def test_request_without_a_model_raises_type_error() -> None:
    """What is missing is named, before there is a call."""
    with pytest.raises(TypeError, match="'model'"):
        shared.CreateCompletionRequest(prompt="Say")  # type: ignore[call-arg]


def test_request_with_values_out_of_range_sends_them_unchanged() -> None:
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


def test_models_and_settings_pickled_are_equal() -> None:
    """Requests, responses and settings are plain data."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        response = create(s)
    values = [
        request(additional_properties={"top_k": 1}),
        response.create_completion_response,
        QUICK,
        gpt.UNSET,
        response.rate_limit,
    ]
    assert pickle.loads(pickle.dumps(values)) == values
    assert pickle.loads(pickle.dumps(gpt.UNSET)) is gpt.UNSET
    assert replace(QUICK, max_retries=3).max_retries == 3
