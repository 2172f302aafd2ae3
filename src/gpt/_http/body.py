"""Reading the bodies of answers: whole or as they arrive, in bounded memory, with failures translated."""

from __future__ import annotations

import os
import socket
import time
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

_READ_SIZE = 64 * 1024
_READ_AT_ONCE = 8 * 1024 * 1024
_ERROR_BODY_LIMIT = 1024 * 1024
_DRAIN_SECONDS = 0.25
_CLOSED_MEANWHILE = (AttributeError, ValueError)
"""What reading raises when another thread closes the answer."""
_ANY = (*TRANSPORT_EXCEPTIONS, *_CLOSED_MEANWHILE)


class ResponseBody:
    """An answer whose body is still unread, and what is needed to read it, such as how many bytes it may have."""

    def __init__(
        self, response: requests.Response, limit: int, deadline: Deadline | None = None, retries_taken: int = 0
    ) -> None:
        self.response = response
        self.limit = limit
        self.deadline = deadline
        self.retries_taken = retries_taken
        self.process = os.getpid()

    @property
    def content_type(self) -> str:
        """The media type with its parameters; empty when the server sent none."""
        return self.response.headers.get("Content-Type") or ""


def read_body(answer: ResponseBody) -> bytes:
    """Read the whole body; `response.content` has it afterwards, too.

    Raises:
        errors.APIConnectionError: it was cut short, damaged, or late.
        errors.ResponseTooLargeError: it is larger than the limit.
    """
    response: Any = answer.response
    if response._content is not False:
        return response.content or b""
    if _fits_at_once(answer):
        body = _translated(answer, response.raw.read)
    else:
        body = b"".join(iter_chunks(answer))
    return keep_body(response, body)


def keep_body(response: Any, body: bytes) -> bytes:
    """Leave a body that was read where `response.content` finds it; reading through that is several times slower."""
    response._content = body
    response._content_consumed = True
    return body


def iter_chunks(answer: ResponseBody) -> Iterator[bytes]:
    """Yield the body as it arrives, under any framing.

    Raises:
        errors.APIConnectionError: it was cut short, damaged, or late.
        errors.ResponseTooLargeError: it is larger than the limit.
    """
    return translated(answer, iter_raw_chunks(answer))


def translated(answer: ResponseBody, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield chunks; a `TransportFailure` becomes its public error."""
    try:
        for chunk in chunks:  # noqa: UP028 (`yield from` would close `chunks` with this generator)
            yield chunk
        return
    except TransportFailure as failure:
        error = connection_error(failure, host_of(answer.response), answer.deadline, answer.response)
    raise error  # outside of the except block: nothing hangs on its __context__


def iter_raw_chunks(answer: ResponseBody) -> Iterator[bytes]:
    """Yield the body as it arrives, under any framing, for a caller that translates failures itself.

    Raises:
        TransportFailure: it was cut short, damaged, or a read took too long.
        errors.APITimeoutError: the deadline has expired.
        errors.ResponseTooLargeError: it is larger than the limit.
    """
    read = _reader(answer.response)
    deadline, limit, total = answer.deadline, answer.limit, 0
    while True:
        if deadline is not None and deadline.expired:
            release(answer.response)
            raise deadline_error(host_of(answer.response), deadline, answer.response)
        chunk, failure = b"", None
        try:
            chunk = read()
        except _ANY as error:
            failure = _classify(answer, error)
        if failure is not None:
            release(answer.response)
            raise failure
        if not chunk:
            return
        total += len(chunk)
        if total > limit:
            release(answer.response)
            raise response_too_large(answer.response, limit)
        yield chunk


def read_error_body(answer: ResponseBody) -> bytes:
    """Read as much of an error's body as is worth reading, then let go of the connection; never raises."""
    answer.limit = min(answer.limit, _ERROR_BODY_LIMIT)
    response: Any = answer.response
    body: list[bytes] = []
    try:
        if response._content is not False:
            return response.content or b""
        for chunk in iter_chunks(answer):
            body.append(chunk)
    except errors.SDKError:
        pass
    finally:
        release(answer.response)
    return keep_body(response, b"".join(body))


def finish(answer: ResponseBody) -> None:
    """After the last event: read the rest, if it comes at once, so that the connection can be used again."""
    raw = answer.response.raw
    sock = _reusable_socket(answer.response)
    if sock is None:
        release(answer.response)
        return
    end = time.monotonic() + _DRAIN_SECONDS
    if answer.deadline is not None:
        answer.deadline.shorten(_DRAIN_SECONDS)
    try:
        while (left := end - time.monotonic()) > 0:
            sock.settimeout(left)
            if not raw.read1(_READ_SIZE, decode_content=True):
                return
    except _ANY:
        pass
    release(answer.response)


def release(response: requests.Response) -> None:
    """Close an answer; one that a hook made without a network has nothing to close."""
    if response.raw is not None:
        response.close()


def drop(answer: ResponseBody) -> None:
    """End an answer that is still coming; wakes a thread that is waiting for more of it.

    In a process that was forked meanwhile the connection is the parent's: there it is only let go of.
    """
    sock = _socket(answer.response)
    if sock is not None and answer.process == os.getpid():
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
    release(answer.response)


def _fits_at_once(answer: ResponseBody) -> bool:
    raw = answer.response.raw
    length = getattr(raw, "length_remaining", None)
    if length is None:
        return False
    if length > answer.limit:
        release(answer.response)
        raise response_too_large(answer.response, answer.limit)
    plain = "Content-Encoding" not in answer.response.headers
    return plain and length <= _READ_AT_ONCE and answer.deadline is None


def _reader(response: requests.Response) -> Callable[[], bytes]:
    """Find the way to read what has arrived: `read1` holds nothing back, whatever frames the body."""
    raw = response.raw
    if response._content is not False or raw is None:  # a hook's own answer, or one that a hook has read
        return partial(next, filter(None, (response.content,)), b"")
    if isinstance(raw, urllib3.BaseHTTPResponse):
        read = partial(raw.read1, _READ_SIZE, decode_content=True)
        below = getattr(raw, "_original_response", None)
        if not (isinstance(below, HTTPResponse) and below.chunked) or "Content-Encoding" in response.headers:
            return read
        # Chunks that are not compressed need nothing of urllib3 but the end, where it takes the connection back.
        return partial(next, chain(iter(partial(below.read1, _READ_SIZE), b""), iter(read, b"")), b"")
    pieces = filter(None, response.iter_content(_READ_SIZE))
    return partial(next, pieces, b"")


def _translated(answer: ResponseBody, read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except _ANY as error:
        failure = _classify(answer, error)
    release(answer.response)
    raise connection_error(failure, host_of(answer.response), answer.deadline, answer.response)


def _classify(answer: ResponseBody, error: BaseException) -> TransportFailure:
    return classify(error, phase="read", secrets=sent_credentials(answer.response))


def _socket(response: requests.Response) -> socket.socket | None:
    """Find the socket, in its connection or, when the answer ends with that, in the answer's own file."""
    file = getattr(getattr(response.raw, "_fp", None), "fp", None)
    return _reusable_socket(response) or getattr(getattr(file, "raw", None), "_sock", None)


def _reusable_socket(response: requests.Response) -> socket.socket | None:
    connection = getattr(response.raw, "connection", None)
    return getattr(connection, "sock", None)
