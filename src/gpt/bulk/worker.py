"""The side of a run that is in the worker: one request out, one reply back, whatever happens."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..models import errors
from ..models.shared import CreateCompletionRequest, CreateCompletionResponse
from ..sdk import Gpt
from .throttle import Gate, held_for

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


def ask(client: Gpt, gate: Gate, request: CreateCompletionRequest, *, bodies: bool) -> Reply:
    """Make the call; every failure of its own comes back in the reply."""
    gate.wait()
    try:
        result = client.completions.create_completion(request)
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
        response=None if bodies else completion,
        body=result.raw_response.content if bodies else b"",
        tokens=_tokens(completion),
        status_code=result.status_code,
        request_id=result.request_id,
    )


def ask_from_afar(travelled: bytes, request: bytes, *, bodies: bool) -> Reply:
    """Make the call in another process, where client and request arrive pickled and the reply leaves so.

    The client is built on the first call in a process, and used for all that follow.
    """
    with _building:
        client, gate = _unpacked(travelled)
    reply = ask(client, gate, pickle.loads(request), bodies=bodies)
    return reply if reply.error is None else _sendable(reply, reply.error)


def pack(client: Gpt, gate: Gate) -> bytes:
    """Prepare a client for its way to other processes.

    Raises:
        TypeError: it holds a key or a session of the caller's; the message says what to do instead.
    """
    return pickle.dumps((client, gate))


_building = threading.Lock()


@lru_cache(_CLIENTS_PER_PROCESS)
def _unpacked(travelled: bytes) -> tuple[Gpt, Gate]:
    client, gate = pickle.loads(travelled)
    return client, gate


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
