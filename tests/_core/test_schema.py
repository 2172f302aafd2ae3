"""The schemas: JSON from outside is checked strictly and loads to the model, or each wrong value is named."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
from marshmallow import Schema, ValidationError

from gpt.models import shared
from gpt.models.shared import CreateCompletionRequest, CreateCompletionResponse
from tests.support.fixtures import vllm


def load(data: Any) -> Any:
    return CreateCompletionRequest.schema().load(data)


def complaints(data: Any, model: Any = CreateCompletionRequest) -> Any:
    with pytest.raises(ValidationError) as caught:
        model.schema().load(data)
    return caught.value.normalized_messages()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("model", [CreateCompletionRequest, CreateCompletionResponse, shared.CompletionUsage])
def test_schema_called_twice_returns_the_same_object(model: Any) -> None:
    """`schema()` costs nothing the second time; other options give another schema."""
    assert isinstance(model.schema(), Schema)
    assert model.schema() is model.schema()
    assert model.schema(many=True) is not model.schema()
    assert model.schema(infer_missing=True).load({"model": "m", "choices": []})


def test_schema_load_of_a_request_gives_the_model_with_nested_and_extras() -> None:
    """Known keys become fields, nested models included; unknown ones go to `additional_properties`."""
    data = {"model": "m", "prompt": "p", "n": 2, "stream_options": {"include_usage": True, "x": 1}, "top_k": 5}
    loaded = load(data)
    assert loaded == CreateCompletionRequest.from_dict(data)
    assert loaded.stream_options == shared.CompletionStreamOptions(include_usage=True, additional_properties={"x": 1})
    assert loaded.additional_properties == {"top_k": 5}
    assert data == {"model": "m", "prompt": "p", "n": 2, "stream_options": {"include_usage": True, "x": 1}, "top_k": 5}


PROMPTS: list[Any] = ["a", "", ["a", "b"], [1, 2], [[1, 2], [3]], [], [[]], None]


@pytest.mark.parametrize("prompt", PROMPTS, ids=str)
def test_schema_load_of_a_valid_prompt_keeps_it(prompt: Any) -> None:
    """A text, texts, token ids, and lists of those are prompts."""
    assert load({"model": "m", "prompt": prompt}).prompt == prompt


FORMS = "expected a string or a list of strings or a list of integers or a list of lists of integers, got"


@pytest.mark.parametrize(
    ("prompt", "got"),
    [
        (5, "int 5"),
        (True, "true"),
        ({"a": 1}, "an object"),
        (["a", 1], "a list with str 'a', int 1"),
        ([1, "a"], "a list with int 1, str 'a'"),
        ([1, True], "a list with int 1, true"),
        ([1, 2.0], "a list with int 1, float 2.0"),
        ([1, None], "a list with int 1, null"),
        ([[1], 2], "a list with a list of 1, int 2"),
        ([[1], ["a"]], "a list with a list of 1"),
        ([[1], [2.5]], "a list with a list of 1"),
        ([[[1]]], "a list with a list of 1"),
    ],
    ids=str,
)
def test_schema_load_of_an_invalid_prompt_is_refused_with_what_came(prompt: Any, got: str) -> None:
    """Mixed and ill-formed prompts are refused; the message has the forms and what came."""
    assert complaints({"model": "m", "prompt": prompt}) == {"prompt": [f"{FORMS} {got}"]}


@pytest.mark.parametrize("stop", ["a", ["a", "b"], [], None], ids=str)
def test_schema_load_of_a_valid_stop_keeps_it(stop: Any) -> None:
    """A text or several."""
    assert load({"model": "m", "stop": stop}).stop == stop


@pytest.mark.parametrize(
    ("stop", "got"), [(5, "int 5"), ([1], "a list with int 1"), (["a", None], "a list with str 'a', null")]
)
def test_schema_load_of_an_invalid_stop_is_refused_with_what_came(stop: Any, got: str) -> None:
    """Nothing else stops."""
    assert complaints({"model": "m", "stop": stop}) == {"stop": [f"expected a string or a list of strings, got {got}"]}


MISFITS = [
    ("model", 5, "expected a string, got int 5"),
    ("model", [], "expected a string, got a list of 0"),
    ("model", {}, "expected a string, got an empty object"),
    ("max_tokens", 1.7, "expected an integer, got float 1.7"),
    ("max_tokens", 1.0, "expected an integer, got float 1.0"),
    ("max_tokens", "3", "expected an integer, got str '3'"),
    ("max_tokens", True, "expected an integer, got true"),
    ("n", [1], "expected an integer, got a list with int 1"),
    ("temperature", "1", "expected a finite number, got str '1'"),
    ("temperature", True, "expected a finite number, got true"),
    ("temperature", float("nan"), "expected a finite number, got float nan"),
    ("temperature", float("inf"), "expected a finite number, got float inf"),
    ("echo", 1, "expected true or false, got int 1"),
    ("echo", "true", "expected true or false, got str 'true'"),
    ("suffix", 5, "expected a string, got int 5"),
    ("user", "x" * 5, None),
    ("seed", -(2**63), None),
    ("temperature", 1, None),
    ("logit_bias", {"5": 1, "6": 0.5}, None),
    ("logit_bias", {"5": "x"}, "expected an object of numbers, got an object"),
    ("logit_bias", [], "expected an object of numbers, got a list of 0"),
    ("stream_options", 5, "expected an object, got int 5"),
    ("stream_options", [], "expected an object, got a list of 0"),
]


@pytest.mark.parametrize(("name", "value", "message"), MISFITS, ids=[f"{n}={v}" for n, v, _ in MISFITS])
def test_schema_load_of_a_wrong_type_is_refused_and_never_converted(name: str, value: Any, message: str | None) -> None:
    """A value has the right type or is refused under its field's name."""
    data = {"model": "m", name: value}
    if message is None:
        assert getattr(load(data), name) == value
    else:
        assert complaints(data) == {name: [message]}


def test_schema_load_of_missing_or_null_field_is_refused_only_if_required() -> None:
    """A required field must be there and not null; others may be either."""
    assert complaints({}) == {"model": ["Missing data for required field."]}
    assert complaints({"model": None}) == {"model": ["Field may not be null."]}
    assert load({"model": "m", "n": None, "stop": None, "stream_options": None}) == CreateCompletionRequest(model="m")


@pytest.mark.parametrize("data", [[], "x", 5, None, [{"model": "m"}]], ids=str)
def test_schema_load_of_a_non_object_is_refused_as_a_whole(data: Any) -> None:
    """Anything but an object is refused as a whole."""
    assert complaints(data) == {"_schema": ["Invalid input type."]}


def test_schema_load_of_several_wrong_fields_names_them_all() -> None:
    """Nested fields have nested messages."""
    data = {"n": "1", "echo": 0, "stream_options": {"include_usage": "yes"}}
    assert complaints(data) == {
        "model": ["Missing data for required field."],
        "n": ["expected an integer, got str '1'"],
        "echo": ["expected true or false, got int 0"],
        "stream_options": {"include_usage": ["expected true or false, got str 'yes'"]},
    }


def test_schema_load_with_many_checks_each_item_and_reports_its_index() -> None:
    """Lists are checked item by item; messages carry the index."""
    schema = CreateCompletionRequest.schema(many=True)
    assert schema.load([{"model": "a"}, {"model": "b"}]) == [
        CreateCompletionRequest(model="a"),
        CreateCompletionRequest(model="b"),
    ]
    with pytest.raises(ValidationError) as caught:
        schema.load([{"model": "a"}, {"model": 5}, "x"])
    messages = caught.value.normalized_messages()  # type: ignore[no-untyped-call]
    assert set(messages) == {1, 2}
    assert CreateCompletionRequest.schema().load([{"model": "a"}], many=True) == [CreateCompletionRequest(model="a")]


def test_schema_load_with_partial_leaves_required_fields_none() -> None:
    """Partial input loads without its required fields, the option given to either call."""
    for loaded in (
        CreateCompletionRequest.schema(partial=True).load({"n": 1}),
        CreateCompletionRequest.schema().load({"n": 1}, partial=True),
    ):
        assert (loaded.model, loaded.n) == (None, 1)


LEFT_OUT: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    (CreateCompletionResponse, {"partial": True}, {"id": "x"}),
    (CreateCompletionResponse, {"only": ("id",)}, {"id": "x"}),
    (CreateCompletionResponse, {"exclude": ("choices",)}, {"id": "x"}),
    (CreateCompletionRequest, {"partial": True}, {"prompt": "x"}),
    (CreateCompletionRequest, {"partial": ("model",)}, {"prompt": "x"}),
    (CreateCompletionRequest, {"only": ("prompt",)}, {"prompt": "x"}),
    (CreateCompletionRequest, {"exclude": ("model",)}, {"prompt": "x"}),
]


@pytest.mark.parametrize(("model", "options", "data"), LEFT_OUT, ids=str)
def test_schema_load_leaving_out_required_fields_equals_infer_missing(
    model: Any, options: dict[str, Any], data: dict[str, Any]
) -> None:
    """A required field that `partial`, `only` or `exclude` leaves out is `None`."""
    assert model.schema(**options).load(data) == model.from_dict(data, infer_missing=True)


@pytest.mark.parametrize("options", [options for _, options, _ in LEFT_OUT], ids=str)
@pytest.mark.parametrize("choices", [5, "x", [5], {}, [{"text": 5}], [None]], ids=str)
def test_schema_load_of_bad_choices_with_any_options_raises_validation_error(
    options: dict[str, Any], choices: Any
) -> None:
    """With any options, what cannot be loaded is a `ValidationError`, unless marshmallow does not look at it."""
    options = {name: value for name, value in options.items() if value not in (("prompt",), ("model",))}
    try:
        loaded = CreateCompletionResponse.schema(**options).load({"choices": choices})
    except ValidationError:
        return
    assert choices == [{"text": 5}]  # a field that was left out is kept as it came, like any other unknown key
    assert "choices" in options.get("exclude", "choices")
    assert loaded.choices[0].text == 5


@pytest.mark.parametrize("text", ["{", "", "[" * 500 + "]" * 500, "[" * 100_000, b"\xff"])
def test_schema_loads_of_invalid_json_raises_validation_error(text: Any) -> None:
    """Text that is not JSON, or nested too deep, is a `ValidationError` too."""
    with pytest.raises(ValidationError, match="expected JSON"):
        CreateCompletionRequest.schema().loads(text)


def test_schema_load_of_nested_ordered_dicts_is_accepted() -> None:
    """An `OrderedDict` inside is an object."""
    data = OrderedDict(choices=[OrderedDict(text="a")], usage=OrderedDict(total_tokens=3))
    loaded = CreateCompletionResponse.schema().load(data)
    assert (loaded.usage.total_tokens, loaded.choices[0].text) == (3, "a")


def test_schema_validate_and_loads_check_like_load() -> None:
    """marshmallow's other ways in check the same."""
    schema = CreateCompletionRequest.schema()
    assert schema.validate({"model": 5}) == {"model": ["expected a string, got int 5"]}
    assert schema.validate({"model": "m"}) == {}
    assert schema.loads('{"model": "m", "top_k": 1}').additional_properties == {"top_k": 1}


def test_schema_dump_equals_to_dict() -> None:
    """What a schema dumps is what `to_dict` gives and the wire carries."""
    original = CreateCompletionRequest(
        model=shared.CreateCompletionRequestModel.BABBAGE_002,
        prompt=("a",),
        logit_bias={5: 1},
        stream_options=shared.CompletionStreamOptions(include_usage=False),
        additional_properties={"top_k": None, "n": 3},
    )
    assert CreateCompletionRequest.schema().dump(original) == original.to_dict()
    assert CreateCompletionRequest.schema(many=True).dump([original]) == [original.to_dict()]
    assert CreateCompletionRequest.schema(only=("logit_bias",)).dump(original) == {
        "logit_bias": {"5": 1},
        "top_k": None,
    }
    assert CreateCompletionRequest.schema(exclude=("logit_bias", "stream_options")).dump(original) == {
        "model": "babbage-002",
        "prompt": ["a"],
        "top_k": None,
        "n": 3,
    }


@pytest.mark.parametrize("name", ["stop", "extras", "echo_logprobs_score", "token_prompts_n2"])
def test_schema_loads_of_recorded_responses_equals_from_json(name: str) -> None:
    """Responses of a real server pass the check and load as they do from the wire."""
    body = vllm(name).body
    assert CreateCompletionResponse.schema().loads(body) == CreateCompletionResponse.from_json(body)


def test_schema_load_of_a_response_with_deep_errors_names_their_paths() -> None:
    """An invalid value deep in a response is named by its path."""
    data = {
        "choices": [{"text": "a"}, {"text": 5, "logprobs": {"token_logprobs": [None, "x"], "top_logprobs": {}}}],
        "usage": {"total_tokens": "3"},
        "created": "today",
    }
    assert complaints(data, CreateCompletionResponse) == {
        "choices": {
            1: {
                "text": ["expected a string, got int 5"],
                "logprobs": {
                    "token_logprobs": ["expected a list of numbers, got a list with null, str 'x'"],
                    "top_logprobs": ["expected a list of objects, got an empty object"],
                },
            }
        },
        "usage": {"total_tokens": ["expected an integer, got str '3'"]},
        "created": ["expected an integer or a finite number, got str 'today'"],
    }
    assert complaints({"choices": None}, CreateCompletionResponse) == {"choices": ["Field may not be null."]}
    assert complaints({"choices": [5]}, CreateCompletionResponse) == {
        "choices": ["expected a list of objects, got a list with int 5"]
    }
