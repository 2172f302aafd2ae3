"""Tokens of a choice: one form, whichever the server sent, and nothing raises."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt._parsing.logprobs import Alternative, Token, perplexity, tokens_of
from gpt.models import shared


def tokens(**logprobs: Any) -> list[Token]:
    return tokens_of(shared.CreateCompletionResponseChoices.from_dict({"logprobs": logprobs}))


@pytest.mark.parametrize("sequence", [list, tuple])
def test_tokens_of_lists_returns_tokens_with_sorted_alternatives(sequence: Any) -> None:
    """OpenAI's lists become tokens with alternatives, the most likely first."""
    assert tokens(
        tokens=sequence(["a", "bytes:\\xe2\\x82"]),
        token_logprobs=sequence([None, -1.5]),
        text_offset=sequence([0, -1]),
        top_logprobs=sequence([None, {"c": -2, "b": -1.5}]),
    ) == [
        Token("a", None, (), 0),
        Token("bytes:\\xe2\\x82", -1.5, (Alternative("b", -1.5), Alternative("c", -2.0)), None, b"\xe2\x82"),
    ]


def test_tokens_of_chat_content_returns_tokens_with_bytes_and_logprobs() -> None:
    """The chat form gives the same, with bytes; a probability instead of a log-probability is converted."""
    entry = {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": [{"token": "b", "prob": 0.5}, {"id": 7}]}
    (token,) = tokens(content=[entry])
    assert token == Token("a", -1.0, (Alternative("b", math.log(0.5)), Alternative("token 7", None)), None, b"a")


@pytest.mark.parametrize("logprobs", [None, 5, [], {}, {"tokens": None}, {"tokens": "ab"}, {"content": 5}])
def test_tokens_of_nothing_is_empty(logprobs: Any) -> None:
    """Where there are no tokens, there are none."""
    assert tokens_of(shared.CreateCompletionResponseChoices.from_dict({"logprobs": logprobs})) == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
FIELDS = ["tokens", "token_logprobs", "top_logprobs", "text_offset", "content"]
ENTRIES = st.dictionaries(st.sampled_from(["token", "logprob", "prob", "bytes", "top_logprobs", "id"]), VALUES)


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES | st.lists(VALUES | ENTRIES)))
def test_tokens_of_anything_never_raises(logprobs: dict[str, Any]) -> None:
    """Whatever the lists hold, tokens have text and a number or `None`."""
    for token in tokens(**logprobs):
        assert isinstance(token.text, str)
        assert token.logprob is None or not math.isnan(token.logprob)


@pytest.mark.parametrize("zero", [-math.inf, -9999.0, -3.4e38, -1.7976931348623157e308])
def test_perplexity_with_a_probability_of_zero_is_infinite(zero: float) -> None:
    """However a server writes a probability of 0, and however many tokens are certain, the perplexity is infinite."""
    assert perplexity([zero] + [0.0] * 1000) == math.inf


@pytest.mark.parametrize(("logprobs", "expected"), [([0.0], 1), ([-1.0, -3.0], math.e**2), ([-700.0], math.exp(700))])
def test_perplexity_is_exp_of_the_negative_mean(logprobs: list[float], expected: float) -> None:
    """Everything else is the inverse of the geometric mean of the probabilities."""
    assert perplexity(logprobs) == pytest.approx(expected)
