"""The only touch of the network: attempts and retries; and the only translation of foreign errors.

One call: resolve its options, then for each attempt copy the request, add the key, run the hooks, send, and read an
error's body. What requests, urllib3 and the socket raise becomes one of `gpt.models.errors` here (until the answer's
headers) and in `answer` (its body), and nowhere else.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

import requests

from .._core import url
from .._core.deadline import Deadline, parse_seconds, parse_timeout
from .._core.errorbody import one_line
from .._core.headers import check_headers, credentials_in, request_id
from ..hooks import chain
from ..models import errors
from ..sdkconfiguration import SDKConfiguration
from ..utils.retries import RetryConfig, retry_delay, should_retry_status
from ..utils.unset import UNSET, Unset
from .auth import KeyAuth
from .body import ResponseBody, read_error_body
from .errors import connection_error, deadline_error, status_error
from .failures import FOREIGN, Failure, classify, is_about_redirect
from .request import RequestTemplate, environment_proxies
from .session import DeadlineTimeout, DefaultSession

logger = logging.getLogger("gpt")

_TARGETS = 16
_SERVERS = 1024
_address = lru_cache(_TARGETS)(url.join)
_SHORTEST = 0.001
_LONGEST_ID = 100


class RequestOptions:
    """What a caller may say about one call; `UNSET` leaves it to the client. Its `repr` shows none of it."""

    def __init__(
        self,
        retries: RetryConfig | Unset,
        timeout: Any,
        deadline: float | Unset | None,
        http_headers: Mapping[str, str | None] | None,
        query: Mapping[str, Any] | None,
        server_url: str | None,
    ) -> None:
        self.retries = retries
        self.timeout = timeout
        self.deadline = deadline
        self.http_headers = http_headers
        self.query = query
        self.server_url = server_url


class _CallState:
    """One call on its way through its attempts."""

    def __init__(
        self,
        target: RequestTemplate,
        body: bytes,
        retries: RetryConfig,
        timeout: tuple[float | None, float | None],
        deadline: Deadline | None,
    ) -> None:
        self.target = target
        self.body = body
        self.retries = retries
        self.timeout = timeout
        self.deadline = deadline
        self.started = time.monotonic()
        self.attempt = 0


class Transport:
    """Send requests as a configuration says. Shared by threads without a lock."""

    def __init__(self, configuration: SDKConfiguration, throttle: Any = None) -> None:
        self._configuration = configuration
        self._throttle = throttle
        self._own = configuration.client is None
        self.session: Any = DefaultSession() if self._own else configuration.client
        self._verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        proxies = lru_cache(_SERVERS)(environment_proxies)  # what was read once for a server holds for all its calls
        self._resolve = partial(RequestTemplate, configuration, proxies=proxies)
        self._target = lru_cache(_TARGETS)(self._resolve)

    def prepare(self, path: str) -> None:
        """Resolve the client's own server now, with the environment's proxies as they are at construction."""
        for stream in (False, True):
            self._target(_address(self._configuration.server_url, path), stream=stream)

    def close(self) -> None:
        """Close the idle connections of our own session."""
        if self._own:
            self.session.close()

    def post(self, path: str, body: bytes, *, stream: bool, options: RequestOptions) -> ResponseBody:
        """Send a request until it is answered with 2xx or nothing more is to be tried.

        Raises:
            errors.SDKError: the last attempt's failure.
        """
        call = self._call(path, body, stream, options)
        while True:
            if self._throttle is not None:
                waited = time.monotonic()
                self._throttle.wait()
                waited = time.monotonic() - waited
                call.started += waited
                if call.deadline is not None:
                    call.deadline.extend(waited)
            response, error, mendable = self._attempt(call)
            if response is not None:
                limit = self._configuration.max_response_bytes
                return ResponseBody(response, limit, call.deadline, call.attempt)
            assert error is not None
            if self._throttle is not None and isinstance(error, errors.RateLimitError) and error.retry_after:
                mendable = not self._throttle.rate_limited(error.retry_after) and mendable
            wait = _wait(call, error) if mendable else None
            if wait is None:
                try:
                    raise error
                finally:
                    del error
            call.attempt += 1
            logger.info("Retrying request in %.3f s (retry %d): %s", wait, call.attempt, call.target.shown)
            time.sleep(wait)

    def _call(self, path: str, body: bytes, stream: bool, options: RequestOptions) -> _CallState:
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
        address = url.join(base, path, options.query) if options.query else _address(base, path)
        if headers:
            target = self._resolve(address, stream=stream, call_headers=headers)
        else:
            target = self._target(address, stream=stream)
        return _CallState(target, body, retries, timeout, None if seconds is None else Deadline(seconds))

    def _attempt(self, call: _CallState) -> tuple[requests.Response | None, errors.SDKError | None, bool]:
        """Make one attempt: give its answer, or its error and whether another attempt may mend it."""
        started = time.monotonic()
        hooks = self._configuration.hooks
        try:
            request = self._prepare(call)
            response = chain(hooks, partial(self._send, call))(request) if hooks else self._send(call, request)
        except errors.APIConnectionError as error:
            _log(call, started, type(error).__name__, None)
            if error._failure is None:  # the deadline's, or a hook's own
                raise
            return None, error, _is_mendable(error._failure, call.retries)
        _log(call, started, response.status_code, response)
        if 200 <= response.status_code < 300:
            return response, None, False
        body = read_error_body(ResponseBody(response, self._configuration.max_response_bytes, call.deadline))
        status = status_error(response, body, secrets=credentials_in(request.headers), now=time.time())
        return (
            None,
            status,
            should_retry_status(status.status_code or 0, response.headers, status.code, status.type),
        )

    def _prepare(self, call: _CallState) -> requests.PreparedRequest:
        """Make this attempt's own request, with the key as it is now."""
        target = call.target
        auth = self._authenticate(target)
        if not self._own:
            return self._prepare_by_session(call, auth)
        request = requests.PreparedRequest()
        request.method = "POST"
        request.url = target.url
        request.headers = target.headers.copy()
        request.headers["Content-Length"] = str(len(call.body))
        request.body = call.body
        auth(request)
        return request

    def _authenticate(self, target: RequestTemplate) -> KeyAuth:
        """Ask for the key, whose provider may raise what it likes, and for what counts without one."""
        if not target.keyed:
            return KeyAuth(None)
        others = None if self._own else getattr(self.session, "auth", None)
        return KeyAuth(self._configuration.key_header(), target.userinfo or others, target.given)

    def _prepare_by_session(self, call: _CallState, auth: KeyAuth) -> requests.PreparedRequest:
        """Let the caller's session prepare the request, with its headers, parameters, cookies, auth and hooks."""
        target = call.target
        request = requests.Request("POST", target.url, headers=target.headers, data=call.body, auth=auth)
        try:
            return self.session.prepare_request(request)  # type: ignore[no-any-return]
        except FOREIGN as error:
            failure = classify(error)
        raise connection_error(failure, target.host, call.deadline)

    def _send(self, call: _CallState, request: requests.PreparedRequest) -> requests.Response:
        """Send over the network; this is where foreign exceptions end."""
        if call.deadline is not None and call.deadline.expired:
            raise deadline_error(call.target.host, call.deadline)
        try:
            return self._send_by_session(call, request)
        except FOREIGN as error:
            # A response hook of the caller's session that calls raise_for_status brings the answer along.
            if isinstance(error, requests.HTTPError) and error.response is not None:
                return error.response
            failure = classify(error)
        except ValueError as error:
            if not is_about_redirect(error):
                raise
            failure = classify(error)
        raise connection_error(failure, call.target.host, call.deadline)

    def _send_by_session(self, call: _CallState, request: requests.PreparedRequest) -> requests.Response:
        connect, read = call.timeout
        settings: dict[str, Any] = {"stream": True}
        if self._own:
            settings |= {"verify": self._verify, "cert": None, "proxies": call.target.proxies}
            timeout: Any = DeadlineTimeout(call.deadline, connect, read) if call.deadline else call.timeout
        else:
            if hasattr(self.session, "merge_environment_settings"):
                settings = self.session.merge_environment_settings(request.url, {}, True, None, None)
            timeout = call.timeout
            if call.deadline is not None:
                timeout = tuple(max(_SHORTEST, call.deadline.cap(seconds)) for seconds in call.timeout)
        return self.session.send(request, timeout=timeout, allow_redirects=False, **settings)  # type: ignore[no-any-return]


def check_retries(value: object) -> RetryConfig:
    """Check a `retries` option.

    Raises:
        TypeError: it is no `RetryConfig`; `None` could mean two things, so it is refused.
    """
    if isinstance(value, RetryConfig):
        return value
    if value is None:
        raise TypeError(
            "retries: None is ambiguous; leave it out for the client's settings,"
            " or give utils.RetryConfig(strategy='none') for a single attempt"
        )
    raise TypeError(f"retries: expected a utils.RetryConfig, got {type(value).__name__}")


def _wait(call: _CallState, error: errors.SDKError) -> float | None:
    """Give the seconds to wait before the next attempt; `None` when there shall be none."""
    if call.attempt >= call.retries.limit:
        return None
    strategy = call.retries.backoff
    wait = retry_delay(call.attempt, error.headers, strategy, now=time.time(), random=random.random())
    if wait is None:
        return None
    if time.monotonic() - call.started + wait > strategy.max_elapsed_time / 1000:
        return None
    return wait if call.deadline is None or wait < call.deadline.remaining() else None


def _is_mendable(failure: Failure, retries: RetryConfig) -> bool:
    if failure.kind == "read timeout":
        return retries.retry_read_timeouts
    return retries.retry_connection_errors and failure.kind in ("connection", "connect timeout")


def _log(call: _CallState, started: float, outcome: object, response: requests.Response | None) -> None:
    if not logger.isEnabledFor(logging.INFO):
        return
    headers: Mapping[str, str] = response.headers if response is not None else {}
    logger.info(
        "POST %s %s in %.0f ms (request id %s, attempt %d)",
        call.target.shown,
        outcome,
        (time.monotonic() - started) * 1000,
        one_line(str(request_id(headers)), _LONGEST_ID),
        call.attempt + 1,
    )
    logger.debug("sent %d bytes; answer of %s bytes", len(call.body), headers.get("Content-Length", "unknown"))
