"""Send the requests of jobs, many at a time, and yield their scores as they are ready."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from ..bulk import Outcome
from ..models.shared import CreateCompletionRequest
from .jobs import Job, Requests
from .result import Score, ScoreOutcome

Send = Callable[[Iterable[CreateCompletionRequest]], Iterator[Outcome]]
"""`bulk.run` with all its options: requests in, outcomes out, in any order, with the number of the request."""

_FINISHED_AT_ONCE = 64
"""After this many texts that needed no request, their outcomes are yielded before more are pulled."""


@dataclass(slots=True)
class _Text:
    """One text in the run."""

    index: int
    job: Job
    outcomes: list[Outcome | None] = field(default_factory=list)
    missing: int = 0


class ScoringRun:
    """One pass over a source of jobs. Iterate it once.

    A job's first step may call the server (to tokenize). While `first_step_calls` returns true, which is checked for
    each job, such steps run in `threads` threads, ahead of the requests; otherwise they run when they are needed.

    While `first_alone` returns true, the first text is sent alone, so that what it shows about the server can be used
    for the others.
    """

    def __init__(
        self,
        jobs: Iterable[Job | Exception],
        send: Send,
        *,
        threads: int = 0,
        first_step_calls: Callable[[], bool] = lambda: True,
        first_alone: Callable[[], bool] = lambda: False,
    ) -> None:
        self._jobs = enumerate(jobs)
        self._send = send
        self._threads = threads
        self._starting: deque[tuple[int, Job, Callable[[], Requests]]] = deque()
        self._ready: deque[tuple[_Text, int, CreateCompletionRequest]] = deque()
        self._finished: deque[ScoreOutcome] = deque()
        self._exhausted = False
        self._first_step_calls = first_step_calls
        self._first_alone = first_alone
        self._begun = False
        self._ended = False

    def __iter__(self) -> Iterator[ScoreOutcome]:
        if not self._threads:
            yield from self._outcomes(None)
            return
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="gpt-scoring")
        try:
            yield from self._outcomes(pool)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _outcomes(self, pool: ThreadPoolExecutor | None) -> Iterator[ScoreOutcome]:
        while self._ready or not self._exhausted:
            in_flight: dict[int, tuple[_Text, int]] = {}
            with closing(self._send(self._requests(pool, in_flight))) as outcomes:  # type: ignore[type-var]
                for outcome in outcomes:
                    self._take(*in_flight.pop(outcome.index), outcome)
                    yield from self._drain()
            yield from self._drain()

    def _drain(self) -> Iterator[ScoreOutcome]:
        while self._finished:
            yield self._finished.popleft()

    def _requests(
        self, pool: ThreadPoolExecutor | None, in_flight: dict[int, tuple[_Text, int]]
    ) -> Iterator[CreateCompletionRequest]:
        """Yield the requests of running jobs before those of new ones."""
        number = 0
        while True:
            while not self._ready and self._may_start:
                self._start_next(pool)
            if not self._ready:
                return
            text, place, request = self._ready.popleft()
            in_flight[number] = text, place
            number += 1
            yield request

    @property
    def _may_start(self) -> bool:
        if self._exhausted or len(self._finished) >= _FINISHED_AT_ONCE:
            return False
        return not (self._begun and not self._ended and self._first_alone())

    def _start_next(self, pool: ThreadPoolExecutor | None) -> None:
        """Run the next job's first step, while those of later jobs run in other threads."""
        ahead = 2 * self._threads - len(self._starting) if pool is not None and self._begun else 1
        pulled = list(islice(self._jobs, ahead))
        for index, job in pulled:
            if isinstance(job, Exception):
                self._finished.append(ScoreOutcome(index=index, error=job))
            else:
                in_pool = pool is not None and self._first_step_calls()
                first = pool.submit(next, job).result if in_pool else partial(next, job)  # type: ignore[union-attr]
                self._starting.append((index, job, first))
        if not self._starting:
            self._exhausted = not pulled
            return
        index, job, first = self._starting.popleft()
        self._advance(_Text(index, job), first)

    def _take(self, text: _Text, place: int, outcome: Outcome) -> None:
        text.outcomes[place] = outcome
        text.missing -= 1
        if not text.missing:
            self._advance(text, partial(text.job.send, text.outcomes))  # type: ignore[arg-type]

    def _advance(self, text: _Text, step: Callable[[], Requests]) -> None:
        """Advance the job of a text: queue its next requests, or store its score or its error."""
        self._begun = True
        try:
            requests = step()
        except StopIteration as end:
            score: Score = end.value
            self._ended = True
            self._finished.append(ScoreOutcome(index=text.index, score=score))
        except Exception as error:
            self._ended = True
            self._finished.append(ScoreOutcome(index=text.index, error=error))
        else:
            text.outcomes = [None] * len(requests)
            text.missing = len(requests)
            self._ready.extend((text, place, request) for place, request in enumerate(requests))
