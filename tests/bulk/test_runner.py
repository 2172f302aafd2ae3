"""Runs of many requests over threads: what comes out, how much is in flight, how a run ends, how it waits."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import gpt
from gpt import bulk
from gpt.models import errors, shared
from tests.support.client import COMPLETION, OK, ONCE, make, numbered, request
from tests.support.http_server import Received, ScriptedResponse, ScriptedServer, json_response


def echo_prompt(received: Received) -> ScriptedResponse:
    """Respond with the prompt."""
    return json_response({**COMPLETION, "choices": [{"text": received.json()["prompt"]}]}, x_request_id="req-1")


_before: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _threads_of_other_tests() -> None:
    """Note what runs already, such as the workers that a process keeps between two chunks of one run."""
    _before.clear()
    _before.update(threading.enumerate())


def bulk_threads() -> list[threading.Thread]:
    """Return the threads of this test's runs."""
    return [thread for thread in threading.enumerate() if thread.name == "gpt-bulk" and thread not in _before]


def test_run_of_many_requests_has_the_outcome_of_each(server: ScriptedServer) -> None:
    """Every request has one outcome, which carries its position, the request, the response and its HTTP facts."""
    server.respond_with(echo_prompt)
    given = list(numbered(50))

    outcomes = sorted(bulk.run(make(server.url), given, max_workers=8), key=lambda outcome: outcome.index)

    assert [outcome.index for outcome in outcomes] == list(range(50))
    assert all(outcome.request is given[outcome.index] for outcome in outcomes)
    texts = [outcome.response.choices[0].text for outcome in outcomes if outcome.response]
    assert texts == [one.prompt for one in given]
    assert {(outcome.status_code, outcome.request_id, outcome.error) for outcome in outcomes} == {(200, "req-1", None)}


def test_run_without_requests_has_no_outcomes(server: ScriptedServer) -> None:
    """Nothing in, nothing out, and no thread is started."""
    assert list(bulk.run(make(server.url), [])) == []
    assert bulk_threads() == []


def test_run_with_a_refused_request_has_its_error_as_outcome(server: ScriptedServer) -> None:
    """A refused request is an outcome with its error, and the others go on."""
    no = json_response({"error": {"message": "no"}}, 400, x_request_id="req-2")
    server.respond_with(lambda received: no if received.json()["prompt"] == "p1" else OK)

    by_index = {outcome.index: outcome for outcome in bulk.run(make(server.url), numbered(3))}

    assert isinstance(by_index[1].error, errors.BadRequestError)
    assert (by_index[1].status_code, by_index[1].request_id, by_index[1].response) == (400, "req-2", None)
    assert by_index[0].response
    assert by_index[2].response


@pytest.mark.parametrize(
    "bad",
    [request(stream=True), request(additional_properties={"stream": True}), request(n="three"), {"model": "m"}],
    ids=["stream", "extra stream", "type", "no request"],
)
def test_run_with_a_request_that_cannot_be_sent_has_its_error_as_outcome(
    server: ScriptedServer, bad: shared.CreateCompletionRequest
) -> None:
    """What cannot be sent, a stream among it, is an outcome too, and nothing of it reaches the server."""
    outcomes = {outcome.index: outcome for outcome in bulk.run(make(server.url), [bad, request()])}

    assert isinstance(outcomes[0].error, TypeError | ValueError)
    assert outcomes[0].request is bad
    assert outcomes[1].response
    assert len(server.requests) == 1


def test_run_over_an_endless_source_pulls_no_more_than_the_window(server: ScriptedServer) -> None:
    """Of an endless source no more than the window is pulled ahead of what was taken."""
    pulled = 0

    def endless() -> Iterator[shared.CreateCompletionRequest]:
        nonlocal pulled
        while True:
            pulled += 1
            yield request()

    outcomes = bulk.run(make(server.url), endless(), max_workers=2, window=5)
    assert pulled == 0
    for taken, _ in zip(range(1, 20), outcomes, strict=False):
        assert pulled <= taken + 5
    outcomes.close()  # type: ignore[attr-defined]


def test_run_with_max_workers_sends_that_many_requests_at_a_time(server: ScriptedServer) -> None:
    """As many requests run at a time as there are workers, and no more."""
    open_gate, running, most = threading.Event(), [0], [0]
    lock = threading.Lock()

    def busy(received: Received) -> ScriptedResponse:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
            if running[0] == 3:
                open_gate.set()
        open_gate.wait(10)
        with lock:
            running[0] -= 1
        return OK

    server.respond_with(busy)
    assert len(list(bulk.run(make(server.url), numbered(30), max_workers=3))) == 30
    assert most == [3]


def test_run_over_a_failing_source_yields_its_outcomes_then_raises(server: ScriptedServer) -> None:
    """When the source raises, the outcomes of what was pulled still come out, and then the exception."""

    def source() -> Iterator[shared.CreateCompletionRequest]:
        yield from numbered(3)
        raise LookupError("no more")

    taken: list[bulk.Outcome] = []
    with pytest.raises(LookupError, match="no more"):
        taken.extend(bulk.run(make(server.url), source(), max_workers=2))
    assert sorted(outcome.index for outcome in taken) == [0, 1, 2]
    assert bulk_threads() == []


def test_run_finished_leaves_no_threads_or_connections(server: ScriptedServer) -> None:
    """A finished run leaves neither threads nor connections, and the client works on."""
    s = make(server.url)
    assert len(list(bulk.run(s, numbered(20), max_workers=4))) == 20
    assert bulk_threads() == []
    server.wait_open(0)
    assert s.completions.create_completion(request()).status_code == 200


def test_run_closed_early_stops_pulling_without_waiting(server: ScriptedServer) -> None:
    """Closing the iterator stops pulling and does not wait for what is in flight."""
    arrived, stuck = threading.Barrier(4), threading.Event()

    def respond_to_the_first(received: Received) -> ScriptedResponse:
        if received.json()["prompt"] in ("p0", "p1", "p2", "p3"):
            arrived.wait(10)
        if received.json()["prompt"] != "p0":
            stuck.wait(10)
        return OK

    server.respond_with(respond_to_the_first)
    outcomes = bulk.run(make(server.url), numbered(1000), max_workers=4)

    assert next(outcomes).index == 0
    outcomes.close()  # type: ignore[attr-defined]

    stuck.set()
    for thread in bulk_threads():
        thread.join(10)
    assert bulk_threads() == []
    assert 4 <= len(server.requests) <= 8


def test_run_interrupted_yields_outcomes_in_flight_then_raises(server: ScriptedServer) -> None:
    """After Ctrl-C nothing more is sent; what is in flight is yielded, and then KeyboardInterrupt is raised."""
    arrived, go_on = threading.Barrier(3), threading.Event()

    def interrupt_and_respond(received: Received) -> ScriptedResponse:
        if arrived.wait(10) == 0:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.5)  # the interrupt comes first, the responses later
            go_on.set()
        go_on.wait(10)
        return OK

    server.respond_with(interrupt_and_respond)
    taken: list[bulk.Outcome] = []
    with pytest.raises(KeyboardInterrupt):
        taken.extend(bulk.run(make(server.url), numbered(1000), max_workers=3))

    assert len(taken) == len(server.requests) == 3
    assert all(outcome.response for outcome in taken)


def test_run_over_an_executor_of_the_caller_leaves_the_executor_open(server: ScriptedServer) -> None:
    """An executor of the caller's is used and left running; in this process even a literal key serves."""
    with ThreadPoolExecutor(2) as executor:
        s = make(server.url, security=shared.Security(api_key_auth="secret"))
        assert len(list(bulk.run(s, numbered(10), executor=executor))) == 10
        assert executor.submit(int, "7").result() == 7
    assert {received.header("authorization") for received in server.requests} == {"Bearer secret"}


def hold_all(server: ScriptedServer, workers: int) -> list[str]:
    """Let one request be told to wait while the others run; collect the prompts that come during that time."""
    early: list[str] = []
    others_arrived, hold_began = threading.Barrier(workers), threading.Event()
    state = {"told": False, "over": 0.0}

    def busy(received: Received) -> ScriptedResponse:
        prompt = received.json()["prompt"]
        if state["over"]:
            if time.monotonic() < state["over"]:
                early.append(prompt)
            return OK
        others_arrived.wait(10)
        if prompt == "p0":
            state["over"] = time.monotonic() + 1.5
            hold_began.set()
            return json_response({"error": {"message": "slow down"}}, 429, retry_after_ms="1500")
        hold_began.wait(10)
        time.sleep(0.6)  # the 429 reaches the client before these responses set its workers free
        return OK

    server.respond_with(busy)
    return early


def test_run_during_a_rate_limit_holds_back_all_workers(server: ScriptedServer) -> None:
    """During a 429's wait no worker sends anything; then the request is sent again and nothing is lost."""
    early = hold_all(server, workers=4)

    outcomes = list(bulk.run(make(server.url), numbered(40), max_workers=4))

    assert early == []
    assert sorted(outcome.index for outcome in outcomes) == list(range(40))
    assert all(outcome.response for outcome in outcomes)
    assert len(server.requests) == 41


def test_run_without_retries_has_the_rate_limit_as_outcome_and_holds_back_the_rest(server: ScriptedServer) -> None:
    """With retries off the 429 is an outcome with its wait, and the other requests are paused all the same."""
    early = hold_all(server, workers=4)

    outcomes = {
        outcome.index: outcome for outcome in bulk.run(make(server.url, retry_config=ONCE), numbered(20), max_workers=4)
    }

    error = outcomes[0].error
    assert isinstance(error, errors.RateLimitError)
    assert error.retry_after == 1.5
    assert not [name for name in error.headers if name.startswith("x-")]
    assert early == []
    assert len(server.requests) == 20


def test_run_held_back_by_a_rate_limit_uses_up_no_deadline(server: ScriptedServer) -> None:
    """The time for which a run is paused does not count as the time of its calls."""
    responses = iter([json_response({"error": {}}, 429, retry_after_ms="1500")])
    server.respond_with(lambda _: next(responses, OK))
    outcomes = list(bulk.run(make(server.url, deadline=1.4), numbered(6), max_workers=2))
    assert [outcome.error for outcome in outcomes] == [None] * 6


def test_run_with_repeated_rate_limits_sends_again_after_each(server: ScriptedServer) -> None:
    """A request is sent again after each wait, more often than a single call would retry."""
    responses = iter([json_response({"error": {}}, 429, retry_after_ms="100")] * 4)
    server.respond_with(lambda _: next(responses, OK))

    outcomes = list(bulk.run(make(server.url), [request()]))

    assert [outcome.status_code for outcome in outcomes] == [200]
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    ("headers", "code"),
    [({"retry_after": "1", "x_should_retry": "false"}, None), ({"retry_after_ms": "100"}, "insufficient_quota")],
    ids=["x-should-retry", "quota"],
)
def test_run_with_a_final_rate_limit_has_the_error_at_once(
    server: ScriptedServer, headers: dict[str, Any], code: str | None
) -> None:
    """A 429 that no retry can help is an outcome at once."""
    server.respond_with(lambda _: json_response({"error": {"message": "no", "code": code}}, 429, **headers))
    [outcome] = bulk.run(make(server.url), [request()])
    assert isinstance(outcome.error, errors.RateLimitError)
    assert len(server.requests) == 1


def test_run_told_to_wait_beyond_max_elapsed_time_has_the_error_at_once(server: ScriptedServer) -> None:
    """A wait longer than max_elapsed_time is not waited for."""
    server.respond_with(lambda _: json_response({"error": {"message": "tomorrow"}}, 429, retry_after="40000"))
    outcomes = list(bulk.run(make(server.url), numbered(3)))
    assert [type(outcome.error) for outcome in outcomes] == [errors.RateLimitError] * 3
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_workers": 0}, "max_workers: expected at least 1, got 0"),
        ({"max_workers": 2.0}, "max_workers: expected an integer, got float"),
        ({"window": 0}, "window: expected at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"chunksize": "all"}, "chunksize: expected an integer, got str"),
        ({"max_failures": 0}, "max_failures: expected at least 1, got 0"),
    ],
)
def test_run_with_invalid_options_raises_at_the_call(options: dict[str, Any], message: str) -> None:
    """An option that cannot be used is refused at the call, not at the first outcome."""
    with pytest.raises((TypeError, ValueError), match=message):
        bulk.run(gpt.Gpt(), [], **options)


@pytest.mark.parametrize("status", [401, 403, 404, 503])
def test_run_reaching_max_failures_stops_and_raises_the_last_error(server: ScriptedServer, status: int) -> None:
    """After so many failures in a row of the server's own no more is pulled; the last error comes, with a note."""
    server.respond_with(lambda _: json_response({"error": {"message": "no"}}, status))
    taken: list[bulk.Outcome] = []
    with pytest.raises(errors.APIStatusError) as caught:
        taken.extend(bulk.run(make(server.url, retry_config=ONCE), numbered(1000), max_workers=2, max_failures=5))
    assert 5 <= len(taken) <= 5 + 4  # the window
    assert caught.value.status_code == status
    note = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
    assert "stopped after 5 failures in a row" in note
    assert len(server.requests) <= 5 + 4


def test_run_against_a_dead_server_stops_only_with_max_failures() -> None:
    """No connection counts, and a run without `max_failures` gives every request its error."""
    with ScriptedServer() as gone:
        url = gone.url
    with pytest.raises(errors.APIConnectionError):
        list(bulk.run(make(url, retry_config=ONCE), numbered(1000), max_workers=2, max_failures=3))
    outcomes = list(bulk.run(make(url, retry_config=ONCE), numbered(30), max_workers=2))
    assert {type(outcome.error) for outcome in outcomes} == {errors.APIConnectionError}


def test_run_with_failures_that_are_not_in_a_row_does_not_stop(server: ScriptedServer) -> None:
    """A success, or a failure that is the request's own, starts the count again."""
    turn = iter(range(1000))
    no, bad = json_response({"error": {}}, 404), json_response({"error": {}}, 400)
    server.respond_with(lambda _: [no, no, OK, no, no, bad][next(turn) % 6])
    outcomes = list(bulk.run(make(server.url), numbered(60), max_workers=1, max_failures=3))
    assert len(outcomes) == 60


def test_run_with_call_options_sends_them_with_each_request(server: ScriptedServer) -> None:
    """Options of `create_completion` are options of a run; what is none is refused at the call."""
    options: dict[str, Any] = {"http_headers": {"x-tenant": "a"}, "query": {"v": 2}}
    assert [o.error for o in bulk.run(make(server.url), numbered(3), **options)] == [None] * 3
    assert {received.header("x-tenant") for received in server.requests} == {"a"}
    assert all("v=2" in received.path for received in server.requests)
    misuse: list[dict[str, Any]] = [{"tiemout": 3}, {"timeout": "long"}, {"deadline": -1}, {"retries": None}]
    for bad in [*misuse, {"http_headers": {"a": 1}}]:
        with pytest.raises((TypeError, ValueError), match=next(iter(bad))):
            bulk.run(make(server.url), numbered(1), **bad)


def test_run_holding_back_a_retry_uses_up_no_deadline(server: ScriptedServer) -> None:
    """A retry that is held back because another request was rate limited keeps the time of its own call."""
    limited = threading.Event()

    def trouble(received: Received) -> ScriptedResponse:
        prompt = received.json()["prompt"]
        if prompt == "p0" and not limited.is_set():
            limited.set()
            return json_response({"error": {}}, 429, retry_after_ms="1500")
        if prompt == "p1" and len([one for one in server.requests if one.json()["prompt"] == prompt]) == 1:
            limited.wait(10)
            return json_response({"error": {}}, 503, retry_after_ms="50")
        return OK

    server.respond_with(trouble)
    outcomes = list(bulk.run(make(server.url, deadline=1.2), numbered(2), max_workers=2))
    assert [outcome.error for outcome in outcomes] == [None] * 2


def test_run_rate_limited_with_a_header_of_our_own_ignores_the_header(server: ScriptedServer) -> None:
    """A server cannot end a run with headers of our own making: none is read or written."""
    limited = json_response({"error": {}}, 429, retry_after_ms="100", x_gpt_bulk_held="abc")
    responses = iter([limited])
    server.respond_with(lambda _: next(responses, OK))
    assert [outcome.error for outcome in bulk.run(make(server.url), numbered(2))] == [None] * 2

    server.respond_with(lambda _: limited)
    [outcome] = bulk.run(make(server.url, retry_config=ONCE), numbered(1))
    assert isinstance(outcome.error, errors.RateLimitError)
    assert outcome.error.headers["x-gpt-bulk-held"] == "abc"


def test_run_with_a_slow_source_and_a_closed_executor_stops_pulling(server: ScriptedServer) -> None:
    """When a waiting pack cannot be submitted, the run ends with the reason at the next request, not at a full pack."""
    executor, pulled = ThreadPoolExecutor(1), itertools.count()

    def slowly() -> Iterator[shared.CreateCompletionRequest]:
        executor.shutdown()
        for _ in range(32):
            next(pulled)
            yield request()
            time.sleep(0.15)

    with pytest.raises(RuntimeError, match="after shutdown"):
        list(bulk.run(make(server.url), slowly(), executor=executor, batch_size=32))
    assert next(pulled) < 16
