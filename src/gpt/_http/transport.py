"""The retry loop: attempts until one succeeds, or until there is nothing left to try.

One call: resolve its options, then make attempts, waiting between them. What an attempt is, `attempt` says.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

import requests

from .._core import url
from .._core.deadline import Deadline, parse_seconds, parse_timeout
from .._core.headers import check_headers, request_id
from .._core.text import single_line
from ..models import errors
from ..sdkconfiguration import SDKConfiguration
from ..utils.retries import RetryConfig, check_retries, retry_delay
from ..utils.unset import UNSET, Unset
from .attempt import Attempt, Call, Sender
from .body import ResponseBody
from .request import RequestTemplate, environment_proxies
from .session import DefaultSession

logger = logging.getLogger("gpt")

_TEMPLATE_CACHE_SIZE = 16
_PROXY_CACHE_SIZE = 1024
_MAX_REQUEST_ID_LENGTH = 100
_cached_join = lru_cache(_TEMPLATE_CACHE_SIZE)(url.join)


@dataclass(frozen=True, slots=True, repr=False)
class RequestOptions:
    """The options of one call; `UNSET` leaves one to the client. Its `repr` shows none of them."""

    retries: RetryConfig | Unset = UNSET
    timeout: Any = UNSET
    deadline: float | Unset | None = UNSET
    http_headers: Mapping[str, str | None] | None = None
    query: Mapping[str, Any] | None = None
    server_url: str | None = None


class Throttle(Protocol):
    """What a bulk run shares between its calls, so that a rate limit of one holds all of them."""

    def wait(self) -> None:
        """Block until an attempt may be sent; called before each one. The call's time limits do not run meanwhile.

        An exception, such as `CancelledError` for a run that was stopped, ends the call and passes unchanged.
        """

    def rate_limited(self, seconds: float) -> bool:
        """Note a 429 with which the server asks to wait so many seconds, more than 0.

        Return whether the run takes over: then the call ends at once with its `RateLimitError`, without a retry.
        """


class Transport:
    """Send requests as a configuration says. Shared by threads without a lock."""

    def __init__(self, configuration: SDKConfiguration, throttle: Throttle | None = None) -> None:
        self._configuration = configuration
        self._throttle = throttle
        self._owns_session = configuration.client is None
        self.session: Any = DefaultSession() if self._owns_session else configuration.client
        verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        self._sender = Sender(configuration, self.session, verify)
        proxies = lru_cache(_PROXY_CACHE_SIZE)(environment_proxies)  # read once for a server, for all its calls
        self._resolve = partial(RequestTemplate, configuration, proxies=proxies)
        self._template = lru_cache(_TEMPLATE_CACHE_SIZE)(self._resolve)

    def prepare(self, path: str) -> None:
        """Resolve the client's own server now, with the environment's proxies as they are at construction."""
        for stream in (False, True):
            self._template(_cached_join(self._configuration.server_url, path), stream=stream)

    def close(self) -> None:
        """Close the idle connections of our own session."""
        if self._owns_session:
            self.session.close()

    def post(self, path: str, body: bytes, *, stream: bool, options: RequestOptions) -> ResponseBody:
        """Send a request until it is answered with 2xx or there is nothing left to try.

        Raises:
            errors.SDKError: the last attempt's failure.
        """
        call = self._call(path, body, stream, options)
        spent = _Spent()
        for retries_taken in range(call.retries.limit + 1):
            self._wait_for_throttle(call, spent)
            attempt = self._attempt(call, retries_taken)
            if attempt.response is not None:
                limit = self._configuration.max_response_bytes
                return ResponseBody(attempt.response, limit, call.deadline, retries_taken)
            delay = self._delay(call, attempt, retries_taken, spent)
            if delay is None:
                break
            logger.info(
                "Retrying request in %.3f s (retry %d): %s", delay, retries_taken + 1, call.template.display_url
            )
            time.sleep(delay)
        try:
            assert attempt.error is not None
            raise attempt.error
        finally:
            del attempt  # the error's traceback holds this frame

    def _call(self, path: str, body: bytes, stream: bool, options: RequestOptions) -> Call:
        configuration = self._configuration
        headers = check_headers(options.http_headers)
        retries = configuration.retry_config if options.retries is UNSET else check_retries(options.retries)
        timeout = configuration.timeout if options.timeout is UNSET else parse_timeout(options.timeout)
        seconds = configuration.deadline
        if not isinstance(options.deadline, Unset):
            seconds = parse_seconds(options.deadline, "deadline")
        # The address, which may hold a password, comes after all that may be refused in this frame.
        base = configuration.server_url
        if options.server_url is not None and not url.is_blank(options.server_url):
            base = url.check_base(options.server_url)
        address = url.join(base, path, options.query) if options.query else _cached_join(base, path)
        if headers:
            template = self._resolve(address, stream=stream, call_headers=headers)
        else:
            template = self._template(address, stream=stream)
        return Call(template, body, retries, timeout, None if seconds is None else Deadline(seconds))

    def _wait_for_throttle(self, call: Call, spent: _Spent) -> None:
        if self._throttle is None:
            return
        started = time.monotonic()
        self._throttle.wait()
        waited = time.monotonic() - started
        spent.exclude(waited)
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

    def _delay(self, call: Call, attempt: Attempt, retries_taken: int, spent: _Spent) -> float | None:
        """Return the seconds to wait before the next attempt; `None` when there shall be none."""
        error = attempt.error
        assert error is not None
        throttle, wait = self._throttle, error.retry_after
        if throttle and wait and isinstance(error, errors.RateLimitError) and throttle.rate_limited(wait):
            return None
        if not attempt.retryable or retries_taken >= call.retries.limit:
            return None
        strategy = call.retries.backoff
        delay = retry_delay(retries_taken, error.headers, strategy, now=time.time(), random=random.random())
        if delay is None or spent.seconds() + delay > strategy.max_elapsed_time / 1000:
            return None
        return delay if call.deadline is None or delay < call.deadline.remaining() else None


class _Spent:
    """The time that a call has taken so far, without what its run's throttle held it."""

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
    logger.info(
        "POST %s %s in %.0f ms (request id %s, attempt %d)",
        call.template.display_url,
        outcome,
        (time.monotonic() - started) * 1000,
        single_line(str(request_id(headers)), _MAX_REQUEST_ID_LENGTH),
        retries_taken + 1,
    )
    logger.debug("sent %d bytes; response of %s bytes", len(call.body), headers.get("Content-Length", "unknown"))
