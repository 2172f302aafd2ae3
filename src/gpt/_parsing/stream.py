"""Streams: from bytes to events to completions, with the errors and the end of a stream."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from itertools import chain

import requests

from .._core import codec, sse
from .._http.body import ResponseBody, cache_content, iter_bytes, translate_failures
from .._http.errors import (
    connection_error,
    deadline_error,
    host_of,
    in_band_error,
    invalid_response,
    stream_interrupted,
)
from .._http.failures import TransportFailure
from ..models import errors
from ..models.shared import CreateCompletionResponse
from ..utils.eventstreaming import EventStream
from .accumulate import accumulate
from .completion import read_completion, to_completion

_DONE = b"[DONE]"
_MAX_DONE_LENGTH = 64
_BOM = b"\xef\xbb\xbf"
_SSE_START = re.compile(rb"(data|event|id|retry|error)?:")
_SSE_START_PREFIX = re.compile(rb"[adeinortvy]{0,5}")
_NOT_SSE = (b"{", b"[", b"<")

_Completions = Generator[tuple[bytes, CreateCompletionResponse], None, bool]
"""Each event as received and as a completion; returns whether every choice that was seen is finished."""


def open_stream(body: ResponseBody) -> EventStream[CreateCompletionResponse]:
    """Return the stream of a response to a request with `stream=True`, whatever the server sent.

    Raises:
        errors.SDKError: the response is neither a stream nor a completion, but an error, a page, or unreadable.
    """
    try:
        completions = _open(body)
    except errors.SDKError as error:
        body.close()
        error.partial = _accumulate_events([])
        raise
    return EventStream(body.response, completions, accumulate=_accumulate_events, abort=body.close)


def _open(body: ResponseBody) -> _Completions:
    """Read the body as a stream or as a single completion: by its content type, else by its first bytes."""
    received = iter_bytes(body)
    if "text/event-stream" in body.content_type.lower():
        return _interruptible(body, _from_labelled(body, received))  # reads nothing yet: the first event may be late
    head = _peek(translate_failures(body, received))
    if _SSE_START.match(head):
        return _interruptible(body, _from_events(body, chain((head,), received)))
    return _from_whole(body, chain((head,), translate_failures(body, received)))


def _peek(received: Iterator[bytes]) -> bytes:
    """Read enough of the beginning to tell a stream from other bodies; drop a byte-order mark and white space.

    White space is dropped as it arrives: scanning all of it again with each read would take quadratic time.
    """
    head, may_be_mark = b"", True
    for data in received:
        head += data
        if may_be_mark and len(head) < len(_BOM) and _BOM.startswith(head):
            continue
        if may_be_mark and head.lstrip().startswith(_BOM):
            head = head.lstrip().removeprefix(_BOM)
        head = head.lstrip()
        may_be_mark = may_be_mark and not head
        if head and not _SSE_START_PREFIX.fullmatch(head):
            break
    return head


def _from_whole(body: ResponseBody, received: Iterable[bytes]) -> _Completions:
    """Read a single completion that was sent in place of a stream."""
    content = cache_content(body.response, b"".join(received))
    return _single(content, read_completion(body.response, content))


def _single(content: bytes, completion: CreateCompletionResponse) -> _Completions:
    yield content, completion
    return True


def _from_labelled(body: ResponseBody, received: Iterator[bytes]) -> _Completions:
    """Read a response whose content type says that it is a stream, although it may be JSON or HTML."""
    first = next(received, b"")
    read = _from_whole if first.lstrip().startswith(_NOT_SSE) else _from_events
    return (yield from read(body, chain((first,), received)))


def _interruptible(body: ResponseBody, completions: _Completions) -> _Completions:
    """Yield completions; raise a `TransportFailure` as a `StreamInterruptedError` or an `APITimeoutError`."""
    error: errors.SDKError
    try:
        return (yield from completions)
    except TransportFailure as failure:
        if failure.kind == "timeout":
            error = connection_error(failure, host_of(body.response), body.deadline, body.response)
        else:
            error = stream_interrupted(body.response, "broke off", failure)
    try:
        raise error  # outside of the except block, so that its __context__ stays empty
    finally:
        del error  # it holds this frame


def _from_events(body: ResponseBody, received: Iterable[bytes]) -> _Completions:
    """Turn the bytes of a stream into completions, until `[DONE]` or the end of the input.

    Raises:
        errors.StreamInterruptedError: the input ended while a choice was unfinished.
        errors.APITimeoutError: the deadline expired.
        errors.SDKError: an event reports an error, or cannot be read.
    """
    response, deadline = body.response, body.deadline
    finished: dict[int, bool] = {}
    seen = False
    for event in _events(received):
        data = event.data
        if len(data) < _MAX_DONE_LENGTH and data.strip() == _DONE:
            body.drain()
            return all(finished.values())
        if not event.is_complete and data.strip() and not _is_json(data):
            raise stream_interrupted(response, "ended inside an event")
        completion = _read_event(response, event)
        if deadline is not None and deadline.expired:
            raise deadline_error(host_of(response), deadline, response)
        if completion is None:
            continue
        seen = True
        _note_finished(completion, finished)
        yield data, completion
    if not finished or not all(finished.values()):
        early = "before every choice was finished" if seen else "before its first event"
        raise stream_interrupted(response, f"ended without [DONE] {early}")
    return True


def _events(received: Iterable[bytes]) -> Iterator[sse.Event]:
    """Decode events, including one left unfinished at the end of the input."""
    decoder = sse.Decoder()
    for data in received:
        yield from decoder.feed(data)
    if (event := decoder.end()) is not None:
        yield event


def _is_json(data: bytes) -> bool:
    try:
        codec.loads(data)
    except ValueError:
        return False
    return True


def _read_event(response: requests.Response, event: sse.Event) -> CreateCompletionResponse | None:
    """Read one event; `None` for one without content."""
    try:
        data = codec.loads(event.data)
    except ValueError as error:
        if not event.data.strip() or (event.name not in ("message", "error") and event.data[:1] != b"{"):
            return None  # empty, or an unrelated event
        if event.name == "error":
            raise in_band_error(response, None, event.data.decode("utf-8", "replace")) from None
        raise invalid_response(response, event.data, "an event of the stream is not JSON") from error
    if event.name == "error":
        raise in_band_error(response, data, event.data.decode("utf-8", "replace"))
    if data is None:
        return None  # llama.cpp sends these between the choices of several prompts
    if event.name != "message" and not (isinstance(data, dict) and ("choices" in data or "error" in data)):
        return None  # a ping, or an unrelated event
    return to_completion(response, data, event.data)


def _note_finished(completion: CreateCompletionResponse, finished: dict[int, bool]) -> None:
    for position, choice in enumerate(completion.choices):
        index = choice.index if type(choice.index) is int else position
        finished[index] = bool(choice.finish_reason) or finished.get(index, False)


def _accumulate_events(received: Iterable[bytes]) -> CreateCompletionResponse:
    return accumulate(codec.decode(CreateCompletionResponse, codec.loads(data)) for data in received)
