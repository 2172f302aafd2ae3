"""Chunks: how requests get to other processes, and the part of a run that executes there.

A process keeps the clients and threads of a run until the run has sent nothing for a while or another run starts.
"""

from __future__ import annotations

import math
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

from ..models.shared import CreateCompletionRequest
from ..sdk import Gpt
from ..sdkconfiguration import SDKConfiguration
from .pack import Packer, pack_key
from .threads import Threads
from .worker import PackSender, Reply, RunSettings

_IDLE_SECONDS = 10.0
_INTERRUPTED_SECONDS = 5.0
"""How long a process that was interrupted returns chunks unsent that a pool had already handed to it."""

_INTERRUPTED_PAUSE = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a process needs to work for a run. Pickled once per run; pickling raises if a client holds a key."""

    run_id: str
    clients: Sequence[tuple[type[Gpt], SDKConfiguration]]
    settings: RunSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkResult:
    """The result of a chunk: a reply to each request, `None` for those that were not sent and may be sent again."""

    replies: list[Reply | None]
    pause: float = 0.0
    """Seconds for which all servers of the run are rate limited."""

    seconds: float = 0.0
    """How long sending took."""

    problem: Exception | None = None
    """Why this process cannot work for the run at all, such as a missing key."""


def run_chunk(run_id: str, job: bytes, chunk: bytes) -> bytes:
    """Send the requests of a chunk with this process's threads; `job`, `chunk` and the returned result are pickled."""
    requests: list[CreateCompletionRequest] = pickle.loads(chunk)
    try:
        state = _states.acquire(run_id, job)
    except Exception as problem:
        return pickle.dumps(ChunkResult(replies=[None] * len(requests), problem=_picklable(problem)))
    started = time.monotonic()
    try:
        if _states.was_interrupted(run_id):  # only now: an interrupt from here on stops the sender
            return pickle.dumps(ChunkResult(replies=[None] * len(requests), pause=_INTERRUPTED_PAUSE))
        with _stopped_by_sigint(run_id):
            replies = state.send(requests)
    finally:
        _states.release(state)
    seconds = time.monotonic() - started
    return _pickled(ChunkResult(replies=replies, pause=state.sender.pause_remaining(), seconds=seconds))


class _ProcessState:
    """The clients and threads that one process keeps for one run."""

    def __init__(self, job: Job) -> None:
        self.run_id = job.run_id
        self.sender = PackSender(job.clients, job.settings, remote=True)
        self.users = 0
        self.idle_since = 0.0
        self._threads = Threads(job.settings.max_workers)
        self._batch_size = job.settings.batch_size

    def send(self, requests: Sequence[CreateCompletionRequest]) -> list[Reply | None]:
        """Send packs of these requests over the threads; wait for all of them."""
        packs = list(self._packs(requests))
        futures: list[Future[list[Reply | None]]] = [
            self._threads.submit(self.sender.send, [requests[i] for i in pack]) for pack in packs
        ]
        replies: list[Reply | None] = [None] * len(requests)
        for pack, future in zip(packs, futures, strict=True):
            for i, reply in zip(pack, future.result(), strict=True):
                replies[i] = reply
        return replies

    def _packs(self, requests: Sequence[CreateCompletionRequest]) -> Iterator[list[int]]:
        size = self._batch_size if self.sender.accepts_lists else 1
        packer: Packer[int] = Packer(lambda i: pack_key(requests[i]))
        for i in range(len(requests)):
            if (pack := packer.add(i, size)) is not None:
                yield pack
        while packer:
            yield packer.take()

    def close(self) -> None:
        """Close the connections and end the threads."""
        self._threads.shutdown(wait=False)
        self.sender.close()


class _ProcessStates:
    """What this process keeps for each run that is using it."""

    def __init__(self) -> None:
        self._by_run: dict[str, _ProcessState] = {}
        self._lock = threading.Lock()
        self._reaper: threading.Thread | None = None
        self._interrupted = ""
        """The run that was interrupted; empty for all."""
        self._interrupted_at = -math.inf

    def interrupt(self, run_id: str = "") -> None:
        """Stop a run, or all of them, and reject its chunks for a while; called by a signal handler."""
        self._interrupted = run_id
        self._interrupted_at = time.monotonic()
        for state in list(self._by_run.values()):  # without the lock, whose holder the signal may have interrupted
            if run_id in ("", state.run_id):
                state.sender.stop()

    def was_interrupted(self, run_id: str) -> bool:
        """Return whether the run was just interrupted here."""
        is_recent = time.monotonic() - self._interrupted_at < _INTERRUPTED_SECONDS
        return is_recent and self._interrupted in ("", run_id)

    def acquire(self, run_id: str, job: bytes) -> _ProcessState:
        """Return the state of a run, made for its first chunk; close those of other runs that are not in use."""
        with self._lock:
            state = self._by_run.get(run_id)
            if state is None or state.sender.stopped:
                self._close_idle(time.monotonic())
                state = self._by_run[run_id] = _ProcessState(pickle.loads(job))
            state.users += 1
            if self._reaper is None:
                self._reaper = threading.Thread(target=self._reap, name="gpt-bulk-reaper", daemon=True)
                self._reaper.start()
            return state

    def release(self, state: _ProcessState) -> None:
        """End the use of a state, so that it can be closed when it has no other users."""
        with self._lock:
            state.users -= 1
            state.idle_since = time.monotonic()
            if state.sender.stopped:  # interrupted, and the requests in flight may have taken minutes
                self._interrupted_at = state.idle_since
            if state.users == 0 and self._by_run.get(state.run_id) is not state:
                state.close()

    def _close_idle(self, idle_since: float) -> None:
        for state in list(self._by_run.values()):
            if state.users == 0 and state.idle_since <= idle_since:
                del self._by_run[state.run_id]
                state.close()

    def _reap(self) -> None:
        """Close idle states; a pool's process is not notified when a run ends."""
        while True:
            time.sleep(_IDLE_SECONDS / 4)
            with self._lock:
                self._close_idle(time.monotonic() - _IDLE_SECONDS)
                if not self._by_run:
                    self._reaper = None
                    return


_states = _ProcessStates()


def stop_sending(number: int, frame: FrameType | None) -> None:
    """Handle SIGINT in a worker process: requests in flight finish, the rest of their chunks is returned unsent."""
    _states.interrupt()


@contextmanager
def _stopped_by_sigint(run_id: str) -> Iterator[None]:
    """On Ctrl-C, which a terminal sends to worker processes too, let requests in flight finish and send no more."""
    if not _may_handle_signals():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _states.interrupt(run_id)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _may_handle_signals() -> bool:
    """Return whether this is the main thread of a multiprocessing child, with no other handler for Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        return False
    process = sys.modules.get("multiprocessing.process")  # a child process has it; importing it costs others time
    is_child = process is not None and process.parent_process() is not None
    return is_child and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _pickled(result: ChunkResult) -> bytes:
    replies = [_picklable_reply(reply) if reply and reply.error else reply for reply in result.replies]
    result = replace(result, replies=replies)
    try:
        return pickle.dumps(result)
    except Exception:  # a hook may have put anything into a response
        return pickle.dumps(replace(result, replies=[reply and _checked(reply) for reply in replies]))


def _picklable_reply(reply: Reply) -> Reply:
    return replace(reply, error=reply.error and _picklable(reply.error))


def _checked(reply: Reply) -> Reply:
    try:
        pickle.dumps(reply)
    except Exception as problem:
        return Reply(error=_picklable(problem), status_code=reply.status_code, request_id=reply.request_id)
    return reply


def _picklable(error: Exception) -> Exception:
    """Replace an error that cannot be pickled; only one raised by a hook can be like that."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
