"""One attempt: prepare the request, add the key, run the hooks and send. The outcome is returned as a value.

Exceptions from the layers below are caught in `_NetworkSend`, the innermost `send` of the hooks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests

from .._core.deadline import Deadline
from ..hooks import chain
from ..models import errors
from ..sdkconfiguration import SDKConfiguration
from ..utils.retries import RetryConfig, should_retry_status
from .auth import KeyAuth
from .body import ResponseBody, read_body, read_error_body
from .errors import connection_error, credentials_of, deadline_error, status_error
from .failures import TRANSPORT_EXCEPTIONS, TransportFailure, classify, is_from_requests
from .request import RequestTemplate, host_in, set_content_length
from .session import DeadlineTimeout

_MIN_TIMEOUT = 0.001
_GET_FAILURES = (errors.SDKError, *TRANSPORT_EXCEPTIONS, AttributeError, ValueError)
"""The last two come from a session of the caller's, which may be anything."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result of one attempt: a successful response, or an error and whether a retry may help."""

    response: requests.Response | None = None
    error: errors.SDKError | None = None
    retryable: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Call:
    """What all attempts of one call have in common. Its `repr` shows none of it."""

    template: RequestTemplate
    body: bytes
    retries: RetryConfig
    timeout: tuple[float | None, float | None]
    deadline: Deadline | None


@dataclass(frozen=True, slots=True, repr=False)
class Sender:
    """Make attempts over a session, ours or the caller's. Shared by threads without a lock."""

    configuration: SDKConfiguration
    session: Any
    verify: bool | str
    """Whether our own session verifies certificates, or with which bundle."""
    proxies: Callable[[str], dict[str, str]]
    """Finds the environment's proxies of a URL, for our own session."""

    def attempt(self, call: Call) -> Attempt:
        """Make one attempt.

        Raises:
            errors.SDKError: raised by a hook, or one that no retry can fix; passed on unchanged.
            TypeError, ValueError: the key, or what a hook returned, cannot be used.
        """
        request = self._prepare(call)
        send = _NetworkSend(self, call)
        hooks = self.configuration.hooks
        try:
            response = chain(hooks, send)(request) if hooks else send(request)
        except errors.APIConnectionError as error:
            if not send.raised(error):
                raise
            return Attempt(
                error=error, retryable=send.failure is not None and _is_retryable(send.failure, call.retries)
            )
        if 200 <= response.status_code < 300:
            return Attempt(response)
        return self._failed_attempt(call, request, response)

    def get(self, call: Call, limit: int) -> bytes | None:
        """Send a single GET to the call's address, without hooks; return the body, or `None` unless the status is 200.

        The request has the headers, key and proxies of a completion. It never raises for server or network failures:
        callers treat the response as optional.
        """
        try:
            request = self._prepare(call)
            request.method, request.body = "GET", None
            for name in ("Content-Length", "Content-Type"):
                request.headers.pop(name, None)
            with self.session.send(request, **self.send_arguments(call, request)) as response:
                body = read_body(ResponseBody(response, limit, call.deadline))
                return body if response.status_code == 200 else None
        except _GET_FAILURES:
            return None

    def _failed_attempt(self, call: Call, request: requests.PreparedRequest, response: requests.Response) -> Attempt:
        if response.status_code < 200 and response.raw is not None:
            # An interim response (RFC 9110, 15.2): the final one is still to come, so the connection is closed
            # unread. Reading would make urllib3 return it to the pool, and the next call would get that response.
            response.close()
            response._content = b""
        body = read_error_body(ResponseBody(response, self.configuration.max_response_bytes, call.deadline))
        error = status_error(response, body, secrets=credentials_of(request), now=time.time())
        retryable = should_retry_status(response.status_code, response.headers, error.code, error.type)
        return Attempt(error=error, retryable=retryable)

    def _prepare(self, call: Call) -> requests.PreparedRequest:
        """Return this attempt's own request, with the key as it is now."""
        template = call.template
        auth = self._authenticate(template)
        if self.configuration.client is not None:
            return self._prepare_by_session(call, auth)
        request = requests.PreparedRequest()
        request.method = "POST"
        request.url = template.url
        request.headers = template.new_headers()
        request.headers["Content-Length"] = str(len(call.body))
        request.body = call.body
        auth(request)
        return request

    def _authenticate(self, template: RequestTemplate) -> KeyAuth:
        """Return the auth of this attempt: the key, else userinfo in the URL, else the caller's session's own auth."""
        if not template.sends_key:
            return KeyAuth(None)
        session_auth = None if self.configuration.client is None else getattr(self.session, "auth", None)
        header = self.configuration.key_header()
        return KeyAuth(header, template.userinfo or session_auth, template.overridden_headers)

    def _prepare_by_session(self, call: Call, auth: KeyAuth) -> requests.PreparedRequest:
        """Let the caller's session prepare the request, with its headers, parameters, cookies, auth and hooks."""
        template = call.template
        headers = template.headers_beside(getattr(self.session, "headers", {}))
        request = requests.Request("POST", template.url, headers=headers, data=call.body, auth=auth)
        try:
            return self.session.prepare_request(request)  # type: ignore[no-any-return]
        except TRANSPORT_EXCEPTIONS as error:
            failure = classify(error, phase="send")
        raise connection_error(failure, template.host, call.deadline)

    def send_arguments(self, call: Call, request: requests.PreparedRequest) -> dict[str, Any]:
        """Return the keyword arguments of `Session.send` for a request."""
        settings: dict[str, Any] = {"stream": True, "allow_redirects": False, "timeout": call.timeout}
        connect, read = call.timeout
        if self.configuration.client is None:
            moved = request.url != call.template.url  # by a hook, perhaps to another host
            proxies = self.proxies(request.url or "") if moved else call.template.proxies
            settings |= {"verify": self.verify, "cert": None, "proxies": proxies}
            if call.deadline is not None:
                settings["timeout"] = DeadlineTimeout(call.deadline, connect, read)
            return settings
        if hasattr(self.session, "merge_environment_settings"):
            settings |= self.session.merge_environment_settings(request.url, {}, True, None, None)
        if call.deadline is not None:
            settings["timeout"] = tuple(max(_MIN_TIMEOUT, call.deadline.cap(seconds)) for seconds in call.timeout)
        return settings


class _NetworkSend:
    """Send one attempt's requests over the network; remember the failure of the last one."""

    __slots__ = ("_call", "_sender", "failure")

    def __init__(self, sender: Sender, call: Call) -> None:
        self._sender = sender
        self._call = call
        self.failure: TransportFailure | None = None

    def __call__(self, request: requests.PreparedRequest) -> requests.Response:
        """Send a request once.

        Raises:
            errors.APIConnectionError: there was no response; the failure is kept.
        """
        call = self._call
        if call.deadline is not None and call.deadline.expired:
            raise deadline_error(call.template.host, call.deadline)
        self.failure = None
        if self._sender.configuration.hooks:
            set_content_length(request)
        try:
            return self._sender.session.send(request, **self._sender.send_arguments(call, request))  # type: ignore[no-any-return]
        except TRANSPORT_EXCEPTIONS as error:
            # A response hook of the caller's session called raise_for_status: the response is all we need.
            if isinstance(error, requests.HTTPError) and error.response is not None:
                return error.response
            failure = classify(error, secrets=credentials_of(request))
        except (ValueError, TypeError) as error:
            if not is_from_requests(error):
                raise
            failure = classify(error)
        self.failure = failure
        raise connection_error(failure, host_in(request.url or ""), call.deadline)

    def raised(self, error: errors.APIConnectionError) -> bool:
        """Return whether an error is the last one that this send raised, as opposed to one raised by a hook."""
        return self.failure is not None and error.__cause__ is self.failure.cause


def _is_retryable(failure: TransportFailure, retries: RetryConfig) -> bool:
    if failure.kind == "timeout" and failure.phase == "read":
        return retries.retry_read_timeouts  # the server may be working on the request
    return retries.retry_connection_errors and failure.kind in ("connection", "timeout")
