"""What headers say: request ids, rate limits, durations; and which of them hold credentials."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

_REQUEST_ID_HEADERS = (
    "x-request-id",
    "apim-request-id",
    "x-litellm-call-id",
    "x-generation-id",
    "request-id",
)
_CREDENTIAL_WORDS = ("auth", "key", "token", "secret", "cookie", "password")
_UNITS = {"ms": 0.001, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION_PART = r"(\d+(?:\.\d+)?)(ms|us|µs|ns|s|m|h|d)"


def request_id(headers: Mapping[str, str]) -> str | None:
    """Find the server's name for the request: OpenAI, vLLM, Azure, LiteLLM and OpenRouter each have a header."""
    return next((headers[name] for name in _REQUEST_ID_HEADERS if headers.get(name)), None)


def is_credential(name: str) -> bool:
    """Tell whether a header or parameter of this name is likely to hold a credential."""
    return any(word in name.lower() for word in _CREDENTIAL_WORDS)


def credentials_in(headers: Mapping[str, object]) -> list[str]:
    """Find the keys that were sent, to keep them out of a message should the server repeat them."""
    return [str(value).removeprefix("Bearer ") for name, value in headers.items() if is_credential(name)]


def parse_count(text: str | None) -> int | None:
    """Read a number of requests or tokens; `None` where it is absent, negative or odd."""
    if text is None or not text.strip().isdecimal():
        return None
    return int(text) if len(text) < 20 else None


def parse_duration(text: str | None) -> float | None:
    """Read a duration in seconds: `6m0s` and `12ms` (OpenAI), `55` (Azure); `None` where it is absent or odd."""
    if not text or not (text := text.strip()) or len(text) > 40:
        return None
    parts = re.findall(_DURATION_PART, text)
    if parts and "".join(amount + unit for amount, unit in parts) == text:
        return sum(float(amount) * _UNITS[unit] for amount, unit in parts)
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


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
