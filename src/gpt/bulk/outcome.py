"""The outcome of one request of a run."""

from __future__ import annotations

from dataclasses import dataclass

from ..models.shared import CreateCompletionRequest, CreateCompletionResponse


@dataclass(kw_only=True, slots=True)
class Outcome:
    """A completion or an error, and the request it belongs to. Can be pickled.

    Not frozen: one is made for each prompt, and a frozen one takes more than twice as long to make.
    """

    index: int
    """The position of the request in the run, from 0."""

    request: CreateCompletionRequest
    """The request, unchanged."""

    response: CreateCompletionResponse | None = None
    """The completion; `None` when there is an error."""

    error: Exception | None = None
    """One of `errors.SDKError`, a `TypeError` or `ValueError` for a request that cannot be sent, one raised by a
    hook, or what an executor raised for this request, such as Dask's `KilledWorker`."""

    status_code: int | None = None
    """The HTTP status of the response, where there was one."""

    request_id: str | None = None
    """The server's name for the HTTP request, which it may have shared with others of a pack."""

    def result(self) -> CreateCompletionResponse:
        """Return the completion.

        Raises:
            Exception: `error`, when there is one.
        """
        if self.error is not None:
            raise self.error
        assert self.response is not None
        return self.response
