"""The address and headers of a request, resolved once and kept for all later calls."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.__version__ import __version__ as requests_version
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_ACCEPT_ENCODING, default_headers, get_environ_proxies, super_len
from urllib3.util import SKIP_HEADER

from .._core import url
from .._core.headers import is_sendable
from .._version import __version__
from ..sdkconfiguration import SDKConfiguration

USER_AGENT = f"gpt-sdk/{__version__} python/{sys.version_info[0]}.{sys.version_info[1]} requests/{requests_version}"

_PROXY_CACHE_SIZE = 1024
_READDED_BY_URLLIB3 = ("user-agent", "accept-encoding")
"""Headers that urllib3 (since 1.26) and http.client put back when they are merely absent; `SKIP_HEADER` stops both."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RequestTemplate:
    """Everything in a request except its body, its length and the key. Its `repr` shows none of it."""

    url: str
    """The whole URL, without user and password."""

    display_url: str
    """Scheme, host and path, fit for logs."""

    host: str
    """Host and port, for messages."""

    headers: CaseInsensitiveDict[Any]
    """Our headers and the client's: all but `Content-Length` and the key."""

    call_headers: Mapping[str, str | None]
    """The call's own, which win."""

    proxies: dict[str, str]
    """The environment's proxies for this host; empty with the caller's own session, which finds its own."""

    userinfo: tuple[str, str] | None
    """User and password that the URL contained."""

    overridden_headers: frozenset[str]
    """The headers that the caller set or removed, in lower case; neither a key nor a session replaces them."""

    for_session: bool
    """Whether the caller's session prepares and sends the request."""

    @property
    def sends_key(self) -> bool:
        """Whether the key is sent: not if the caller set or removed `Authorization`."""
        return "authorization" not in self.overridden_headers

    def with_headers(self, headers: Mapping[str, str | None]) -> RequestTemplate:
        """Return a copy with a call's own headers, which override those of the client, ignoring case."""
        return RequestTemplate(
            url=self.url,
            display_url=self.display_url,
            host=self.host,
            headers=self.headers,
            call_headers=headers,
            proxies=self.proxies,
            userinfo=self.userinfo,
            overridden_headers=self.overridden_headers.union(map(str.lower, headers)),
            for_session=self.for_session,
        )

    def new_headers(self) -> CaseInsensitiveDict[Any]:
        """Return the headers for one attempt, which may change them."""
        headers = self.headers.copy()
        if self.call_headers:
            _override(headers, self.call_headers, for_session=self.for_session)
        return headers

    def headers_beside(self, session_headers: Mapping[str, Any]) -> CaseInsensitiveDict[Any]:
        """Return the headers to combine with those of the caller's session, which override our defaults."""
        headers = self.new_headers()
        defaults = default_headers()
        for name, value in session_headers.items():
            if name in headers and name.lower() not in self.overridden_headers and value != defaults.get(name):
                del headers[name]
        headers["Content-Type"] = "application/json"
        return headers


def make_template(
    configuration: SDKConfiguration, address: str, *, stream: bool, proxies: Callable[[str], dict[str, str]]
) -> RequestTemplate:
    """Resolve an address and the client's headers.

    Args:
        configuration: the client's settings.
        address: the whole URL.
        stream: whether a stream is requested.
        proxies: finds the proxies of a URL.

    Raises:
        ValueError: nothing can be sent to this address.
    """
    address, userinfo = url.split_userinfo(address)
    if userinfo is not None and not all(map(is_sendable, userinfo)):
        raise ValueError("server_url: its user or password has a control character or one outside latin-1")
    address = _normalize(address)
    display_url = url.redact(address)
    for_session = configuration.client is not None
    headers = _default_headers(configuration, stream)
    _override(headers, configuration.http_headers, for_session=for_session)
    return RequestTemplate(
        url=address,
        display_url=display_url,
        host=host_in(display_url),
        headers=headers,
        call_headers={},
        proxies={} if for_session else proxies(address),
        userinfo=userinfo,
        overridden_headers=frozenset(name.lower() for name in configuration.http_headers),
        for_session=for_session,
    )


def host_in(address: str) -> str:
    """Return host and port of a URL, for messages."""
    return urlsplit(address).netloc.rpartition("@")[2]


def set_content_length(request: requests.PreparedRequest) -> None:
    """Set `Content-Length` to the length of the body, which a hook may have changed.

    A body of unknown length is sent in chunks, which requests does if there is no `Content-Length`.
    """
    body = request.body
    if isinstance(body, str):
        body = request.body = body.encode()
    if isinstance(body, bytes):
        request.headers["Content-Length"] = str(len(body))
    elif body is None:
        request.headers.pop("Content-Length", None)
        request.prepare_content_length(None)
    elif length := super_len(body):
        request.headers["Content-Length"] = str(length)
    else:
        request.headers.pop("Content-Length", None)


class EnvironmentProxies:
    """The environment's proxies, read once per server and used for all its calls."""

    def __init__(self) -> None:
        self._of_server = lru_cache(_PROXY_CACHE_SIZE)(lambda server: dict(get_environ_proxies(server)))

    def __call__(self, address: str) -> dict[str, str]:
        """Return the proxies for a URL, by scheme."""
        return self._of_server("/".join(address.split("/")[:3]))


def _normalize(address: str) -> str:
    """Let requests quote the URL and encode its host, as it would on every call."""
    try:
        return requests.Request("POST", address).prepare().url or address
    except requests.RequestException:
        pass  # raise outside of this block: the text of this exception may show the query
    raise ValueError(f"server_url: {url.redact(address)!r} cannot be sent to; check its host")


def _default_headers(configuration: SDKConfiguration, stream: bool) -> CaseInsensitiveDict[Any]:
    return CaseInsensitiveDict(
        {
            "User-Agent": USER_AGENT,
            "Accept-Encoding": DEFAULT_ACCEPT_ENCODING,
            "Accept": "text/event-stream" if stream else "application/json",
            **configuration.environment_headers,
            "Content-Type": "application/json",
        }
    )


def _override(headers: CaseInsensitiveDict[Any], overrides: Mapping[str, str | None], *, for_session: bool) -> None:
    """Set headers; `None` removes a header, also one of the caller's session."""
    for name, value in overrides.items():
        if value is None and name.lower() in _READDED_BY_URLLIB3:
            headers[name] = SKIP_HEADER
        elif value is None and not for_session:
            headers.pop(name, None)
        else:
            headers[name] = value
