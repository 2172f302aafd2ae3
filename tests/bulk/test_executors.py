"""Runs over processes and a cluster: what is pickled, what comes back, what is built once, what survives a death."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
import requests

import gpt
from gpt import bulk
from gpt.bulk.chunk import ChunkResult
from gpt.bulk.executors import RemoteWorkers
from gpt.bulk.worker import Reply, RunSettings
from gpt.hooks import Send
from gpt.models import errors, shared
from tests.support.client import OK, make, request
from tests.support.http_server import Received, ScriptedResponse, ScriptedServer, json_response
from tests.support.lists import echo_lists


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


class Courier(Executor):
    """Pickle every task as a cluster would, keep the bytes, and run it here."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.sent.append(pickle.dumps((fn, args, kwargs)))
        fn, args, kwargs = pickle.loads(self.sent[-1])
        future: Future[Any] = Future()
        try:
            future.set_result(pickle.loads(pickle.dumps(fn(*args, **kwargs))))
        except Exception as error:
            future.set_exception(error)
        return future


def key_from_a_vault() -> shared.Security:
    return shared.Security(api_key_auth="from the vault")


class Odd(Exception):
    """An exception that cannot be unpickled."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)


def odd_hook(prepared: requests.PreparedRequest, send: Send) -> requests.Response:
    raise Odd(reason="no luck")


def test_run_over_processes_has_an_outcome_for_every_request(processes: Executor, server: ScriptedServer) -> None:
    """Over processes every request has its outcome, errors among them, and each process builds one client."""
    no = json_response({"error": {"message": "not that one"}}, 400, x_request_id="req-1")
    server.respond_with(lambda received: no if received.json()["prompt"] == "7" else OK)

    given = [request(prompt=str(n)) for n in range(30)]
    run = bulk.run(make(server.url), given, executor=processes, max_workers=1)
    outcomes = {outcome.index: outcome for outcome in run}

    assert sorted(outcomes) == list(range(30))
    error = outcomes.pop(7).error
    assert isinstance(error, errors.BadRequestError)
    assert "not that one" in str(error)
    assert error.request_id == "req-1"
    assert all(outcome.response for outcome in outcomes.values())
    assert server.connections <= 2


@pytest.mark.parametrize(
    ("chunksize", "seconds", "expected"),
    [(None, 0.1, [16, 32, 64]), (None, 1.0, [16, 16, 16]), (10, 0.1, [10, 10, 10])],
)
def test_remote_workers_short_chunks_grow(chunksize: int | None, seconds: float, expected: list[int]) -> None:
    """Chunks that are done at once become larger, with the window that holds them; not when their size was named."""
    s = make("http://127.0.0.1:9")
    settings = RunSettings(max_workers=2, batch_size=2, options={})
    workers = RemoteWorkers([(gpt.Gpt, s.sdk_configuration)], settings, Courier(), chunksize)
    for _ in range(workers.slots):
        workers.submit([request()])
    sizes, windows = [], []
    for _ in expected:
        sizes.append(workers.group_size)
        windows.append(workers.window // workers.slots)
        done: Future[bytes] = Future()
        done.set_result(pickle.dumps(ChunkResult(replies=[Reply()] * workers.group_size, seconds=seconds)))
        workers.result(done)
    assert sizes == windows == expected


def test_remote_workers_chunks_grow_to_a_limit() -> None:
    """A chunk does not grow for ever: what a killed run loses are its chunks."""
    settings = RunSettings(max_workers=1, options={})
    workers = RemoteWorkers([(gpt.Gpt, make("http://127.0.0.1:9").sdk_configuration)], settings, Courier(), None)
    for _ in range(20):
        done: Future[bytes] = Future()
        done.set_result(pickle.dumps(ChunkResult(replies=[Reply()] * 1000)))
        workers.result(done)
    assert workers.window // workers.slots == 64


def test_run_over_processes_with_a_callable_key_calls_the_function_there(
    processes: Executor, server: ScriptedServer
) -> None:
    """A function finds the key where the workers are."""
    outcomes = bulk.run(make(server.url, security=key_from_a_vault), [request()] * 3, executor=processes)
    assert [outcome.status_code for outcome in outcomes] == [200] * 3
    assert {received.header("authorization") for received in server.requests} == {"Bearer from the vault"}


def test_run_over_executor_with_environment_key_sends_no_key_to_workers(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key of the environment is not among the bytes that are sent to workers; it is read again there."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    courier = Courier()

    assert [outcome.status_code for outcome in bulk.run(make(server.url), [request()] * 2, executor=courier)] == [
        200
    ] * 2

    assert not any(b"sk-environment" in data for data in courier.sent)
    assert server.requests[0].header("authorization") == "Bearer sk-environment"


def test_run_over_executor_with_literal_key_or_session_raises_type_error(server: ScriptedServer) -> None:
    """A client with a literal key, or a session of the caller's, is refused at the call, with what to do instead."""
    for options in ({"security": shared.Security(api_key_auth="sk-1")}, {"client": requests.Session()}):
        with pytest.raises(TypeError, match=r"is not pickled.*(OPENAI_API_KEY|make one there)"):
            bulk.run(make(server.url, **options), [request()], executor=Courier())


def test_run_over_workers_without_the_environment_key_raises_value_error(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers without the key of the environment say so; it is not the error of thousands of requests."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-here-only")
    s = make(server.url)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ValueError, match="OPENAI_API_KEY was set; set it here too"):
        list(bulk.run(s, [request()] * 3, executor=Courier()))


def test_run_over_executor_with_unpicklable_request_or_error_has_its_outcome(server: ScriptedServer) -> None:
    """A request that cannot be pickled is an outcome, and so is an error that cannot."""
    lock = request(additional_properties={"lock": threading.Lock()})
    outcomes = {outcome.index: outcome for outcome in bulk.run(make(server.url), [lock, request()], executor=Courier())}
    assert isinstance(outcomes[0].error, TypeError)
    assert outcomes[1].response

    [outcome] = bulk.run(make(server.url, hooks=[odd_hook]), [request()], executor=Courier())
    assert str(outcome.error) == "Odd: no luck"


class PunctualCourier(Courier):
    """A courier that notes when it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.times.append(time.monotonic())
        return super().submit(fn, *args, **kwargs)


def test_run_over_executor_during_a_rate_limit_submits_nothing(server: ScriptedServer) -> None:
    """After a 429 with a wait, nothing is sent to the workers until it is over; then the request is sent again."""
    told: list[float] = []

    def busy(received: Received) -> ScriptedResponse:
        if told:
            return OK
        told.append(time.monotonic())
        return json_response({"error": {"message": "slow down"}}, 429, retry_after_ms="300")

    server.respond_with(busy)
    courier = PunctualCourier()
    outcomes = list(bulk.run(make(server.url), [request()] * 6, executor=courier, max_workers=1, chunksize=1))

    assert [outcome.status_code for outcome in outcomes] == [200] * 6
    assert len(server.requests) == len(courier.times) == 7
    assert [sent for sent in courier.times if told[0] < sent < told[0] + 0.3] == []


def test_run_over_a_broken_process_pool_raises_the_pools_own_exception(server: ScriptedServer) -> None:
    """When an executor's workers die for good, its own exception comes out of the run."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        pid = executor.submit(os.getpid).result()

        def kill(_: Received) -> ScriptedResponse:
            os.kill(pid, signal.SIGKILL)
            return OK

        server.respond_with(kill)
        with pytest.raises(BrokenProcessPool):
            list(bulk.run(make(server.url), [request()] * 10, executor=executor, max_workers=1))


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_run_over_processes_with_a_request_too_deep_to_pickle_has_its_outcome(
    processes: Executor, server: ScriptedServer
) -> None:
    """A request that cannot be pickled is its own outcome, whatever chunk it was in; the others are completed."""
    given = [request(prompt=str(n)) for n in range(10)]
    given[3] = request(additional_properties={"deep": nested(100_000)})
    outcomes = {outcome.index: outcome for outcome in bulk.run(make(server.url), given, executor=processes)}
    assert [index for index in sorted(outcomes) if outcomes[index].error] == [3]
    assert isinstance(outcomes[3].error, RecursionError)


def test_run_over_processes_with_batch_size_sends_packs(processes: Executor, server: ScriptedServer) -> None:
    """Chunks of requests go out as packs from every process, and a short run reaches more than one."""
    server.respond_with(echo_lists)
    given = [request(prompt=f"p{n}") for n in range(400)]
    run = bulk.run(make(server.url), given, executor=processes, batch_size=10, max_workers=4)
    outcomes = list(run)
    assert sorted(outcome.index for outcome in outcomes) == list(range(400))
    assert all(outcome.result().choices[0].text == f"p{outcome.index}/0" for outcome in outcomes)
    assert len(server.requests) == 40


def test_run_over_processes_with_a_key_in_http_headers_raises_type_error(
    processes: Executor, server: ScriptedServer
) -> None:
    """A key among the headers of a run is refused at the call when it would go to other processes."""
    with pytest.raises(TypeError, match="Authorization is not sent"):
        bulk.run(make(server.url), [request()], executor=processes, http_headers={"Authorization": "Bearer sk-1"})


SIGINT_RUN = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import gpt
from gpt import bulk
from gpt.models import shared

if __name__ == "__main__":
    requests = (shared.CreateCompletionRequest(model="m", prompt=str(i)) for i in range(1000))
    taken = 0
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        try:
            s = gpt.Gpt(server_url=sys.argv[1])
            for outcome in bulk.run(s, requests, executor=executor, max_workers=2, chunksize=100):
                assert outcome.error is None, outcome.error
                taken += 1
        except KeyboardInterrupt:
            print(taken)
"""


def test_run_over_processes_interrupted_loses_nothing_in_flight(server: ScriptedServer, tmp_path: Path) -> None:
    """Ctrl-C on a terminal, which reaches all processes, ends chunks early; every completed request has its outcome."""
    script = tmp_path / "sigint_run.py"
    script.write_text(SIGINT_RUN)
    go_on = threading.Event()

    def response(_: Received) -> ScriptedResponse:
        go_on.wait(20)
        return OK

    server.respond_with(response)
    with subprocess.Popen(
        [sys.executable, str(script), server.url], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        for _ in range(600):  # two interpreters start meanwhile
            if len(server.requests) >= 4:
                break
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.5)  # the signal comes first, the responses later
        go_on.set()
        try:
            output, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert int(output) == len(server.requests) == 4
