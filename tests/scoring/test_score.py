"""Scoring given texts, on answers recorded from vLLM, on those of servers that deviate, and on a real llama.cpp."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import gpt
from gpt import local
from gpt.models import errors, shared
from gpt.scoring import Score, score
from tests.support.fixtures import vllm
from tests.support.http_server import Answer, Received, ScriptedServer, json_answer

FIRST = "The for statement is used to iterate"
SECOND = "Return the current value"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def s(server: ScriptedServer) -> Iterator[gpt.Gpt]:
    with gpt.Gpt(server_url=server.url, security=shared.Security(api_key_auth="")) as client:
        yield client


def choice(tokens: list[str], logprobs: list[float | None], index: int = 0, **more: Any) -> dict[str, Any]:
    """Make a choice with log-probabilities in lists; `text` and `text_offset` follow from the tokens unless given."""
    offsets = [len("".join(tokens[:n])) for n in range(len(tokens))]
    lists = {"tokens": tokens, "token_logprobs": logprobs, "text_offset": more.pop("text_offset", offsets)}
    lists["top_logprobs"] = more.pop("top_logprobs", None)
    return {"index": index, "text": more.pop("text", "".join(tokens)), "finish_reason": "length", "logprobs": lists}


def answer(*choices: Mapping[str, Any]) -> Answer:
    """Answer with these choices."""
    return json_answer({"object": "text_completion", "choices": list(choices)})


def test_recorded_arithmetic(server: ScriptedServer, s: gpt.Gpt) -> None:
    """The sum, mean and perplexity of a recorded answer are those of a calculation by hand."""
    server.reply(vllm("echo_logprobs_score").answer())

    _, second = score(s, [FIRST, SECOND], model="tiny", logprobs=3)

    # -0.6457018852233887 - 1.3033324480056763 - 5.012466907501221, on paper; a third of it; e to the negative of that
    assert second.tokens == ("Return", " the", " current", " value")
    assert second.logprobs == (None, -0.6457018852233887, -1.3033324480056763, -5.012466907501221)
    assert second.offsets == (0, 6, 10, 18)
    assert second.logprob_sum == pytest.approx(-6.961501240730286, rel=1e-12)
    assert second.logprob_mean == pytest.approx(-2.320500413576762, rel=1e-12)
    assert second.perplexity == pytest.approx(10.180767, rel=1e-6)


def test_request(server: ScriptedServer, s: gpt.Gpt) -> None:
    """What is sent is the recorded request: echo, logprobs, no tokens to generate."""
    recorded = vllm("echo_logprobs_score")
    server.reply(recorded.answer())

    score(s, [FIRST, SECOND], model="tiny", logprobs=3)

    assert server.requests[0].json() == recorded.request


def test_context(server: ScriptedServer, s: gpt.Gpt) -> None:
    """With a context only the continuation counts, and its first token has a log-probability."""
    server.reply(vllm("echo_logprobs_score").answer())

    first, second = score(
        s, [" is used to iterate", " value"], model="tiny", context=["The for statement", "Return the current"]
    )

    assert first.text == " is used to iterate"
    assert first.tokens == (" is", " used", " to", " iter", "ate")
    assert first.offsets == (0, 3, 8, 11, 16)
    assert first.logprob_sum == pytest.approx(-15.01796, abs=1e-5)
    assert second.logprobs == (-5.012466907501221,)
    assert second.perplexity == pytest.approx(math.exp(5.012466907501221))


def test_token_across_the_boundary(server: ScriptedServer, s: gpt.Gpt) -> None:
    """A token that begins in the context and ends in the text counts whole, with a negative offset."""
    server.reply(vllm("echo_logprobs_score").answer())

    first, second = score(
        s, ["te", "rent value"], model="tiny", context=["The for statement is used to itera", "Return the cur"]
    )

    assert (first.tokens, first.offsets) == (("ate",), (-1,))
    assert (second.tokens, second.offsets) == ((" current", " value"), (-4, 4))


def test_generated_tokens_are_cut_off(server: ScriptedServer, s: gpt.Gpt) -> None:
    """A server that generates in spite of max_tokens=0 changes nothing."""
    server.reply(vllm("echo_logprobs_generate").answer())

    (result,) = score(s, ["A class definition"], model="tiny")

    assert result.tokens == ("A", " class", " defin", "i", "tion")
    assert result.offsets == (0, 1, 7, 13, 14)


def test_is_greedy(server: ScriptedServer, s: gpt.Gpt) -> None:
    """A text is greedy when each of its tokens was the likeliest."""
    server.reply(vllm("echo_logprobs_generate").answer())

    likely, unlikely = (
        score(s, ["ition"], model="tiny", context="A class defin")[0],
        score(s, [" definition"], model="tiny", context="A class")[0],
    )

    assert likely.tokens == ("i", "tion")
    assert likely.is_greedy
    assert not unlikely.is_greedy


def test_max_tokens_rejected(server: ScriptedServer, s: gpt.Gpt) -> None:
    """A server that rejects max_tokens=0 is asked for one token, which is cut off, and the next batch at once so."""
    refusal = {"object": "error", "message": "max_tokens must be positive, got 0.", "type": "BadRequest", "code": 400}
    made = choice(["a", "b", "c"], [None, -1.0, -9.0], text_offset=[-1, -1, -1])
    server.reply(json_answer(refusal, 400), answer(made))

    results = score(s, ["ab", "ab"], model="m", batch_size=1)

    assert [request.json()["max_tokens"] for request in server.requests] == [0, 1, 1]
    assert [result.tokens for result in results] == [("a", "b")] * 2
    assert [result.offsets for result in results] == [(0, 1)] * 2
    assert results[0].logprob_sum == -1.0


def test_other_rejections_pass(server: ScriptedServer, s: gpt.Gpt) -> None:
    """A 400 about anything else is raised as it is, without a second request."""
    server.reply(vllm("error_too_long").answer())

    with pytest.raises(errors.BadRequestError, match="maximum context length"):
        score(s, ["ab"], model="m")
    assert len(server.requests) == 1


def test_choices_out_of_order(server: ScriptedServer, s: gpt.Gpt) -> None:
    """Choices belong to their texts by index, whatever their order."""
    server.reply(answer(choice(["b", "y"], [None, -2.0], 1), choice(["a", "x"], [None, -1.0], 0)))

    results = score(s, ["ax", "by"], model="m")

    assert [(result.text, result.logprob_sum) for result in results] == [("ax", -1.0), ("by", -2.0)]


@pytest.mark.parametrize("indexes", [[0], [0, 0], [0, 2], [0, 1, 2]])
def test_wrong_number_of_choices(server: ScriptedServer, s: gpt.Gpt, indexes: list[int]) -> None:
    """An answer without exactly one choice for each text is refused."""
    server.reply(answer(*(choice(["a", "x"], [None, -1.0], index) for index in indexes)))

    with pytest.raises(errors.ResponseValidationError, match="one choice for each of 2 prompts"):
        score(s, ["ax", "ax"], model="m")


def test_batches(server: ScriptedServer, s: gpt.Gpt) -> None:
    """Texts go out in batches, and the scores come back in the order of the texts."""

    def echo(request: Received) -> Answer:
        prompts = request.json()["prompt"]
        return answer(*(choice(list(text), [None, -float(text[1])], n) for n, text in enumerate(prompts)))

    server.answer_with(echo)
    results = score(s, (f"t{n}" for n in range(1, 6)), model="m", batch_size=2)

    assert [len(request.json()["prompt"]) for request in server.requests] == [2, 2, 1]
    assert [result.logprob_sum for result in results] == [-1.0, -2.0, -3.0, -4.0, -5.0]


def test_token_ids(server: ScriptedServer, s: gpt.Gpt) -> None:
    """Token ids are scored by number, NumPy arrays too, and a context of ids is cut off exactly."""
    server.reply(
        answer(choice(["A", " b", " c"], [None, -1.0, -2.0]), choice(["A", " d", " e"], [None, -3.0, -4.0], 1))
    )

    results = score(s, np.array([[8, 9], [10, 11]]), model="m", context=np.array([7]))

    assert server.requests[0].json()["prompt"] == [[7, 8, 9], [7, 10, 11]]
    assert [(result.text, result.offsets, result.logprob_sum) for result in results] == [
        (" b c", (0, 2), -3.0),
        (" d e", (0, 2), -7.0),
    ]


def test_token_ids_with_one_generated(server: ScriptedServer, s: gpt.Gpt) -> None:
    """The token that a server insists on generating is cut off behind token ids, too."""
    refusal = {"error": {"message": "max_new_tokens must be at least 1"}}
    server.reply(json_answer(refusal, 422), answer(choice(["A", "b", "c"], [None, -1.0, -9.0], text_offset=[-1] * 3)))

    (result,) = score(s, [[1, 2]], model="m")

    assert (result.tokens, result.logprob_sum) == (("A", "b"), -1.0)


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        pytest.param("Hi yo", ["<s>", "Hi", " yo"], [(" yo", 0)], id="beginning-of-text token"),
        pytest.param("Hi yo", ["Hi", "yo"], [("yo", 0)], id="lost space"),
        pytest.param("Hi yo", ["▁Hi", "▁yo"], [("▁yo", 0)], id="marked space"),
        pytest.param("é yo", ["\ufffd", "\ufffd", " yo"], [(" yo", 0)], id="parts of a character"),
        pytest.param("é yo", ["bytes:\\xc3", "bytes:\\xa9", " yo"], [(" yo", 0)], id="bytes"),
        pytest.param(
            "Hi 😀.",
            ["Hi", " \ufffd", "\ufffd", "\ufffd", "."],
            [(" \ufffd", 0), ("\ufffd", 1), ("\ufffd", 1), (".", 2)],
            id="parts in the text",
        ),
    ],
)
def test_odd_tokens(
    server: ScriptedServer, s: gpt.Gpt, text: str, tokens: list[str], expected: list[tuple[str, int]]
) -> None:
    """The boundary is found where tokens are not the text's own characters, and offsets would mislead."""
    server.reply(answer(choice(tokens, [None] + [-1.0] * (len(tokens) - 1), text=text)))
    end = text.index(" ")

    (result,) = score(s, [text[end:]], model="m", context=text[:end])

    assert list(zip(result.tokens, (max(0, offset) for offset in result.offsets), strict=True)) == expected


def test_no_probability(server: ScriptedServer, s: gpt.Gpt) -> None:
    """A token of probability 0 makes the perplexity infinite, in each of the ways servers write it."""
    body = b'{"choices":[{"text":"ab","logprobs":{"tokens":["a","b"],"token_logprobs":[null,%b]}}]}'
    server.reply(*(json_answer(body % zero) for zero in (b"-Infinity", b"-9999.0", b"-3.4028234663852886e+38")))

    assert [score(s, ["ab"], model="m")[0].perplexity for _ in range(3)] == [math.inf] * 3


def test_single_token_without_context(server: ScriptedServer, s: gpt.Gpt) -> None:
    """A single token without a context cannot be scored: its numbers are NaN, not 0."""
    server.reply(answer(choice(["a"], [None])))

    (result,) = score(s, ["a"], model="m")

    assert result.logprobs == (None,)
    assert all(math.isnan(value) for value in (result.logprob_sum, result.logprob_mean, result.perplexity))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        pytest.param({"text": " more", "logprobs": None}, "ignored echo", id="echo ignored"),
        pytest.param({"text": "ab", "logprobs": None}, "no log-probabilities", id="logprobs ignored"),
        pytest.param({"text": "ab", "logprobs": {"tokens": []}}, "no log-probabilities", id="empty"),
        pytest.param(choice(["a", "b"], [None, None]), "no log-probability for token 1, 'b'", id="all null"),
        pytest.param(choice(["a", "b"], [None, float("nan")]), "no log-probability for token 1", id="NaN"),
    ],
)
def test_refusals(server: ScriptedServer, s: gpt.Gpt, made: dict[str, Any], message: str) -> None:
    """An answer that is not about the text is an error that says so and who can do it, never a number."""
    server.reply(answer(made))

    with pytest.raises(errors.ResponseValidationError, match=f"{message}.*vLLM") as caught:
        score(s, ["ab"], model="m")
    assert caught.value.body


def test_unspellable_boundary(server: ScriptedServer, s: gpt.Gpt) -> None:
    """Tokens that do not spell the text leave no boundary to find: an error; without a context they are enough."""
    server.reply(answer(choice(["token_id:5", "token_id:6"], [None, -1.0], text="ab")))

    with pytest.raises(errors.ResponseValidationError, match=r"do not spell it.*token ids need no spelling"):
        score(s, ["b"], model="m", context="a")
    assert score(s, ["ab"], model="m")[0].logprob_sum == -1.0


@pytest.mark.parametrize("texts", [["Return the value", "The"], [[40, 41, 42], [43, 44]], [[40]]])
def test_llama_cpp_is_refused(texts: list[Any]) -> None:
    """The real llama.cpp server, which ignores echo, is refused and never scored."""
    with (
        local.Server() as server,
        gpt.Gpt(server_url=server.url, security=shared.Security(api_key_auth="")) as s,
        pytest.raises(errors.ResponseValidationError, match="ignored echo"),
    ):
        score(s, texts, model="tiny")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"texts": "ab"}, TypeError, r"write \[text\]"),
        ({"texts": [1, 2]}, TypeError, r"texts\[0\]: expected a text or a list of token ids, got int"),
        ({"texts": ["a", [1]]}, TypeError, r"texts\[1\]: .* mixture"),
        ({"texts": ["a"], "context": [1]}, TypeError, "mixture"),
        ({"texts": ["a", ""]}, ValueError, r"texts\[1\]: .* empty"),
        ({"texts": ["a"], "context": ["x", "y"]}, ValueError, "one for each of 1, got 2"),
        ({"texts": ["a"], "batch_size": 0}, ValueError, "batch_size"),
    ],
)
def test_misuse(
    server: ScriptedServer, s: gpt.Gpt, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Misuse is told before anything is sent."""
    with pytest.raises(error, match=message):
        score(s, **arguments, model="m")
    assert server.requests == []


def test_nothing_to_score(server: ScriptedServer, s: gpt.Gpt) -> None:
    """No texts, no request."""
    assert score(s, [], model="m") == []
    assert server.requests == []


def test_options_and_extras(server: ScriptedServer, s: gpt.Gpt) -> None:
    """Options of the call and fields of one server reach the request."""
    server.reply(answer(choice(["a", "b"], [None, -1.0])))

    score(s, ["ab"], model="m", additional_properties={"add_special_tokens": False}, http_headers={"X-Trace": "7"})

    assert server.requests[0].json()["add_special_tokens"] is False
    assert server.requests[0].header("X-Trace") == "7"


def test_score_is_a_value() -> None:
    """A Score is frozen, computes its numbers from its log-probabilities, and becomes a dict whole."""
    made = Score(text="ab", tokens=("a", "b"), logprobs=(-1.0, -2.0), offsets=(0, 1))

    with pytest.raises(dataclasses.FrozenInstanceError):
        made.text = "c"  # type: ignore[misc]
    assert dataclasses.asdict(made)["logprob_mean"] == -1.5
    assert made.perplexity == pytest.approx(4.4816890703)
