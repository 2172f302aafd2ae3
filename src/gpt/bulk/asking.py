"""The side of a run that is in the worker: one request out, one reply back, whatever happens."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from ..models import errors
from ..models.shared import CreateCompletionRequest, CreateCompletionResponse
from ..sdk import Gpt
from .gate import Gate, held_for

_CLIENTS_PER_PROCESS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What one call brought."""

    response: CreateCompletionResponse | None = None
    body: bytes = b""
    """The answer as the server wrote it; only where the body was asked for, and then instead of `response`."""

    tokens: tuple[int, int] = (0, 0)
    """Tokens of the prompt and of the completion, as far as the server counted them."""

    error: Exception | None = None
    status_code: int | None = None
    request_id: str | None = None
    held: float | None = None
    """Seconds that the server wants everybody to wait, when the request should then be asked again."""


class Asker:
    """The client of a run, on its way to workers. In another process it is built once and used for every request."""

    def __init__(self, client: Gpt | None, gate: Gate | None, *, bodies: bool, pickled: bytes = b"") -> None:
        self._client = client
        self._gate = gate
        self._bodies = bodies
        if pickled:
            self.pickled = pickled

    @cached_property
    def pickled(self) -> bytes:
        """The client and its gate as they travel.

        Raises:
            TypeError: the client holds a key or a session of the caller's; the message says what to do instead.
        """
        return pickle.dumps((self._client, self._gate))

    def client(self) -> tuple[Gpt, Gate]:
        """Give the client, built on the first call in this process."""
        if self._client is not None and self._gate is not None:
            return self._client, self._gate
        with _building:
            return _build(self.pickled)

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (self.pickled, self._bodies)

    def ask(self, request: CreateCompletionRequest) -> Reply:
        """Make the call; every failure of its own comes back in the reply."""
        s, gate = self.client()
        gate.wait()
        try:
            result = s.completions.create_completion(request)
        except errors.SDKError as error:
            return Reply(
                error=error,
                status_code=error.status_code,
                request_id=error.request_id,
                held=held_for(error) if isinstance(error, errors.RateLimitError) else None,
            )
        except CancelledError:
            raise
        except Exception as error:
            return Reply(error=error)
        completion = result.create_completion_response
        return Reply(
            response=None if self._bodies else completion,
            body=result.raw_response.content if self._bodies else b"",
            tokens=_tokens(completion),
            status_code=result.status_code,
            request_id=result.request_id,
        )


_building = threading.Lock()


@lru_cache(_CLIENTS_PER_PROCESS)
def _build(pickled: bytes) -> tuple[Gpt, Gate]:
    client, gate = pickle.loads(pickled)
    return client, gate


def _arrive(pickled: bytes, bodies: bool) -> Asker:
    return Asker(None, None, bodies=bodies, pickled=pickled)


def ask(asker: Asker, request: CreateCompletionRequest) -> Reply:
    """Ask from a thread of this process."""
    return asker.ask(request)


def ask_from_afar(asker: Asker, request: bytes) -> Reply:
    """Ask from wherever the executor has its workers: the request comes pickled, and the reply can be."""
    reply = asker.ask(pickle.loads(request))
    return reply if reply.error is None else _sendable(reply, reply.error)


def _sendable(reply: Reply, error: Exception) -> Reply:
    """Replace an error that would not survive the way back, which only a hook's own can be."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return Reply(error=RuntimeError(f"{type(error).__name__}: {error}"))
    return reply


def _tokens(completion: Any) -> tuple[int, int]:
    usage = completion.usage
    return _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")


def _count(usage: Any, name: str) -> int:
    value = getattr(usage, name, None)
    return value if isinstance(value, int) else 0
