"""From the bytes of a stream to completion chunks: its events, its errors, its end."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from itertools import chain
from typing import Any

from .._core import codec, sse
from .._http.body import ResponseBody, drop, finish, iter_raw_chunks, keep_body, translated
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
from ..utils.eventstreaming import EventStream, Progress
from .accumulate import collect
from .completion import as_completion, read_completion

_DONE = b"[DONE]"
_LONGEST_DONE = 64
_BEGINS_EVENTS = re.compile(rb"(\xef\xbb\xbf)?\s*(data|event|id|retry|error)?:")
_MAY_BEGIN_EVENTS = re.compile(rb"(\xef|\xef\xbb|\xef\xbb\xbf\s*)?[adeinorty]{0,5}")
_NO_EVENTS = (b"{", b"[", b"<")


def open_stream(answer: ResponseBody) -> EventStream[CreateCompletionResponse]:
    """Make the stream of an answer to a request with `stream=True`, whatever the server sent.

    Raises:
        errors.SDKError: the answer is no stream but an error, a page, or nothing that can be read.
    """
    progress = Progress()
    chunks = iter_raw_chunks(answer)
    events: Generator[CreateCompletionResponse, None, None]
    if "text/event-stream" in answer.content_type.lower():
        events = _read(answer, chunks, progress)
    else:
        # Some servers mislabel their streams, some answer with plain JSON: the first bytes tell.
        head = _head(translated(answer, chunks))
        if _BEGINS_EVENTS.match(head):
            events = _read(answer, chain((head,), chunks), progress)
        else:
            body = keep_body(answer.response, head + b"".join(translated(answer, chunks)))
            events = _only(read_completion(answer.response, body), body, progress)
    return EventStream(answer.response, events, progress, collect=_collect, close=lambda _: drop(answer))


def _head(chunks: Iterator[bytes]) -> bytes:
    """Take from the beginning what is enough to tell a stream from other bodies."""
    head = b""
    for chunk in chunks:
        head = (head + chunk).lstrip()
        if head and not _MAY_BEGIN_EVENTS.fullmatch(head):
            break
    return head


def _only(
    completion: CreateCompletionResponse, body: bytes, progress: Progress
) -> Generator[CreateCompletionResponse, None, None]:
    progress.events.append(body)
    progress.completed = True
    yield completion


def _collect(events: Iterable[bytes]) -> CreateCompletionResponse:
    return collect(codec.decode(CreateCompletionResponse, codec.loads(data)) for data in events)


def _read(
    answer: ResponseBody, chunks: Iterable[bytes], progress: Progress
) -> Generator[CreateCompletionResponse, None, None]:
    """Yield the completions of a stream; whatever goes wrong carries what had come."""
    problem: errors.SDKError
    try:
        yield from _completions(answer, chunks, progress)
        return
    except TransportFailure as failure:
        if failure.kind == "timeout":
            problem = connection_error(failure, host_of(answer.response), answer.deadline, answer.response)
        else:
            problem = stream_interrupted(answer.response, "broke off", failure)
    except errors.SDKError as error:
        problem = error
    finally:
        if not progress.completed:
            drop(answer)
    problem.partial = _collect(progress.events)
    try:
        raise problem
    finally:
        del problem  # it holds this frame


def _completions(
    answer: ResponseBody, chunks: Iterable[bytes], progress: Progress
) -> Iterator[CreateCompletionResponse]:
    response, deadline, seen = answer.response, answer.deadline, progress.events
    decoder = sse.Decoder()
    chunks = iter(chunks)
    first = next(chunks, b"")
    if first.lstrip().startswith(_NO_EVENTS):
        # JSON or a page, called a stream.
        body = keep_body(response, first + b"".join(chunks))
        yield from _only(read_completion(response, body), body, progress)
        return
    for chunk in chain((first,), chunks):
        for event in decoder.feed(chunk):
            data = event.data
            if len(data) < _LONGEST_DONE and data.strip() == _DONE:
                progress.completed = True
                finish(answer)
                return
            completion = _read_event(response, event)
            if completion is None:
                continue
            seen.append(data)
            yield completion
            if deadline is not None and deadline.expired:
                raise deadline_error(host_of(response), deadline, response)
    yield from _last(response, decoder.end(), progress)


def _read_event(response: Any, event: sse.Event) -> CreateCompletionResponse | None:
    """Read one event; `None` for one that says nothing."""
    try:
        data = codec.loads(event.data)
    except ValueError as error:
        if not event.data.strip() or (event.name not in ("message", "error") and event.data[:1] != b"{"):
            return None  # nothing, or news of another kind
        if event.name == "error":
            raise in_band_error(response, None, event.data.decode("utf-8", "replace")) from None
        raise invalid_response(response, event.data, "an event of the stream is not JSON") from error
    if event.name != "message":
        if event.name == "error":
            raise in_band_error(response, data, event.data.decode("utf-8", "replace"))
        if not isinstance(data, dict) or not ("choices" in data or "error" in data):
            return None  # a ping, or news of another kind
    return as_completion(response, data, event.data)


def _last(response: Any, event: sse.Event | None, progress: Progress) -> Iterator[CreateCompletionResponse]:
    """Deal with the end of input: an event without its last blank line, then the question whether all is there."""
    if event is not None and event.data.strip() == _DONE:
        progress.completed = True
        return
    if event is not None and event.data.strip():
        if not _is_json(event.data):
            raise stream_interrupted(response, "ended inside an event")
        completion = _read_event(response, event)
        if completion is not None:
            progress.events.append(event.data)
            yield completion
    if not _is_finished(progress.events):
        early = "before every choice was finished" if progress.events else "before its first event"
        raise stream_interrupted(response, f"ended without [DONE] {early}")
    progress.completed = True


def _is_json(data: bytes) -> bool:
    try:
        codec.loads(data)
    except ValueError:
        return False
    return True


def _is_finished(events: Iterable[bytes]) -> bool:
    """Tell whether at least one choice was seen and every seen choice has a finish reason."""
    finished: dict[int, bool] = {}
    for data in events:
        for position, choice in enumerate(codec.loads(data)["choices"]):
            index = choice.get("index")
            if type(index) is not int:
                index = position
            finished[index] = finished.get(index, False) or bool(choice.get("finish_reason"))
    return bool(finished) and all(finished.values())
