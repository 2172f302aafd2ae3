"""A stream of decoded events that a caller iterates, collects or closes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Generic, TypeVar

import requests

T = TypeVar("T")


class EventStream(Generic[T]):
    """An iterator over the events of a stream; also a context manager.

    Events arrive as the server sends them. Leaving a `for` loop keeps the stream open; another loop, `next()` or
    `itertools` continues where it stopped. The end of a `with` block, `close()` (from any thread) and the garbage
    collector close the stream and its connection; a stream that was read to its end returns the connection for the
    next call. Every `errors.SDKError` raised during iteration has `.partial`, with everything received until then.
    """

    response: requests.Response
    """The HTTP response underneath."""

    completed: bool
    """Whether the stream ended properly and every choice in it was finished."""

    def __init__(
        self,
        response: requests.Response,
        events: Generator[tuple[bytes, T], None, bool],
        *,
        accumulate: Callable[[list[bytes]], T],
        abort: Callable[[], None],
    ) -> None:
        """Make a stream.

        Args:
            response: the HTTP response.
            events: each event as received and decoded; returns whether everything in it was finished.
            accumulate: joins received events into one.
            abort: ends the response; it may be called repeatedly, at any time and from anywhere.
        """
        self.response = response
        self.completed = False
        self._events = events
        self._accumulate = accumulate
        self._abort = abort
        # Not `__del__`: in a reference cycle the socket's own would run first, and warn that it was not closed.
        weakref.finalize(self, abort).atexit = False
        self._received: list[bytes] = []
        self._closed = False
        self._ended = False

    def __iter__(self) -> EventStream[T]:
        return self

    def __next__(self) -> T:
        if self._closed or self._ended:
            raise StopIteration
        if getattr(self._events, "gi_running", False):
            raise ValueError("this stream is being read by another thread")
        try:
            data, event = next(self._events)
            self._received.append(data)
        except StopIteration as end:
            self._ended = True
            self.completed = bool(end.value)
            raise StopIteration from None
        except Exception as error:
            if self._closed:  # by another thread, which is not an error
                raise StopIteration from None
            self._end()
            if hasattr(error, "partial"):
                setattr(error, "partial", self._accumulate(self._received))  # noqa: B010 (this layer knows no errors)
            raise
        except BaseException:
            self._end()
            raise
        return event

    def collect(self) -> T:
        """Read the rest and join all events, including those already iterated, into one.

        If the stream was closed early, the result has what was received until then; see `completed`.
        """
        for _ in self:
            pass
        return self._accumulate(self._received)

    def close(self) -> None:
        """Close the stream early; do nothing if it has ended.

        Returns at once and never raises. May be called repeatedly, and from another thread, a signal handler, a
        finalizer or a forked child. A loop over the stream in another thread then ends without an error.
        """
        if not self._ended:
            self._closed = True
            self._abort()

    def _end(self) -> None:
        self._ended = True
        self._abort()

    def __enter__(self) -> EventStream[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "completed" if self.completed else "closed" if self._closed else "ended" if self._ended else "open"
        return f"<EventStream {state}, {len(self._received)} events>"
