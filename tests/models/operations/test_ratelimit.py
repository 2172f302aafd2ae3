"""Rate limits, as servers write them into headers."""

from __future__ import annotations

import pytest

from gpt.models import operations
from tests.support.client import COMPLETION, create, make
from tests.support.http_server import ScriptedServer, json_response


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, operations.RateLimit()),
        (
            {
                "x-ratelimit-limit-requests": "3000",
                "x-ratelimit-limit-tokens": "250000",
                "x-ratelimit-remaining-requests": "2999",
                "x-ratelimit-remaining-tokens": "249984",
                "x-ratelimit-reset-requests": "20ms",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            operations.RateLimit(3000, 250000, 2999, 249984, 0.02, 360.0),
        ),
        (
            {
                "X-RateLimit-Remaining-Tokens": "-1",
                "X-RateLimit-Reset-Tokens": "55",
                "x-ratelimit-limit-tokens": "many",
            },
            operations.RateLimit(reset_tokens=55.0),
        ),
    ],
    ids=["none", "OpenAI", "Azure"],
)
def test_rate_limit_given_headers_of_each_server_is_parsed(
    headers: dict[str, str], expected: operations.RateLimit
) -> None:
    """Counts and durations of the headers are numbers; what is absent or odd is `None`."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response(COMPLETION, headers=headers))
        assert create(s).rate_limit == expected
