"""The codec: JSON is read from any mapping, bounded at the door, checked before it is written."""

from __future__ import annotations

import copy
import json
import pickle
from collections import OrderedDict, UserDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt._core import codec
from gpt._core.unserializable import MAX_DEPTH
from gpt.models import shared
from gpt.models.shared import CreateCompletionRequest, CreateCompletionResponse


def nested(levels: int, opening: str = "[", closing: str = "]") -> str:
    """Return JSON text of so many levels."""
    return opening * levels + ("1" if opening[-1] == ":" else "") + closing * levels


def response_of_depth(levels: int) -> str:
    return f'{{"choices":[{{"text":"a"}}],"x":{nested(levels - 1)}}}'


def dump(response: CreateCompletionResponse) -> Any:
    return CreateCompletionResponse.schema().dump(response)


USES: list[Callable[[CreateCompletionResponse], object]] = [
    repr,
    CreateCompletionResponse.to_dict,
    CreateCompletionResponse.to_json,
    lambda response: response.to_json(indent=1),
    lambda response: response == CreateCompletionResponse.from_json(response.to_json()),
    lambda response: pickle.loads(pickle.dumps(response)),
    copy.deepcopy,
    dump,
]


@pytest.mark.parametrize("use", USES, ids=range(len(USES)))
def test_loads_at_the_depth_limit_gives_a_usable_model(use: Callable[[CreateCompletionResponse], object]) -> None:
    """What is read at the deepest level allowed can be shown, compared, copied, pickled and written."""
    assert use(CreateCompletionResponse.from_json(response_of_depth(MAX_DEPTH)))


TOO_DEEP = [
    response_of_depth(MAX_DEPTH + 1),
    response_of_depth(900),
    response_of_depth(1022),
    response_of_depth(100_000),
    response_of_depth(MAX_DEPTH + 1).replace('"a"', "NaN"),
    nested(MAX_DEPTH + 1),
    nested(MAX_DEPTH + 1, '{"a":', "}"),
    nested(MAX_DEPTH // 2 + 1, '[{"a":', "}]"),
]


@pytest.mark.parametrize("text", TOO_DEEP, ids=lambda text: f"{text[:12]}{len(text)}")
def test_loads_beyond_the_depth_limit_is_refused(text: str) -> None:
    """One level more is a clear `ValueError`, never a `RecursionError`."""
    with pytest.raises(codec.OversizeError, match="nested"):
        codec.loads(text)
    with pytest.raises(ValueError, match="nested"):
        CreateCompletionResponse.from_json(text, object_pairs_hook=OrderedDict)


def test_loads_with_a_larger_max_depth_accepts_deeper_text() -> None:
    """What wraps a response, as a batch's output line does, may ask for some levels more."""
    line = f'{{"response":{{"body":{response_of_depth(MAX_DEPTH)}}}}}'
    with pytest.raises(codec.OversizeError):
        codec.loads(line)
    assert codec.loads(line, max_depth=MAX_DEPTH + 2)


@pytest.mark.parametrize("brackets", ['["[', '"{"', '"]"'])
def test_loads_brackets_inside_a_string_count_as_no_levels(brackets: str) -> None:
    """A text full of brackets is read as any other."""
    assert codec.loads(json.dumps([brackets * 1000])) == [brackets * 1000]


@pytest.mark.parametrize("item", ['{"text":""}', "[[]]", "{}", "[1]"])
def test_loads_of_many_small_values_is_refused(item: str) -> None:
    """Some megabytes that would take gigabytes as objects are refused before they are parsed."""
    with pytest.raises(codec.OversizeError, match="would take some"):
        codec.loads(f"[{','.join([item] * 4_000_000)}]".encode())


def test_loads_of_a_long_string_with_commas_succeeds() -> None:
    """A long text takes what it has, commas included."""
    text = orjson.dumps({"choices": [{"text": "Yes, indeed. " * 1_000_000}]})
    assert len(codec.loads(text)["choices"][0]["text"]) == 13_000_000


def as_mappings(value: Any, mapping: Callable[[Any], Any], sequence: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return mapping({key: as_mappings(item, mapping, sequence) for key, item in value.items()})
    return sequence(as_mappings(item, mapping, sequence) for item in value) if isinstance(value, list) else value


OBJECT = {
    "choices": [{"text": "a", "logprobs": {"tokens": None, "x": 1}}, {"text": "b", "index": 1}],
    "usage": {"total_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1, "y": {"z": 2}}},
    "extra": {"deep": {"er": 1}},
}


@pytest.mark.parametrize("mapping", [dict, OrderedDict, UserDict, MappingProxyType])
@pytest.mark.parametrize("sequence", [list, tuple, deque])
def test_decode_any_mapping_and_sequence_gives_the_same_model(mapping: Any, sequence: Any) -> None:
    """Whatever holds the keys and items, the result is the same model with the same dict."""
    read = CreateCompletionResponse.from_dict(as_mappings(OBJECT, mapping, sequence))
    assert read.to_dict() == OBJECT | {"choices": [{"text": "a", "logprobs": {"x": 1}}, {"text": "b", "index": 1}]}
    assert [type(choice) for choice in read.choices] == [shared.CreateCompletionResponseChoices] * 2
    assert read.usage is not None
    assert read.usage.prompt_tokens_details is not None
    assert read.usage.prompt_tokens_details.cached_tokens == 1


def test_decode_with_object_pairs_hook_gives_the_same_model() -> None:
    """`json.loads`' own hook gives a model as well."""
    read = CreateCompletionResponse.from_json(json.dumps(OBJECT), object_pairs_hook=OrderedDict)
    assert read == CreateCompletionResponse.from_dict(OBJECT)
    assert read.usage is not None
    assert read.usage.total_tokens == 3


def test_decode_model_instances_are_kept() -> None:
    """Instances at any level stay the objects that they are, as with dataclasses-json."""
    choice = shared.CreateCompletionResponseChoices(text="a")
    usage = shared.CompletionUsage(total_tokens=3)
    read = CreateCompletionResponse.from_dict({"choices": (choice,), "usage": usage})
    assert (read.choices[0], read.usage) == (choice, usage)
    assert read.choices[0] is choice
    assert CreateCompletionResponse.from_dict(read) is read


@pytest.mark.parametrize("choices", [5, "ab", {"a": 1}, None, b"ab", [5], ["x"], [None], (shared.CompletionUsage(),)])
def test_decode_choices_of_wrong_type_raises_shape_error(choices: Any) -> None:
    """A text is not a sequence of choices, and another model is not a choice."""
    with pytest.raises(codec.ShapeError, match="choices"):
        CreateCompletionResponse.from_dict({"choices": choices})


LEAVES = st.none() | st.integers() | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.dictionaries(st.text(), inner), max_leaves=5)


@given(st.dictionaries(st.text() | st.sampled_from(["usage", "id", "model"]), VALUES))
def test_decode_arbitrary_mapping_equals_decode_of_the_dict(others: dict[str, Any]) -> None:
    """No key or value makes a difference between a dict and another mapping."""
    body = {**others, "choices": [others]}
    assert (
        CreateCompletionResponse.from_dict(as_mappings(body, MappingProxyType, tuple)).to_dict()
        == CreateCompletionResponse.from_dict(body).to_dict()
    )


@dataclass(kw_only=True)
class Guided(CreateCompletionRequest):
    """A request with fields of one server."""

    tags: list[str] = field(default_factory=lambda: ["a"])
    mode: Literal["x", "y"] = "x"
    weights: dict[str, Any] | None = None
    made: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.made.append("post_init")


@pytest.mark.parametrize("extra", [{}, {"tags": ["b"]}, {"unknown": 1}, {"a": 1, "b": 2}], ids=str)
def test_decode_subclass_with_factories_is_complete(extra: dict[str, Any]) -> None:
    """Fields with a factory get a value of their own, unknown keys stay extras, and `__post_init__` runs."""
    one, two = (Guided.from_dict({"model": "m", **extra}) for _ in range(2))
    assert (
        one
        == two
        == Guided(
            model="m",
            **{name: value for name, value in extra.items() if name == "tags"},
            additional_properties={name: value for name, value in extra.items() if name != "tags"},
        )
    )
    assert one.made is not two.made
    assert Guided.schema().load({"model": "m", **extra}).tags == extra.get("tags", ["a"])
    assert Guided.from_json(one.to_json()).tags == one.tags


def test_decode_infer_missing_fills_required_fields() -> None:
    """`infer_missing=True` makes missing required fields `None`; what is there is checked as ever."""
    assert CreateCompletionRequest.from_dict({}, infer_missing=True).model is None
    assert CreateCompletionResponse.from_json('{"x": 1}', infer_missing=True).choices is None
    with pytest.raises(ValueError, match="choices: expected a list of objects, got int 5"):
        CreateCompletionResponse.from_dict({"choices": 5}, infer_missing=True)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"prompt": 5}, "prompt: expected a string or a list of strings or integers or lists of integers, got int 5"),
    ({"prompt": True}, "prompt: .* got true"),
    ({"prompt": {"a": 1}}, "prompt: .* got an object"),
    ({"prompt": [1.5]}, r"prompt: .* got a list with float 1\.5"),
    ({"prompt": [True]}, "prompt: .* got a list with true"),
    ({"prompt": [None]}, "prompt: .* got a list with null"),
    ({"prompt": [{"a": 1}]}, "prompt: .* got a list with an object"),
    ({"prompt": object()}, "prompt: .* got an object"),
    ({"stop": 5}, "stop: expected a string or a list of strings, got int 5"),
    ({"stop": [5]}, "stop: .* got a list with int 5"),
    ({"stop": {"a"}}, "stop: .* got a set"),
    ({"logit_bias": [1]}, "logit_bias: expected an object of numbers, got a list with int 1"),
    ({"logit_bias": "5"}, "logit_bias: .* got str '5'"),
    ({"logit_bias": {"5": "x"}}, "logit_bias: .* got an object"),
    ({"logit_bias": {"5": True}}, "logit_bias: .* got an object"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG, ids=str)
def test_dumps_field_of_wrong_type_raises_type_error_naming_it(fields: dict[str, Any], message: str) -> None:
    """`prompt`, `stop` and `logit_bias` are checked as scalars are: the field, what was expected, what came."""
    with pytest.raises(TypeError, match=message):
        codec.dumps(CreateCompletionRequest(**{"model": "m", **fields}))
    with pytest.raises(TypeError, match=message):
        CreateCompletionRequest(**{"model": "m", **fields}).to_json(indent=2)


class Array:
    """What has a `tolist` and nothing else."""

    def tolist(self) -> list[int]:
        return [1, 2]


@pytest.mark.parametrize("prompt", [np.array([1, 2]), Array(), [Array(), [1, 2]], [np.int64(1), 2], deque([1, 2])])
def test_dumps_prompt_of_any_array_writes_a_list(prompt: Any) -> None:
    """Whatever holds token ids is sent as a list of them."""
    written = json.loads(codec.dumps(CreateCompletionRequest(model="m", prompt=prompt)))["prompt"]
    assert written in ([1, 2], [[1, 2], [1, 2]])


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1, 250, 300, 1000])
def test_dumps_beyond_the_depth_limit_of_loads_is_refused(levels: int) -> None:
    """What is written can be read again, and what could not is refused with its path, whichever way it is written."""
    inner: Any = []
    for _ in range(levels - 2):
        inner = [inner]
    deep = CreateCompletionRequest(model="m", additional_properties={"x": inner})
    writers: list[Callable[[], str]] = [
        deep.to_json,
        lambda: deep.to_json(indent=1),
        lambda: json.dumps(deep.to_dict()),
    ]
    for write in writers:
        if levels <= MAX_DEPTH:
            assert CreateCompletionRequest.from_json(write()) == deep
        else:
            with pytest.raises(ValueError, match="nested deeper than 200 levels"):
                write()


def test_dumps_additional_properties_none_writes_no_extras() -> None:
    """`additional_properties=None` is as good as none."""
    empty = CreateCompletionRequest(model="m", additional_properties=None)  # type: ignore[arg-type]
    assert empty == CreateCompletionRequest(model="m")
    empty.additional_properties = None  # type: ignore[assignment]
    assert empty.to_json() == '{"model":"m"}'
    assert empty.to_dict() == {"model": "m"}
    assert repr(empty) == "CreateCompletionRequest(model='m')"
