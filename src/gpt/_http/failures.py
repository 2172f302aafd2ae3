"""What went wrong below HTTP, read from whatever requests, urllib3 and the socket raised, without its secrets."""

from __future__ import annotations

import http.client
import re
import ssl
import zlib
from collections.abc import Iterator
from traceback import walk_tb
from typing import Literal
from urllib.parse import urlsplit

import requests
import urllib3

from .._core import url

FOREIGN = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    urllib3.exceptions.ProxySchemeUnsupported,
    http.client.HTTPException,
    OSError,
    UnicodeError,
    zlib.error,
)
"""Everything that the layers below raise on purpose."""

_AT_THE_PROXY = (requests.exceptions.ProxyError, urllib3.exceptions.ProxyError)
_UNREADABLE_URL = (urllib3.exceptions.LocationParseError, requests.exceptions.InvalidURL)

_URL = r"([a-zA-Z][\w+.-]*://)[^\s'\"]*"
_PATH = r"(with url: [^\s?]*)\?\S*"


Kind = Literal["connect timeout", "read timeout", "connection", "other"]


class Failure:
    """One failure, classified."""

    def __init__(self, kind: Kind, text: str, cause: Exception) -> None:
        self.kind = kind
        """What it was; `other` is nothing that a second attempt would mend."""

        self.text = text
        """The innermost reason, for people."""

        self.cause = cause
        """An exception of the same class that carries the text and nothing else."""


def classify(error: BaseException) -> Failure:
    """Read a foreign exception and everything it wraps."""
    chain = list(_chain(error))
    text = scrub(_reason(chain))
    return Failure(_kind(chain), text, _bare(error, text))


def is_about_redirect(error: ValueError) -> bool:
    """Tell whether requests tripped over a `Location` that is no URL; it looks at it with redirects off, too."""
    return any(frame.f_code.co_name == "resolve_redirects" for frame, _ in walk_tb(error.__traceback__))


def scrub(text: str) -> str:
    """Take user, password and query out of every URL in a text."""
    return re.sub(_PATH, r"\1", re.sub(_URL, _without_secrets, text))


def _without_secrets(found: re.Match[str]) -> str:
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


def _kind(chain: list[BaseException]) -> Kind:
    connecting = (requests.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError)
    if any(isinstance(e, connecting) and not isinstance(e, urllib3.exceptions.NewConnectionError) for e in chain):
        return "connect timeout"
    if any(isinstance(e, TimeoutError) and "handshake" in str(e) for e in chain):
        return "connect timeout"
    if any(isinstance(e, urllib3.exceptions.NewConnectionError) for e in chain):
        return "connection"
    reading = (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError)
    if any(isinstance(e, reading) for e in chain):
        return "read timeout"
    if any(isinstance(e, ssl.SSLCertVerificationError) or _is_garbage(e) or _is_plain(e) for e in chain):
        return "other"
    lost = (requests.ConnectionError, urllib3.exceptions.ProtocolError, ConnectionError)
    return "connection" if any(isinstance(e, lost) for e in chain) else "other"


def _is_garbage(error: BaseException) -> bool:
    """Tell an answer that is not HTTP from a connection that went away."""
    gone = (http.client.RemoteDisconnected, http.client.IncompleteRead)
    return isinstance(error, http.client.HTTPException) and not isinstance(error, gone)


def _is_plain(error: BaseException) -> bool:
    """Tell a server that answered our TLS with plain text."""
    return isinstance(error, ssl.SSLError) and getattr(error, "reason", "") in (
        "WRONG_VERSION_NUMBER",
        "RECORD_LAYER_FAILURE",
    )


def _reason(chain: list[BaseException]) -> str:
    for error in chain:
        if isinstance(error, requests.exceptions.InvalidHeader) and "header" in str(error):
            return "InvalidHeader: a header of the session cannot be sent"  # its text shows the value
        if isinstance(error, _UNREADABLE_URL):
            return f"{type(error).__name__}: the URL of the server or of a proxy cannot be read"  # may show a password
    telling = [e for e in chain if str(e) and not any(isinstance(a, BaseException) for a in e.args)]
    innermost = (telling or chain)[-1]
    if isinstance(innermost, urllib3.exceptions.HTTPError) and len(telling) > 1:
        innermost = next((e for e in telling if isinstance(e, OSError | http.client.HTTPException)), innermost)
    text = str(innermost) or "no details"
    if _is_plain(innermost):
        text += "; no TLS is spoken there, use an http:// URL"
    if any(isinstance(e, _AT_THE_PROXY) for e in chain):
        text += " (at the proxy)"
    return f"{type(innermost).__name__}: {text}"[:500]


def _bare(error: BaseException, text: str) -> Exception:
    families = (requests.RequestException, OSError)
    if isinstance(error, families) and not isinstance(error, UnicodeError):
        try:
            bare = type(error)(text)
        except Exception:
            bare = None
        if isinstance(bare, Exception):
            return bare
    return RuntimeError(f"{type(error).__name__}: {text}")
