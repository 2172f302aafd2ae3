"""Several servers in one run: which one gets a request, which is left unused, and that a dead one loses nothing."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

import gpt
from gpt import bulk
from gpt.bulk.balance import Servers, ServerState
from gpt.bulk.throttle import ServerThrottle
from gpt.models import errors, shared
from tests.support.client import COMPLETION, OK, ONCE, make, numbered, request
from tests.support.http_server import Received, ScriptedResponse, ScriptedServer, json_response
from tests.support.lists import echo_lists, prompts_of


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def first() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        server.respond_with(echo_lists)
        yield server


@pytest.fixture
def second() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        server.respond_with(echo_lists)
        yield server


def lost(kind: str = "connect") -> errors.APIConnectionError:
    error = errors.APITimeoutError("no response")
    error.phase = "connect" if kind == "connect" else "read"
    return error


def servers(count: int, clock: Clock, *, rejects_when_paused: bool = False) -> Servers:
    clients = [gpt.Gpt(server_url=f"http://server{i}/v1") for i in range(count)]
    each = [ServerState(client, ServerThrottle(3600, clock, rejects_when_paused=count > 1)) for client in clients]
    return Servers(each, clock, rejects_when_paused=rejects_when_paused)


def test_acquire_of_several_servers_chooses_the_fewest_in_flight() -> None:
    """Requests go where the fewest are, so that a slow server gets fewer."""
    pool = servers(2, Clock())
    one, two = pool.acquire(), pool.acquire()
    assert one is not two
    pool.release(one)
    assert pool.acquire() is one


def test_release_after_a_failure_leaves_the_server_unused_for_longer_each_time() -> None:
    """One that cannot be reached is left unused for 1, 2, 4… seconds; failures of requests sent together count once."""
    clock = Clock()
    pool = servers(2, clock)
    bad, good, bad_too = pool.acquire(), pool.acquire(), pool.acquire()
    assert bad_too is bad
    assert pool.release(bad, lost())
    assert pool.release(bad, lost())
    assert bad.cooldown == 1

    clock.now += 1.1
    assert pool.acquire() is bad  # a single request tries it
    assert pool.acquire() is good
    assert pool.release(bad, lost())
    assert bad.cooldown == 2

    clock.now += 2.1
    assert pool.acquire() is bad
    assert not pool.release(bad)
    assert bad.cooldown == 0


def test_release_unused_leaves_a_server_that_cannot_be_reached_to_the_next_request() -> None:
    """Where nothing was sent nothing is learnt: the server still counts as down, and the next request tries it."""
    clock = Clock()
    pool = servers(2, clock)
    bad = pool.acquire()
    assert pool.release(bad, lost())
    clock.now += 1.1
    assert pool.acquire() is bad
    pool.release_unused(bad)
    assert (bad.cooldown, bad.in_flight) == (1, 0)
    assert pool.acquire() is bad


def test_release_after_a_read_timeout_leaves_no_server_unused() -> None:
    """A server that takes the request and then takes long can be reached."""
    pool = servers(2, Clock())
    server = pool.acquire()
    assert not pool.release(server, lost("read"))
    assert server.cooldown == 0


def test_release_when_all_are_unreachable_for_too_long_is_a_failure() -> None:
    """After a minute in which no server could be reached, requests fail instead of waiting."""
    clock = Clock()
    pool = servers(2, clock)
    for _ in range(2):
        server = pool.acquire()
        assert pool.release(server, lost())
    clock.now += 60
    server = pool.acquire()
    assert not pool.release(server, lost())
    pool.acquire()


def test_acquire_of_a_single_server_always_returns_it() -> None:
    """With one server failures are the requests' own."""
    pool = servers(1, Clock())
    assert not pool.release(pool.acquire(), lost())
    assert pool.acquire().cooldown == 0


def test_acquire_leaves_out_a_server_that_limits_the_rate() -> None:
    """A 429 of one server holds back that one, and the others take its requests; the run is paused when all are."""
    clock = Clock()
    pool = servers(2, clock)
    limited, other = pool.acquire(), pool.acquire()
    limited.throttle.pause(5)
    assert pool.release(limited, CancelledError())  # a call that was turned away goes to another server
    assert [pool.acquire() for _ in range(3)] == [other] * 3
    assert pool.pause_remaining() == 0
    other.throttle.pause(3)
    assert pool.pause_remaining() == 3
    clock.now += 5
    assert pool.pause_remaining() == 0
    assert pool.acquire() is limited


def test_acquire_while_all_limit_the_rate_waits_or_turns_away() -> None:
    """In the caller's process a request waits for the first server to open; in another it goes back at once."""
    pool = servers(2, Clock(), rejects_when_paused=True)
    for _ in range(2):
        pool.acquire().throttle.pause(5)
    with pytest.raises(CancelledError):
        pool.acquire()

    clock = Clock()
    pool = servers(2, clock)
    first, second = pool.acquire(), pool.acquire()
    first.throttle.pause(5)
    second.throttle.pause(0.1)
    got = []
    thread = threading.Thread(target=lambda: got.append(pool.acquire()))
    thread.start()
    clock.now += 0.2
    thread.join(10)
    assert got == [second]


def test_acquire_never_chooses_a_limiting_server_when_out_of_patience() -> None:
    """Where no server can be reached for long, one that is also rate limited is still left unused."""
    clock = Clock()
    pool = servers(2, clock)
    for _ in range(2):
        pool.release(pool.acquire(), lost())
    clock.now += 61
    limited = pool.acquire()
    limited.throttle.pause(60)
    pool.release(limited)
    limited.cooldown = limited.cooldown_until = clock.now + 60
    assert pool.acquire() is not limited


def test_stop_while_a_thread_waits_for_a_server_wakes_the_thread() -> None:
    """When the run is stopped nobody goes on waiting."""
    pool = servers(2, Clock())
    for _ in range(2):
        pool.release(pool.acquire(), lost())
    ended = threading.Event()

    def wait() -> None:
        with pytest.raises(Exception, match="stopped"):
            pool.acquire()
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    pool.stop()
    assert ended.wait(10)
    thread.join()


def test_run_over_two_servers_uses_both(first: ScriptedServer, second: ScriptedServer) -> None:
    """Each request has one outcome, and both servers work."""
    outcomes = list(bulk.run([make(first.url), make(second.url)], numbered(200), max_workers=8))
    assert sorted(outcome.index for outcome in outcomes) == list(range(200))
    assert all(outcome.result().choices[0].text == f"p{outcome.index}/0" for outcome in outcomes)
    assert len(first.requests) + len(second.requests) == 200
    assert min(len(first.requests), len(second.requests)) > 20


def test_run_with_a_dead_server_loses_nothing(first: ScriptedServer) -> None:
    """The requests of a server that refuses connections go to the others and count as no failure."""
    with ScriptedServer() as gone:
        dead = gone.url
    s = [make(dead), make(first.url)]
    outcomes = list(bulk.run(s, numbered(100), max_workers=8, batch_size=5, max_failures=1))
    assert [outcome.error for outcome in outcomes] == [None] * 100
    assert Counter(prompt for received in first.requests for prompt in prompts_of(received)).most_common(1)[0][1] == 1


@pytest.mark.parametrize("batch_size", [1, 5])
def test_run_with_a_limited_server_goes_on_with_the_others(
    first: ScriptedServer, second: ScriptedServer, batch_size: int
) -> None:
    """A 429 that pauses one server for ten minutes does not delay requests to another."""
    second.respond_with(lambda _: json_response({"error": {}}, 429, retry_after="600"))
    s = [make(first.url), make(second.url)]
    outcomes = list(bulk.run(s, numbered(100), max_workers=4, batch_size=batch_size))
    assert sorted(outcome.index for outcome in outcomes) == list(range(100))
    assert [outcome.error for outcome in outcomes] == [None] * 100
    assert 1 <= len(second.requests) <= 4  # those in flight when it first refused


def test_run_with_all_servers_limited_waits(first: ScriptedServer, second: ScriptedServer) -> None:
    """When every server asks to wait the run does, and then sends what it was refused."""

    def limit_once(server: ScriptedServer) -> None:
        refusals = [json_response({"error": {}}, 429, retry_after_ms="300")]
        server.respond_with(lambda received: refusals.pop() if refusals else echo_lists(received))

    limit_once(first)
    limit_once(second)
    outcomes = list(bulk.run([make(first.url), make(second.url)], numbered(40), max_workers=4))
    assert all(outcome.result().choices[0].text == f"p{outcome.index}/0" for outcome in outcomes)
    assert len(first.requests) + len(second.requests) == 42


def test_run_uses_a_server_that_comes_back(first: ScriptedServer, second: ScriptedServer) -> None:
    """A server that cut its connections for a while gets requests again after a while."""
    cut = json_response(COMPLETION, cut=True)
    state = {"troubles": 4}
    back = threading.Event()

    def recover(received: Received) -> ScriptedResponse:
        if state["troubles"] > 0:
            state["troubles"] -= 1
            return cut
        back.set()
        return OK

    second.respond_with(recover)

    def source() -> Iterator[shared.CreateCompletionRequest]:
        while not back.is_set():
            yield request()
        yield request()

    s = [make(first.url, retry_config=ONCE), make(second.url, retry_config=ONCE)]
    outcomes = list(bulk.run(s, source(), max_workers=4))
    assert {outcome.error for outcome in outcomes} == {None}


def test_run_with_one_server_refusing_lists_sends_packs_to_the_other(
    first: ScriptedServer, second: ScriptedServer
) -> None:
    """What one server cannot do does not take packs from the other."""

    def refuse_lists(received: Received) -> ScriptedResponse:
        if isinstance(received.json()["prompt"], list):
            return json_response({"choices": [{"text": "only one", "index": 0}]})
        return echo_lists(received)

    second.respond_with(refuse_lists)
    s = [make(first.url), make(second.url)]
    outcomes = list(bulk.run(s, numbered(200), max_workers=4, batch_size=10))
    assert all(outcome.result().choices[0].text == f"p{outcome.index}/0" for outcome in outcomes)
    assert len([received for received in first.requests if len(prompts_of(received)) > 1]) >= 5
    assert len([received for received in second.requests if len(prompts_of(received)) > 1]) <= 4


@pytest.mark.parametrize("bad", [[], [gpt.Gpt(), "http://localhost/v1"], "http://localhost/v1"], ids=str)
def test_run_given_neither_client_nor_list_of_clients_raises(bad: object) -> None:
    """`s` is a client or a list of them."""
    with pytest.raises((TypeError, ValueError), match=r"^s: expected"):
        bulk.run(bad, [])  # type: ignore[arg-type]
