"""Everything that a call can raise, apart from misuse (`TypeError`, `ValueError`).

SDKError
├── APIStatusError              the server returned an error status
│   ├── BadRequestError 400
│   ├── AuthenticationError 401
│   ├── PermissionDeniedError 403
│   ├── NotFoundError 404
│   ├── ConflictError 409
│   ├── UnprocessableEntityError 422
│   ├── RateLimitError 429
│   └── InternalServerError 500 and above
├── APIConnectionError          no response, or not all of it
│   └── APITimeoutError         none in time
├── ResponseValidationError     a response that cannot be read
│   └── ResponseTooLargeError   larger than max_response_bytes
└── StreamInterruptedError      a stream that stopped half-way
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import requests
from requests.structures import CaseInsensitiveDict

from ..._core import headers as headers_
from ..._core import url
from ..._core.errorbody import ErrorDetails, read_error
from ...utils.retries import server_wait
from ..shared import CreateCompletionResponse

Phase = Literal["connect", "send", "read", "deadline"]

_NOT_PICKLED = ("raw_response", "_details")


class SDKError(Exception):
    """The base of all errors of a call. Survives pickling, without `raw_response`, which carries the key."""

    message: str
    """What happened and what to do."""

    status_code: int | None
    """The HTTP status, where there was a response; for an error inside a successful response, the status that it names,
    else the response's own."""

    body: str
    """The response's body as text, where it was read; a key that the server repeats is `***`."""

    raw_response: requests.Response | None
    """The response itself. Its `request` holds the key that was sent."""

    headers: Mapping[str, str]
    """The response's headers, case-insensitive; empty without one. A `Location` is shown without query and userinfo."""

    request_id: str | None
    """The server's name for the request."""

    retry_after: float | None
    """How many seconds the server asked to wait."""

    partial: CreateCompletionResponse | None
    """What a stream had delivered before the error, collected into one response."""

    def __init__(
        self,
        message: str,
        status_code: int | None = None,
        body: str = "",
        raw_response: requests.Response | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.body = body
        self.raw_response = raw_response
        self.headers = _without_secrets(raw_response.headers if raw_response is not None else CaseInsensitiveDict())
        self.request_id = headers_.request_id(self.headers)
        self.retry_after = server_wait(self.headers, time.time())
        self.partial = None

    @cached_property
    def _details(self) -> ErrorDetails:
        return read_error(self.body)

    @property
    def code(self) -> str | int | None:
        """The server's error code (`insufficient_quota`, 400…)."""
        return self._details.code

    @property
    def type(self) -> str | None:
        """The server's type of error (`invalid_request_error`, `BadRequestError`…)."""
        return self._details.type

    @property
    def param(self) -> str | None:
        """The request field that the server names as the cause."""
        return self._details.param

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: value for name, value in vars(self).items() if name not in _NOT_PICKLED}
        state["headers"] = {name: value for name, value in self.headers.items() if name.lower() != "set-cookie"}
        return _rebuild, (type(self), state)


def _without_secrets(headers: CaseInsensitiveDict[str]) -> CaseInsensitiveDict[str]:
    """Return headers with the query and userinfo taken out of a `Location`, which may repeat those of the request."""
    if "location" not in headers:
        return headers
    headers = headers.copy()
    headers["Location"] = url.redact(headers["Location"])
    return headers


def _rebuild(cls: type[SDKError], state: dict[str, Any]) -> SDKError:
    error = cls.__new__(cls, state["message"])
    Exception.__init__(error, state["message"])
    vars(error).update(state, raw_response=None, headers=CaseInsensitiveDict(state["headers"]))
    return error


class APIStatusError(SDKError):
    """The server returned an error status, a redirect, or an error inside a successful response."""


class BadRequestError(APIStatusError):
    """400: the server does not accept the request as it is."""


class AuthenticationError(APIStatusError):
    """401: the key is missing or wrong."""


class PermissionDeniedError(APIStatusError):
    """403: the key may not do this."""


class NotFoundError(APIStatusError):
    """404: there is no such model or path."""


class ConflictError(APIStatusError):
    """409: the request collides with another."""


class UnprocessableEntityError(APIStatusError):
    """422: a field has a value that the server cannot use."""


class RateLimitError(APIStatusError):
    """429: too many requests or tokens, or the quota is used up (see `code`)."""


class InternalServerError(APIStatusError):
    """500 and above: the server failed or is overloaded."""


class APIConnectionError(SDKError):
    """There was no response, or its body was cut short. Says what failed and with which host."""


class APITimeoutError(APIConnectionError):
    """Connecting, sending, reading, or the whole call took too long; `phase` says which."""

    phase: Phase
    """What took too long: `"connect"` (TLS and a proxy's CONNECT included), `"send"` (the request), `"read"` (the
    response), or `"deadline"` (the whole call)."""

    def __init__(
        self,
        message: str,
        status_code: int | None = None,
        body: str = "",
        raw_response: requests.Response | None = None,
        *,
        phase: Phase = "read",
    ) -> None:
        super().__init__(message, status_code, body, raw_response)
        self.phase = phase


class ResponseValidationError(SDKError):
    """The response is not a completion. Says the status, the content type, the first bytes and the likely cause."""


class ResponseTooLargeError(ResponseValidationError):
    """The response is larger, decompressed, than the client's `max_response_bytes`."""


class StreamInterruptedError(SDKError):
    """A stream ended without `[DONE]` while a choice was unfinished. `partial` has what was received."""


_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def status_error_class(status: int | None) -> type[APIStatusError]:
    """Return the class by the status alone: types and codes mean different things on different servers."""
    if status is None:
        return APIStatusError
    return _BY_STATUS.get(status) or (InternalServerError if status >= 500 else APIStatusError)
