"""The two kinds of workers of a run: threads of this process, and executors that use other processes."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from concurrent import futures
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Protocol
from uuid import uuid4

from .._core import url
from ..models.shared import CreateCompletionRequest
from ..sdk import Gpt
from ..sdkconfiguration import SDKConfiguration
from . import dask
from .chunk import ChunkResult, Job, run_chunk
from .pack import pack_key
from .threads import Threads
from .throttle import ServerThrottle
from .worker import PackSender, RunSettings

_CHUNK_ROUNDS = 4
"""How many packs of a chunk each thread of a worker process has to send, so that few of them idle at its end."""

_FAST_CHUNK_SECONDS = 0.25
"""Chunks that take less than this grow: submitting a task costs Dask milliseconds."""

_MAX_GROWTH = 16
"""How many times its first size a chunk may grow to. A process that is killed loses its chunks."""

_INTERPRETERS: Any = getattr(futures, "InterpreterPoolExecutor", ())
"""A subclass of `ThreadPoolExecutor` since Python 3.14, but what is submitted to it is pickled."""


class Workers(Protocol):
    """What a run submits to."""

    slots: int
    """How many submissions keep all workers busy."""

    def pause_remaining(self) -> float:
        """Return the seconds for which all servers of the run are still rate limited, 0 if one of them is not."""
        raise NotImplementedError

    @property
    def window(self) -> int:
        """The default for the maximum number of requests that are pulled and not yet handed out."""
        raise NotImplementedError

    @property
    def group_size(self) -> int:
        """How many requests are submitted together at most."""
        raise NotImplementedError

    def group_key(self, request: CreateCompletionRequest) -> bytes | None:
        """Return the key shared by requests that are submitted together; `None` for one that is submitted alone."""

    def submit(self, requests: Sequence[CreateCompletionRequest]) -> Future[Any]:
        """Hand requests over.

        Raises:
            Unpicklable: one of them cannot be pickled.
        """
        raise NotImplementedError

    def result(self, future: Future[Any]) -> ChunkResult:
        """Return the replies to submitted requests, or raise what the executor raised."""
        raise NotImplementedError

    def stop(self) -> None:
        """Send nothing more."""

    def close(self, wait: bool) -> None:
        """Close what is the run's own."""


def is_local(executor: Executor | None) -> bool:
    """Return whether an executor's workers are threads of this process."""
    return isinstance(executor, ThreadPoolExecutor | None) and not isinstance(executor, _INTERPRETERS)


class Unpicklable(Exception):
    """Requests that cannot be pickled, and why."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class LocalWorkers:
    """Threads of this process; each task is a pack."""

    def __init__(
        self, clients: Sequence[tuple[type[Gpt], SDKConfiguration]], settings: RunSettings, executor: Executor | None
    ) -> None:
        self._sender = PackSender(clients, settings)
        self._own = Threads(settings.max_workers) if executor is None else None
        self._executor = self._own or executor
        self.slots = settings.max_workers
        self._batch_size = settings.batch_size

    def pause_remaining(self) -> float:
        """Return how long all servers are rate limited."""
        return self._sender.pause_remaining()

    @property
    def window(self) -> int:
        """Return twice what the threads can have in flight."""
        return 2 * self.slots * self._batch_size

    @property
    def group_size(self) -> int:
        """The maximum number of prompts in a pack; 1 if it is known that no server accepts lists."""
        return self._batch_size if self._sender.accepts_lists else 1

    def group_key(self, request: CreateCompletionRequest) -> bytes | None:
        """Return the key of the request's pack."""
        return pack_key(request)

    def submit(self, requests: Sequence[CreateCompletionRequest]) -> Future[Any]:
        """Let a thread send a pack."""
        assert self._executor is not None
        return self._executor.submit(self._sender.send, requests)

    def result(self, future: Future[Any]) -> ChunkResult:
        """Return a pack's replies."""
        return ChunkResult(replies=future.result())

    def stop(self) -> None:
        """Send nothing more; wake waiting threads."""
        self._sender.stop()

    def close(self, wait: bool) -> None:
        """End our own threads; close the connections, also those that threads of the caller's used."""
        self._sender.stop()
        if self._own is not None:
            self._own.shutdown(wait=wait)
        self._sender.close()


class RemoteWorkers:
    """An executor of the caller's, with other processes or machines; each task is a chunk."""

    def __init__(
        self,
        clients: Sequence[tuple[type[Gpt], SDKConfiguration]],
        settings: RunSettings,
        executor: Executor,
        chunksize: int | None,
    ) -> None:
        """Pickle what every process must know.

        Raises:
            TypeError: a client holds a key or a session of the caller's; the message says what to do instead.
        """
        job = Job(run_id=uuid4().hex, clients=clients, settings=settings)
        self._run_id = job.run_id
        self._job = pickle.dumps(job)
        self._executor = executor
        names = ", ".join(url.redact(each.server_url) for _, each in clients)
        self._throttle = ServerThrottle(settings.max_wait, name=names)
        self._chunksize = chunksize or _CHUNK_ROUNDS * settings.max_workers * settings.batch_size
        self._first_chunksize = chunksize or settings.max_workers * settings.batch_size
        self._max_chunksize = chunksize or _MAX_GROWTH * self._chunksize
        self._submitted = 0
        self.slots = 2 * _count_workers(executor)

    def pause_remaining(self) -> float:
        """Return how long all servers are rate limited, according to the chunks received so far."""
        return self._throttle.remaining()

    @property
    def window(self) -> int:
        """Return two chunks for each process: one in progress and one waiting."""
        return self.slots * self._chunksize

    @property
    def group_size(self) -> int:
        """How many requests a chunk has; the first ones are smaller, so that a short run reaches all workers."""
        return self._chunksize if self._submitted >= self.slots else self._first_chunksize

    def group_key(self, request: CreateCompletionRequest) -> bytes | None:
        """Return the same key for all requests: a chunk may hold requests of any kind."""
        return b""

    def submit(self, requests: Sequence[CreateCompletionRequest]) -> Future[Any]:
        """Submit a chunk."""
        try:
            chunk = pickle.dumps(requests)
        except Exception as reason:
            raise Unpicklable(reason) from None
        self._submitted += 1
        if dask.client_of(self._executor) is not None:
            return dask.submit(self._executor, run_chunk, self._run_id, self._job, chunk)
        return self._executor.submit(run_chunk, self._run_id, self._job, chunk)

    def result(self, future: Future[Any]) -> ChunkResult:
        """Return a chunk's replies; pause the run if the chunk ended in a pause, else let fast chunks grow."""
        result: ChunkResult = pickle.loads(future.result())
        if result.pause:
            self._throttle.pause(result.pause)
        elif result.seconds < _FAST_CHUNK_SECONDS and len(result.replies) >= self._chunksize:
            self._chunksize = min(2 * self._chunksize, self._max_chunksize)
        return result

    def stop(self) -> None:
        """Do nothing: chunks in progress finish in their processes."""

    def close(self, wait: bool) -> None:
        """Do nothing: the executor is the caller's, and its processes close what they built."""


def _count_workers(executor: Any) -> int:
    """Return how many processes an executor has: `_max_workers` in the standard library, `nthreads()` of Dask's client.

    Neither is public; if they are missing, the number of local CPUs is used.
    """
    try:
        if (client := dask.client_of(executor)) is not None:
            return max(1, len(client.nthreads()))  # they may still be starting
    except Exception:
        pass
    count = getattr(executor, "_max_workers", None)
    return count if type(count) is int else os.cpu_count() or 1
