"""What a request looks like on the wire: exactly what was set, nothing else, or an error that names the field."""

from __future__ import annotations

import array
import json
import uuid
from collections import UserDict, UserList, deque
from enum import Enum
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt.models import shared
from tests.support.client import OK, make, request
from tests.support.http_server import ScriptedServer

EVERYTHING: dict[str, Any] = {
    "model": "davinci-002",
    "prompt": [[1212, 318, 257, 1332, 13]],
    "best_of": 2,
    "echo": True,
    "frequency_penalty": -2.0,
    "logit_bias": {"50256": -100, "foo": 0.5},
    "logprobs": 5,
    "max_tokens": 16,
    "n": 1,
    "presence_penalty": 1.5,
    "seed": -(2**63),
    "stop": ["\n", "END"],
    "stream": False,
    "suffix": "tést.",
    "temperature": 1,
    "top_p": 0.1,
    "user": "user-1234",
}


def sent(**fields: Any) -> bytes:
    """Send a request to a real server and give the bytes of the body it received."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        s.completions.create_completion(shared.CreateCompletionRequest(**fields))
        received = server.requests[0]
    assert received.header_all("content-type") == ["application/json"]
    assert (received.method, received.path) == ("POST", "/v1/completions")
    return received.body


def value(**fields: Any) -> Any:
    """Send one field beside the model and give it as it was received."""
    (name,) = fields
    return json.loads(sent(model="m", **fields))[name]


def refused(**fields: Any) -> Exception:
    """Try to send a request that cannot be sent: nothing may reach the server."""
    with ScriptedServer() as server, make(server.url) as s:
        with pytest.raises((TypeError, ValueError)) as caught:
            s.completions.create_completion(shared.CreateCompletionRequest(**{"model": "m", **fields}))
        assert server.connections == 0
    return caught.value


def test_request_with_every_field_set_arrives_exactly() -> None:
    """Every field set at once is received as it was set, and no other."""
    options = shared.CompletionStreamOptions(include_usage=False, include_obfuscation=True)
    body = sent(**EVERYTHING, stream_options=options, additional_properties={"top_k": 5, "guided": None})
    expected = EVERYTHING | {"stream_options": {"include_usage": False, "include_obfuscation": True}}
    assert json.loads(body) == expected | {"top_k": 5, "guided": None}
    assert set(json.loads(body)) - {"top_k", "guided"} == {
        name for name in vars(request()) if name != "additional_properties"
    }


def test_request_with_model_and_prompt_sends_two_keys() -> None:
    """Model and prompt, compact, in UTF-8, and nothing that was not said."""
    assert sent(model="m", prompt="Saÿ \u2028") == '{"model":"m","prompt":"Saÿ \u2028"}'.encode()
    assert sent(model="m") == b'{"model":"m"}'


@pytest.mark.parametrize("name", ["best_of", "frequency_penalty", "logprobs", "max_tokens", "n", "seed", "temperature"])
def test_request_field_of_zero_is_sent(name: str) -> None:
    """Zero is a value."""
    assert value(**{name: 0}) == 0


@pytest.mark.parametrize(
    "fields",
    [{"echo": False}, {"prompt": ""}, {"suffix": ""}, {"stop": ""}, {"stop": []}, {"logit_bias": {}}, {"prompt": []}],
    ids=str,
)
def test_request_field_of_empty_value_is_sent(fields: dict[str, Any]) -> None:
    """`False`, `""` and empty lists are values, too."""
    assert value(**fields) == next(iter(fields.values()))


def test_request_stream_options_without_options_are_sent_as_an_empty_object() -> None:
    """Options without an option are an empty object."""
    assert value(stream_options=shared.CompletionStreamOptions()) == {}


TOKENS = [
    ("1-D array", np.array([1, 2, 3]), [1, 2, 3]),
    ("2-D array", np.array([[1, 2], [3, 4]], dtype=np.int32), [[1, 2], [3, 4]]),
    ("strided array", np.arange(6)[::2], [0, 2, 4]),
    ("transposed array", np.array([[1, 2], [3, 4]]).T, [[1, 3], [2, 4]]),
    ("big-endian array", np.array([1, 2], dtype=">i8"), [1, 2]),
    ("unsigned array", np.array([2**64 - 1], dtype=np.uint64), [2**64 - 1]),
    ("empty array", np.array([], dtype=np.int64), []),
    ("list of arrays", [np.array([1, 2], dtype=np.uint16), np.array([3])], [[1, 2], [3]]),
    ("list of scalars", [np.int64(1), np.uint8(2)], [1, 2]),
    ("array of texts", np.array(["a", "b"]), ["a", "b"]),
    ("array module", array.array("l", [1, 2]), [1, 2]),
    ("tuple", (1, 2), [1, 2]),
    ("tuple of tuples", ((1,), (2, 3)), [[1], [2, 3]]),
    ("range", range(3), [0, 1, 2]),
    ("generator", (n for n in (1, 2)), [1, 2]),
    ("generator of lists", ([n] for n in (1, 2)), [[1], [2]]),
    ("map", map(str, (1, 2)), ["1", "2"]),
    ("deque", deque(["a", "b"]), ["a", "b"]),
    ("UserList", UserList(["a"]), ["a"]),
    ("dictionary's values", {"x": "a"}.values(), ["a"]),
    ("text", "abc", "abc"),
    ("list of one text", ["abc"], ["abc"]),
    ("llama.cpp's mix", ["a", 5, [6, "b"]], ["a", 5, [6, "b"]]),
]


@pytest.mark.parametrize(("prompt", "expected"), [case[1:] for case in TOKENS], ids=[case[0] for case in TOKENS])
def test_request_prompt_of_any_form_arrives_as_text_or_lists(prompt: Any, expected: object) -> None:
    """Texts and token ids arrive as JSON lists, from whatever holds them; a text is never taken apart."""
    assert value(prompt=prompt) == expected


def test_request_stop_of_text_or_tuple_arrives_as_text_or_list() -> None:
    """A text stays a text, a tuple becomes a list."""
    assert value(stop="ab") == "ab"
    assert value(stop=("a", "b")) == ["a", "b"]


class Bias(Enum):
    HIGH = 100


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"logit_bias": {50256: -100, "7": 1.5}}, {"50256": -100, "7": 1.5}),
        ({"logit_bias": {np.int64(4): np.float32(1.5)}}, {"4": 1.5}),
        ({"logit_bias": MappingProxyType({1: 1})}, {"1": 1}),
        ({"logit_bias": UserDict({1: 1})}, {"1": 1}),
        ({"logit_bias": {1: Bias.HIGH}}, {"1": 100}),
        ({"max_tokens": np.int64(5)}, 5),
        ({"max_tokens": np.array(5)}, 5),
        ({"temperature": np.float32(0.5)}, 0.5),
        ({"temperature": Fraction(1, 2)}, 0.5),
        ({"echo": np.True_}, True),
        ({"seed": 2**64 - 1}, 2**64 - 1),
    ],
    ids=str,
)
def test_request_numpy_numbers_and_integer_keys_arrive_as_json(fields: dict[str, Any], expected: object) -> None:
    """Integer keys become strings; NumPy's numbers are numbers."""
    assert value(**fields) == expected


def test_request_model_of_the_enumeration_is_sent_as_its_name() -> None:
    """A model may be a member of the enumeration."""
    body = sent(model=shared.CreateCompletionRequestModel.GPT_3_5_TURBO_INSTRUCT)
    assert body == b'{"model":"gpt-3.5-turbo-instruct"}'


def test_request_additional_properties_override_fields() -> None:
    """Extras are merged last: they replace fields, and an explicit null is sent."""
    extras = {"max_tokens": "many", "n": None, "top_k": 5, "nested": {"a": [None, {"b": "c"}]}, "id": uuid.UUID(int=1)}
    received = json.loads(sent(model="m", prompt="p", max_tokens=3, n=2, additional_properties=extras))
    assert received == {"model": "m", "prompt": "p", **extras, "id": "00000000-0000-0000-0000-000000000001"}


def test_request_stream_options_extras_are_merged_in_place() -> None:
    """Nested extras are merged where they are."""
    options = shared.CompletionStreamOptions(include_usage=True, additional_properties={"continuous_usage_stats": True})
    assert value(stream_options=options) == {"include_usage": True, "continuous_usage_stats": True}


def test_request_after_sending_is_unchanged() -> None:
    """Sending leaves the request and everything in it as it was."""
    bias, extras, prompt = {5: 1.0}, {"top_k": 1}, ["a"]
    original = request(prompt=prompt, logit_bias=bias, additional_properties=extras)
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        s.completions.create_completion(original)
        s.completions.create_completion(original)
        assert server.requests[0].body == server.requests[1].body
    assert (bias, extras, prompt) == ({5: 1.0}, {"top_k": 1}, ["a"])
    assert original.logit_bias is bias


# What cannot be sent


def circle() -> list[Any]:
    around: list[Any] = []
    around.append(around)
    return around


NOT_JSON: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"prompt": {"a", "b"}}, TypeError, "prompt: expected a string or a list of strings or integers"),
    ({"prompt": b"abc"}, TypeError, "or lists of integers, got bytes"),
    ({"prompt": memoryview(b"abc")}, TypeError, "or lists of integers, got a memoryview"),
    ({"stop": ["a", b"b"]}, TypeError, "stop: expected a string or a list of strings, got a list"),
    ({"prompt": (part for part in ["a", {1}])}, TypeError, "or lists of integers, got a list with str 'a', a set"),
    ({"prompt": "\ud800"}, ValueError, "prompt: a lone surrogate cannot be sent as UTF-8"),
    ({"prompt": ["a", "b\udfff"]}, ValueError, "prompt[1]: a lone surrogate"),
    ({"temperature": float("nan")}, ValueError, "temperature: expected a finite number, got nan"),
    ({"top_p": float("inf")}, ValueError, "top_p: expected a finite number, got inf"),
    ({"logit_bias": {7: float("-inf")}}, ValueError, "logit_bias.7: expected a finite number, got -inf"),
    ({"prompt": np.array([1.0, np.nan])}, ValueError, "prompt[1]: expected a finite number, got nan"),
    ({"seed": 2**64}, ValueError, "seed: expected an integer of at most 64 bits, got a larger one"),
    ({"seed": -(2**63) - 1}, ValueError, "seed: expected an integer of at most 64 bits"),
    ({"prompt": [[1], [2**65]]}, ValueError, "prompt[1][0]: expected an integer of at most 64 bits"),
    ({"prompt": circle()}, ValueError, "…: nested deeper than 200 levels, or contains itself"),
    ({"additional_properties": {"guided": {"x": {1, 2}}}}, TypeError, "guided.x: expected a JSON value, got a set"),
    ({"additional_properties": {"x": float("nan"), "y": None}}, ValueError, "x: expected a finite number"),
    ({"additional_properties": {5: 1}}, TypeError, "the request: expected keys that are text, got int 5"),
    ({"additional_properties": {"x": {5: 1}}}, TypeError, "x: expected keys that are text, got int 5"),
    ({"additional_properties": "abc"}, TypeError, "additional_properties: expected a dict, got str 'abc'"),
    ({"additional_properties": {"x": object()}}, TypeError, "x: expected a JSON value, got an object"),
    ({"logit_bias": {"\ud800": 1}}, TypeError, "logit_bias: expected keys that are text"),
    ({"logit_bias": {True: 1}}, TypeError, "logit_bias: expected string or integer keys, got true"),
    ({"logit_bias": {1.5: 1}}, TypeError, "logit_bias: expected string or integer keys, got float 1.5"),
    ({"stream_options": {"include_usage": True}}, TypeError, "stream_options: expected a CompletionStreamOptions"),
    ({"stream_options": shared.CompletionStreamOptions(include_usage=1)}, TypeError,  # type: ignore[arg-type]
        "stream_options.include_usage: expected true or false, got int 1"),
    ({"model": None}, TypeError, "model: expected a string, got None"),
    ({"model": 5}, TypeError, "model: expected a string, got int 5"),
    ({"max_tokens": "16"}, TypeError, "max_tokens: expected an integer, got str '16'"),
    ({"max_tokens": 1.5}, TypeError, "max_tokens: expected an integer, got float 1.5"),
    ({"max_tokens": True}, TypeError, "max_tokens: expected an integer, got true"),
    ({"max_tokens": np.float64(5)}, TypeError, "max_tokens: expected an integer, got float64"),
    ({"max_tokens": np.array([5])}, TypeError, "max_tokens: expected an integer, got a ndarray"),
    ({"temperature": np.True_}, TypeError, "temperature: expected a number"),
    ({"echo": 1}, TypeError, "echo: expected true or false, got int 1"),
    ({"suffix": 5}, TypeError, "suffix: expected a string, got int 5"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "kind", "message"), NOT_JSON, ids=[f"{i}-{m[:30]}" for i, (_, _, m) in enumerate(NOT_JSON)]
)
def test_request_value_that_cannot_be_sent_raises_naming_the_field(
    fields: dict[str, Any], kind: type[Exception], message: str
) -> None:
    """Before anything is sent, an error names the field, what was expected and what came."""
    error = refused(**fields)
    assert type(error) is kind
    assert message in str(error)
    assert len(str(error)) < 200


def test_request_field_of_wrong_type_can_be_sent_in_additional_properties() -> None:
    """The message of a refused type tells how to send it all the same, and that works."""
    assert "can be sent in additional_properties" in str(refused(logprobs="all"))
    assert json.loads(sent(model="m", additional_properties={"logprobs": "all"}))["logprobs"] == "all"


def test_request_given_as_a_dict_raises_type_error() -> None:
    """A dict is rejected as a request; the error says what is expected."""
    with make("http://127.0.0.1:9/v1") as s:
        with pytest.raises(TypeError, match=r"request: expected a shared\.CreateCompletionRequest, got dict"):
            s.completions.create_completion({"model": "m"})  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"request: expected a shared\.CreateCompletionRequest, got dict"):
            s.completions.stream_completion({"model": "m"})  # type: ignore[arg-type]


NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=5))
def test_request_extras_of_any_json_are_written_unchanged(extras: dict[str, Any]) -> None:
    """Whatever JSON can hold arrives unchanged."""
    text = shared.CreateCompletionRequest(model="m", additional_properties=extras).to_json()
    assert json.loads(text) == {"model": "m", **extras}
