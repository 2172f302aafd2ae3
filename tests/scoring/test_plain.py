"""The common case of an echo: what it takes, and that it gives what a closer look gives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt.models import errors, shared
from gpt.scoring.echo import Echoed
from gpt.scoring.plain import score_plainly
from gpt.scoring.prompts import Prompt

WORDS = st.lists(st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=4), min_size=1, max_size=8)
LOGPROBS = st.floats(-20, 0)


def echoed(tokens: list[str], logprobs: list[Any], top: Any = None, **more: Any) -> shared.CreateCompletionResponse:
    """Make the response to a prompt that is split so."""
    offsets = [sum(map(len, tokens[:n])) for n in range(len(tokens))]
    lists = {"tokens": tokens, "token_logprobs": logprobs, "text_offset": offsets, "top_logprobs": top}
    choice = {"index": 0, "text": "".join(tokens), "finish_reason": "length", "logprobs": lists, **more}
    return shared.CreateCompletionResponse.from_dict({"choices": [choice]}, infer_missing=True)


@given(WORDS, st.data())
def test_plain_score_equals_the_closer_look(tokens: list[str], data: st.DataObject) -> None:
    """Whatever is taken as plain gets the same score from the code that looks at each token."""
    n = len(tokens)
    generated = data.draw(st.integers(0, 1)) if n > 1 else 0
    text = "".join(tokens[: n - generated])
    cut = data.draw(st.integers(0, len(text) - 1))
    top = [None, *({token: -1.0, "other": data.draw(LOGPROBS)} for token in tokens[1:])]
    response = echoed(tokens, [None, *(data.draw(LOGPROBS) for _ in tokens[1:])], top)
    prompt = Prompt("texts[0]", text[:cut], text[cut:])

    found = score_plainly(prompt, response, generated)

    if found is not None:
        assert repr(found) == repr(Echoed(prompt, response, generated).score(None))  # NaN equals nothing
    else:
        assert generated or "\ufffd" in text or "bytes:" in text


@given(WORDS, st.data())
def test_plain_score_of_ids_equals_the_closer_look(tokens: list[str], data: st.DataObject) -> None:
    """The same with token ids, whose boundary is a number of tokens."""
    n = len(tokens)
    response = echoed(tokens, [None, *(data.draw(LOGPROBS) for _ in tokens[1:])])
    context = data.draw(st.integers(0, n - 1))
    prompt = Prompt("texts[0]", list(range(context)), list(range(context, n)))

    found = score_plainly(prompt, response, 0)

    assert found is None or repr(found) == repr(Echoed(prompt, response, 0).score(None))


DOUBTFUL: dict[str, tuple[list[str], list[Any], Any]] = {
    "another text": (["ab", "x"], [None, -1.0], None),
    "a part of a character": (["ab", "\ufffd"], [None, -1.0], None),
    "no log-probability": (["ab", "c"], [None, None], None),
    "a positive log-probability": (["ab", "c"], [None, 0.5], None),
    "a log-probability of the first token": (["ab", "c"], [-1.0, -1.0], None),
    "fewer log-probabilities than tokens": (["ab", "c"], [None], None),
    "NaN": (["ab", "c"], [None, float("nan")], None),
    "a text among the alternatives": (["ab", "c"], [None, -1.0], [None, {"c": "x"}]),
    "NaN among the alternatives": (["ab", "c"], [None, -1.0], [None, {"c": float("nan")}]),
    "too few alternatives": (["ab", "c"], [None, -1.0], [None]),
    "an empty token": (["ab", "", "c"], [None, -1.0, -1.0], None),
    "more than was sent": (["ab", "c", "d"], [None, -1.0, -1.0], None),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_plain_score_of_doubtful_tokens_is_left_to_the_closer_look(name: str) -> None:
    """Nothing is scored in passing that must be looked at, or refused."""
    tokens, logprobs, top = DOUBTFUL[name]
    assert score_plainly(Prompt("texts[0]", "ab", "c"), echoed(tokens, logprobs, top), 0) is None


def test_plain_score_of_other_ids_is_left_to_the_closer_look() -> None:
    """A server that tells other ids than were sent is refused."""
    response = echoed(["a", "b"], [None, -1.0], prompt_token_ids=[1, 3])
    prompt = Prompt("texts[0]", [1], [2])
    assert score_plainly(prompt, response, 0) is None
    with pytest.raises(errors.ResponseValidationError, match="other token ids"):
        Echoed(prompt, response, 0)
