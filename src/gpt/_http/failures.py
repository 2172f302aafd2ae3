"""Translation of failures: all exceptions from requests, urllib3 and the socket become a `TransportFailure` here.

Only `errors.connection_error` turns that into one of `gpt.models.errors`.
"""

from __future__ import annotations

import http.client
import re
import ssl
import zlib
from collections.abc import Iterable, Iterator
from traceback import walk_tb
from typing import Literal
from urllib.parse import urlsplit

import requests
import urllib3

from .._core import url
from .._core.text import mask, single_line

TRANSPORT_EXCEPTIONS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    urllib3.exceptions.ProxySchemeUnsupported,
    http.client.HTTPException,
    OSError,
    UnicodeError,
    zlib.error,
)
"""Everything that the layers below raise on purpose."""

_PROXY_ERRORS = (requests.exceptions.ProxyError, urllib3.exceptions.ProxyError)
_INVALID_URL_ERRORS = (
    urllib3.exceptions.LocationParseError,
    requests.exceptions.InvalidURL,
    urllib3.exceptions.ProxySchemeUnknown,
)

_STANDARD_MODULES = ("urllib", "ipaddress", "re", "encodings", "http", "socket", "ssl", "idna")

_URL = r"([a-zA-Z][\w+.-]*://)[^\s'\"]*"
_PATH = r"(with url: [^\s?]*)\?\S*"
_MAX_TEXT = 500

Kind = Literal["connection", "timeout", "protocol", "other"]
"""`connection`: refused, reset, or closed early; `timeout`: too slow; `protocol`: not HTTP, not TLS, or not trusted;
`other`: nothing was sent, because the URL, a header or a proxy's setting cannot be used."""

Phase = Literal["connect", "send", "read", "deadline"]
"""What the call was doing: connecting (TLS and a proxy's CONNECT included), sending the request, reading the response;
`deadline` when the time for the whole call was up, whatever it was doing."""


class TransportFailure(Exception):
    """What went wrong below HTTP. Internal: no caller of the library sees it."""

    def __init__(self, kind: Kind, phase: Phase, text: str, cause: Exception) -> None:
        super().__init__(text)
        self.kind: Kind = kind
        self.phase: Phase = phase

        self.text = text
        """The innermost reason, one printable line without URLs' secrets and without the keys that were sent."""

        self.cause = cause
        """An exception of the original's class that carries the text and nothing else."""


class PhaseTimeoutError(TimeoutError):
    """A timeout on one of our own connections, with the phase in which it occurred."""

    def __init__(self, text: str, phase: Phase) -> None:
        super().__init__(text)
        self.phase: Phase = phase


def classify(error: BaseException, *, phase: Phase | None = None, secrets: Iterable[str] = ()) -> TransportFailure:
    """Classify an exception of another library, including everything that it wraps.

    Args:
        error: what requests, urllib3, http.client, ssl or a socket raised.
        phase: what the call was doing, if the exception itself does not show it.
        secrets: the keys that were sent, masked should the server have repeated them.
    """
    if isinstance(error, TransportFailure):
        return error
    chain = list(_chain(error))
    text = single_line(mask(redact_urls(_reason(chain)), secrets), _MAX_TEXT)
    kind, found = _classify(chain)
    return TransportFailure(kind, found or phase or "read", text, _sanitized_copy(error, text))


def is_from_requests(error: BaseException) -> bool:
    """Return whether a `ValueError` or `TypeError` was raised by requests or urllib3, not by the caller's code.

    They raise one for a `Location` that is not a URL (requests reads it even with redirects off), for a proxy with an
    unsupported scheme (`socks://`), and for a proxy without a host.
    """
    modules = [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame, _ in walk_tb(error.__traceback__)]
    outside = [module for module in modules if module not in _STANDARD_MODULES]
    return outside[-1:] in (["requests"], ["urllib3"])


def redact_urls(text: str) -> str:
    """Return a text without user, password and query of the URLs in it."""
    return re.sub(_PATH, r"\1", re.sub(_URL, _redact_match, text))


def _redact_match(found: re.Match[str]) -> str:
    text = found.group()
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return f"{found.group(1)}***"
    if not parts.netloc or "@" in parts.path + parts.query + parts.fragment:  # a password with a "/" or "?" in it
        return f"{found.group(1)}***" if len(text) > len(found.group(1)) else text
    return url.redact(text)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Walk from an exception to what it wraps: its arguments and `reason` first, then its cause and context."""
    waiting = [error]
    seen: set[int] = set()
    while waiting and len(seen) < 50:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = [*getattr(current, "args", ()), getattr(current, "reason", None)]
        inner += [current.__cause__, current.__context__]
        waiting += [item for item in inner if isinstance(item, BaseException)]


def _classify(chain: list[BaseException]) -> tuple[Kind, Phase | None]:
    """Return the kind, and the phase if the exceptions show it."""
    refused = urllib3.exceptions.NewConnectionError  # a subclass of ConnectTimeoutError in urllib3 2
    for error in chain:
        if isinstance(error, PhaseTimeoutError):
            return "timeout", error.phase
    connecting = (requests.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError)
    if any(isinstance(e, connecting) and not isinstance(e, refused) for e in chain):
        return "timeout", "connect"
    if any(isinstance(e, TimeoutError) and "handshake" in str(e) for e in chain):
        return "timeout", "connect"
    if any(isinstance(e, refused) for e in chain):
        return "connection", "connect"
    at_proxy = any(isinstance(e, _PROXY_ERRORS) for e in chain)
    if any(isinstance(e, requests.ReadTimeout | urllib3.exceptions.ReadTimeoutError) for e in chain):
        return "timeout", "connect" if at_proxy else "read"
    if any(isinstance(e, TimeoutError) for e in chain):
        return "timeout", "connect" if at_proxy else _phase_of_bare_timeout(chain)
    if any(isinstance(e, ssl.SSLCertVerificationError) or _is_plaintext(e) for e in chain):
        return "protocol", "connect"
    if any(_is_protocol_error(e) for e in chain):
        return "protocol", None
    lost = (requests.ConnectionError, urllib3.exceptions.ProtocolError, ConnectionError)
    if any(isinstance(e, lost) for e in chain):
        return "connection", "connect" if at_proxy else None
    return "other", None


def _phase_of_bare_timeout(chain: list[BaseException]) -> Phase | None:
    """Return "send" for a timeout that urllib3 passes on as an aborted connection.

    urllib3 2 raises a `ReadTimeoutError` for a timeout while waiting for the response. A timeout while sending stays
    a bare `TimeoutError` inside `ProtocolError("Connection aborted.")`. `test_timeouts` checks this.
    """
    aborted = any(isinstance(e, urllib3.exceptions.ProtocolError) and "aborted" in str(e) for e in chain)
    return "send" if aborted else None


def _is_protocol_error(error: BaseException) -> bool:
    """Return whether a response was not HTTP, rather than a connection that went away."""
    disconnects = (http.client.RemoteDisconnected, http.client.IncompleteRead)
    return isinstance(error, http.client.HTTPException) and not isinstance(error, disconnects)


def _is_plaintext(error: BaseException) -> bool:
    """Return whether a server responded to our TLS with plain text."""
    return isinstance(error, ssl.SSLError) and getattr(error, "reason", "") in (
        "WRONG_VERSION_NUMBER",
        "RECORD_LAYER_FAILURE",
    )


def _reason(chain: list[BaseException]) -> str:
    for error in chain:
        if isinstance(error, requests.exceptions.InvalidHeader) and "header" in str(error):
            return "InvalidHeader: a header of the session cannot be sent"  # its text shows the value
        if isinstance(error, _INVALID_URL_ERRORS) or type(error) in (ValueError, TypeError):
            # its text may show a password
            return f"{type(error).__name__}: the URL of the server, of a proxy or of a redirect cannot be used"
    with_message = [e for e in chain if str(e) and not any(isinstance(a, BaseException) for a in e.args)]
    innermost = (with_message or chain)[-1]
    if isinstance(innermost, urllib3.exceptions.HTTPError) and len(with_message) > 1:
        innermost = next((e for e in with_message if isinstance(e, OSError | http.client.HTTPException)), innermost)
    text = str(innermost) or "no details"
    if _is_plaintext(innermost):
        text += "; no TLS is spoken there, use an http:// URL"
    if any(isinstance(e, _PROXY_ERRORS) for e in chain):
        text += " (at the proxy)"
    return f"{type(innermost).__name__}: {text}"


def _sanitized_copy(error: BaseException, text: str) -> Exception:
    families = (requests.RequestException, OSError)
    if isinstance(error, families) and not isinstance(error, UnicodeError):
        try:
            copy = type(error)(text)
        except Exception:
            copy = None
        if isinstance(copy, Exception):
            return copy
    return RuntimeError(f"{type(error).__name__}: {text}")
