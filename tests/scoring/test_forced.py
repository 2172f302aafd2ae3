"""Forced decoding on a real llama.cpp, against the model's full distribution at every position."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gpt
from gpt import local, scoring
from gpt.models import errors, shared
from gpt.scoring.server import ServerInfo
from tests.support.http_server import Received, ScriptedResponse, ScriptedServer, json_response

VOCABULARY = 2048
CLOSE = 2e-4
"""How far a log-probability may be from one computed in another batch; the model is quantized."""


@pytest.fixture(scope="module")
def s(local_server: local.Server) -> Iterator[gpt.Gpt]:
    with gpt.Gpt(server_url=local_server.url, security=shared.Security(api_key_auth="")) as client:
        yield client


@pytest.fixture(scope="module")
def server(s: gpt.Gpt) -> ServerInfo:
    return ServerInfo(s, "tiny", {})


def distribution(s: gpt.Gpt, ids: Sequence[int]) -> dict[int, float]:
    """Return the log-probability of every token of the model behind some ids, as llama.cpp lists them."""
    request = shared.CreateCompletionRequest(
        model="tiny", prompt=list(ids), max_tokens=1, logprobs=VOCABULARY, logit_bias={"65": 100}, temperature=0
    )
    response = s.completions.create_completion(request).create_completion_response
    assert response is not None
    logprobs: Any = response.choices[0].logprobs
    listed = {each["id"]: each["logprob"] for each in logprobs.content[0]["top_logprobs"]}
    assert len(listed) == VOCABULARY
    return listed


def truth(s: gpt.Gpt, ids: Sequence[int], begin: int) -> list[float | None]:
    """Return the true log-probabilities of the ids from `begin` on."""
    return [distribution(s, ids[:n])[ids[n]] if n else None for n in range(begin, len(ids))]


TEXTS = [
    pytest.param("", "The class is used to iterate.", id="ASCII"),
    pytest.param("Return the", " current value", id="context"),
    pytest.param("", "Né à Orléans", id="accents"),
    pytest.param("敏捷", "狗", id="CJK, all parts of characters"),
    pytest.param("🎉", "🎉", id="equal emoji on both sides"),
    pytest.param("a ", "👩‍👩‍👧 ok", id="emoji with joiners"),
    pytest.param("", "a\x00b\x01\x1b[0m\x7f\r\n\t.", id="control characters"),
    pytest.param("def f(x):", "\n    return {x: [<b>, '</s>']}", id="code"),
    pytest.param("x", "<|endoftext|> y", id="special token"),
    pytest.param("\ufffd", "}::", id="U+FFFD in the context"),
    pytest.param("", "\ufffd", id="U+FFFD alone"),
    pytest.param("The cur", "rent value", id="boundary inside a token"),
]


@pytest.mark.parametrize(("context", "text"), TEXTS)
def test_score_text_equals_full_distribution(s: gpt.Gpt, server: ServerInfo, context: str, text: str) -> None:
    """Every log-probability is the model's own, read from its full distribution at that position."""
    (score,) = scoring.score(s, [text], model="tiny", context=context)

    ids = server.encode(context + text)
    begin = len(ids) - len(score.tokens)
    assert score.text == text
    assert score.logprobs == pytest.approx(truth(s, ids, begin), abs=CLOSE)
    assert begin == 0 if not context else score.offsets[0] <= 0


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=7), st.integers(0, 3))
def test_score_ids_equals_full_distribution(s: gpt.Gpt, ids: list[int], context: int) -> None:
    """Any token ids in any order, special ones and parts of characters too, get the model's own numbers."""
    context = min(context, len(ids) - 1)

    (score,) = scoring.score(s, [ids[context:]], model="tiny", context=ids[:context])

    assert score.logprobs == pytest.approx(truth(s, ids, context), abs=CLOSE)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), st.text(min_size=1, max_size=4))
def test_score_any_unicode_equals_full_distribution(s: gpt.Gpt, server: ServerInfo, context: str, text: str) -> None:
    """Any text after any context is either scored truly or refused: the ids say which tokens are the text's."""
    if any("\ud800" <= c < "\ue000" for c in text):
        return
    (score,) = scoring.score(s, [text], model="tiny", context=context)

    ids = server.encode(context + text)
    assert score.logprobs == pytest.approx(truth(s, ids, len(ids) - len(score.tokens)), abs=CLOSE)
    spelled = b"".join(piece.raw or b"" for piece in server.tokenize(context + text)[-len(score.tokens) :])
    assert spelled.endswith(text.encode())
    assert len(spelled) - len(text.encode()) < len(score.tokens[0].encode()) or not context


def test_score_forced_parts_of_characters_have_the_offset_of_the_character(s: gpt.Gpt) -> None:
    """Parts of a character begin where it does; a token across the boundary has a negative offset."""
    (split,) = scoring.score(s, ["aé狗."], model="tiny")
    (across,) = scoring.score(s, ["rent value"], model="tiny", context="The cur")

    assert split.offsets == (0, 1, 1, 2, 2, 2, 3)
    assert (across.tokens, across.offsets) == ((" current", " value"), (-4, 4))


def test_score_forced_text_of_the_model_itself_is_greedy(s: gpt.Gpt) -> None:
    """A text is greedy when the model itself would have written it."""
    request = shared.CreateCompletionRequest(model="tiny", prompt="A class", max_tokens=5, temperature=0)
    response = s.completions.create_completion(request).create_completion_response
    assert response is not None

    likely, unlikely, unknown = (
        scoring.score(s, [str(response.choices[0].text)], model="tiny", context="A class")[0],
        scoring.score(s, [" mat"], model="tiny", context="A class")[0],
        scoring.score(s, [" mat"], model="tiny", context="A class", logprobs=0)[0],
    )

    assert (likely.is_greedy, unlikely.is_greedy, unknown.is_greedy) == (True, False, None)


def test_score_forced_top_logprobs_are_the_likeliest_of_the_full_distribution(s: gpt.Gpt, server: ServerInfo) -> None:
    """The alternatives are the likeliest of the full distribution, and the token itself is among them."""
    (score,) = scoring.score(s, [" mat"], model="tiny", context="A class", logprobs=3)

    likeliest = sorted(distribution(s, server.encode("A class")).values(), reverse=True)[:3]
    assert sorted(score.top_logprobs[0].values(), reverse=True)[:3] == pytest.approx(likeliest, abs=CLOSE)
    assert score.top_logprobs[0][" mat"] == score.logprobs[0]


def test_score_by_logit_bias_equals_grammar(s: gpt.Gpt) -> None:
    """A server whose grammars know no token ids gets a request for each position, and gives the same numbers."""
    from gpt.bulk import run
    from gpt.scoring.forced import forced_job
    from gpt.scoring.jobs import Settings
    from gpt.scoring.prompts import make_prompts
    from gpt.scoring.run import ScoringRun

    old = ServerInfo(s, "tiny", {})
    old.has_token_grammar = False
    (prompt,) = make_prompts(["The class é is"], None)
    job = forced_job(prompt, old, Settings("tiny", 1, {}))
    (outcome,) = ScoringRun([job], lambda requests: run(s, requests), threads=0)

    assert outcome.score is not None
    (expected,) = scoring.score(s, ["The class é is"], model="tiny")
    assert outcome.score.logprobs == pytest.approx(expected.logprobs, abs=CLOSE)


def test_score_text_of_the_whole_context_length_is_scored(s: gpt.Gpt) -> None:
    """A text of as many tokens as the model has room for is scored; one more is refused with advice."""
    ids = random.Random(1).choices(range(300, 1000), k=257)

    assert len(scoring.score(s, [ids[:256]], model="tiny")[0].logprobs) == 256
    with pytest.raises(errors.SDKError, match=r"max_length|no log-probability"):
        scoring.score(s, [ids], model="tiny")


@pytest.mark.parametrize("context", [0, 5, 100])
def test_score_windows_equal_direct_computation(s: gpt.Gpt, context: int) -> None:
    """A text beyond the model's context is scored window by window, with one token of overlap."""
    ids = random.Random(2).choices(range(300, 1000), k=130)

    (score,) = scoring.score(s, [ids[context:]], model="tiny", context=ids[:context], max_length=50)

    expected: list[float | None] = []
    first = context
    while first < len(ids):  # as a person would: take what fits, then go on from the last token
        start = 0 if first == context < 50 else max(0, min(len(ids), first + 49) - 50)
        end = min(len(ids), start + 50)
        (part,) = scoring.score(s, [ids[first:end]], model="tiny", context=ids[start:first])
        expected += part.logprobs
        first = end
    assert len(score.logprobs) == len(ids) - context
    assert score.logprobs == pytest.approx(expected, abs=CLOSE)


def test_score_long_text_by_windows_counts_every_token_once(s: gpt.Gpt) -> None:
    """Of a long text every token counts once, and the offsets are the text's."""
    text = "The class is used to iterate over é. " * 40

    (score,) = scoring.score(s, [text], model="tiny", max_length=255)

    assert "".join(score.tokens).replace("\ufffd\ufffd", "é") == text
    assert list(score.offsets) == sorted(score.offsets)
    assert [n for n, value in enumerate(score.logprobs) if value is None] == [0]


def test_score_server_that_generates_other_tokens_is_refused() -> None:
    """A server that ignores grammar and bias gives other ids than the text's, and so no number."""

    def reply(request: Received) -> ScriptedResponse:
        if request.path.endswith("/models"):
            return json_response({"data": [{"id": "m", "owned_by": "llamacpp", "meta": {"n_vocab": 4}}]})
        if request.path.endswith("/tokenize"):
            text = request.json()["content"]
            return json_response({"tokens": [{"id": ord(c), "piece": c} for c in text]})
        count = request.json()["max_tokens"]
        several = request.json()["prompt"]
        several = several if isinstance(several[0], list) else [several]
        content = [{"id": 7, "token": "x", "bytes": [120], "logprob": -0.5, "top_logprobs": []}] * count
        choices = [{"index": n, "text": "x" * count, "logprobs": {"content": content}} for n in range(len(several))]
        return json_response({"choices": choices})

    with ScriptedServer() as scripted:
        scripted.respond_with(reply)
        with (
            gpt.Gpt(server_url=scripted.url, security=shared.Security(api_key_auth="")) as s,
            pytest.raises(errors.ResponseValidationError, match="no log-probability of token 1, 'b'"),
        ):
            scoring.score(s, ["abc"], model="m")


def test_score_key_goes_to_every_request() -> None:
    """A server with a key is looked at, tokenizes and scores with the client's key."""
    with (
        local.Server(api_key="secret") as server,
        gpt.Gpt(server_url=server.url, security=shared.Security(api_key_auth="secret")) as s,
    ):
        assert scoring.score(s, ["A class"], model="tiny")[0].logprob_sum < 0
