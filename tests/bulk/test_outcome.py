"""Outcomes as values: what they give, and that they can be pickled."""

from __future__ import annotations

import pickle

import pytest

from gpt import bulk
from gpt.models import errors, shared
from tests.support.client import COMPLETION, OK, make, request
from tests.support.http_server import ScriptedServer, json_response

REQUESTS = [request(prompt=f"prompt {i}") for i in range(2)]


def test_outcome_pickled_is_equal_and_holds_no_key(server: ScriptedServer) -> None:
    """Outcomes, with a response or an error, can be sent elsewhere, without the key."""
    no = json_response({"error": {"message": "no"}}, 400)
    server.respond_with(lambda received: no if received.json()["prompt"] == "prompt 1" else OK)
    s = make(server.url, security=shared.Security(api_key_auth="secret-key"))
    for outcome in bulk.run(s, REQUESTS):
        data = pickle.dumps(outcome)
        copy = pickle.loads(data)
        assert b"secret-key" not in data
        assert (copy.index, copy.response, str(copy.error)) == (outcome.index, outcome.response, str(outcome.error))


def test_outcome_result_returns_the_completion_or_raises_the_error(server: ScriptedServer) -> None:
    """`outcome.result()` is the completion, or raises what the outcome has as its error."""
    no = json_response({"error": {"message": "no"}}, 400)
    server.respond_with(lambda received: no if received.json()["prompt"] == "prompt 1" else OK)
    by_index = {outcome.index: outcome for outcome in bulk.run(make(server.url), REQUESTS)}
    assert by_index[0].result().choices[0].text == COMPLETION["choices"][0]["text"]
    with pytest.raises(errors.BadRequestError):
        by_index[1].result()
