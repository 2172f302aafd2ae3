"""What runs in a worker: send packs of requests; return a `Reply` to each request, also for an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

from .._core import url
from ..models import errors, operations
from ..models.shared import CreateCompletionRequest, CreateCompletionResponse
from ..sdk import Gpt
from ..sdkconfiguration import SDKConfiguration
from ..utils.retries import should_retry_status
from .balance import Servers, ServerState, is_unreachable
from .pack import completions_per_prompt, merge, split_body, split_response, usage_tokens
from .throttle import ServerThrottle

_SPLIT_STATUSES = (400, 413, 422)
"""The statuses that servers return for a pack if one of its prompts is bad, or if it is too large."""

_MAYBE_SPLIT_STATUSES = (500, 501)
"""The statuses that some servers return for any list of prompts, and others for a failure of their own."""

_FAILS_ANY_REQUEST = (401, 403, 404, 429)


@dataclass(kw_only=True, slots=True)
class Reply:
    """The result of one request. Not frozen: one is made per prompt, and a frozen one takes three times as long."""

    response: CreateCompletionResponse | None = None
    body: bytes = b""
    """The completion as JSON, instead of `response` if requested: the server's own bytes, or its part of them
    for a request that was sent in a pack."""

    tokens: tuple[int, int] = (0, 0)
    """The prompt and completion tokens that it adds to the totals. The first reply of a pack may have those of all."""

    error: Exception | None = None
    status_code: int | None = None
    request_id: str | None = None
    pause: float | None = None
    """If the request should be sent again: how many seconds the server asked to wait before that."""

    @property
    def server_failure(self) -> bool:
        """Whether the server caused the failure, so that any other request would fail too."""
        return server_works(self.error) is False


def server_works(error: Exception | None) -> bool | None:
    """Return what the result of a request shows about its server: `True` if it works, `False` if any other request
    would fail too, `None` if the result shows nothing.

    Args:
        error: the request's error; `None` if it succeeded.
    """
    if error is None:
        return True
    if is_unreachable(error):
        return False
    if not isinstance(error, errors.APIStatusError):
        return None
    status = error.status_code or 0
    return not (status in _FAILS_ANY_REQUEST or status >= 500)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """How requests are sent, the same in each process of a run."""

    max_workers: int = 16
    """How many HTTP requests a process has in flight."""

    batch_size: int = 1
    """How many prompts one of them carries at most."""

    bodies: bool = False
    """Whether replies have JSON instead of models."""

    max_wait: float = 3600.0
    """The longest `Retry-After` that pauses a server, in seconds; `MAX_SERVER_WAIT` is the limit of a single call."""

    options: Mapping[str, Any]
    """What is passed on to `create_completion`."""


class PackSender:
    """Sends packs to the servers of a run, from any thread of a process."""

    def __init__(
        self, clients: Sequence[tuple[type[Gpt], SDKConfiguration]], settings: RunSettings, *, remote: bool = False
    ) -> None:
        """Make clients for the run, with their own connections and a throttle for each.

        A `remote` sender sends nothing while all servers are rate limited, so that the rest of a chunk is returned
        unsent and the submitter pauses the other processes too.
        """
        self._settings = settings
        servers = []
        for cls, each in clients:
            name = url.redact(each.server_url)
            throttle = ServerThrottle(settings.max_wait, rejects_when_paused=remote or len(clients) > 1, name=name)
            servers.append(ServerState(cls.from_configuration(each, throttle=throttle), throttle))
        self._servers = Servers(servers, rejects_when_paused=remote)

    @property
    def accepts_lists(self) -> bool:
        """Whether any server may accept packs."""
        return self._servers.accept_lists

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._servers.stopped

    def pause_remaining(self) -> float:
        """Return the seconds for which all servers are still rate limited."""
        return self._servers.pause_remaining()

    def stop(self) -> None:
        """Send nothing more; requests in flight finish normally."""
        self._servers.stop()

    def close(self) -> None:
        """Close the connections."""
        self._servers.close()

    def send(self, requests: Sequence[CreateCompletionRequest]) -> list[Reply | None]:
        """Send a pack; return a reply to each, or `None` to those not sent because the run was stopped or paused."""
        return _Sending(self._servers, self._settings, requests).run()


class _Sending:
    """One pack that is being sent, divided into parts where a server refuses it."""

    def __init__(self, servers: Servers, settings: RunSettings, requests: Sequence[CreateCompletionRequest]) -> None:
        self._servers = servers
        self._settings = settings
        self._requests = requests
        self._replies: list[Reply | None] = [None] * len(requests)
        self._parts = [range(len(requests))]
        self._refused_pairs: dict[int, ServerState] = {}
        self._is_paused = False
        self._failed_alone: Exception | None = None

    def run(self) -> list[Reply | None]:
        """Send until each request has its reply, or nothing more may be sent now."""
        while self._parts and not (self._is_paused or self._servers.stopped):
            try:
                self._send(self._parts.pop())
            except CancelledError:
                break
        return self._replies

    def _send(self, part: range) -> None:
        """Send a part to the server that `Servers` chooses, and handle its response or error."""
        server = self._servers.acquire()
        if len(part) > 1 and server.accepts_lists is False:
            self._servers.release_unused(server)
            self._send_one_by_one(part)
            return
        result, error = None, None
        try:
            request = merge([self._requests[i] for i in part])
            result = server.client.completions.create_completion(request, **self._settings.options)
        except Exception as failure:
            error = failure
        finally:
            to_others = self._servers.release(server, error)
        if result is not None:
            self._receive(part, server, result)
        elif to_others:
            self._parts.append(part)
        elif isinstance(error, CancelledError):
            self._is_paused = True
        elif error is not None:
            self._fail(part, server, error)

    def _receive(self, part: range, server: ServerState, result: operations.CreateCompletionResponse) -> None:
        self._failed_alone = None
        if len(part) == 1:
            self._replies[part.start] = self._reply_alone(result)
            self._learn_from_pair(part.start)
            return
        try:
            complete = self._take_apart(part, result)
        except (ValueError, RecursionError):  # JSON that is read but cannot be written again
            self._send_one_by_one(part)
            return
        if complete:
            server.accepts_lists = True
        else:
            self._servers.mark_lists_refused(server, "did not complete each prompt of a list")
            self._send_one_by_one(part)

    def _send_one_by_one(self, part: range) -> None:
        self._parts += [range(i, i + 1) for i in reversed(part)]

    def _reply_alone(self, result: operations.CreateCompletionResponse) -> Reply:
        completion = result.create_completion_response
        bodies = self._settings.bodies
        return Reply(
            response=None if bodies else completion,
            body=result.raw_response.content if bodies else b"",
            tokens=usage_tokens(completion.usage if completion else None),
            status_code=result.status_code,
            request_id=result.request_id,
        )

    def _take_apart(self, part: range, result: operations.CreateCompletionResponse) -> bool:
        """Reply to each request of a pack; return whether the response could be taken apart."""
        n = completions_per_prompt(self._requests[part.start])
        status, request_id = result.status_code, result.request_id
        if self._settings.bodies:
            bodies = split_body(result.raw_response.content, len(part), n)
            if bodies is None:
                return False
            for i, (body, tokens) in zip(part, bodies, strict=True):
                self._replies[i] = Reply(body=body, tokens=tokens, status_code=status, request_id=request_id)
            return True
        assert result.create_completion_response is not None
        parts = split_response(result.create_completion_response, len(part), n)
        if parts is None:
            return False
        for i, (response, tokens) in zip(part, parts, strict=True):
            self._replies[i] = Reply(response=response, tokens=tokens, status_code=status, request_id=request_id)
        return True

    def _fail(self, part: range, server: ServerState, error: Exception) -> None:
        if isinstance(error, errors.RateLimitError) and (pause := self._pause_for(error)):
            self._is_paused = True
            self._reply_with(part, error, pause)
        elif len(part) > 1 and self._is_worth_splitting(error):
            if len(part) == 2 and isinstance(error, errors.SDKError):
                self._refused_pairs[part.start] = server
            middle = (part.start + part.stop) // 2
            self._parts += [range(middle, part.stop), range(part.start, middle)]
        else:
            self._reply_with(part, error)
            self._give_up_after(part, error)

    def _pause_for(self, error: errors.RateLimitError) -> float | None:
        """Return how long the throttle pauses the server's calls because of an error, if sending again may help."""
        seconds = error.retry_after
        if not seconds or seconds > self._settings.max_wait:
            return None
        return seconds if should_retry_status(429, error.headers, error.code, error.type) else None

    def _is_worth_splitting(self, error: Exception) -> bool:
        """Return whether a part of a pack may succeed although the whole has failed."""
        if isinstance(error, errors.APIStatusError):
            return error.status_code in _SPLIT_STATUSES or error.status_code in _MAYBE_SPLIT_STATUSES
        return isinstance(error, errors.ResponseValidationError) or not isinstance(error, errors.SDKError)

    def _give_up_after(self, part: range, error: Exception) -> None:
        """Stop sending to a server that always fails: after two single requests fail, the rest of the pack fails."""
        if not _may_fail_every_prompt(error):
            self._failed_alone = None
        elif self._failed_alone is None:
            self._failed_alone = error
        else:
            while self._parts:
                self._reply_with(self._parts.pop(), error)

    def _reply_with(self, part: range, error: Exception, pause: float | None = None) -> None:
        status = error.status_code if isinstance(error, errors.SDKError) else None
        request_id = error.request_id if isinstance(error, errors.SDKError) else None
        for i in part:
            self._replies[i] = Reply(error=error, status_code=status, request_id=request_id, pause=pause)

    def _learn_from_pair(self, number: int) -> None:
        """Conclude that a server refuses lists when it refused two prompts together and completed each alone."""
        for first in (number - 1, number):
            server = self._refused_pairs.get(first)
            if server is not None and server.accepts_lists is None and self._succeeded(first):
                self._servers.mark_lists_refused(server, "refuses lists of prompts")

    def _succeeded(self, first: int) -> bool:
        return all(reply is not None and reply.error is None for reply in self._replies[first : first + 2])


def _may_fail_every_prompt(error: Exception) -> bool:
    status = error.status_code if isinstance(error, errors.APIStatusError) else None
    unreadable = isinstance(error, errors.ResponseValidationError)
    return status in _MAYBE_SPLIT_STATUSES or (unreadable and not isinstance(error, errors.ResponseTooLargeError))
