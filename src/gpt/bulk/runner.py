"""The side of a run that is with the caller: it feeds an executor and hands out what comes back."""

from __future__ import annotations

import pickle
import queue
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from .._core import codec
from ..models.shared import CreateCompletionRequest
from ..sdk import Gpt
from .outcome import Outcome
from .threads import Threads
from .throttle import Gate
from .worker import Reply, ask, ask_from_afar, pack

Tag = TypeVar("Tag")


def run(
    s: Gpt,
    requests: Iterable[CreateCompletionRequest],
    *,
    executor: Executor | None = None,
    max_workers: int = 16,
    window: int | None = None,
) -> Iterator[Outcome]:
    """Send many requests and give their outcomes as they complete, in whatever order that is.

    Requests are pulled only as fast as outcomes are taken, so any number of them fits into memory. What goes wrong
    with one request is its outcome and never the end of the run. A 429 that names a wait holds back the whole run, and
    the request is asked again (for as long as the client's `RetryConfig` allows in `max_elapsed_time`).

    When `requests` raises, no more are pulled, the outcomes in flight still come, and then the exception does. So it
    is with Ctrl-C, except that what has not been started is dropped; a second Ctrl-C, or closing the iterator, leaves
    at once.

    Args:
        s: the client. For workers in other processes it travels by pickle, without keys: they come from the
            workers' `OPENAI_API_KEY` or from a function given as `security`.
        requests: any iterable, a generator of millions too; with `stream=True` the outcome is a `ValueError`.
        executor: any `concurrent.futures.Executor`, yours to close; all but a `ThreadPoolExecutor` are taken to work in
            other processes. Without it, threads that end with the run.
        max_workers: how many requests run at a time on our own threads.
        window: how many requests are in flight or queued at most; by default twice `max_workers`.

    Raises:
        TypeError, ValueError: an option cannot be used as it is, or the client holds a key and cannot travel.
        Exception: from the iterator: what `requests` or the executor raised, such as `BrokenProcessPool`.
    """
    numbered = ((index, request) for index, request in enumerate(requests))
    return _outcomes(Run(s, numbered, executor=executor, max_workers=max_workers, window=window))


def _outcomes(pending: Run[int]) -> Iterator[Outcome]:
    for task, reply in pending:
        yield Outcome(
            index=task.tag,
            request=task.request,
            response=reply.response,
            error=reply.error,
            status_code=reply.status_code,
            request_id=reply.request_id,
        )


@dataclass(slots=True)
class Task(Generic[Tag]):
    """One request under way, with the caller's own mark on it."""

    tag: Tag
    request: CreateCompletionRequest
    started: float = 0.0


class Run(Generic[Tag]):
    """One pass over a source of `(tag, request)`. Iterate it once."""

    def __init__(
        self,
        s: Gpt,
        source: Iterable[tuple[Tag, CreateCompletionRequest]],
        *,
        executor: Executor | None = None,
        max_workers: int = 16,
        window: int | None = None,
        bodies: bool = False,
    ) -> None:
        if not isinstance(s, Gpt):
            raise TypeError(f"s: expected a gpt.Gpt, got {type(s).__name__}")
        self._source = iter(source)
        _check_count("max_workers", max_workers)
        self._window = 2 * max_workers if window is None else window
        _check_count("window", self._window)
        self._retries = s.sdk_configuration.retry_config
        self._longest = self._retries.backoff.max_elapsed_time / 1000
        self._gate = Gate(self._longest)
        self._client = _gated(s, self._gate)
        self._bodies = bodies
        self._own = executor is None
        self._executor = Threads(max_workers) if executor is None else executor
        near = isinstance(self._executor, Threads | ThreadPoolExecutor)
        self._packed = b"" if near else pack(self._client, self._gate)
        self._under_way: dict[Future[Reply], Task[Tag]] = {}
        self._done: queue.SimpleQueue[Future[Reply] | None] = queue.SimpleQueue()
        self._again: deque[Task[Tag]] = deque()
        self._refused: deque[tuple[Task[Tag], Reply]] = deque()
        self._exhausted = False
        self._pulling = False
        self._interrupted = False
        self._problem: BaseException | None = None

    def interrupt(self) -> None:
        """Stop as Ctrl-C does, at the next step; for a signal handler, which may not do more.

        Raises:
            KeyboardInterrupt: the source is being read, which may take for ever.
        """
        if self._pulling:
            raise KeyboardInterrupt
        self._interrupted = True
        self._done.put(None)

    def __iter__(self) -> Generator[tuple[Task[Tag], Reply], None, None]:
        try:
            yield from self._replies()
            if self._problem is not None:
                raise self._problem
        finally:
            self._close()

    def _replies(self) -> Iterator[tuple[Task[Tag], Reply]]:
        while not self._finished:
            try:
                found = self._step()
            except KeyboardInterrupt as interrupt:
                self._stop(interrupt)
            else:
                if found is not None:
                    yield found

    @property
    def _finished(self) -> bool:
        return self._exhausted and not (self._under_way or self._again or self._refused)

    def _step(self) -> tuple[Task[Tag], Reply] | None:
        """Feed the executor, wait for something to happen, and give a reply if that is what it was."""
        if self._interrupted and not self._stopped:
            self._stop(KeyboardInterrupt())
        self._feed()
        if self._refused:
            return self._refused.popleft()
        if self._finished:
            return None
        future = self._next_done()
        task = self._under_way.pop(future, None) if future is not None else None
        return self._judge(task, future) if future is not None and task is not None else None

    def _feed(self) -> None:
        """Submit until the window is full, unless there is something to hand out or the gate is closed."""
        while len(self._under_way) < self._window and not self._refused and not self._gate.remaining():
            if self._again:
                self._submit(self._again.popleft())
            elif self._exhausted or not self._done.empty():
                return
            else:
                self._pull()

    def _pull(self) -> None:
        """Take one request from the source; its end, good or bad, is the end of pulling."""
        self._pulling = True
        try:
            tag, request = next(self._source)
        except StopIteration:
            self._exhausted = True
            return
        except Exception as error:
            self._exhausted = True
            self._problem = error
            return
        finally:
            self._pulling = False
        task = Task(tag, request, time.monotonic())
        try:
            _refuse_streams(request)
            self._submit(task)
        except _Refused as refusal:
            self._refused.append((task, Reply(error=refusal.reason)))

    def _submit(self, task: Task[Tag]) -> None:
        if self._packed:
            request = _pickled(task.request)
            future = self._executor.submit(ask_from_afar, self._packed, request, bodies=self._bodies)
        else:
            future = self._executor.submit(ask, self._client, self._gate, task.request, bodies=self._bodies)
        self._under_way[future] = task
        future.add_done_callback(self._done.put)

    def _next_done(self) -> Future[Reply] | None:
        """Wait for a call to end, or for the gate to open when something waits behind it."""
        if self._stopped:  # an interrupt may have come just when something was taken from the queue
            return next(iter(wait(self._under_way, return_when=FIRST_COMPLETED).done), None)
        waiting = self._again or not self._exhausted
        seconds = self._gate.remaining() if waiting and len(self._under_way) < self._window else 0
        try:
            return self._done.get(timeout=seconds if seconds or not self._under_way else None)
        except queue.Empty:
            return None

    def _judge(self, task: Task[Tag], future: Future[Reply]) -> tuple[Task[Tag], Reply] | None:
        """Hand out a reply, unless the server wants it asked for again; what the executor itself raises is raised."""
        problem = CancelledError() if future.cancelled() else future.exception()
        if problem is not None:
            if self._stopped:  # Ctrl-C reaches worker processes too, and cuts them off
                return None
            raise problem
        reply = future.result()
        if reply.held is None or not self._may_ask_again(task, reply.held):
            return task, reply
        if self._packed:
            self._gate.hold(reply.held)
        self._again.append(task)
        return None

    def _may_ask_again(self, task: Task[Tag], seconds: float) -> bool:
        if self._stopped:
            return False
        return self._retries.limit > 0 and time.monotonic() - task.started + seconds <= self._longest

    @property
    def _stopped(self) -> bool:
        return isinstance(self._problem, KeyboardInterrupt)

    def _stop(self, interrupt: KeyboardInterrupt) -> None:
        """Start nothing more; the second time, leave."""
        if self._stopped:
            raise interrupt
        self._problem = interrupt
        self._exhausted = True
        self._again.clear()
        self._gate.stop()
        for future in list(self._under_way):
            if future.cancel():
                self._under_way.pop(future, None)

    def _close(self) -> None:
        unfinished = bool(self._under_way)
        self._gate.stop()
        for future in self._under_way:
            future.cancel()
        self._under_way.clear()
        if self._own:
            self._executor.shutdown(wait=not unfinished)
        self._client.close()


class _Refused(Exception):
    """A request that is not sent at all."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _refuse_streams(request: Any) -> None:
    if isinstance(request, CreateCompletionRequest) and codec.to_payload(request).get("stream"):
        raise _Refused(ValueError("stream: a run has whole answers only; leave stream=True out"))


def _pickled(request: CreateCompletionRequest) -> bytes:
    try:
        return pickle.dumps(request)
    except Exception as error:
        raise _Refused(error) from None


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")


def _gated(s: Gpt, gate: Gate) -> Gpt:
    """Make a client of the run's own, with connections of its own, that passes the gate before every attempt."""
    configuration = s.sdk_configuration
    return type(s).from_configuration(replace(configuration, hooks=(gate, *configuration.hooks)))
