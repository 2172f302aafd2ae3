"""Messages for people: what the server said, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import urlsplit

import requests

from .._core import headers, url
from .._core.deadline import Deadline
from .._core.errorbody import ErrorDetails, one_line, read_error, status_in
from ..models.errors.sdkerror import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ResponseValidationError,
    SDKError,
    StreamInterruptedError,
    status_error_class,
)
from ..utils.retries import MAX_SERVER_WAIT, server_wait
from .failures import Failure

E = TypeVar("E", bound=SDKError)

_MAX_FACT = 100
_OUT_OF_MONEY = {"insufficient_quota", "credit_balance_exhausted"}

_SHORTEST_SECRET = 6
"""Shorter keys are placeholders (`x`, `EMPTY`), and replacing them would spoil the message."""

_ADVICE = {
    401: "check the key: security=shared.Security(api_key_auth=...), or OPENAI_API_KEY",
    402: "the account has no credit left",
    403: "the key is valid but not allowed to do this",
    404: "check the model's name and the server URL, which usually ends in /v1",
    413: "the request is too large for this server",
}


def status_error(
    response: requests.Response, body: bytes, *, secrets: Iterable[str] = (), now: float = 0.0
) -> APIStatusError:
    """Make the error for an answer whose status is not 2xx.

    Args:
        response: the answer, its body read or given up.
        body: what was read of the body.
        secrets: the keys that were sent, taken out of the message should the server repeat them.
        now: seconds since 1970.
    """
    text = body.decode("utf-8", "replace")
    status = response.status_code
    details = read_error(text)
    said = details.message or ("no explanation" if not text.strip() else "an error without a message")
    message = f"{status} {_phrase(status, response)} from {host_of(response)}: {said}{_facts(details, response)}"
    if advice := _advice(status, details, response, now):
        message += f"; {advice}"
    return status_error_class(status)(_without(secrets, message), status, text, response)


def in_band_error(response: requests.Response, data: object, body: str) -> APIStatusError:
    """Make the error for one that came inside an answer of success: its own status, if it names one, counts."""
    details = read_error(body)
    status = status_in(data)
    said = details.message or "an error without a message"
    message = f"{host_of(response)} answered {response.status_code} with an error inside: {said}"
    message = _without(_sent(response), message + _facts(details, response))
    return status_error_class(status)(message, status or response.status_code, body, response)


def unreadable(response: requests.Response, body: bytes, problem: str, cause: str = "") -> ResponseValidationError:
    """Make the error for an answer that is no completion."""
    kind = one_line(response.headers.get("Content-Type") or "no content type", _MAX_FACT)
    message = f"{host_of(response)} answered {response.status_code} ({kind}), but {problem}"
    message += f"; it begins {body[:80]!r}" if body else "; it is empty"
    if request_id := headers.request_id(response.headers):
        message += f" (request id {one_line(request_id, _MAX_FACT)})"
    if cause:
        message += f". Likely cause: {cause}"
    message = _without(_sent(response), message)
    return ResponseValidationError(message, response.status_code, body.decode("utf-8", "replace"), response)


def _sent(response: requests.Response) -> list[str]:
    """Find the keys that were sent for an answer; one that a hook made may not know its request."""
    request: requests.PreparedRequest | None = response.request
    return headers.credentials_in(request.headers) if request is not None else []


def _without(secrets: Iterable[str], message: str) -> str:
    """Take keys out of a message, should the server have repeated them."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            message = message.replace(secret, "***")
    return message


def too_large(response: requests.Response, limit: int) -> ResponseValidationError:
    """Make the error for an answer that is larger than the client takes."""
    message = (
        f"the answer of {host_of(response)} is larger than {limit} bytes, decompressed;"
        " max_response_bytes= of the client allows more"
    )
    return ResponseValidationError(message, response.status_code, "", response)


def connection_error(
    failure: Failure, host: str, deadline: Deadline | None, response: requests.Response | None = None
) -> APIConnectionError:
    """Make the error for a call that was not answered, or not wholly; its cause is a bare copy of what was raised."""
    if deadline is not None and deadline.expired:
        return deadline_error(host, deadline, response)
    cut = response is not None
    if failure.kind == "connect timeout":
        message = f"could not connect to {host} in time ({failure.text}); see timeout="
    elif failure.kind == "read timeout":
        part = "the rest of its answer" if cut else "an answer"
        message = f"{host} did not send {part} in time ({failure.text}); see timeout="
    elif cut:
        message = f"the answer of {host} was cut short or damaged: {failure.text}"
    else:
        message = f"no answer from {host}: {failure.text}"
    kind = APITimeoutError if failure.kind.endswith("timeout") else APIConnectionError
    return _caused(kind(message, *_status_of(response)), failure)


def deadline_error(host: str, deadline: Deadline, response: requests.Response | None = None) -> APITimeoutError:
    """Make the error for a call that took longer than its deadline."""
    message = f"the deadline of {deadline.seconds:g} s passed before {host} had answered"
    return APITimeoutError(message, *_status_of(response))


def interrupted(response: requests.Response, reason: str, failure: Failure | None = None) -> StreamInterruptedError:
    """Make the error for a stream that stopped half-way."""
    if failure is not None:
        reason = f"{reason} ({failure.text})"
    message = f"the stream from {host_of(response)} {reason}; what had come is in .partial"
    error = StreamInterruptedError(message, *_status_of(response))
    return _caused(error, failure) if failure else error


def _status_of(response: requests.Response | None) -> tuple[int | None, str, requests.Response | None]:
    return (response.status_code if response is not None else None, "", response)


def _caused(error: E, failure: Failure) -> E:
    error.__cause__ = failure.cause
    error._failure = failure
    return error


def host_of(response: requests.Response) -> str:
    """Name the host that answered."""
    return urlsplit(str(response.url or "")).netloc.rpartition("@")[2] or "the server"


def _phrase(status: int, response: requests.Response) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return one_line(str(response.reason or "error"), _MAX_FACT)


def _facts(details: ErrorDetails, response: requests.Response) -> str:
    named = _named(details, response)
    facts = [f"{name} {one_line(str(value), _MAX_FACT)}" for name, value in named if value not in (None, "")]
    return f" ({', '.join(facts)})" if facts else ""


def _named(details: ErrorDetails, response: requests.Response) -> list[tuple[str, object]]:
    return [
        ("type", details.type),
        ("code", details.code),
        ("param", details.param),
        ("request id", headers.request_id(response.headers)),
    ]


def _advice(status: int, details: ErrorDetails, response: requests.Response, now: float) -> str:
    if 300 <= status < 400:
        location = one_line(url.redact(response.headers.get("Location", "")))
        if not location:
            return "redirects are not followed, and the server names no other place"
        base = location.removesuffix("/completions")
        hint = f": server_url={base!r} goes there directly" if base.startswith("http") else ""
        return f"redirects are not followed; the server points to {location}{hint}"
    if _OUT_OF_MONEY & {str(details.code), str(details.type)}:
        return "the quota is used up: check plan and billing; asking again does not help"
    wait = server_wait(response.headers, now)
    if wait is not None and wait > MAX_SERVER_WAIT:
        return f"the server asks to wait {wait:.0f} s, longer than the {MAX_SERVER_WAIT:.0f} s that are waited for"
    return _ADVICE.get(status, "")
