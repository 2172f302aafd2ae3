"""Runs on a Dask cluster: samples, and workers that die."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import distributed
import pytest

import gpt
from gpt import bulk, local
from tests.support.client import COMPLETION, make, request
from tests.support.http_server import Received, ScriptedResponse, ScriptedServer, json_response


@pytest.fixture(scope="module")
def cluster() -> Iterator[distributed.Client]:
    """Run a Dask cluster of two worker processes on this machine."""
    with (
        distributed.LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs="CRITICAL"
        ) as workers,
        distributed.Client(workers) as client,  # type: ignore[no-untyped-call]
    ):
        yield client


def test_run_on_a_cluster_samples_identical_prompts_separately(cluster: Any, local_server: local.Server) -> None:
    """On a Dask cluster, identical prompts at temperature 1 are different samples of the real engine."""
    with gpt.Gpt(server_url=local_server.url) as s:
        same = [request(prompt="def", max_tokens=16, temperature=1)] * 12
        outcomes = list(bulk.run(s, same, executor=cluster.get_executor(pure=False)))

    texts = [outcome.response.choices[0].text for outcome in outcomes if outcome.response]
    assert sorted(outcome.index for outcome in outcomes) == list(range(12))
    assert len(set(texts)) > 6


def test_run_on_a_cluster_with_a_killed_worker_loses_nothing(cluster: Any, server: ScriptedServer) -> None:
    """A worker of the cluster that is killed in the middle loses nothing."""
    victims = list(cluster.run(os.getpid).values())[:1]

    def kill_once(received: Received) -> ScriptedResponse:
        if received.json()["prompt"] == "20" and victims:
            os.kill(victims.pop(), signal.SIGKILL)
        return json_response({**COMPLETION, "choices": [{"text": received.json()["prompt"]}]})

    server.respond_with(kill_once)
    given = [request(prompt=str(n)) for n in range(60)]
    outcomes = list(bulk.run(make(server.url), given, executor=cluster.get_executor(pure=False), window=8))

    texts = [outcome.response.choices[0].text for outcome in outcomes if outcome.response]
    assert sorted(map(str, texts)) == sorted(str(n) for n in range(60))


class Deadly(dict):  # type: ignore[type-arg]
    """Extras that end the process in which they are unpickled."""

    def __reduce__(self) -> Any:
        return os._exit, (1,)


def test_run_on_a_cluster_with_a_request_that_kills_workers_has_its_outcome(
    cluster: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a cluster a request that no worker survives is its own outcome, and the run goes on to its end."""
    monkeypatch.setattr(cluster.cluster.scheduler, "allowed_failures", 0)  # each death takes seconds
    given = [request(prompt=str(n)) for n in range(4)]
    given[2] = request(additional_properties={"deadly": Deadly()})
    run = bulk.run(make(server.url), given, executor=cluster.get_executor(pure=False), chunksize=2)
    outcomes = {outcome.index: outcome for outcome in run}
    assert sorted(outcomes) == [0, 1, 2, 3]
    assert isinstance(outcomes[2].error, distributed.scheduler.KilledWorker)
    # what was on the same worker when it died may have been blamed by the scheduler, too
    assert {type(outcomes[index].error) for index in (0, 1, 3)} <= {type(None), distributed.scheduler.KilledWorker}
