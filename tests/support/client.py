"""Shorthand for tests of calls: a completion, its response, clients that wait briefly."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import gpt
from gpt.models import operations, shared
from gpt.utils import BackoffStrategy, RetryConfig
from tests.support.http_server import json_response, sse_response
from tests.support.raw_server import RawServer, read_request

COMPLETION: dict[str, Any] = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "m",
    "choices": [{"text": " ok", "index": 0, "logprobs": None, "finish_reason": "stop"}],
}
OK = json_response(COMPLETION)
STREAM = sse_response(COMPLETION)

QUICK = RetryConfig(backoff=BackoffStrategy(initial_interval=1, max_interval=1))
"""The default retries without the waits."""

ONCE = RetryConfig(strategy="none")


def chunk(text: str = "", finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    """Make one chunk of a stream; `more` goes into its choice."""
    choice = {"text": text, "index": index, "logprobs": None, "finish_reason": finish, **more}
    return {"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}


def request(**fields: Any) -> shared.CreateCompletionRequest:
    """Make a small request."""
    return shared.CreateCompletionRequest(**{"model": "m", "prompt": "Say", **fields})


def numbered(count: int, **fields: Any) -> Iterator[shared.CreateCompletionRequest]:
    """Make small requests one by one, with the prompts p0, p1 and so on."""
    return (request(prompt=f"p{i}", **fields) for i in range(count))


def make(url: str, **options: Any) -> gpt.Gpt:
    """Make a client that retries without waiting."""
    return gpt.Gpt(**{"server_url": url, "retry_config": QUICK, **options})


def create(s: gpt.Gpt, **options: Any) -> operations.CreateCompletionResponse:
    """Create a completion; options are those of the call."""
    return s.completions.create_completion(request(), **options)


def text(response: operations.CreateCompletionResponse) -> str:
    """Return the first choice's text."""
    assert response.create_completion_response is not None
    found = response.create_completion_response.choices[0].text
    assert found is not None
    return found


def stream_text(s: gpt.Gpt, **options: Any) -> str:
    """Stream a completion and give all its text."""
    with s.completions.stream_completion(request(), **options) as stream:
        return "".join(choice.text or "" for chunk in stream for choice in chunk.choices)


def silent_server(first: Callable[[socket.socket], object] = read_request) -> RawServer:
    """Make a server that takes what comes and never responds."""

    def serve(conn: socket.socket, _: int) -> None:
        first(conn)
        server.stall(conn)

    server = RawServer(serve)
    return server


def find_key() -> shared.Security:
    """Find a key, wherever this runs: in the process that unpickles a client, too."""
    return shared.Security(api_key_auth=f"found-{os.environ.get('KEY_SUFFIX', 'here')}")
