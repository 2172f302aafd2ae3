"""The gate in front of a run's workers: how long it is closed, who may pass, how waiting ends."""

from __future__ import annotations

import pickle
import signal
import threading
from concurrent.futures import CancelledError

import pytest

from gpt import bulk
from gpt.bulk.throttle import Gate
from tests.support.client import make, request
from tests.support.http_server import Answer, Received, ScriptedServer, json_answer


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_closed_for_as_long_as_was_said() -> None:
    """The longest of several waits counts, from when it was said; then the gate is open."""
    clock = Clock()
    gate = Gate(3600, clock)
    assert gate.remaining() == 0
    gate.hold(5)
    gate.hold(2)
    clock.now += 3
    assert gate.remaining() == 2
    gate.hold(4)
    assert gate.remaining() == 4
    clock.now += 4
    gate.wait()
    assert gate.remaining() == 0


def test_shortest_hold() -> None:
    """A wait of next to nothing is a tenth of a second, or a server could be asked thousands of times."""
    gate = Gate(3600, Clock())
    gate.hold(0.001)
    assert gate.remaining() == pytest.approx(0.1)


def test_stopped() -> None:
    """When the run stops, those who wait and those who come are turned away."""
    gate = Gate(3600)
    gate.hold(60)
    turned_away: list[CancelledError] = []

    def wait() -> None:
        try:
            gate.wait()
        except CancelledError as error:
            turned_away.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    gate.stop()
    thread.join(10)
    assert len(turned_away) == 1
    with pytest.raises(CancelledError):
        gate.wait()


def test_travels_open() -> None:
    """A gate arrives open in another process, with the same patience."""
    gate = Gate(7)
    gate.hold(5)
    copy = pickle.loads(pickle.dumps(gate))
    assert copy.remaining() == 0
    assert copy.__reduce__() == (Gate, (7,))


def test_interrupted_while_held() -> None:
    """Ctrl-C does not wait for a rate limit to pass."""
    with ScriptedServer() as server:

        def refuse_and_interrupt(_: Received) -> Answer:
            main = threading.main_thread().ident or 0
            threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()
            return json_answer({"error": {"message": "slow down"}}, 429, retry_after="100")

        server.answer_with(refuse_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            list(bulk.run(make(server.url), [request()], max_workers=1))
        assert len(server.requests) == 1
