"""The base of the models: the dataclasses-json API, and a `repr` that stays short."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import uuid
from dataclasses import asdict
from typing import Any

import pytest

from gpt._core.shorten import MAX_LENGTH
from gpt.models import shared
from gpt.models.shared import CreateCompletionRequest, CreateCompletionResponse


def scored(tokens: int, choices: int = 1) -> CreateCompletionResponse:
    """Return a response with so many tokens and their top five in each choice."""
    top = {f" token{number}": -number - 0.123456789 for number in range(5)}
    return CreateCompletionResponse.from_dict(
        {
            "choices": [
                {
                    "text": " a" * tokens,
                    "index": index,
                    "logprobs": {
                        "tokens": [" a"] * tokens,
                        "token_logprobs": [-0.123456789] * tokens,
                        "top_logprobs": [top] * tokens,
                        "text_offset": list(range(tokens)),
                        "content": [{"token": "a", "top_logprobs": [top]}] * tokens,
                    },
                }
                for index in range(choices)
            ],
            "id": "cmpl-1",
            "usage": {"total_tokens": tokens},
        }
    )


@pytest.mark.parametrize(("tokens", "choices"), [(1, 1), (40, 1), (100_000, 1), (40, 3), (2, 1000)])
def test_repr_of_a_large_response_is_short_and_begins_with_its_text(tokens: int, choices: int) -> None:
    """However much came, its `repr` has at most 1,000 characters and begins with the text of the first choice."""
    rendered = repr(scored(tokens, choices))
    assert len(rendered) <= MAX_LENGTH == 1000
    assert rendered.startswith("CreateCompletionResponse(choices=[CreateCompletionResponseChoices(text=' a")


def test_repr_of_long_lists_and_texts_states_how_much_was_left_out() -> None:
    """Long lists and texts end in how much more there is, and what follows them is still shown."""
    rendered = repr(scored(40))
    assert "tokens=[' a', ' a', ' a', … 37 more]" in rendered or "tokens=[' a', … 39 more]" in rendered
    assert rendered.endswith("id='cmpl-1', usage=CompletionUsage(total_tokens=40))")
    request = repr(CreateCompletionRequest(model="m", prompt="x" * 5000))
    assert request.startswith("CreateCompletionRequest(model='m', prompt='xxx")
    assert "… (5,000 characters)" in request


def test_repr_of_a_short_model_is_whole() -> None:
    """What fits is shown as it is, without the fields that are unset."""
    request = CreateCompletionRequest(model="m", prompt=["a", "b"], stop=("\n",), additional_properties={"top_k": 5})
    assert repr(request) == (
        "CreateCompletionRequest(model='m', prompt=['a', 'b'], stop=('\\n',), additional_properties={'top_k': 5})"
    )


@pytest.mark.parametrize("encode_json", [True, False])
def test_to_dict_with_encode_json_converts_or_refuses_non_json_values(encode_json: bool) -> None:
    """`encode_json=True` writes what the wire can write and refuses the rest; without it such values stay."""
    request = CreateCompletionRequest(model="m", additional_properties={"id": uuid.UUID(int=1)})
    expected: Any = "00000000-0000-0000-0000-000000000001" if encode_json else uuid.UUID(int=1)
    assert request.to_dict(encode_json=encode_json)["id"] == expected
    request.additional_properties = {"x": {1}}
    if encode_json:
        with pytest.raises(TypeError, match="expected a JSON value, got a set"):
            request.to_dict(encode_json=True)
    else:
        assert request.to_dict() == {"model": "m", "x": {1}}


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"temperature": float("nan")}, ValueError, "temperature: expected a finite number, got nan"),
    ({"additional_properties": {"x": float("inf")}}, ValueError, "x: expected a finite number"),
    ({"n": "3"}, TypeError, "n: expected an integer, got str '3'"),
    ({"additional_properties": {"x": object()}}, TypeError, "x: expected a JSON value"),
    ({"prompt": "\ud800"}, ValueError, "lone surrogate"),
]


@pytest.mark.parametrize(("fields", "kind", "message"), BAD, ids=[message for _, _, message in BAD])
@pytest.mark.parametrize("options", [{}, {"indent": 2}, {"sort_keys": True, "default": str}], ids=str)
def test_to_json_with_any_options_refuses_what_the_wire_refuses(
    fields: dict[str, Any], kind: type[Exception], message: str, options: dict[str, Any]
) -> None:
    """No option makes a request that the wire refuses writable."""
    with pytest.raises(kind, match=message):
        CreateCompletionRequest(**{"model": "m", **fields}).to_json(**options)


def test_security_in_vars_and_asdict_shows_no_key() -> None:
    """What the standard functions for logging return is masked when it is shown; JSON and pickle have the key."""
    security = shared.Security(api_key_auth="sk-secret")
    for each in (security, shared.Security.from_dict(security.to_dict()), pickle.loads(pickle.dumps(security))):
        assert "secret" not in f"{each!r} {vars(each)} {asdict(each)} {copy.deepcopy(vars(each))}"
        assert json.loads(each.to_json()) == {"api_key_auth": "sk-secret", "header": "Authorization"}
        assert each == security
        assert f"Bearer {each.api_key_auth}" == "Bearer sk-secret"


def test_import_of_the_package_loads_no_schema() -> None:
    """The schemas are made when one is asked for."""
    code = "import gpt, sys; print('gpt._core.schema' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False"]
