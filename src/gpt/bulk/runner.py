"""The caller's side of a run: submit requests to the workers and return their replies."""

from __future__ import annotations

import queue
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .._core.deadline import parse_seconds, parse_timeout
from .._core.headers import check_headers, is_credential
from .._core.unset import UNSET
from ..completions import is_stream
from ..models import errors
from ..models.shared import CreateCompletionRequest
from ..sdk import Gpt
from ..utils.retries import RetryConfig, check_retries
from .executors import LocalWorkers, RemoteWorkers, Unpicklable, Workers, is_local
from .linger import Linger
from .outcome import Outcome
from .pack import MAX_PROMPTS, Packer
from .worker import Reply, RunSettings, server_works

Tag = TypeVar("Tag")

_CALL_OPTIONS = ("retries", "timeout", "deadline", "http_headers", "query", "server_url")


def run(
    s: Gpt | Sequence[Gpt],
    requests: Iterable[CreateCompletionRequest],
    *,
    executor: Executor | None = None,
    max_workers: int = 16,
    batch_size: int = 1,
    chunksize: int | None = None,
    window: int | None = None,
    max_failures: int | None = None,
    **call_options: Any,
) -> Iterator[Outcome]:
    """Send many requests and return their outcomes in the order of completion.

    Requests are pulled only as fast as outcomes are taken, so any number of them fits into memory. A failure of one
    request, or of its worker, is the outcome of that request and never ends the run. A 429 with a requested wait pauses
    all requests to that server, and the request is sent again (for as long as `max_elapsed_time` in the client's
    `RetryConfig` allows).

    If `requests` raises, no more are pulled, the outcomes in flight are still returned, and then the exception is
    raised. Ctrl-C does the same, except that requests that have not been started are dropped; a second Ctrl-C, or
    closing the iterator, stops at once.

    Args:
        s: the client, or a list of clients, one per server. Each request then goes to the server with the fewest in
            flight. One that cannot be reached is left unused for a while, and its requests go to the others. The first
            client's `RetryConfig` limits the waits for rate limits. For workers in other processes, clients are pickled
            without keys, which come from the workers' `OPENAI_API_KEY` or from a function passed as `security`.
        requests: any iterable, a generator of millions too; with `stream=True` the outcome is a `ValueError`.
        executor: any `concurrent.futures.Executor`, which the caller closes; any but a `ThreadPoolExecutor` is assumed
            to use other processes. Without it, threads that end with the run.
        max_workers: how many HTTP requests are in flight at a time, in each process.
        batch_size: how many prompts an HTTP request carries at most, up to 1,024: requests that differ only in their
            single prompt, a text or token ids, are sent together. Outcomes are those of single requests, except that
            `usage` is `None` where the server reports only the sum.
        chunksize: how many requests are sent to another process together; by default four times what its threads can
            have in flight, and up to sixteen times that while chunks take less than a quarter of a second.
        window: the maximum number of requests that are pulled and not yet returned as outcomes; by default twice what
            all threads can have in flight, or two chunks for each process.
        max_failures: after this many consecutive failures caused by the server and not by the request (no connection,
            401, 403, 404, 429, 5xx), pull no more, return what is in flight, and raise the last one. By default never.
        **call_options: options of `create_completion` for each request.

    Raises:
        TypeError, ValueError: an option cannot be used as it is, or a client holds a key and cannot be pickled.
        Exception: from the iterator: what `requests` or the executor raised, such as `BrokenProcessPool`; with
            `max_failures`, an `errors.SDKError`.
    """
    numbered = ((index, request) for index, request in enumerate(requests))
    pending = Run(
        s,
        numbered,
        executor=executor,
        max_workers=max_workers,
        batch_size=batch_size,
        chunksize=chunksize,
        window=window,
        max_failures=max_failures,
        options=call_options,
    )
    return _outcomes(pending)


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
    """One request in flight, with the caller's tag."""

    tag: Tag
    request: CreateCompletionRequest
    pulled_at: float = 0.0


class Run(Generic[Tag]):
    """One pass over a source of `(tag, request)`. Iterate it once."""

    def __init__(
        self,
        s: Gpt | Sequence[Gpt],
        source: Iterable[tuple[Tag, CreateCompletionRequest]],
        *,
        executor: Executor | None = None,
        max_workers: int = 16,
        batch_size: int = 1,
        chunksize: int | None = None,
        window: int | None = None,
        max_failures: int | None = None,
        bodies: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        clients = _check_clients(s)
        counts = {"chunksize": chunksize, "window": window, "max_failures": max_failures}
        for name, value in {"max_workers": max_workers, "batch_size": batch_size, **counts}.items():
            _check_count(name, value, optional=name in counts)
        options = _check_options(options or {}, local=is_local(executor))
        retries: RetryConfig = options.get("retries", clients[0].sdk_configuration.retry_config)
        self._may_retry = retries.limit > 0
        self._max_wait = retries.backoff.max_elapsed_time / 1000
        settings = RunSettings(
            max_workers=max_workers,
            batch_size=min(batch_size, MAX_PROMPTS),
            bodies=bodies,
            max_wait=self._max_wait,
            options=options,
        )
        self._source = iter(source)
        self._workers = _start_workers(clients, settings, executor, chunksize)
        self._packer: Packer[Task[Tag]] = Packer(lambda task: self._workers.group_key(task.request))
        self._window = window
        self._max_failures = max_failures
        self._failures = 0
        self._count = 0
        """How many requests were pulled and not yet handed out."""
        self._in_flight: dict[Future[Any], list[Task[Tag]]] = {}
        self._done: queue.SimpleQueue[Future[Any] | None] = queue.SimpleQueue()
        self._requeued: deque[list[Task[Tag]]] = deque()
        self._ready: deque[tuple[Task[Tag], Reply]] = deque()
        self._linger = Linger(self._submit_stale)
        self._exhausted = False
        self._stopped = False
        self._interrupted = False
        self._problem: BaseException | None = None

    def interrupt(self) -> None:
        """Stop at the next step, as Ctrl-C does; for a signal handler, which must not do more.

        Raises:
            KeyboardInterrupt: the source is being read, which may block indefinitely.
        """
        if self._linger.pulling:
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
                self._step()
            except KeyboardInterrupt as interrupt:
                self._stop(interrupt)
            while self._ready:
                self._count -= 1
                yield self._ready.popleft()
                if 2 * len(self._in_flight) < self._workers.slots and not self._exhausted:
                    break  # workers are idle, or soon will be: submit more before the rest is handed out

    @property
    def _finished(self) -> bool:
        return self._exhausted and not (self._in_flight or self._packer or self._requeued or self._ready)

    def _step(self) -> None:
        """Submit requests; if no reply is ready, wait until a submission ends."""
        if self._interrupted and not self._stopped:
            self._stop(KeyboardInterrupt())
        self._fill_window()
        if self._ready:
            return
        if self._done.empty():
            self._submit_partial()
        if not self._finished and (future := self._next_done()) is not None and future in self._in_flight:
            self._handle_done(future)

    def _fill_window(self) -> None:
        """Submit until the window is full, a submission has ended, or all servers are rate limited."""
        while self._done.empty() and not self._is_paused:
            if self._requeued:
                self._submit(self._requeued.popleft())
            elif self._exhausted or self._room <= 0:
                return
            else:
                self._pull(min(self._room, self._workers.group_size))

    @property
    def _room(self) -> int:
        return (self._window or self._workers.window) - self._count

    @property
    def _is_paused(self) -> bool:
        return self._workers.pause_remaining() > 0

    def _pull(self, limit: int) -> None:
        """Take requests from the source until a pack is submitted or a submission has ended, but no more than `limit`.

        Stop pulling when the source ends or raises.
        """
        for _ in range(limit):
            try:
                with self._linger:
                    tag, request = next(self._source)
            except StopIteration:
                self._exhausted = True
                return
            except Exception as error:
                self._exhausted = True
                self._problem = error
                return
            submitted = self._accept(Task(tag, request, time.monotonic()))
            if submitted or self._exhausted or not self._done.empty():  # exhausted by an error in `_submit_stale`
                return

    def _accept(self, task: Task[Tag]) -> bool:
        """Add a request to its pack or chunk; return whether that led to a submission."""
        self._count += 1
        if isinstance(task.request, CreateCompletionRequest) and is_stream(task.request):
            error = ValueError("stream: a run has whole responses only; leave stream=True out")
            self._ready.append((task, Reply(error=error)))
        elif (pack := self._packer.add(task, self._workers.group_size)) is not None:
            self._submit(pack)
            return True
        elif self._packer:
            self._linger.start()
        return False

    def _submit_partial(self) -> None:
        """Submit groups that are not full: all at the end of the source, else one for each idle worker."""
        while self._packer and (self._exhausted or len(self._in_flight) < self._workers.slots) and not self._is_paused:
            self._submit(self._packer.take())

    def _submit_stale(self) -> None:
        """Submit packs that have waited too long for a slow source; called by the thread of `Linger`."""
        try:
            while self._packer and self._linger.is_stale(self._packer.oldest().pulled_at) and not self._exhausted:
                if self._is_paused or len(self._in_flight) >= self._workers.slots:
                    return
                self._submit(self._packer.take())
        except Exception as error:
            self._exhausted = True
            self._problem = error

    def _submit(self, tasks: list[Task[Tag]]) -> None:
        try:
            future = self._workers.submit([task.request for task in tasks])
        except Unpicklable as problem:
            self._divide(tasks, problem.reason, self._submit)
            return
        self._in_flight[future] = tasks
        future.add_done_callback(self._done.put)

    def _divide(self, tasks: list[Task[Tag]], error: Exception, retry: Callable[[list[Task[Tag]]], object]) -> None:
        """Retry the halves of a group that failed; the error of a single request is its outcome."""
        if len(tasks) == 1:
            self._ready.append((tasks[0], Reply(error=error)))
        else:
            retry(tasks[: len(tasks) // 2])
            retry(tasks[len(tasks) // 2 :])

    def _next_done(self) -> Future[Any] | None:
        """Wait for a submission to end, or for a pause to end if requests wait for that; `None` if none has ended."""
        if self._stopped:  # an interrupt may have come just when something was taken from the queue
            return next(iter(wait(self._in_flight, return_when=FIRST_COMPLETED).done), None)
        waiting = self._requeued or self._packer or (not self._exhausted and self._room > 0)
        seconds = self._workers.pause_remaining() if waiting else 0.0
        try:
            return self._done.get(timeout=seconds if seconds or not self._in_flight else None)
        except queue.Empty:
            return None

    def _handle_done(self, future: Future[Any]) -> None:
        """Queue the replies of a submission for the caller, or its requests to be sent again."""
        problem = CancelledError() if future.cancelled() else future.exception()
        if problem is not None:
            self._handle_failure(self._in_flight.pop(future), problem)
            return
        result = self._workers.result(future)
        tasks = self._in_flight.pop(future)
        if result.problem is not None and not self._stopped:
            raise result.problem
        again = []
        for task, reply in zip(tasks, result.replies, strict=True):
            if reply is None or (reply.pause is not None and self._may_send_again(task, reply.pause)):
                again.append(task)
            else:
                self._ready.append((task, reply))
                if reply.error is None:
                    self._failures = 0
                else:
                    self._count_failure(reply.error)
        if again and not self._stopped:
            self._requeued.append(again)

    def _handle_failure(self, tasks: list[Task[Tag]], problem: BaseException) -> None:
        """Divide a submission that the executor could not run, until the failing request is found."""
        if self._stopped:  # Ctrl-C reaches worker processes too, and cuts them off
            return
        if not isinstance(problem, Exception) or isinstance(problem, BrokenExecutor | CancelledError):
            raise problem
        self._divide(tasks, problem, self._requeued.append)

    def _may_send_again(self, task: Task[Tag], seconds: float) -> bool:
        if self._stopped:
            return False
        return self._may_retry and time.monotonic() - task.pulled_at + seconds <= self._max_wait

    def _count_failure(self, error: Exception) -> None:
        works = server_works(error)
        if works:
            self._failures = 0
        elif works is False:
            self._failures += 1
            if self._failures == self._max_failures and not self._stopped:
                assert isinstance(error, errors.SDKError)
                self._stop(_with_note(error, f"stopped after {self._failures} failures in a row of the server's own"))

    def _stop(self, problem: BaseException) -> None:
        """Start nothing more; if already interrupted, raise at once."""
        if isinstance(self._problem, KeyboardInterrupt):
            raise problem
        self._problem = problem
        self._stopped = self._exhausted = True
        self._requeued.clear()
        self._packer.clear()
        self._workers.stop()
        for future in list(self._in_flight):
            if future.cancel():
                self._in_flight.pop(future, None)

    def _close(self) -> None:
        unfinished = bool(self._in_flight)
        self._linger.stop()
        for future in self._in_flight:
            future.cancel()
        self._in_flight.clear()
        self._workers.close(wait=not unfinished)


def _start_workers(
    clients: Sequence[Gpt], settings: RunSettings, executor: Executor | None, chunksize: int | None
) -> Workers:
    configurations = [(type(client), client.sdk_configuration) for client in clients]
    if executor is None or is_local(executor):
        return LocalWorkers(configurations, settings, executor)
    return RemoteWorkers(configurations, settings, executor, chunksize)


def _with_note(error: errors.SDKError, note: str) -> errors.SDKError:
    if sys.version_info >= (3, 11):
        error.add_note(note)
    else:
        error.message = f"{error.message}\n{note}"
    return error


def _check_clients(s: object) -> Sequence[Gpt]:
    clients: list[Any] = list(s) if isinstance(s, list | tuple) else [s]
    for client in clients:
        if not isinstance(client, Gpt):
            raise TypeError(f"s: expected a gpt.Gpt, or a list of them, got {type(client).__name__}")
    if not clients:
        raise ValueError("s: expected at least one client, got an empty list")
    return clients


def _check_count(name: str, value: object, *, optional: bool) -> None:
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")


def _check_options(options: Mapping[str, Any], *, local: bool) -> dict[str, Any]:
    """Return the options that were passed; refuse invalid ones, and credentials that would be pickled."""
    for name in options:
        if name not in _CALL_OPTIONS:
            raise TypeError(
                f"{name}: not an option of a run or of create_completion; expected {', '.join(_CALL_OPTIONS)}"
            )
    passed = {name: value for name, value in options.items() if value is not UNSET}
    if "retries" in passed:
        check_retries(passed["retries"], "retries")
    if "timeout" in passed:
        parse_timeout(passed["timeout"])
    if "deadline" in passed:
        parse_seconds(passed["deadline"], "deadline")
    headers = check_headers(passed.get("http_headers"))
    for name, value in headers.items():
        if not local and value is not None and is_credential(name):
            raise TypeError(f"http_headers: {name} is not sent to other processes; give security= a function")
    return passed
