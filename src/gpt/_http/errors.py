"""From a failure or an error response to `gpt.models.errors`: what happened, where, and what to do about it.

All text that comes from a server is masked and made printable here; nowhere else are these errors made.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import urlsplit

import requests

from .._core import headers, url
from .._core.deadline import Deadline
from .._core.errorbody import ErrorDetails, read_error, status_in
from .._core.text import mask, single_line
from ..models.errors.sdkerror import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ResponseTooLargeError,
    ResponseValidationError,
    StreamInterruptedError,
    status_error_class,
)
from ..utils.retries import MAX_SERVER_WAIT, QUOTA_CODES, server_wait
from .failures import TransportFailure

_MAX_DETAIL = 100
_MAX_BEGINNING = 80
_MAX_MASKED = 64 * 1024

_ADVICE = {
    401: "check the key: security=shared.Security(api_key_auth=...), or OPENAI_API_KEY",
    402: "the account has no credit left",
    403: "the key is valid but not allowed to do this",
    413: "the request is too large for this server",
}


def connection_error(
    failure: TransportFailure,
    host: str,
    deadline: Deadline | None = None,
    response: requests.Response | None = None,
) -> APIConnectionError:
    """Return the public error for a call with no response or an incomplete one.

    This is the one place where a `TransportFailure` becomes public. `__cause__` is the failure's sanitized copy.

    Args:
        failure: what went wrong.
        host: host and port of the server.
        deadline: the call's deadline; if it has expired, it is reported as the reason instead of the failure.
        response: the response whose body could not be read; `None` before its headers.
    """
    if deadline is not None and deadline.expired:
        return deadline_error(host, deadline, response)
    message = _failure_message(failure, host, has_response=response is not None)
    error: APIConnectionError
    if failure.kind == "timeout":
        error = APITimeoutError(message, *_response_facts(response), phase=failure.phase)
    else:
        error = APIConnectionError(message, *_response_facts(response))
    error.__cause__ = failure.cause
    return error


def _failure_message(failure: TransportFailure, host: str, *, has_response: bool) -> str:
    if failure.kind == "timeout":
        doing = {
            "connect": f"connecting to {host}",
            "send": f"sending the request to {host}",
            "read": f"reading {'the rest of the response' if has_response else 'the response'} of {host}",
            "deadline": f"the call to {host}",
        }[failure.phase]
        return f"{doing} took too long ({failure.text}); see timeout="
    if has_response:
        return f"the response of {host} was cut short or damaged: {failure.text}"
    return f"no response from {host}: {failure.text}"


def deadline_error(host: str, deadline: Deadline, response: requests.Response | None = None) -> APITimeoutError:
    """Return the error for a call that took longer than its deadline."""
    message = f"the deadline of {deadline.seconds:g} s passed before {host} had responded"
    return APITimeoutError(message, *_response_facts(response), phase="deadline")


def stream_interrupted(
    response: requests.Response, reason: str, failure: TransportFailure | None = None
) -> StreamInterruptedError:
    """Return the error for a stream that ended early; `reason` says how, `failure` why."""
    if failure is not None:
        reason = f"{reason} ({failure.text})"
    message = f"the stream from {host_of(response)} {reason}; everything received so far is in .partial"
    error = StreamInterruptedError(message, *_response_facts(response))
    if failure is not None:
        error.__cause__ = failure.cause
    return error


def response_too_large(response: requests.Response, limit: int) -> ResponseTooLargeError:
    """Return the error for a response of more than `limit` bytes, decompressed."""
    message = (
        f"the response of {host_of(response)} is larger than {limit} bytes, decompressed;"
        " max_response_bytes= of the client allows more"
    )
    return ResponseTooLargeError(message, *_response_facts(response))


def status_error(
    response: requests.Response, body: bytes, *, secrets: Iterable[str] = (), now: float = 0.0
) -> APIStatusError:
    """Return the error for a response whose status is not 2xx.

    Args:
        response: the response, its body read or closed.
        body: what was read of the body.
        secrets: the keys that were sent, masked in the message and the body should the server repeat them.
        now: seconds since 1970.
    """
    text = mask(body.decode("utf-8", "replace"), secrets)  # before it is cut: a cut would leave a part of a key
    status = response.status_code
    details = read_error(text)
    server_message = details.message or ("no explanation" if not text.strip() else "an error without a message")
    message = f"{status} {_phrase(status, response)} from {host_of(response)}: {server_message}"
    message += _details_suffix(details, response, secrets)
    if advice := _advice(status, details, response, now):
        message += f"; {advice}"
    return status_error_class(status)(mask(message, secrets), status, text, response)


def in_band_error(response: requests.Response, data: object, body: str) -> APIStatusError:
    """Return the error for one inside a successful response; a status in the error itself takes precedence."""
    secrets = sent_credentials(response)
    text = mask(body, secrets)
    details = read_error(text)
    status = status_in(data)
    server_message = details.message or "an error without a message"
    message = f"{host_of(response)} responded with {response.status_code} and an error inside: {server_message}"
    message = mask(message + _details_suffix(details, response, secrets), secrets)
    return status_error_class(status)(message, status or response.status_code, text, response)


def invalid_response(
    response: requests.Response, body: bytes, problem: str, cause: str = ""
) -> ResponseValidationError:
    """Return the error for a response that is not a completion."""
    secrets = sent_credentials(response)
    kind = _short(response.headers.get("Content-Type") or "no content type", secrets)
    message = f"{host_of(response)} responded with {response.status_code} ({kind}), but {problem}"
    message += f"; it begins {_beginning(body, secrets)!r}" if body else "; it is empty"
    if request_id := headers.request_id(response.headers):
        message += f" (request id {_short(request_id, secrets)})"
    if cause:
        message += f". Likely cause: {cause}"
    text = mask(body.decode("utf-8", "replace"), secrets)
    return ResponseValidationError(mask(message, secrets), response.status_code, text, response)


def _beginning(body: bytes, secrets: Iterable[str]) -> bytes:
    """Return the first bytes of a body, masked before they are cut."""
    text = body[:_MAX_MASKED].decode("latin-1")
    return mask(text, secrets).encode("latin-1")[:_MAX_BEGINNING]


def sent_credentials(response: requests.Response) -> list[str]:
    """Return the keys that were sent for a response; a response made by a hook may have no request."""
    request: requests.PreparedRequest | None = response.request
    return credentials_of(request) if request is not None else []


def credentials_of(request: requests.PreparedRequest) -> list[str]:
    """Return the keys in a request's headers and query, to mask them should the server repeat them."""
    found = headers.credentials_in(request.headers or {})
    if request.url and "?" in request.url:
        found += [value for name, value in url.query_pairs(request.url) if headers.is_credential(name)]
    return found


def _response_facts(response: requests.Response | None) -> tuple[int | None, str, requests.Response | None]:
    return (response.status_code if response is not None else None, "", response)


def host_of(response: requests.Response) -> str:
    """Return the host and port that responded."""
    return urlsplit(str(response.url or "")).netloc.rpartition("@")[2] or "the server"


def _phrase(status: int, response: requests.Response) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return single_line(str(response.reason or "error"), _MAX_DETAIL)


def _details_suffix(details: ErrorDetails, response: requests.Response, secrets: Iterable[str]) -> str:
    named: list[tuple[str, object]] = [
        ("type", details.type),
        ("code", details.code),
        ("param", details.param),
        ("request id", headers.request_id(response.headers)),
    ]
    parts = [f"{name} {_short(str(value), secrets)}" for name, value in named if value not in (None, "")]
    return f" ({', '.join(parts)})" if parts else ""


def _short(text: str, secrets: Iterable[str]) -> str:
    return single_line(mask(text, secrets), _MAX_DETAIL)


def _advice(status: int, details: ErrorDetails, response: requests.Response, now: float) -> str:
    if 300 <= status < 400:
        return _redirect_advice(response)
    if status == 404:
        return _not_found_advice(response, details)
    if details.code in QUOTA_CODES or details.type in QUOTA_CODES:
        return "the quota is used up: check plan and billing; retrying does not help"
    wait = server_wait(response.headers, now)
    if wait is not None and wait > MAX_SERVER_WAIT:
        return f"the server asks to wait {wait:.0f} s, longer than the {MAX_SERVER_WAIT:.0f} s that are waited for"
    return _ADVICE.get(status, "")


def _redirect_advice(response: requests.Response) -> str:
    """Describe where a redirect points, and which `server_url` leads there directly, if any."""
    location = response.headers.get("Location", "")
    if not location:
        return "redirects are not followed, and the server names no other place"
    message = f"redirects are not followed; the server points to {single_line(url.redact(location))}"
    base = url.base_of(url.resolve(response.url or "", location), "/completions")
    if not base or base == url.base_of(response.url or "", "/completions"):
        return message
    pairs = [(name, value) for name, value in url.query_pairs(base) if not headers.is_credential(name)]
    base = single_line(url.with_query(url.redact(base), pairs))
    return f"{message}: server_url={base!r} goes there directly"


def _not_found_advice(response: requests.Response, details: ErrorDetails) -> str:
    parts = url.split(response.url or "")
    if parts is not None and parts.hostname == "api.openai.com":
        return (
            "OpenAI announced the end of its completions models for 2026-09-28; to name another server, give"
            " server_url='http://localhost:8000/v1' or set OPENAI_BASE_URL"
        )
    if parts is not None and parts.path == "/completions":
        base = f"{parts.scheme}://{host_of(response)}"
        return f"the server URL has no /v1 at its end: try server_url='{base}/v1'"
    if "model" in f"{details.code} {details.param} {details.message}".lower():
        return "check the model's name; GET /models lists those of the server"
    return "check the server URL, which usually ends in /v1: the server has nothing at this path"
