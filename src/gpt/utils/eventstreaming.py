"""A stream of decoded events that a caller iterates, collects or closes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Progress:
    """What a stream has brought so far, shared between the generator that reads it and the `EventStream`."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        """The data of each event that was yielded, as received."""
        self.completed = False
        """Whether the end came as it should."""


class EventStream(Generic[T]):
    """An iterator over the events of a stream; also a context manager.

    Events come as the server sends them. Leaving a `for` loop or a `with` block early, or `close()` (from any
    thread), drops the connection; a stream that ended gives it back for the next call. To take a few events and go
    on later, use `next()`. Every error out of the iteration has `.partial`, what had come until then.
    """

    response: Any
    """The `requests.Response` underneath."""

    def __init__(
        self,
        response: Any,
        events: Generator[T, None, None],
        progress: Progress,
        *,
        collect: Callable[[list[bytes]], T],
        close: Callable[[Any], None],
    ) -> None:
        self.response = response
        self._events = events
        self._progress = progress
        self._collect = collect
        self._close = close
        self._closed = False

    @property
    def completed(self) -> bool:
        """Whether the stream came to its proper end."""
        return self._progress.completed

    def __iter__(self) -> Iterator[T]:
        try:
            yield from self._events
        except Exception:
            if not self._closed:
                raise
        finally:
            self.close()

    def __next__(self) -> T:
        try:
            return next(self._events)
        except StopIteration:
            raise
        except Exception:
            if self._closed:
                raise StopIteration from None
            raise

    def collect(self) -> T:
        """Read the rest and join everything, what was already iterated included, into one answer.

        Of a stream that was left early this is what had come; `completed` tells.
        """
        for _ in self:
            pass
        return self._collect(self._progress.events)

    def close(self) -> None:
        """End the stream early; does nothing when it has ended. May be called from any thread, and again."""
        if not self._closed:
            self._closed = True
            if not self._progress.completed:
                self._close(self.response)
            try:
                self._events.close()
            except ValueError:
                pass  # another thread is inside; the lost connection ends its iteration

    def __enter__(self) -> EventStream[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "completed" if self.completed else "closed" if self._closed else "open"
        return f"<EventStream {state}, {len(self._progress.events)} events>"
