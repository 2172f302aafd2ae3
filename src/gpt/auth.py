"""From a key to a header, for each attempt, without showing it."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping
from typing import Any

import requests
from requests.auth import AuthBase, HTTPBasicAuth

from .models.shared import Security


class KeyAuth(AuthBase):
    """Put the key into its header, or do what `fallback` does when there is no key.

    A callable auth is the one kind that `.netrc` cannot override, so it stands even where it adds nothing.
    """

    def __init__(
        self,
        header: tuple[str, str] | None,
        fallback: Any = None,
        given: Container[str] = (),
    ) -> None:
        self._header = header
        self._given = given
        self._fallback: Callable[[requests.PreparedRequest], requests.PreparedRequest] | None = (
            HTTPBasicAuth(*fallback) if isinstance(fallback, tuple) else fallback
        )

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._header is not None:
            if self._header[0].lower() not in self._given:
                request.headers[self._header[0]] = self._header[1]
        elif callable(self._fallback):
            return self._fallback(request)
        return request


def environment_key() -> Security | None:
    """Read `OPENAI_API_KEY`; blank is no key."""
    security = Security(api_key_auth=os.environ.get("OPENAI_API_KEY", "").strip())
    return security if security.api_key_auth else None


def key_header(security: object, source: str = "security.api_key_auth") -> tuple[str, str] | None:
    """Turn a `Security` into a header, or `None` for keyless; `source` is what messages call the key.

    Raises:
        TypeError: it is no `Security`, or its parts are no strings.
        ValueError: the key or the header's name cannot be sent. The message does not show the key.
    """
    if not isinstance(security, Security):
        raise TypeError(f"security: expected a shared.Security, got {type(security).__name__}")
    if not isinstance(security.api_key_auth, str):
        raise TypeError(f"{source}: expected a string, got {type(security.api_key_auth).__name__}")
    if not security.api_key_auth.strip():
        return None
    if not is_sendable(security.api_key_auth.strip()):
        raise ValueError(
            f"{source}: the key contains a control character or one outside latin-1;"
            " was it copied with something around it?"
        )
    name = check_header_name(security.header, "security.header")
    key = security.api_key_auth.strip()
    return (name, f"Bearer {key}") if name.lower() == "authorization" else (name, key)


def check_headers(headers: Mapping[str, str | None] | None, name: str = "http_headers") -> dict[str, str | None]:
    """Check extra headers; `None` as a value takes a header off the wire.

    Raises:
        TypeError: a name or value is no string.
        ValueError: one cannot be sent, or is ours to set. The message does not show the value.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise TypeError(f"{name}: expected a mapping, got {type(headers).__name__}")
    return {_checked(key, value, name): value for key, value in headers.items()}


def _checked(key: object, value: object, name: str) -> str:
    header = check_header_name(key, name)
    if header.lower() in ("host", "content-type", "content-length"):
        raise ValueError(f"{name}: {header} is set by the client and cannot be replaced")
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name}[{header!r}]: expected a string or None, got {type(value).__name__}")
    if value is not None and not (is_sendable(value) and value == value.strip()):
        raise ValueError(
            f"{name}[{header!r}]: the value has white space around it, a control character or one outside latin-1"
        )
    return header


def check_header_name(value: object, name: str) -> str:
    """Check the name of a header.

    Raises:
        TypeError: it is no string.
        ValueError: it has characters that a name cannot have.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected header names to be strings, got {type(value).__name__}")
    if not value or not all(c.isascii() and (c.isalnum() or c in "!#$%&'*+-.^_`|~") for c in value):
        raise ValueError(f"{name}: not the name of a header ({len(value)} characters)")
    return value


def is_sendable(text: str) -> bool:
    """Tell whether a header can carry a text: latin-1, no control characters."""
    return all(" " <= c <= "\xff" and not "\x7f" <= c <= "\x9f" for c in text)
