"""What `create_completion` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import requests

from ..._core import headers, url
from ...utils.eventstreaming import EventStream
from ..shared import CreateCompletionResponse as Completion
from .ratelimit import RateLimit


@dataclass(kw_only=True, eq=False, repr=False)
class CreateCompletionResponse:
    """The response of a call: its HTTP side, and either the completion or a stream of it."""

    status_code: int
    """The HTTP status, from 200 to 299."""

    content_type: str
    """The response's `Content-Type`; empty when it has none."""

    raw_response: requests.Response
    """The response as requests gives it; its body, unless streamed, can be read again. Its `request` holds the key."""

    create_completion_response: Completion | None = None
    """The completion; `None` with `stream=True`."""

    completion_stream: EventStream[Completion] | None = None
    """The completion chunk by chunk, with `stream=True`."""

    retries_taken: int = 0
    """How many attempts failed before this response."""

    @property
    def completion(self) -> Completion:
        """The completion, never `None`.

        Raises:
            TypeError: the call was made with `stream=True`; `completion_stream` has the chunks.
        """
        if self.create_completion_response is None:
            raise TypeError("completion: with stream=True there is none; iterate completion_stream, or collect() it")
        return self.create_completion_response

    @property
    def request_id(self) -> str | None:
        """The server's name for the request."""
        return headers.request_id(self.raw_response.headers)

    @property
    def rate_limit(self) -> RateLimit:
        """What is left of the server's rate limits."""
        return RateLimit.from_headers(self.raw_response.headers)

    def __repr__(self) -> str:
        """Show the status and what kind of content there is, not the content, which may be long."""
        content = "completion_stream" if self.completion_stream is not None else "create_completion_response"
        return f"<CreateCompletionResponse [{self.status_code}] {content}, request_id={self.request_id!r}>"

    def _repr_html_(self) -> str | None:
        """Return the HTML of the completion for notebooks; of a stream, `None`."""
        completion = self.create_completion_response
        return None if completion is None else completion._repr_html_()

    def __copy__(self) -> CreateCompletionResponse:
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        return other

    def __getstate__(self) -> dict[str, Any]:
        if self.completion_stream is not None:
            raise TypeError("a stream cannot be pickled; pickle what collect() returns")
        return {**vars(self), "raw_response": _without_request(self.raw_response)}


def _without_request(response: requests.Response) -> requests.Response:
    """Copy a response for pickling, without the request, whose headers hold the key."""
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
