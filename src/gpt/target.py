"""Where a request goes and with which headers: resolved once, kept for every call after it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import requests
from requests.__version__ import __version__ as requests_version
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_ACCEPT_ENCODING, default_headers, get_environ_proxies
from urllib3.util import SKIP_HEADER

from ._version import __version__
from .auth import is_sendable
from .sdkconfiguration import SDKConfiguration
from .utils import url

USER_AGENT = f"gpt-sdk/{__version__} python/{sys.version_info[0]}.{sys.version_info[1]} requests/{requests_version}"

_RESTORED_BELOW = ("user-agent", "accept-encoding")
"""Headers that urllib3 and http.client put back when they are merely absent."""


class Target(NamedTuple):
    """A resolved address."""

    url: str
    """The whole URL, without user and password."""

    shown: str
    """Scheme, host and path, fit for logs."""

    host: str
    """Host and port, for messages."""

    headers: CaseInsensitiveDict[Any]
    """All headers but `Content-Length` and the key."""

    proxies: dict[str, str]
    """The environment's proxies for this host; empty with the caller's own session, which finds its own."""

    userinfo: tuple[str, str] | None
    """User and password that the URL contained."""

    keyed: bool
    """Whether the key goes along: not when the caller's headers say otherwise."""

    given: frozenset[str]
    """The headers that the caller set or took off, in lower case: a key does not replace them."""

    def __repr__(self) -> str:
        return f"<Target {self.shown}>"


def resolve_target(
    configuration: SDKConfiguration,
    address: str,
    *,
    stream: bool,
    proxies: Callable[[str], dict[str, str]],
    call_headers: Mapping[str, str | None] | None = None,
) -> Target:
    """Resolve an address; headers of the call win over those of the client, in any case.

    `proxies` finds those of a server, given as `scheme://host:port`.
    """
    address, userinfo = url.split_userinfo(address)
    if userinfo is not None and not all(map(is_sendable, userinfo)):
        raise ValueError("server_url: its user or password has a control character or one outside latin-1")
    extra: dict[str, tuple[str, str | None]] = {}
    for headers in (configuration.http_headers, call_headers or {}):
        extra.update((name.lower(), (name, value)) for name, value in headers.items())
    normal = _normalised(address)
    shown = url.redact(normal)
    return Target(
        url=normal,
        shown=shown,
        host=shown.split("/")[2],
        headers=_headers(configuration, stream, dict(extra.values())),
        proxies=proxies("/".join(normal.split("/")[:3])) if configuration.client is None else {},
        userinfo=userinfo,
        keyed="authorization" not in extra,
        given=frozenset(extra),
    )


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
        if value is None and name.lower() in _RESTORED_BELOW:
            value = SKIP_HEADER
        if value is None and configuration.client is None:
            headers.pop(name, None)
        else:
            headers[name] = value
    headers["Content-Type"] = "application/json"
    return headers
