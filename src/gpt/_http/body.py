"""Reading response bodies: whole or as they arrive, in bounded memory, with failures translated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPResponse
from itertools import chain
from typing import Any

import requests
import urllib3

from .._core.deadline import Deadline
from ..models import errors
from .errors import connection_error, deadline_error, host_of, response_too_large, sent_credentials
from .failures import TRANSPORT_EXCEPTIONS, TransportFailure, classify
from .lease import Lease

_READ_SIZE = 64 * 1024
_MAX_SINGLE_READ = 8 * 1024 * 1024
_ERROR_BODY_LIMIT = 1024 * 1024
_DRAIN_SECONDS = 0.25
_CLOSED_CONCURRENTLY = (AttributeError, ValueError)
"""The exceptions that a read raises when the response is closed concurrently."""
_READ_ERRORS = (*TRANSPORT_EXCEPTIONS, *_CLOSED_CONCURRENTLY)


class ResponseBody:
    """A response with an unread body, its size limit and its deadline. It owns the response's connection."""

    def __init__(
        self, response: requests.Response, limit: int, deadline: Deadline | None = None, retries_taken: int = 0
    ) -> None:
        self.response = response
        self.limit = limit
        self.deadline = deadline
        self.retries_taken = retries_taken
        self.lease = Lease(response.raw, deadline)

    @property
    def content_type(self) -> str:
        """The media type with its parameters; empty when the server sent none."""
        return self.response.headers.get("Content-Type") or ""

    def close(self) -> None:
        """End the response early, from any thread, signal handler, finalizer or forked child; never raises."""
        self.lease.close()
        if not self.lease.is_ours and self.response.raw is not None:
            with contextlib.suppress(Exception):  # a response that urllib3 did not make
                self.response.close()

    def drain(self) -> None:
        """Read what follows the last event, for at most 0.25 s, so that the connection can serve another call."""
        if self.lease.acquire():
            try:
                self.lease.drain(_DRAIN_SECONDS)
            except _READ_ERRORS:
                self.lease.close()
            finally:
                self.lease.release()


def read_body(body: ResponseBody) -> bytes:
    """Read the whole body; `response.content` has it afterwards, too.

    Raises:
        errors.APIConnectionError: it was cut short, damaged, or late.
        errors.ResponseTooLargeError: it is larger than the limit.
    """
    response: Any = body.response
    if response._content is not False:
        return response.content or b""
    if not _can_read_in_one_call(body):
        return cache_content(response, b"".join(translate_failures(body, iter_bytes(body))))
    try:
        content = _read(body, response.raw.read, is_whole=True)
    except TransportFailure as failed:
        failure = failed
    else:
        return cache_content(response, content)
    raise connection_error(failure, host_of(response), body.deadline, response)


def cache_content(response: Any, content: bytes) -> bytes:
    """Store the body so that `response.content` returns it. (`response.content` itself reads 10 KiB at a time.)"""
    response._content = content
    response._content_consumed = True
    return content


def iter_bytes(body: ResponseBody) -> Iterator[bytes]:
    """Yield the body as it arrives, under any framing; end without an error when it is closed meanwhile.

    Raises:
        TransportFailure: it was cut short, damaged, or a read took too long; see `translate_failures`.
        errors.APITimeoutError: the deadline has expired.
        errors.ResponseTooLargeError: it is larger than the limit.
    """
    read = _reader(body.response)
    deadline, limit, total = body.deadline, body.limit, 0
    while True:
        if deadline is not None and deadline.expired and not body.lease.closed:
            body.close()
            raise deadline_error(host_of(body.response), deadline, body.response)
        data = _read(body, read)
        if not data:
            return
        total += len(data)
        if total > limit:
            body.close()
            raise response_too_large(body.response, limit)
        yield data


def translate_failures(body: ResponseBody, received: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what was received; a `TransportFailure` becomes an `errors.APIConnectionError`."""
    try:
        for data in received:  # noqa: UP028 (`yield from` would close `received` with this generator)
            yield data
        return
    except TransportFailure as failure:
        error = connection_error(failure, host_of(body.response), body.deadline, body.response)
    raise error  # outside of the except block, so that its __context__ stays empty


def read_error_body(body: ResponseBody) -> bytes:
    """Read up to 1 MiB of an error body and end the response. Never raises."""
    body.limit = min(body.limit, _ERROR_BODY_LIMIT)
    response: Any = body.response
    received: list[bytes] = []
    try:
        if response._content is not False:
            return response.content or b""
        for data in translate_failures(body, iter_bytes(body)):
            received.append(data)
    except errors.SDKError:
        pass
    finally:
        body.close()
    return cache_content(response, b"".join(received))


def _read(body: ResponseBody, read: Callable[[], bytes], *, is_whole: bool = False) -> bytes:
    """Read once while holding the lease; at the end of the body, return the connection to its pool.

    Args:
        body: the body to read from.
        read: returns the whole body (`is_whole`), or the bytes that have arrived, empty at the end.
        is_whole: whether `read` returns the whole body.

    Raises:
        TransportFailure: reading failed, and not because the body was closed concurrently.
    """
    lease = body.lease
    if not lease.acquire():
        return b""
    failure = None
    try:
        data = read()
        if is_whole or not data:
            lease.finish()
        return data
    except _READ_ERRORS as error:
        failure = None if lease.closed else _classify(body, error)
        body.close()
    except BaseException:
        body.close()  # interrupted: the read position in the response is unknown
        raise
    finally:
        lease.release()
    if failure is None:
        return b""
    try:
        raise failure
    finally:
        del failure


def _can_read_in_one_call(body: ResponseBody) -> bool:
    length = getattr(body.response.raw, "length_remaining", None)
    if length is None:
        return False
    if length > body.limit:
        body.close()
        raise response_too_large(body.response, body.limit)
    plain = "Content-Encoding" not in body.response.headers
    return plain and length <= _MAX_SINGLE_READ and body.deadline is None


def _reader(response: requests.Response) -> Callable[[], bytes]:
    """Return a function that returns available bytes without waiting for a full buffer."""
    raw = response.raw
    if response._content is not False or raw is None:  # a hook's own response, or one that a hook has read
        return partial(next, filter(None, (response.content,)), b"")
    if isinstance(raw, urllib3.BaseHTTPResponse):
        original = getattr(raw, "_original_response", None)  # urllib3 2.x; without it all is read through urllib3
        if isinstance(original, HTTPResponse) and original.chunked and "Content-Encoding" not in response.headers:
            return partial(original.read1, _READ_SIZE)
        return partial(raw.read1, _READ_SIZE, decode_content=True)
    return partial(next, chain(filter(None, response.iter_content(_READ_SIZE)), (b"",)), b"")


def _classify(body: ResponseBody, error: BaseException) -> TransportFailure:
    return classify(error, phase="read", secrets=sent_credentials(body.response))
