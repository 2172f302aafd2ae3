"""What became of one request of a run."""

from __future__ import annotations

from dataclasses import dataclass

from ..models.shared import CreateCompletionRequest, CreateCompletionResponse


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """An answer or an error, and the request it belongs to. Can be pickled."""

    index: int
    """The position of the request among those given, from 0."""

    request: CreateCompletionRequest
    """The request as it was given."""

    response: CreateCompletionResponse | None = None
    """The completion; `None` when there is an error."""

    error: Exception | None = None
    """One of `errors.SDKError`, a `TypeError` or `ValueError` for a request that cannot be sent, or a hook's own."""

    status_code: int | None = None
    """The HTTP status of the answer, where there was one."""

    request_id: str | None = None
    """The server's name for the request."""
