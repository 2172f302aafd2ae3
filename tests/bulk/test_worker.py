"""Where requests are sent: whose failure an error is, and what a process keeps for a run."""

from __future__ import annotations

from typing import Any

import pytest

import gpt
from gpt.bulk.worker import PackSender, RunSettings, server_works
from gpt.models import errors
from tests.support.client import make, request
from tests.support.http_server import ScriptedServer, json_response
from tests.support.lists import echo_lists


def timeout(phase: Any) -> errors.APITimeoutError:
    error = errors.APITimeoutError("late")
    error.phase = phase
    return error


@pytest.mark.parametrize(
    ("error", "works"),
    [
        (None, True),
        (errors.APIConnectionError("refused"), False),
        (timeout("connect"), False),
        (timeout("read"), None),
        (errors.AuthenticationError("key", 401), False),
        (errors.NotFoundError("model", 404), False),
        (errors.RateLimitError("quota", 429), False),
        (errors.InternalServerError("down", 503), False),
        (errors.BadRequestError("prompt", 400), True),
        (errors.ResponseValidationError("html", 200), None),
        (TypeError("n"), None),
    ],
    ids=str,
)
def test_server_works_is_false_for_what_any_request_would_meet(error: Exception | None, works: bool | None) -> None:
    """Only what any other request would meet too is the server's."""
    assert server_works(error) is works


@pytest.mark.parametrize("usage", ["own", "sum"])
def test_sender_of_a_pack_replies_with_tokens_that_add_up(server: ScriptedServer, usage: str) -> None:
    """The replies of a pack sum up to what the server counted, with bodies too."""
    server.respond_with(echo_lists)
    extras = {"return_token_ids": True} if usage == "own" else {}
    given = [request(prompt="x" * size, additional_properties=extras) for size in (1, 2, 3)]
    for bodies in (False, True):
        s = make(server.url)
        sender = PackSender([(gpt.Gpt, s.sdk_configuration)], RunSettings(bodies=bodies, batch_size=3, options={}))
        replies = [reply for reply in sender.send(given) if reply]
        sender.close()
        assert len(replies) == 3
        totals = [sum(reply.tokens[side] for reply in replies) for side in (0, 1)]
        assert totals == ([9, 9] if usage == "own" else [9, 6])
        assert [bool(reply.body) for reply in replies] == [bodies] * 3
        assert [reply.response is None for reply in replies] == [bodies] * 3


def test_sender_of_a_single_request_replies_with_the_body_byte_for_byte(server: ScriptedServer) -> None:
    """Byte for byte, whatever the server wrote between."""
    body = b'{ "choices": [ {"text": "a", "x": 1e400} ],\n "big": 123456789012345678901234567890}'
    server.reply(json_response(body))
    server.respond_with(lambda _: json_response(body))
    s = make(server.url)
    [reply] = PackSender([(gpt.Gpt, s.sdk_configuration)], RunSettings(bodies=True, options={})).send([request()])
    assert reply is not None
    assert reply.body == body
