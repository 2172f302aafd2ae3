"""What `create_completion` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import requests

from ..._core import headers, url
from ...utils.eventstreaming import EventStream
from ..shared import CreateCompletionResponse as Completion
from .ratelimit import RateLimit


@dataclass(kw_only=True, eq=False)
class CreateCompletionResponse:
    """An answer of the server: its HTTP side, and either the completion or a stream of it."""

    status_code: int
    """The HTTP status, from 200 to 299."""

    content_type: str
    """The answer's `Content-Type`; empty when it has none."""

    raw_response: requests.Response
    """The answer as requests gives it; its body, unless streamed, can be read again. Its `request` holds the key."""

    create_completion_response: Completion | None = None
    """The completion; `None` when `stream=True` was asked."""

    completion_stream: EventStream[Completion] | None = None
    """The completion chunk by chunk, when `stream=True` was asked."""

    retries_taken: int = 0
    """How many attempts failed before this answer."""

    @property
    def request_id(self) -> str | None:
        """The server's name for the request."""
        return headers.request_id(self.raw_response.headers)

    @property
    def rate_limit(self) -> RateLimit:
        """What is left of the server's rate limits."""
        return RateLimit.from_headers(self.raw_response.headers)

    def __getstate__(self) -> dict[str, Any]:
        if self.completion_stream is not None:
            raise TypeError("a stream cannot be pickled; pickle what collect() returns")
        return {**vars(self), "raw_response": _without_request(self.raw_response)}


def _without_request(response: requests.Response) -> requests.Response:
    """Copy an answer for pickling, without the request, whose headers hold the key."""
    copy = requests.Response()
    copy._content = response.content
    copy._content_consumed = True
    copy.status_code = response.status_code
    copy.reason = response.reason
    copy.encoding = response.encoding
    copy.elapsed = response.elapsed
    copy.url = url.redact(response.url or "")
    copy.headers.update({k: v for k, v in response.headers.items() if k.lower() != "set-cookie"})
    return copy
