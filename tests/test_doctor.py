"""gpt.doctor: what it finds on the real engine, in recorded responses of vLLM, and on servers that lie."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

import gpt
from gpt import doctor, local
from gpt.models import shared
from tests.support.client import make
from tests.support.fixtures import vllm
from tests.support.http_server import Received, ScriptedResponse, ScriptedServer, json_response, sse_response

Respond = Callable[[dict[str, Any]], ScriptedResponse]

TEXT = " is an"
PIECES = (" is", " an")


def kind_of(received: Received) -> str:
    """Return which of the doctor's requests this is."""
    if not received.path.endswith("/completions"):
        return received.path.rpartition("/")[2]
    body = received.json()
    if isinstance(body["prompt"], list):
        return "lists" if isinstance(body["prompt"][0], str) else "token ids"
    if body["max_tokens"] == "many":
        return "errors"
    return next((name for name in ("echo", "logprobs", "stream", "n", "suffix", "stop") if name in body), "completion")


def completion(*texts: str, prompt_tokens: int = 3, completion_tokens: int = 2, **fields: Any) -> dict[str, Any]:
    """Return a completion with these choices."""
    choices = [{"index": n, "text": text, "finish_reason": "length", **fields} for n, text in enumerate(texts)]
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": 5}
    return {"object": "text_completion", "choices": choices, "usage": usage}


def logprobs(tokens: list[str], values: list[float | None], count: int = 1) -> dict[str, Any]:
    """Return the lists of log-probabilities, with so many alternatives."""
    top = [{f"{n}": -1.0 - n for n in range(count)} for _ in tokens]
    return {"logprobs": {"tokens": tokens, "token_logprobs": values, "top_logprobs": top}}


ECHOED = completion(doctor.PROMPT + " is", **logprobs(["A class", " definition", " is"], [None, -1.0, -2.0]))
STREAMED = [
    {"choices": [{"index": 0, "text": PIECES[0]}]},
    {"choices": [{"index": 0, "text": PIECES[1], "finish_reason": "length"}]},
    {"choices": [], "usage": completion()["usage"]},
]
BAD_REQUEST = json_response({"error": {"message": "no", "type": "BadRequestError", "code": 400}}, 400)

HONEST: Mapping[str, Respond] = {
    "models": lambda _: json_response({"data": [{"id": "m", "owned_by": "vllm"}]}),
    "completion": lambda _: json_response(completion(TEXT), x_request_id="req-1"),
    "lists": lambda _: json_response(completion(TEXT, " of")),
    "token ids": lambda _: json_response(completion(TEXT)),
    "echo": lambda _: json_response(ECHOED),
    "logprobs": lambda body: json_response(completion(" is", **logprobs([" is"], [-1.0], body["logprobs"]))),
    "stream": lambda _: sse_response(*STREAMED),
    "n": lambda body: json_response(completion(*[" is"] * body["n"])),
    "suffix": lambda _: json_response(completion(TEXT, prompt_tokens=8)),
    "stop": lambda body: json_response(completion(TEXT.partition(body["stop"][0])[0])),
    "errors": lambda _: BAD_REQUEST,
    "tokenize": lambda _: json_response({"count": 3, "tokens": [1, 2, 3]}),
}


def _always(response: ScriptedResponse, _: object) -> ScriptedResponse:
    return response


def examine(responses: Mapping[str, Respond], **options: Any) -> tuple[doctor.Report, list[Received]]:
    """Probe a server that responds so; return the report and the requests."""
    with ScriptedServer() as server:
        server.respond_with(lambda got: responses[kind_of(got)](got.json() if got.body else {}))
        with make(server.url, **options) as s:
            return doctor.probe(s), server.requests


def results(report: doctor.Report) -> dict[str, str]:
    """Return the result of each check by its name."""
    return {check.name: check.result for check in report.checks}


def test_probe_on_llama_cpp_recommends_forced_scoring_only(local_server: local.Server) -> None:
    """llama.cpp itself: what it has, what it ignores, and that it can be scored by forced decoding only."""
    with gpt.Gpt(shared.Security(api_key_auth=""), server_url=local_server.url) as s:
        report = doctor.probe(s)

    found = results(report)
    assert report.ok
    assert {found.pop(name) for name in ("echo", "suffix")} == {"ignored"}
    assert found.pop("request id") == "no"
    assert set(found.values()) == {"yes"}
    assert (report.batch_size, report.scoring) == (doctor.BATCH_SIZE, "forced")


def test_probe_on_an_honest_server_has_only_yes() -> None:
    """A server that honours everything has nothing but yes, within 12 requests and 64 tokens."""
    report, sent = examine(HONEST)

    assert set(results(report).values()) == {"yes"}
    assert (report.ok, report.model, report.scoring) == (True, "m", "echo")
    assert report.requests == len(sent) <= 12
    assert report.tokens <= 64
    bodies = [each.json() for each in sent if each.path.endswith("/completions")]
    assert sum(body["max_tokens"] for body in bodies if body["max_tokens"] != "many") <= report.tokens


@pytest.mark.parametrize("kind", [name for name in HONEST if name not in ("models", "completion")])
def test_probe_with_one_check_refused_reports_the_refusal_and_goes_on(kind: str) -> None:
    """A refusal is that check's result and ends nothing; the number of requests stays within its limit."""
    report, sent = examine({**HONEST, kind: lambda _: BAD_REQUEST})

    found = results(report)
    assert found.pop({"tokenize": "/tokenize"}.get(kind, kind)) == ("yes" if kind == "errors" else "no")
    found.pop("usage in streams", None)
    assert set(found.values()) == {"yes"}
    assert len(sent) <= 12


LIES: list[tuple[str, str, ScriptedResponse]] = [
    ("usage", "wrong", json_response(completion(TEXT, completion_tokens=900))),
    ("usage", "wrong", json_response(completion(TEXT, prompt_tokens=0))),
    ("usage", "no", json_response({"choices": [{"index": 0, "text": TEXT}]})),
    ("completion", "wrong", json_response(completion(TEXT, TEXT))),
    ("completion", "no", json_response({"choices": 5})),
    ("lists", "wrong", json_response(completion(TEXT))),
    ("lists", "wrong", json_response({"choices": [{"index": 0, "text": "a"}, {"index": 0, "text": "b"}]})),
    ("token ids", "wrong", json_response(completion(TEXT, prompt_tokens=9))),
    ("echo", "ignored", json_response(completion(" is", **logprobs([" is"], [-1.0])))),
    ("echo", "no", json_response(completion(doctor.PROMPT))),
    ("echo", "wrong", json_response(completion(doctor.PROMPT, **logprobs(["A class", " definition"], [-1.0, -1.0])))),
    ("logprobs", "ignored", json_response(completion(" is"))),
    ("logprobs", "wrong", json_response(completion(" is", **logprobs([" is"], [0.5])))),
    ("stream", "wrong", sse_response({"choices": [{"index": 0, "text": TEXT}]}, cut=True)),
    ("stream", "wrong", sse_response({"choices": [{"index": 0, "text": " not", "finish_reason": "stop"}]})),
    ("usage in streams", "no", sse_response(*STREAMED[:2])),
    ("n", "ignored", json_response(completion(" is"))),
    ("suffix", "ignored", json_response(completion(TEXT))),
    ("stop", "ignored", json_response(completion(TEXT))),
    ("errors", "wrong", json_response({"error": "oops"}, 500)),
    ("errors", "ignored", json_response(completion(TEXT))),
    ("/tokenize", "no", json_response({"tokens": "many"})),
]


@pytest.mark.parametrize(("name", "expected", "lie"), LIES)
def test_probe_on_a_server_that_lies_reports_the_lie(name: str, expected: str, lie: ScriptedResponse) -> None:
    """A server that ignores a field, or says one thing and does another, is found out whatever its status says."""
    kind = {"usage": "completion", "usage in streams": "stream", "/tokenize": "tokenize"}.get(name, name)
    report, _ = examine({**HONEST, kind: lambda _: lie})

    assert results(report)[name] == expected
    assert report.ok == (expected != "wrong" and name != "completion")


def test_probe_on_recorded_vllm_responses_recommends_scoring_by_echo() -> None:
    """Responses that vLLM gave: echo with log-probabilities, lists, token ids, errors with their shape."""
    recorded = {
        "lists": "echo_logprobs_score",
        "token ids": "tokens_prompt",
        "echo": "echo_logprobs_generate",
        "logprobs": "extras",
        "suffix": "error_unknown_model",
        "errors": "error_max_tokens",
    }
    responses = {kind: vllm(name).response() for kind, name in recorded.items()}
    report, _ = examine({**HONEST, **{kind: partial(_always, response) for kind, response in responses.items()}})

    found = {check.name: (check.result, check.detail) for check in report.checks}
    assert [found[name][0] for name in ("lists", "token ids", "echo", "logprobs", "errors")] == ["yes"] * 5
    assert found["suffix"][0] == "no"
    assert "does not exist" in found["suffix"][1]
    assert report.scoring == "echo"


def test_probe_of_a_dead_server_has_one_check() -> None:
    """Where nothing is completed there is nothing to look at, and the cause is said."""
    report, sent = examine({**HONEST, "completion": lambda _: json_response({"error": "down"}, 503)})

    assert [(check.name, check.result) for check in report.checks] == [("completion", "no")]
    assert "503" in report.checks[0].detail
    assert (report.ok, len(sent)) == (False, 2)


def test_probe_scores_llama_cpp_python_as_unfit() -> None:
    """A server whose echoed log-probabilities are known to be shifted is not recommended for scoring."""
    report, _ = examine({**HONEST, "models": lambda _: json_response({"data": [{"id": "m", "owned_by": "me"}]})})
    assert (results(report)["echo"], report.scoring) == ("wrong", None)


def test_probe_shows_no_key_and_no_controls() -> None:
    """A server that repeats the key, or sends escapes, gets neither into the report."""
    echo_key = json_response({"error": {"message": "bad key sk-123456789 \x1b]52;c;ZXZpbA==\x07"}}, 403)
    report, sent = examine(
        {**HONEST, "echo": lambda _: echo_key, "stop": lambda _: json_response(completion("\x1b[2J\u202e"))},
        security=shared.Security(api_key_auth="sk-123456789"),
    )

    assert {each.header("authorization") for each in sent} == {"Bearer sk-123456789"}
    written = json.dumps(report.to_dict(), ensure_ascii=False) + repr(report)
    assert "sk-123456789" not in written
    assert written.isprintable()


@pytest.mark.parametrize("listed", [[], ["a", "b"]])
def test_probe_without_model_and_none_or_several_listed_raises_value_error(listed: list[str]) -> None:
    """Without a model's name and without exactly one on the server, the error lists them."""
    models = json_response({"data": [{"id": name} for name in listed]})
    with pytest.raises(ValueError, match="a, b" if listed else "none"):
        examine({**HONEST, "models": lambda _: models})


@pytest.mark.parametrize(
    "response",
    [
        json_response({}),
        json_response([]),
        json_response({"data": 5}),
        json_response({"data": [5, {"id": 5}, {"id": ""}]}),
        json_response(b"{"),
        json_response({"data": [{"id": "m"}]}, 404),
    ],
)
def test_models_of_any_other_shape_are_empty(response: ScriptedResponse) -> None:
    """A server without a list, or with another kind of list, has no names and raises nothing."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(response)
        assert doctor.models(s) == []


def test_report_is_a_value() -> None:
    """A report is frozen, compares by its contents, and can be pickled."""
    report, _ = examine(HONEST)
    assert pickle.loads(pickle.dumps(report)) == report
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.model = "x"  # type: ignore[misc]
