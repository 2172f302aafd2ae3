"""Scoring given texts, on responses recorded from vLLM, on those of servers that deviate, and on a real llama.cpp."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import gpt
from gpt import local, view
from gpt.models import errors, shared
from gpt.scoring import Score, score, score_iter
from tests.support.fixtures import vllm
from tests.support.http_server import Received, ScriptedResponse, json_response
from tests.support.scoring_server import ScoringServer

FIRST = "The for statement is used to iterate"
SECOND = "Return the current value"


@pytest.fixture
def server() -> Iterator[ScoringServer]:
    with ScoringServer() as server:
        server.owned_by = "vllm"
        yield server


@pytest.fixture
def s(server: ScoringServer) -> Iterator[gpt.Gpt]:
    with gpt.Gpt(server_url=server.url, security=shared.Security(api_key_auth="")) as client:
        yield client


def choice(tokens: list[str], logprobs: list[float | None], index: int = 0, **more: Any) -> dict[str, Any]:
    """Make a choice with log-probabilities in lists; `text` and `text_offset` follow from the tokens where left out."""
    offsets = [len("".join(tokens[:n])) for n in range(len(tokens))]
    lists = {"tokens": tokens, "token_logprobs": logprobs, "text_offset": more.pop("text_offset", offsets)}
    lists["top_logprobs"] = more.pop("top_logprobs", None)
    return {"index": index, "text": more.pop("text", "".join(tokens)), "finish_reason": "length", "logprobs": lists}


def reply_with(*choices: Mapping[str, Any]) -> ScriptedResponse:
    """Reply with these choices."""
    return json_response({"object": "text_completion", "choices": list(choices)})


def test_score_recorded_echo_has_sum_mean_and_perplexity(server: ScoringServer, s: gpt.Gpt) -> None:
    """The sum, mean and perplexity of a recorded response are those of a calculation by hand."""
    server.reply(vllm("echo_logprobs_score").response())

    _, second = score(s, [FIRST, SECOND], model="tiny", logprobs=3)

    # -0.6457018852233887 - 1.3033324480056763 - 5.012466907501221, on paper; a third of it; e to the negative of that
    assert second.tokens == ("Return", " the", " current", " value")
    assert second.logprobs == (None, -0.6457018852233887, -1.3033324480056763, -5.012466907501221)
    assert second.offsets == (0, 6, 10, 18)
    assert second.logprob_sum == pytest.approx(-6.961501240730286, rel=1e-12)
    assert second.logprob_mean == pytest.approx(-2.320500413576762, rel=1e-12)
    assert second.perplexity == pytest.approx(10.180767, rel=1e-6)


def test_score_sends_the_recorded_request(server: ScoringServer, s: gpt.Gpt) -> None:
    """What is sent is the recorded request: echo, logprobs, no tokens to generate."""
    recorded = vllm("echo_logprobs_score")
    server.reply(recorded.response())

    score(s, [FIRST, SECOND], model="tiny", logprobs=3)

    assert server.posts[0].json() == recorded.request


def test_score_context_leaves_the_continuation_alone_to_count(server: ScoringServer, s: gpt.Gpt) -> None:
    """With a context only the continuation counts, and its first token has a log-probability."""
    server.reply(vllm("echo_logprobs_score").response())

    first, second = score(
        s, [" is used to iterate", " value"], model="tiny", context=["The for statement", "Return the current"]
    )

    assert first.text == " is used to iterate"
    assert first.tokens == (" is", " used", " to", " iter", "ate")
    assert first.offsets == (0, 3, 8, 11, 16)
    assert first.logprob_sum == pytest.approx(-15.01796, abs=1e-5)
    assert second.logprobs == (-5.012466907501221,)
    assert second.perplexity == pytest.approx(math.exp(5.012466907501221))


def test_score_token_across_the_boundary_counts_whole(server: ScoringServer, s: gpt.Gpt) -> None:
    """A token that begins in the context and ends in the text counts whole, with a negative offset."""
    server.reply(vllm("echo_logprobs_score").response())

    first, second = score(
        s, ["te", "rent value"], model="tiny", context=["The for statement is used to itera", "Return the cur"]
    )

    assert (first.tokens, first.offsets) == (("ate",), (-1,))
    assert (second.tokens, second.offsets) == ((" current", " value"), (-4, 4))


def test_score_generated_tokens_are_cut_off(server: ScoringServer, s: gpt.Gpt) -> None:
    """A server that generates in spite of max_tokens=0 changes nothing."""
    server.reply(vllm("echo_logprobs_generate").response())

    (result,) = score(s, ["A class definition"], model="tiny")

    assert result.tokens == ("A", " class", " defin", "i", "tion")
    assert result.offsets == (0, 1, 7, 13, 14)


def test_score_is_greedy_when_each_token_was_the_likeliest(server: ScoringServer, s: gpt.Gpt) -> None:
    """A text is greedy when each of its tokens was the likeliest."""
    server.reply(vllm("echo_logprobs_generate").response())

    likely, unlikely = (
        score(s, ["ition"], model="tiny", context="A class defin")[0],
        score(s, [" definition"], model="tiny", context="A class")[0],
    )

    assert likely.tokens == ("i", "tion")
    assert likely.is_greedy
    assert not unlikely.is_greedy


def test_score_rejected_max_tokens_generates_one_token(server: ScoringServer, s: gpt.Gpt) -> None:
    """A server that rejects max_tokens=0 generates one token, which is cut off; the next batch allows it at once."""
    refusal = {"object": "error", "message": "max_tokens must be positive, got 0.", "type": "BadRequest", "code": 400}
    made = choice(["a", "b", "c"], [None, -1.0, -9.0], text_offset=[-1, -1, -1])
    server.owned_by = None
    server.reply(json_response(refusal, 400), reply_with(made))

    results = score(s, ["ab", "ab"], model="m", batch_size=1)

    assert [request.json()["max_tokens"] for request in server.posts] == [0, 1, 1]
    assert [result.tokens for result in results] == [("a", "b")] * 2
    assert [result.offsets for result in results] == [(0, 1)] * 2
    assert results[0].logprob_sum == -1.0


def test_score_other_rejections_are_raised_as_they_are(server: ScoringServer, s: gpt.Gpt) -> None:
    """A 400 about anything else is raised as it is, without a second request."""
    server.reply(vllm("error_too_long").response())

    with pytest.raises(errors.BadRequestError, match="maximum context length"):
        score(s, ["ab"], model="m")
    assert len(server.posts) == 1


def test_score_choices_out_of_order_belong_by_index(server: ScoringServer, s: gpt.Gpt) -> None:
    """Choices belong to their texts by index, whatever their order."""
    server.reply(reply_with(choice(["b", "y"], [None, -2.0], 1), choice(["a", "x"], [None, -1.0], 0)))

    results = score(s, ["ax", "by"], model="m")

    assert [(result.text, result.logprob_sum) for result in results] == [("ax", -1.0), ("by", -2.0)]


@pytest.mark.parametrize("indexes", [[0, 0], [0, 2], [0, 1, 2]])
def test_score_wrong_number_of_choices_is_refused(server: ScoringServer, s: gpt.Gpt, indexes: list[int]) -> None:
    """A response without exactly one choice for each text is refused."""
    server.reply(reply_with(*(choice(["a", "x"], [None, -1.0], index) for index in indexes)))

    with pytest.raises(errors.ResponseValidationError, match=r"expected one choice, got|ignored echo"):
        score(s, ["ax", "ax"], model="m")


def test_score_batches_keep_the_order_of_the_texts(server: ScoringServer, s: gpt.Gpt) -> None:
    """Texts go out in batches, and the scores come back in the order of the texts."""

    def echo(request: Received) -> ScriptedResponse:
        prompts = request.json()["prompt"]
        prompts = [prompts] if isinstance(prompts, str) else prompts
        return reply_with(*(choice(list(text), [None, -float(text[1])], n) for n, text in enumerate(prompts)))

    server.respond_with(echo)
    results = score(s, (f"t{n}" for n in range(1, 6)), model="m", batch_size=2)

    sizes = [
        1 if isinstance(request.json()["prompt"], str) else len(request.json()["prompt"]) for request in server.posts
    ]
    assert sorted(sizes) == [1, 2, 2]
    assert [result.logprob_sum for result in results] == [-1.0, -2.0, -3.0, -4.0, -5.0]


def test_score_unknown_server_gets_the_first_text_alone(server: ScoringServer, s: gpt.Gpt) -> None:
    """What a server is that nobody knows, one text finds out: it is refused after one request."""
    server.owned_by = None
    server.reply(reply_with(choice(["x"], [-1.0])))

    with pytest.raises(errors.ResponseValidationError, match="ignored echo"):
        score(s, ["ab"] * 100, model="m")
    assert [request.json()["prompt"] for request in server.posts] == ["ab"]


def test_score_token_ids_divide_exactly(server: ScoringServer, s: gpt.Gpt) -> None:
    """Token ids are scored by number, NumPy arrays too, and a context of ids is cut off exactly."""
    server.reply(
        reply_with(choice(["A", " b", " c"], [None, -1.0, -2.0]), choice(["A", " d", " e"], [None, -3.0, -4.0], 1))
    )

    results = score(s, np.array([[8, 9], [10, 11]]), model="m", context=np.array([7]))

    assert server.posts[0].json()["prompt"] == [[7, 8, 9], [7, 10, 11]]
    assert [(result.text, result.offsets, result.logprob_sum) for result in results] == [
        (" b c", (0, 2), -3.0),
        (" d e", (0, 2), -7.0),
    ]


def test_score_token_ids_with_one_generated_cut_it_off(server: ScoringServer, s: gpt.Gpt) -> None:
    """The token that a server insists on generating is cut off behind token ids, too."""
    refusal = {"error": {"message": "max_new_tokens must be at least 1"}}
    server.reply(
        json_response(refusal, 422), reply_with(choice(["A", "b", "c"], [None, -1.0, -9.0], text_offset=[-1] * 3))
    )

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
def test_score_odd_tokens_have_the_right_boundary(
    server: ScoringServer, s: gpt.Gpt, text: str, tokens: list[str], expected: list[tuple[str, int]]
) -> None:
    """The boundary is found where tokens are not the text's own characters, and offsets would mislead."""
    server.reply(reply_with(choice(tokens, [None] + [-1.0] * (len(tokens) - 1), text=text)))
    end = text.index(" ")

    (result,) = score(s, [text[end:]], model="m", context=text[:end])

    assert list(zip(result.tokens, (max(0, offset) for offset in result.offsets), strict=True)) == expected


def test_score_no_probability_is_infinite_perplexity(server: ScoringServer, s: gpt.Gpt) -> None:
    """A token of probability 0 makes the perplexity infinite, in each of the ways servers write it."""
    body = b'{"choices":[{"text":"ab","logprobs":{"tokens":["a","b"],"token_logprobs":[null,%b]}}]}'
    server.reply(*(json_response(body % zero) for zero in (b"-Infinity", b"-9999.0", b"-3.4028234663852886e+38")))

    assert [score(s, ["ab"], model="m")[0].perplexity for _ in range(3)] == [math.inf] * 3


def test_score_single_token_without_context_is_nan(server: ScoringServer, s: gpt.Gpt) -> None:
    """A single token without a context cannot be scored: its numbers are NaN, not 0."""
    server.reply(reply_with(choice(["a"], [None])))

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
def test_score_response_about_something_else_is_refused(
    server: ScoringServer, s: gpt.Gpt, made: dict[str, Any], message: str
) -> None:
    """A response that is not about the text is an error that says so and who can do it, never a number."""
    server.reply(reply_with(made))

    with pytest.raises(errors.ResponseValidationError, match=f"(?s){message}.*vLLM") as caught:
        score(s, ["ab"], model="m")
    assert caught.value.body


def test_score_unspellable_boundary_is_refused(server: ScoringServer, s: gpt.Gpt) -> None:
    """Tokens that do not spell the text leave no boundary to find: an error; without a context they are enough."""
    server.reply(reply_with(choice(["token_id:5", "token_id:6"], [None, -1.0], text="ab")))

    with pytest.raises(errors.ResponseValidationError, match=r"do not spell it.*token ids need no spelling"):
        score(s, ["b"], model="m", context="a")
    assert score(s, ["ab"], model="m")[0].logprob_sum == -1.0


@pytest.mark.parametrize("texts", [["Return the value", "The"], [[40, 41, 42], [43, 44]], [[40]], ["\n"], [" "]])
def test_score_llama_cpp_by_echo_is_refused(local_server: local.Server, texts: list[Any]) -> None:
    """The real llama.cpp server ignores echo: with method="echo" it is refused and never scored."""
    with (
        gpt.Gpt(server_url=local_server.url, security=shared.Security(api_key_auth="")) as s,
        pytest.raises(errors.ResponseValidationError, match="ignored echo"),
    ):
        score(s, texts, model="tiny", method="echo")


@pytest.mark.parametrize("text", ["\n", " "])
def test_score_generated_token_that_repeats_the_text_is_refused(server: ScoringServer, s: gpt.Gpt, text: str) -> None:
    """A response that begins with the text is not an echo if its first token has a log-probability."""
    server.reply(reply_with(choice([f"{text}The"], [-2.234])), reply_with(choice([text], [-2.234])))

    for _ in range(2):
        with pytest.raises(errors.ResponseValidationError, match="first token of a prompt has no log-probability"):
            score(s, [text], model="m")


def test_score_llama_cpp_python_is_refused(server: ScoringServer, s: gpt.Gpt) -> None:
    """llama-cpp-python, whose echo is shifted by a token, is recognised, and no text is sent to it."""
    server.owned_by = "me"

    for method in ("auto", "echo"):
        with pytest.raises(errors.ResponseValidationError, match=r"llama-cpp-python.*llama-server"):
            score(s, ["ab"], model="m", method=method)
    assert server.posts == []


def vllm_parts(text: str) -> list[str]:
    """Write the byte tokens of a text as vLLM does: nothing for the parts of a character but the last."""
    written: list[str] = []
    for number, character in enumerate(text):
        parts = len(character.encode())
        whole = [""] * (parts - 1) + [character]
        written += ["\ufffd", *[""] * (parts - 1)] if number == 0 and parts > 1 else whole
    return written


def vllm_reply(request: Received) -> ScriptedResponse:
    """Reply as vLLM with a token for each byte and no room for parts of characters; the n-th has logprob -n."""
    body = request.json()
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    choices = []
    for index, prompt in enumerate(prompts):
        data = prompt.encode()
        made = choice(vllm_parts(prompt), [None, *(-float(n) for n in range(1, len(data)))], index, text=prompt)
        if not body.get("echo"):
            made |= {"text": "x", "logprobs": None}
        if body.get("return_token_ids"):
            made["prompt_token_ids"] = list(data)
        choices.append(made)
    return reply_with(*choices)


@pytest.mark.parametrize(
    ("context", "text"),
    [
        ("🎉", "🎉"),
        ("敏捷", "狗"),
        ("Вопрос: что", " это?"),
        ("\ufffd", "}::"),
        ("a\ufffd", "\ufffd\ufffd"),
        ("é", "a"),
    ],
)
def test_score_parts_of_characters_are_divided_by_ids(
    server: ScoringServer, s: gpt.Gpt, context: str, text: str
) -> None:
    """Where vLLM cannot write the tokens, the ids of the context alone prove where the text begins."""
    server.owned_by = "vllm"
    server.respond_with(vllm_reply)

    results = score(s, [text, text], model="m", context=context)

    begin = len(context.encode())
    expected = tuple(-float(n) for n in range(begin, begin + len(text.encode())))
    assert [result.logprobs for result in results] == [expected] * 2
    assert results[0].text == text


def test_score_ambiguous_boundary_is_decided_by_ids_of_the_context(server: ScoringServer, s: gpt.Gpt) -> None:
    """Tokens that could be divided in two ways are divided by the ids of the context, sent once for each context."""
    server.owned_by = "vllm"
    whole = choice(["\ufffd", "", "", "狗"], [None, -1.0, -2.0, -3.0], text="狗狗") | {"prompt_token_ids": [9, 8, 9, 8]}
    alone = {"index": 0, "text": "x", "prompt_token_ids": [9, 8]}
    server.respond_with(lambda request: reply_with(whole if request.json().get("echo") else alone))

    results = score(s, ["狗", "狗"], model="m", context="狗", batch_size=1, max_workers=1)

    assert [result.logprobs for result in results] == [(-2.0, -3.0)] * 2


@pytest.mark.parametrize("text", ["\ufffd", "Да", "🎉🎉", "\ufffd\ufffda"])
def test_score_parts_of_characters_count(server: ScoringServer, s: gpt.Gpt, text: str) -> None:
    """Without a context every token of the echo is the text's, also those that are written as nothing."""
    server.owned_by = "vllm"
    server.respond_with(vllm_reply)

    (result,) = score(s, [text], model="m")

    assert len(result.logprobs) == len(text.encode())
    assert result.offsets == tuple(n for n, character in enumerate(text) for _ in character.encode())


def test_score_ambiguous_boundary_is_refused(server: ScoringServer, s: gpt.Gpt) -> None:
    """Tokens that could be divided in two ways are refused where the server tells no ids."""
    parts = ["a", "\ufffd", "\ufffd", "\ufffd", "\ufffd", "\ufffd"]  # 3 + 2 or 2 + 3, for two characters of 4 bytes
    server.reply(reply_with(choice(parts, [None, -1.0, -2.0, -3.0, -4.0, -5.0], text="a🎉🎉")))

    with pytest.raises(errors.ResponseValidationError, match="in one way"):
        score(s, ["🎉"], model="m", context="a🎉")


@pytest.mark.parametrize("value", [1.0, 1.7e308, "Infinity"])
def test_score_impossible_logprob_is_refused(server: ScoringServer, s: gpt.Gpt, value: object) -> None:
    """A number above 0 is not a log-probability, and never becomes part of a score."""
    body = '{"choices":[{"text":"ab","logprobs":{"tokens":["a","b"],"token_logprobs":[null,VALUE]}}]}'
    server.reply(json_response(body.replace("VALUE", str(value)).encode()))

    with pytest.raises(errors.ResponseValidationError, match="at most 0"):
        score(s, ["ab"], model="m")


def test_score_lowest_floats_sum_to_minus_infinity(server: ScoringServer, s: gpt.Gpt) -> None:
    """The lowest float, by which servers mean a probability of 0, may stand twice in a text."""
    server.reply(reply_with(choice(["a", "b", "c"], [None, -1.7e308, -1.7e308])))

    assert score(s, ["abc"], model="m")[0].perplexity == math.inf


def test_score_text_that_is_no_string_is_refused(server: ScoringServer, s: gpt.Gpt) -> None:
    """A choice whose text is a number is refused as a response that repeats nothing."""
    server.reply(json_response({"choices": [{"text": 5, "logprobs": {"tokens": ["a"], "token_logprobs": [None]}}]}))

    with pytest.raises(errors.ResponseValidationError, match="ignored echo"):
        score(s, ["ab"], model="m")


def test_score_message_is_bounded(server: ScoringServer, s: gpt.Gpt) -> None:
    """Whatever a server sends, the message about it stays readable."""
    server.reply(reply_with(choice(["a", "y" * 1_000_000], [None, None])))

    with pytest.raises(errors.ResponseValidationError) as caught:
        score(s, ["a" + "y" * 1_000_000], model="m")
    assert len(str(caught.value)) < 1_000


def test_score_too_long_text_gets_advice(server: ScoringServer, s: gpt.Gpt) -> None:
    """A text of exactly the model's length is refused by the server: the error says that one token less fits."""
    server.reply(vllm("error_too_long").response())

    with pytest.raises(errors.BadRequestError, match=r"one token less.*max_length"):
        score(s, ["ab"], model="m")


def test_score_iter_gives_an_outcome_for_each(server: ScoringServer, s: gpt.Gpt) -> None:
    """A text that cannot be scored is its own outcome, and the others have their scores."""

    def reply_to_one(request: Received) -> ScriptedResponse:
        (text,) = request.json()["prompt"] if isinstance(request.json()["prompt"], list) else [request.json()["prompt"]]
        return (
            json_response({"error": {"message": "bad"}}, 400)
            if text == "xx"
            else reply_with(choice(list(text), [None, -1.0]))
        )

    server.respond_with(reply_to_one)
    outcomes = sorted(score_iter(s, iter(["ab", "xx", "", "cd"]), model="m", batch_size=1), key=lambda each: each.index)

    assert [outcome.index for outcome in outcomes] == [0, 1, 2, 3]
    assert [type(outcome.error) for outcome in outcomes] == [type(None), errors.BadRequestError, ValueError, type(None)]
    assert outcomes[3].score is not None
    assert outcomes[3].score.text == "cd"


def test_score_iter_pulls_no_more_than_it_needs(server: ScoringServer, s: gpt.Gpt) -> None:
    """Texts are pulled as outcomes are taken: an endless source does no harm."""
    server.reply(reply_with(choice(["a", "b"], [None, -1.0])))
    pulled = 0

    def texts() -> Iterator[str]:
        nonlocal pulled
        while True:
            pulled += 1
            yield "ab"

    outcomes = score_iter(s, texts(), model="m", batch_size=1, max_workers=2, context=("" for _ in iter(int, 1)))
    assert [next(outcomes).error for _ in range(20)] == [None] * 20
    assert pulled <= 20 + 8
    outcomes.close()  # type: ignore[attr-defined]


def test_score_iter_many_bad_texts_in_constant_memory(s: gpt.Gpt) -> None:
    """Texts that fail without a request are handed out as they are pulled."""
    outcomes = score_iter(s, ("" for _ in iter(int, 1)), model="m")

    assert all(isinstance(next(outcomes).error, ValueError) for _ in range(500))
    outcomes.close()  # type: ignore[attr-defined]


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
        ({"texts": ["a"], "max_workers": 0}, ValueError, "max_workers"),
        ({"texts": [b"ab"]}, TypeError, r"texts\[0\]: .* got bytes"),
        ({"texts": ["a", "b"], "context": iter(["x"])}, ValueError, "got 1 for more texts"),
        ({"texts": ["a"], "context": iter(["x", "y"])}, ValueError, "got more"),
        ({"texts": ["a"], "context": 5}, TypeError, "context: .* got int"),
        ({"texts": ["a"], "additional_properties": {"stream": True}}, ValueError, "stream: scoring sets"),
        ({"texts": ["a"], "tiemout": 3}, TypeError, "unexpected option 'tiemout'"),
        ({"texts": ["a"], "method": "magic"}, ValueError, "method: expected 'auto'"),
        ({"texts": ["a"], "max_length": 1}, ValueError, "max_length"),
    ],
)
def test_score_misuse_raises_before_anything_is_sent(
    server: ScoringServer, s: gpt.Gpt, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Misuse raises before anything is sent."""
    with pytest.raises(error, match=message):
        score(s, **arguments, model="m")
    assert server.posts == []


def test_score_no_texts_send_no_request(server: ScoringServer, s: gpt.Gpt) -> None:
    """No texts, no request."""
    assert score(s, [], model="m") == []
    assert server.posts == []


def test_score_options_and_extras_reach_the_request(server: ScoringServer, s: gpt.Gpt) -> None:
    """Options of the call and fields of one server reach the request."""
    server.reply(reply_with(choice(["a", "b"], [None, -1.0])))

    score(s, ["ab"], model="m", additional_properties={"add_special_tokens": False}, http_headers={"X-Trace": "7"})

    assert server.posts[0].json()["add_special_tokens"] is False
    assert server.posts[0].header("X-Trace") == "7"


def test_score_is_a_value() -> None:
    """A Score is frozen, computes its numbers from its log-probabilities, and becomes a dict whole."""
    made = Score(text="ab", tokens=("a", "b"), logprobs=(-1.0, -2.0), offsets=(0, 1))

    with pytest.raises(dataclasses.FrozenInstanceError):
        made.text = "c"  # type: ignore[misc]
    assert dataclasses.asdict(made)["logprob_mean"] == -1.5
    assert made.perplexity == pytest.approx(4.4816890703)


def test_view_of_a_score_shows_its_tokens() -> None:
    """A score can be looked at like a completion: as a page, as text, and in a notebook."""
    made = Score("a <b>", ("a", " <b>"), (None, -3.0), (0, 1), ({}, {" c": -0.1}))

    assert "&lt;b&gt;" in view.to_html(made)
    assert "or ‘·c’ 90" in view.to_text(made).plain
    assert "perplexity·20.09" in made._repr_html_() or "perplexity 20.09" in made._repr_html_()
