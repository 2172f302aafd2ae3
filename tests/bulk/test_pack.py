"""Packs: which requests are sent together, and that outcomes do not show it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gpt import bulk
from gpt.bulk.pack import Packer, merge, pack_key, split_body, split_response
from gpt.models import errors, shared
from tests.support.client import ONCE, make, numbered, request
from tests.support.http_server import Received, ScriptedResponse, ScriptedServer, json_response
from tests.support.lists import echo_lists, prompts_of, refuse_bad


@pytest.fixture
def server(server: ScriptedServer) -> ScriptedServer:
    server.respond_with(echo_lists)
    return server


def by_index(outcomes: Iterator[bulk.Outcome]) -> list[bulk.Outcome]:
    return sorted(outcomes, key=lambda outcome: outcome.index)


def texts(outcome: bulk.Outcome) -> list[str | None]:
    return [choice.text for choice in outcome.result().choices]


def sizes(server: ScriptedServer) -> list[int]:
    return [len(prompts_of(received)) for received in server.requests]


@pytest.mark.parametrize("fields", [{}, {"n": 2}, {"n": 3, "best_of": 4, "echo": True}], ids=str)
def test_run_in_packs_gives_what_single_requests_give(server: ScriptedServer, fields: dict[str, Any]) -> None:
    """Whatever the order of a list's choices, each outcome has its own, numbered from 0, with its own extras."""
    s = make(server.url)
    packed = by_index(bulk.run(s, numbered(20, logprobs=1, **fields), batch_size=8))
    assert sorted(sizes(server)) == [4, 8, 8]
    singles = by_index(bulk.run(s, numbered(20, logprobs=1, **fields)))

    for mine, single in zip(packed, singles, strict=True):
        assert mine.request.prompt == f"p{mine.index}"
        assert mine.request_id == "req-list"
        expected = sorted(single.result().choices, key=lambda choice: choice.index or 0)
        assert mine.result().choices == expected
        assert mine.result().usage is None  # the server sent the sum only
        assert mine.result().id == "c"


def test_run_in_packs_with_token_ids_has_the_usage_of_each_prompt(server: ScriptedServer) -> None:
    """With `return_token_ids` each outcome has the usage of its own prompt."""
    given = [request(prompt="x" * size, n=2, additional_properties={"return_token_ids": True}) for size in (1, 5)]
    outcomes = by_index(bulk.run(make(server.url), given, batch_size=2))
    assert len(server.requests) == 1
    assert [
        (u.prompt_tokens, u.completion_tokens, u.total_tokens) for u in (o.result().usage for o in outcomes) if u
    ] == [
        (3, 5, 8),
        (3, 13, 16),
    ]


def test_run_in_packs_with_interleaved_parameters_sends_full_packs(server: ScriptedServer) -> None:
    """Requests with other parameters, token ids among texts, fill packs of their own."""
    given = []
    for i in range(30):
        given += [request(prompt=f"a{i}"), request(prompt=[i, i + 1], seed=1), request(prompt=f"c{i}", temperature=0)]
    outcomes = by_index(bulk.run(make(server.url), given, batch_size=10))

    assert sizes(server) == [10] * 9
    assert [texts(outcome) for outcome in outcomes] == [[f"{one.prompt}/0"] for one in given]


def test_run_in_packs_with_unpackable_requests_sends_them_alone_or_not_at_all(server: ScriptedServer) -> None:
    """A prompt that is a list of several, an unusable request and a stream are sent alone, or not at all."""
    given = [*numbered(2), request(prompt=["a", "b"]), request(n="three"), request(stream=True), *numbered(2)]
    outcomes = by_index(bulk.run(make(server.url), given, batch_size=10))

    assert sorted(sizes(server)) == [2, 4]
    assert texts(outcomes[2]) in (["a/0", "b/0"], ["b/0", "a/0"])
    assert isinstance(outcomes[3].error, TypeError)
    assert isinstance(outcomes[4].error, ValueError)


def test_run_in_packs_with_an_unwritable_prompt_completes_the_others(server: ScriptedServer) -> None:
    """A lone surrogate in one prompt is that request's error, and the others of its pack are completed."""
    given = list(numbered(9))
    given[4].prompt = "\ud83d"
    outcomes = by_index(bulk.run(make(server.url), given, batch_size=9))
    assert [outcome.index for outcome in outcomes if outcome.error] == [4]
    assert isinstance(outcomes[4].error, ValueError)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_pack_of_64_with_one_bad_prompt_costs_at_most_12_more_requests(server: ScriptedServer, status: int) -> None:
    """A refused pack is split in half until the guilty prompt is alone; the other 63 are completed."""
    server.respond_with(refuse_bad(status, lambda prompt: prompt == "p37"))
    outcomes = by_index(bulk.run(make(server.url), numbered(64), batch_size=64, max_workers=1))
    assert [(outcome.index, outcome.status_code) for outcome in outcomes if outcome.error] == [(37, status)]
    assert len(server.requests) <= 13


def test_server_refusing_lists_is_sent_single_prompts(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    """A server that refuses every list gets prompts one by one from then on, which is logged once; nothing is lost."""

    def refuse_lists(received: Received) -> ScriptedResponse:
        if isinstance(received.json()["prompt"], list):
            return json_response({"error": {"message": "prompt: expected a string"}}, 400)
        return echo_lists(received)

    server.respond_with(refuse_lists)
    outcomes = by_index(bulk.run(make(server.url), numbered(100), batch_size=16, max_workers=1, window=16))

    assert [texts(outcome) for outcome in outcomes] == [[f"p{i}/0"] for i in range(100)]
    assert [size for size in sizes(server) if size > 1] == [16, 8, 4, 2]
    assert [record.message for record in caplog.records if "one by one" in record.message] == [
        f"{server.url} refuses lists of prompts: prompts are sent one by one from now on"
    ]


def test_server_failing_at_lists_is_sent_single_prompts(server: ScriptedServer) -> None:
    """A server that responds with 500 to lists is recognised as well."""

    def fail_at_lists(received: Received) -> ScriptedResponse:
        if isinstance(received.json()["prompt"], list):
            return json_response({"error": {"message": "oops"}}, 500)
        return echo_lists(received)

    server.respond_with(fail_at_lists)
    s = make(server.url, retry_config=ONCE)
    outcomes = by_index(bulk.run(s, numbered(40), batch_size=8, max_workers=1, window=8))
    assert [outcome.error for outcome in outcomes] == [None] * 40
    assert [size for size in sizes(server) if size > 1] == [8, 4, 2]


def test_server_failing_at_single_prompts_too_is_not_sent_the_rest_of_the_pack(server: ScriptedServer) -> None:
    """When two prompts alone fail too, the rest of the pack is not sent to a server that is ill."""
    server.respond_with(lambda _: json_response({"error": {"message": "out of memory"}}, 500))
    outcomes = list(bulk.run(make(server.url, retry_config=ONCE), numbered(32), batch_size=32, max_workers=1))
    assert {outcome.status_code for outcome in outcomes} == {500}
    assert len(outcomes) == 32
    assert len(server.requests) == 7


@pytest.mark.parametrize("kind", ["fewer", "same number"])
def test_server_responding_to_one_prompt_of_a_list_is_sent_single_prompts(server: ScriptedServer, kind: str) -> None:
    """Choices that are too few, or numbered so that nobody can tell whose they are, make no outcome wrong."""

    def respond_badly(received: Received) -> ScriptedResponse:
        prompts = prompts_of(received)
        completed = prompts if kind == "same number" else prompts[:1]
        choices = [{"text": f"{prompt}/0", "index": 0, "finish_reason": "stop"} for prompt in completed]
        return json_response({"choices": choices})

    server.respond_with(respond_badly)
    outcomes = by_index(bulk.run(make(server.url), numbered(30), batch_size=10, max_workers=1, window=10))
    assert [texts(outcome) for outcome in outcomes] == [[f"p{i}/0"] for i in range(30)]
    assert [size for size in sizes(server) if size > 1] == [10]


def test_pack_refused_with_503_or_429_is_sent_again_whole(server: ScriptedServer) -> None:
    """A 503 is retried with the whole pack, and a rate limit pauses the run and sends the pack again."""
    troubles = iter([json_response({}, 503), json_response({"error": {}}, 429, retry_after_ms="100")])
    server.respond_with(lambda received: next(troubles, None) or echo_lists(received))
    outcomes = by_index(bulk.run(make(server.url), numbered(8), batch_size=8))
    assert [texts(outcome) for outcome in outcomes] == [[f"p{i}/0"] for i in range(8)]
    assert sizes(server) == [8, 8, 8]


def test_pack_waiting_for_a_slow_source_is_sent_incomplete(server: ScriptedServer) -> None:
    """Requests that wait for more of their kind are sent when the source takes long, not when it goes on."""

    def source() -> Iterator[shared.CreateCompletionRequest]:
        yield from numbered(3)
        server.wait_requests(1)
        yield from numbered(2)

    before = threading.enumerate()  # other tests may have left a worker that is closed when it has been idle
    outcomes = list(bulk.run(make(server.url), source(), batch_size=64))
    assert [outcome.error for outcome in outcomes] == [None] * 5
    assert sizes(server) == [3, 2]
    left = [thread.name for thread in threading.enumerate() if thread not in before]
    assert [name for name in left if name.startswith("gpt-bulk")] == []


def test_run_in_packs_with_a_small_window_sends_incomplete_packs(server: ScriptedServer) -> None:
    """A window smaller than a pack sends what it holds."""
    outcomes = list(bulk.run(make(server.url), numbered(12), batch_size=64, window=3))
    assert len(outcomes) == 12
    assert max(sizes(server)) <= 3


def test_run_in_packs_of_many_requests_keeps_packs_full(server: ScriptedServer) -> None:
    """Outcomes that are taken one by one do not break the packs after them up."""
    assert len(list(bulk.run(make(server.url), numbered(1000), batch_size=20, max_workers=2))) == 1000
    assert sizes(server).count(20) >= 40


def test_pack_with_batch_size_above_1024_has_at_most_1024_prompts(server: ScriptedServer) -> None:
    """A request never has more prompts than vLLM takes."""
    assert len(list(bulk.run(make(server.url), numbered(1100), batch_size=5000, max_workers=1))) == 1100
    assert sorted(sizes(server)) == [76, 1024]


def test_pack_that_fails_gives_each_request_the_error(server: ScriptedServer) -> None:
    """When a whole pack fails each of its requests has the error, the status and the request id."""
    server.respond_with(lambda _: json_response({"error": {"message": "no"}}, 401, x_request_id="req-9"))
    outcomes = list(bulk.run(make(server.url), numbered(6), batch_size=6))
    assert [(type(o.error), o.status_code, o.request_id) for o in outcomes] == [
        (errors.AuthenticationError, 401, "req-9")
    ] * 6


# Pure functions


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ({}, {"prompt": "other"}, True),
        ({"prompt": [1]}, {"prompt": (2, 3)}, True),
        ({"prompt": np.array([1, 2])}, {"prompt": [3]}, True),
        ({"prompt": [1]}, {"prompt": "text"}, False),
        ({"temperature": 0.5}, {"temperature": 0.25}, False),
        ({"logit_bias": {1: 2}}, {"logit_bias": {"1": 2}}, True),
        ({"additional_properties": {"top_k": 3}}, {"additional_properties": {"top_k": 3}}, True),
        ({"additional_properties": {"x": None}}, {"additional_properties": {"x": float("nan")}}, False),
        ({"additional_properties": {"prompt_embeds": "e"}}, {"additional_properties": {"prompt_embeds": "e"}}, False),
        ({"prompt": ["a"]}, {"prompt": ["a"]}, False),
        ({"prompt": []}, {"prompt": []}, False),
        ({"n": 0}, {"n": 0}, False),
        ({"stream": True}, {"stream": True}, False),
    ],
)
def test_pack_key_of_requests_differing_only_in_a_single_prompt_is_equal(
    one: dict[str, Any], other: dict[str, Any], together: bool
) -> None:
    """Only what differs in nothing but a single prompt has the same key."""
    key, second = pack_key(request(**one)), pack_key(request(**other))
    assert (key is not None and key == second) is together


def test_merge_of_requests_leaves_them_unchanged() -> None:
    """Merging copies; a request alone goes as it is."""
    first, second = request(prompt="a"), request(prompt="b")
    assert merge([first]) is first
    assert merge([first, second]).prompt == ["a", "b"]
    assert (first.prompt, second.prompt) == ("a", "b")


def test_packer_with_many_keys_completes_the_oldest_pack() -> None:
    """When every item has a key of its own the oldest pack makes room."""
    packer: Packer[int] = Packer(lambda item: str(item).encode())
    complete = [packer.add(item, 10) for item in range(100)]
    assert [pack for pack in complete if pack][:3] == [[0], [1], [2]]


def test_split_body_with_extras_and_nulls_keeps_them() -> None:
    """Each body is its own completion in one line, with nulls, extras and half surrogate pairs kept."""
    whole = (
        b'{"id":"c",\n"choices":[{"text":"\\ud83d","index":1,"logprobs":null},{"text":"a","index":0,"x":{"y":null}}],'
        b'"usage":{"prompt_tokens":4,"completion_tokens":2},"timings":{"n":1},"system_fingerprint":null,'
        b'"prompt_filter_results":[{"prompt_index":0,"a":1},{"prompt_index":1,"a":2}]}'
    )
    parts = split_body(whole, 2, 1)
    assert parts is not None
    bodies, tokens = zip(*parts, strict=True)
    assert tokens == ((4, 2), (0, 0))
    assert all(b"\n" not in body for body in bodies)
    common = {"id": "c", "usage": None, "system_fingerprint": None}
    assert json.loads(bodies[0]) == {
        **common,
        "choices": [{"text": "a", "index": 0, "x": {"y": None}}],
        "prompt_filter_results": [{"prompt_index": 0, "a": 1}],
    }
    assert json.loads(bodies[1]) == {
        **common,
        "choices": [{"text": "\ud83d", "index": 0, "logprobs": None}],
        "prompt_filter_results": [{"prompt_index": 0, "a": 2}],
    }


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        ([0, 1, 2, 3], ["0", "1", "2", "3"]),
        ([3, 2, 1, 0], ["3", "2", "1", "0"]),
        ([None] * 4, ["0", "1", "2", "3"]),
        ([0, 0, 1, 1], None),
        ([0, 1, 2, 4], None),
        ([0, 1, 2, None], None),
        ([0, 1, 2], None),
    ],
    ids=str,
)
def test_split_response_goes_by_index_and_is_none_where_indices_are_ambiguous(
    indices: list[int | None], expected: list[str] | None
) -> None:
    """A choice goes to the prompt that its number names; where numbers do not tell, nothing is handed out."""
    choices = [{"text": str(position), "index": index} for position, index in enumerate(indices)]
    whole = shared.CreateCompletionResponse.from_dict({"choices": choices})
    parts = split_response(whole, 2, 2)
    found = None if parts is None else [choice.text for part, _ in parts for choice in part.choices]
    assert found == expected
