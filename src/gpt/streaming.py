"""From the bytes of a stream to completion chunks: its events, its errors, its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from .answer import Answer, drop, finish, iter_chunks, keep_body
from .models import errors
from .models.errors.describe import deadline_error, host_of, in_band_error, interrupted, unreadable
from .models.shared import CreateCompletionResponse
from .models.shared.collecting import collect
from .reading import as_completion, read_completion
from .utils import codec, sse
from .utils.eventstreaming import EventStream, Progress

_DONE = b"[DONE]"


def open_stream(answer: Answer) -> EventStream[CreateCompletionResponse]:
    """Make the stream of an answer to a request with `stream=True`, whatever the server sent.

    Raises:
        errors.SDKError: the answer is no stream but an error, a page, or nothing that can be read.
    """
    progress = Progress()
    chunks = iter_chunks(answer)
    events: Iterator[CreateCompletionResponse]
    if "text/event-stream" in answer.content_type.lower():
        events = _read(answer, chunks, progress)
    else:
        # Some servers mislabel their streams, some answer with plain JSON: the first bytes tell.
        head = next((chunk for chunk in chunks if chunk.strip()), b"")
        if _looks_like_events(head):
            events = _read(answer, chain((head,), chunks), progress)
        else:
            body = keep_body(answer.response, head + b"".join(chunks))
            events = _only(read_completion(answer.response, body), body, progress)
    return EventStream(answer.response, events, progress, collect=_collect, close=drop)


def _looks_like_events(head: bytes) -> bool:
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith((b"data", b"event", b":", b"id", b"retry", b"error"))


def _only(completion: CreateCompletionResponse, body: bytes, progress: Progress) -> Iterator[CreateCompletionResponse]:
    progress.events.append(body)
    progress.completed = True
    yield completion


def _collect(events: Iterable[bytes]) -> CreateCompletionResponse:
    return collect(codec.decode(CreateCompletionResponse, codec.loads(data)) for data in events)


def _read(answer: Answer, chunks: Iterable[bytes], progress: Progress) -> Iterator[CreateCompletionResponse]:
    """Yield the completions of a stream; whatever goes wrong carries what had come."""
    problem: errors.SDKError
    try:
        yield from _completions(answer, chunks, progress)
        return
    except errors.APITimeoutError as error:
        problem = error
    except errors.APIConnectionError as error:
        problem = interrupted(answer.response, "broke off", error._failure)
    except errors.SDKError as error:
        problem = error
    finally:
        if not progress.completed:
            drop(answer.response)
    problem.partial = _collect(progress.events)
    raise problem


def _completions(answer: Answer, chunks: Iterable[bytes], progress: Progress) -> Iterator[CreateCompletionResponse]:
    response, deadline, seen = answer.response, answer.deadline, progress.events
    decoder = sse.Decoder()
    for chunk in chunks:
        for event in decoder.feed(chunk):
            data = event.data
            if data == _DONE or data.strip() == _DONE:
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
        if not event.data.strip():
            return None
        if event.name == "error":
            raise in_band_error(response, None, event.data.decode("utf-8", "replace")) from None
        raise unreadable(response, event.data, "an event of the stream is not JSON") from error
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
            raise interrupted(response, "ended inside an event")
        completion = _read_event(response, event)
        if completion is not None:
            progress.events.append(event.data)
            yield completion
    if not _is_finished(progress.events):
        raise interrupted(response, "ended without [DONE] before every choice was finished")
    progress.completed = True


def _is_json(data: bytes) -> bool:
    try:
        codec.loads(data)
    except ValueError:
        return False
    return True


def _is_finished(events: Iterable[bytes]) -> bool:
    """Tell whether at least one choice was seen and every seen choice has a finish reason."""
    finished: dict[object, bool] = {}
    for data in events:
        for position, choice in enumerate(codec.loads(data)["choices"]):
            index = choice.get("index", position)
            finished[index] = finished.get(index, False) or bool(choice.get("finish_reason"))
    return bool(finished) and all(finished.values())
