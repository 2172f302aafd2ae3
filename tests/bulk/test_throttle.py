"""The throttle of a run: for how long it holds everybody back, and how waiting ends."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import CancelledError
from typing import Any

import pytest

from gpt import Gpt, bulk
from gpt.bulk.throttle import ServerThrottle
from gpt.models import errors
from tests.support.client import make, request
from tests.support.http_server import Received, ScriptedResponse, ScriptedServer, json_response


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_throttle_held_several_times_is_closed_for_the_longest() -> None:
    """The longest of several pauses counts, each from its own start; then calls may be sent again."""
    clock = Clock()
    throttle = ServerThrottle(3600, clock)
    assert throttle.remaining() == 0
    throttle.pause(5)
    throttle.pause(2)
    clock.now += 3
    assert throttle.remaining() == 2
    throttle.pause(4)
    assert throttle.remaining() == 4
    clock.now += 4
    throttle.wait()
    assert throttle.remaining() == 0


def test_throttle_held_for_next_to_nothing_is_closed_for_a_tenth_of_a_second() -> None:
    """A tiny wait is raised to a tenth of a second, or a server could get thousands of requests."""
    throttle = ServerThrottle(3600, Clock())
    throttle.pause(0.001)
    assert throttle.remaining() == pytest.approx(0.1)


def test_throttle_stopped_turns_away_all_who_wait() -> None:
    """When the run stops, calls that wait and later ones are rejected."""
    throttle = ServerThrottle(3600)
    throttle.pause(60)
    turned_away: list[CancelledError] = []

    def wait() -> None:
        try:
            throttle.wait()
        except CancelledError as error:
            turned_away.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    throttle.stop()
    thread.join(10)
    assert len(turned_away) == 1
    with pytest.raises(CancelledError):
        throttle.wait()


def test_throttle_rate_limited_beyond_patience_stays_open() -> None:
    """A wait longer than `max_wait` pauses nothing, and the call decides by itself."""
    throttle = ServerThrottle(7, Clock())
    assert not throttle.pause_for_rate_limit(8)
    assert throttle.remaining() == 0
    assert throttle.pause_for_rate_limit(7)
    assert throttle.remaining() == 7


@pytest.mark.parametrize(
    ("headers", "code", "seconds"),
    [({}, None, 600), ({"x_should_retry": "false"}, None, 0), ({}, "insufficient_quota", 0)],
    ids=["retryable", "x-should-retry", "quota"],
)
def test_throttle_after_a_rate_limit_pauses_only_for_a_retryable_one(
    server: ScriptedServer, headers: dict[str, Any], code: str | None, seconds: int
) -> None:
    """A 429 that no retry can help pauses no other call, whatever its `Retry-After` says."""
    server.respond_with(lambda _: json_response({"error": {"code": code}}, 429, retry_after="600", **headers))
    throttle = ServerThrottle(3600, Clock())
    client = Gpt.from_configuration(make(server.url).sdk_configuration, throttle=throttle)
    with client, pytest.raises(errors.RateLimitError):
        client.completions.create_completion(request())
    assert throttle.remaining() == seconds
    assert len(server.requests) == 1


def test_run_interrupted_while_held_back_raises_at_once() -> None:
    """Ctrl-C does not wait for a rate limit to pass."""
    with ScriptedServer() as server:

        def refuse_and_interrupt(_: Received) -> ScriptedResponse:
            main = threading.main_thread().ident or 0
            threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()
            return json_response({"error": {"message": "slow down"}}, 429, retry_after="100")

        server.respond_with(refuse_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            list(bulk.run(make(server.url), [request()], max_workers=1))
        assert len(server.requests) == 1
