"""The retry loop: attempts until one succeeds or no retry is left.

A call resolves its options, then makes attempts, with waits between them. The module `attempt` makes one attempt.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, Protocol, TypedDict

import requests

from .._core import url
from .._core.deadline import Deadline, Timeout, parse_seconds, parse_timeout
from .._core.headers import check_headers, request_id
from .._core.text import mask, single_line
from .._core.unset import UNSET, Unset
from ..models import errors
from ..sdkconfiguration import Environment, SDKConfiguration
from ..utils.retries import RetryConfig, check_retries, retry_delay
from .attempt import Attempt, Call, Sender
from .body import ResponseBody
from .errors import sent_credentials
from .request import EnvironmentProxies, make_template
from .session import DefaultSession

logger = logging.getLogger("gpt")

_TEMPLATE_CACHE_SIZE = 16
_MAX_REQUEST_ID_LENGTH = 100
_GET_SECONDS = 10.0
_GET_CONNECT_SECONDS = 5.0
_GET_LIMIT = 4 * 1024 * 1024
_cached_join = lru_cache(_TEMPLATE_CACHE_SIZE)(url.join)


class CallOptions(TypedDict, total=False):
    """The options of one call; those left out default to the client's settings."""

    retries: RetryConfig | Unset
    """What is retried and how often, for this call."""

    timeout: Timeout | Unset
    """Seconds, `(connect, read)`, or `None` for no limit, for this call."""

    deadline: float | Unset | None
    """Seconds of wall clock for the whole call, a stream included."""

    http_headers: Mapping[str, str | None] | None
    """Headers that override the client's and the SDK's own; `None` removes one."""

    query: Mapping[str, url.QueryValue] | None
    """Query parameters, added to those of the server URL; they replace those of the same name."""

    server_url: str | None
    """Another base URL for this call."""


_KNOWN_OPTIONS = frozenset(CallOptions.__annotations__)


class Throttle(Protocol):
    """State shared by a bulk run's calls to one server, so that a rate limit on one of them pauses all."""

    def wait(self) -> None:
        """Block until an attempt may be sent; called before each one. The call's time limits do not run meanwhile.

        An exception, such as `CancelledError` for a run that was stopped, ends the call and passes unchanged.
        """

    def pause_for_rate_limit(self, seconds: float) -> bool:
        """Record a retryable 429 in which the server asks for a wait of this many seconds, more than 0.

        Return whether the call ends at once with its `RateLimitError`, so that the run can send the request again.
        """
        raise NotImplementedError


class Transport:
    """Makes the calls of one client. Shared by threads without a lock."""

    def __init__(
        self,
        configuration: SDKConfiguration,
        throttle: Throttle | None = None,
        *,
        session: requests.Session | None = None,
    ) -> None:
        """Make a transport.

        Args:
            configuration: the client's settings.
            throttle: shared by a bulk run's calls to this server; without it, calls never wait for each other.
            session: the SDK's own session of another client, to share its connections.

        Raises:
            ValueError: nothing can be sent to the server URL.
        """
        self._configuration = configuration
        self._throttle = throttle
        self._owns_session = configuration.client is None
        self.session: Any = session or DefaultSession() if self._owns_session else configuration.client
        self._proxies = EnvironmentProxies()
        self._sender = Sender(configuration, self.session, Environment.ca_bundle() or True, self._proxies)
        self._template = lru_cache(_TEMPLATE_CACHE_SIZE)(partial(make_template, configuration, proxies=self._proxies))
        self._template(configuration.server_url, stream=False)  # reads the proxies now, not at the first call

    def with_configuration(self, configuration: SDKConfiguration) -> Transport:
        """Return another transport on the same connections."""
        shared = self._owns_session and configuration.client is None
        return Transport(configuration, self._throttle, session=self.session if shared else None)

    def close(self) -> None:
        """Close the idle connections of our own session."""
        if self._owns_session:
            self.session.close()

    def post(self, path: str, body: bytes, *, stream: bool, options: CallOptions) -> ResponseBody:
        """Send a request until a 2xx response comes or no retry is left.

        Raises:
            errors.SDKError: the last attempt's failure.
        """
        call = self._call(path, body, stream, options)
        elapsed = _Elapsed()
        retries_taken = 0
        while True:
            self._wait_for_throttle(call, elapsed)
            attempt = self._attempt(call, retries_taken)
            if attempt.response is not None:
                limit = self._configuration.max_response_bytes
                return ResponseBody(attempt.response, limit, call.deadline, retries_taken)
            delay = self._delay(call, attempt, retries_taken, elapsed)
            if delay is None:
                break
            logger.info(
                "Retrying request in %.3f s (retry %d): %s", delay, retries_taken + 1, call.template.display_url
            )
            time.sleep(delay)
            retries_taken += 1
        try:
            assert attempt.error is not None
            raise attempt.error
        finally:
            del attempt  # the error's traceback holds this frame

    def get(self, path: str, server_url: str | None = None) -> bytes | None:
        """Return the body of a GET to another path, such as `/models`; `None` unless a 200 comes within 10 seconds.

        Args:
            path: what is appended to the server URL.
            server_url: a base URL to use instead of the client's.
        """
        address = url.join(server_url or self._configuration.server_url, path)
        template = self._template(address, stream=False)
        deadline = Deadline(_GET_SECONDS)
        call = Call(template, b"", RetryConfig(strategy="none"), (_GET_CONNECT_SECONDS, _GET_SECONDS), deadline)
        return self._sender.get(call, _GET_LIMIT)

    def _call(self, path: str, body: bytes, stream: bool, options: CallOptions) -> Call:
        configuration = self._configuration
        if not _KNOWN_OPTIONS.issuperset(options):
            unknown = min(set(options) - _KNOWN_OPTIONS)
            raise TypeError(f"{unknown}: not an option of a call; expected one of {', '.join(sorted(_KNOWN_OPTIONS))}")
        retries, timeout, seconds = configuration.retry_config, configuration.timeout, configuration.deadline
        if (own_retries := options.get("retries", UNSET)) is not UNSET:
            retries = check_retries(own_retries)
        if (own_timeout := options.get("timeout", UNSET)) is not UNSET:
            timeout = parse_timeout(own_timeout)
        if (own_deadline := options.get("deadline", UNSET)) is not UNSET:
            seconds = parse_seconds(own_deadline, "deadline")
        headers = check_headers(options.get("http_headers"))
        # The address may hold a password, so it is resolved after everything in this frame that may raise.
        base, query = configuration.server_url, options.get("query")
        server_url = options.get("server_url")
        if server_url is not None and not url.is_blank(server_url):
            base = url.check_base(server_url)
        address = url.join(base, path, query) if query else _cached_join(base, path)
        template = self._template(address, stream=stream)
        if headers:
            template = template.with_headers(headers)
        return Call(template, body, retries, timeout, None if seconds is None else Deadline(seconds))

    def _wait_for_throttle(self, call: Call, elapsed: _Elapsed) -> None:
        if self._throttle is None:
            return
        started = time.monotonic()
        self._throttle.wait()
        waited = time.monotonic() - started
        elapsed.exclude(waited)
        if call.deadline is not None:
            call.deadline.extend(waited)

    def _attempt(self, call: Call, retries_taken: int) -> Attempt:
        """Make one attempt and log it."""
        started = time.monotonic()
        try:
            attempt = self._sender.attempt(call)
        except errors.SDKError as error:
            _log(call, retries_taken, started, type(error).__name__, None)
            raise
        response = attempt.response
        outcome: object = response.status_code if response is not None else type(attempt.error).__name__
        if isinstance(attempt.error, errors.APIStatusError):
            response, outcome = attempt.error.raw_response, attempt.error.status_code
        _log(call, retries_taken, started, outcome, response)
        return attempt

    def _delay(self, call: Call, attempt: Attempt, retries_taken: int, elapsed: _Elapsed) -> float | None:
        """Return the seconds to wait before the next attempt; `None` if there is none.

        A retryable 429 with a requested wait is reported to the throttle, which may end the call.
        """
        error = attempt.error
        assert error is not None
        if not attempt.retryable:
            return None
        throttle, wait = self._throttle, error.retry_after
        if throttle and wait and isinstance(error, errors.RateLimitError) and throttle.pause_for_rate_limit(wait):
            return None
        if retries_taken >= call.retries.limit:
            return None
        strategy = call.retries.backoff
        delay = retry_delay(retries_taken, error.headers, strategy, now=time.time(), jitter=random.random())
        if delay is None or elapsed.seconds() + delay > strategy.max_elapsed_time / 1000:
            return None
        return delay if call.deadline is None or delay < call.deadline.remaining() else None


class _Elapsed:
    """The time that a call has taken so far, without its waits for the run's throttle."""

    __slots__ = ("_started",)

    def __init__(self) -> None:
        self._started = time.monotonic()

    def exclude(self, seconds: float) -> None:
        self._started += seconds

    def seconds(self) -> float:
        return time.monotonic() - self._started


def _log(call: Call, retries_taken: int, started: float, outcome: object, response: requests.Response | None) -> None:
    if not logger.isEnabledFor(logging.INFO):
        return
    headers: Mapping[str, str] = response.headers if response is not None else {}
    secrets = sent_credentials(response) if response is not None else []
    logger.info(
        "POST %s %s in %.0f ms (request id %s, attempt %d)",
        call.template.display_url,
        outcome,
        (time.monotonic() - started) * 1000,
        single_line(mask(str(request_id(headers)), secrets), _MAX_REQUEST_ID_LENGTH),
        retries_taken + 1,
    )
    logger.debug("sent %d bytes; response of %s bytes", len(call.body), headers.get("Content-Length", "unknown"))
