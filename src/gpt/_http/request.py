"""Where a request goes and with which headers: resolved once, kept for every call after it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import requests
from requests.__version__ import __version__ as requests_version
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_ACCEPT_ENCODING, default_headers, get_environ_proxies
from urllib3.util import SKIP_HEADER

from .._core import url
from .._core.headers import is_sendable
from .._version import __version__
from ..sdkconfiguration import SDKConfiguration

USER_AGENT = f"gpt-sdk/{__version__} python/{sys.version_info[0]}.{sys.version_info[1]} requests/{requests_version}"

_READDED_BY_URLLIB3 = ("user-agent", "accept-encoding")
"""Headers that urllib3 and http.client put back when they are merely absent."""


class RequestTemplate:
    """A resolved address; its `repr` shows no key."""

    def __init__(
        self,
        configuration: SDKConfiguration,
        address: str,
        *,
        stream: bool,
        proxies: Callable[[str], dict[str, str]],
        call_headers: Mapping[str, str | None] | None = None,
    ) -> None:
        """Resolve an address; headers of the call win over those of the client, in any case.

        `proxies` finds those of a server, given as `scheme://host:port`.
        """
        address, userinfo = url.split_userinfo(address)
        if userinfo is not None and not all(map(is_sendable, userinfo)):
            raise ValueError("server_url: its user or password has a control character or one outside latin-1")
        extra: dict[str, tuple[str, str | None]] = {}
        for headers in (configuration.http_headers, call_headers or {}):
            extra.update((name.lower(), (name, value)) for name, value in headers.items())

        self.url = _normalised(address)
        """The whole URL, without user and password."""

        self.display_url = url.redact(self.url)
        """Scheme, host and path, fit for logs."""

        self.host = self.display_url.split("/")[2]
        """Host and port, for messages."""

        self.headers = _headers(configuration, stream, dict(extra.values()))
        """All headers but `Content-Length` and the key."""

        self.proxies = proxies("/".join(self.url.split("/")[:3])) if configuration.client is None else {}
        """The environment's proxies for this host; empty with the caller's own session, which finds its own."""

        self.userinfo = userinfo
        """User and password that the URL contained."""

        self.sends_key = "authorization" not in extra
        """Whether the key goes along: not when the caller's headers say otherwise."""

        self.overridden_headers = frozenset(extra)
        """The headers that the caller set or took off, in lower case: a key does not replace them."""


def environment_proxies(server: str) -> dict[str, str]:
    """Find the proxies that the environment now names for a server."""
    return dict(get_environ_proxies(server))


def _normalised(address: str) -> str:
    """Let requests quote the URL and encode its host, as it would on every call."""
    try:
        return requests.Request("POST", address).prepare().url or address
    except requests.RequestException:
        pass  # and out of the way: its text may show the query
    raise ValueError(f"server_url: {url.redact(address)!r} cannot be sent to; check its host")


def _headers(
    configuration: SDKConfiguration, stream: bool, extra: Mapping[str, str | None]
) -> CaseInsensitiveDict[Any]:
    """Merge headers: ours, then what the caller's session changed from requests' own, then `extra`."""
    headers: CaseInsensitiveDict[Any] = CaseInsensitiveDict(
        {
            "User-Agent": USER_AGENT,
            "Accept-Encoding": DEFAULT_ACCEPT_ENCODING,
            "Accept": "text/event-stream" if stream else "application/json",
            **configuration.environment_headers,
        }
    )
    for name, value in getattr(configuration.client, "headers", {}).items():
        if name in headers and value != default_headers().get(name):
            del headers[name]
    for name, value in extra.items():
        if value is None and name.lower() in _READDED_BY_URLLIB3:
            value = SKIP_HEADER
        if value is None and configuration.client is None:
            headers.pop(name, None)
        else:
            headers[name] = value
    headers["Content-Type"] = "application/json"
    return headers
