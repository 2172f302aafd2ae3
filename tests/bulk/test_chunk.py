"""Chunks: what a worker process does with one, and what it sends back."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import requests

import gpt
from gpt.bulk.chunk import ChunkResult, Job, _ProcessStates, run_chunk
from gpt.bulk.worker import RunSettings
from tests.support.client import OK, QUICK, request
from tests.support.http_server import ScriptedServer, json_response
from tests.support.lists import echo_lists


def send_chunk(run_id: str, url: str, count: int = 3, *, others: Sequence[str] = (), **settings: Any) -> ChunkResult:
    """Send a chunk of so many requests as a worker process would, to one server or to several."""
    clients = [(gpt.Gpt, gpt.Gpt(server_url=u, retry_config=QUICK).sdk_configuration) for u in (url, *others)]
    job = Job(run_id=run_id, clients=clients, settings=RunSettings(options={}, **settings))
    chunk = pickle.dumps([request(prompt=f"p{i}") for i in range(count)])
    result: ChunkResult = pickle.loads(run_chunk(run_id, pickle.dumps(job), chunk))
    return result


def test_chunk_key_is_read_again_for_each_run(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that changes in the environment of a long-lived process is used by the next run, not by this one."""
    for key, run_id in (("old", "run 1"), ("new", "run 1"), ("new", "run 2")):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        assert send_chunk(run_id, server.url, 1).problem is None
    keys = [received.header("authorization") for received in server.requests]
    assert keys == ["Bearer old", "Bearer old", "Bearer new"]


def test_chunk_of_another_run_closes_the_connections_of_the_last(server: ScriptedServer) -> None:
    """What a process built for a run is used for all its chunks and closed when another run comes."""
    for _ in range(3):
        send_chunk("one", server.url, 4, max_workers=2)
    assert 1 <= server.connections <= 2
    with ScriptedServer() as other:
        other.reply(OK)
        send_chunk("two", other.url)
        server.wait_open(0)


def test_chunk_goes_out_in_packs_over_threads(server: ScriptedServer) -> None:
    """A chunk of 10 with packs of 4 is three requests, by no more connections than there are workers."""
    server.respond_with(echo_lists)
    result = send_chunk("packs", server.url, 10, batch_size=4, max_workers=2)
    texts = [reply.response.choices[0].text for reply in result.replies if reply and reply.response]
    assert texts == [f"p{i}/0" for i in range(10)]
    assert len(server.requests) == 3
    assert server.connections <= 2


def test_chunk_stops_at_a_rate_limit_and_says_so(server: ScriptedServer) -> None:
    """The rest of a chunk is returned unsent, at once, with the seconds for which the whole run is to pause."""
    server.respond_with(lambda _: json_response({"error": {}}, 429, retry_after="30"))
    result = send_chunk("limited", server.url, 50, max_workers=2)
    assert 29 < result.pause <= 30
    assert len(server.requests) <= 2
    limited = [reply for reply in result.replies if reply is not None]
    assert [reply.pause for reply in limited] == [30.0] * len(limited)
    assert len(result.replies) == 50


def test_chunk_with_a_limited_server_goes_to_the_others(server: ScriptedServer) -> None:
    """The whole chunk is sent, but for what was refused, and the submitter is not told to wait."""
    server.respond_with(lambda _: json_response({"error": {}}, 429, retry_after="600"))
    with ScriptedServer() as other:
        other.respond_with(echo_lists)
        result = send_chunk("half limited", server.url, 50, others=[other.url], max_workers=2)
    assert result.pause == 0
    refused = [reply for reply in result.replies if reply and reply.pause]
    assert len(refused) == len(server.requests) <= 2
    assert sum(1 for reply in result.replies if reply and reply.response) == 50 - len(refused)


class Unloadable(Exception):
    """An error that pickles and cannot be unpickled."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)

    def __reduce__(self) -> tuple[object, ...]:
        # A keyword-only argument alone would do, but tblib, which Dask loads, teaches pickle another way.
        return type(self), (str(self),)


def fail(prepared: requests.PreparedRequest, send: Any) -> requests.Response:
    raise Unloadable(reason=f"in process {os.getpid()}, thread {threading.current_thread().name}")


def test_chunk_error_that_cannot_be_pickled_is_replaced(server: ScriptedServer) -> None:
    """A hook's own exception that does not survive pickling comes back by its name and text."""
    configuration = gpt.Gpt(server_url=server.url, hooks=[fail]).sdk_configuration
    job = Job(run_id="hooked", clients=[(gpt.Gpt, configuration)], settings=RunSettings(options={}))
    result: ChunkResult = pickle.loads(run_chunk("hooked", pickle.dumps(job), pickle.dumps([request()])))
    [reply] = result.replies
    assert reply is not None
    assert str(reply.error).startswith("Unloadable: in process")


def test_process_states_interrupted_start_no_chunk_of_that_run() -> None:
    """After Ctrl-C a process returns the chunks of the run unsent; of all runs where it cannot tell which was meant."""
    states = _ProcessStates()
    assert not states.was_interrupted("one")
    states.interrupt("one")
    assert (states.was_interrupted("one"), states.was_interrupted("other")) == (True, False)
    states.interrupt()
    assert (states.was_interrupted("one"), states.was_interrupted("other")) == (True, True)
