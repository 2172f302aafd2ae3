"""How much of the server's rate limits is left."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

_UNITS = {"ms": 0.001, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION_PART = r"(\d+(?:\.\d+)?)(ms|us|µs|ns|s|m|h|d)"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The `x-ratelimit-*` headers of a response; `None` where one is absent or malformed."""

    limit_requests: int | None = None
    """The most requests in a period."""

    limit_tokens: int | None = None
    """The most tokens in a period."""

    remaining_requests: int | None = None
    """Requests left in this period."""

    remaining_tokens: int | None = None
    """Tokens left in this period."""

    reset_requests: float | None = None
    """Seconds until the requests are at their limit again."""

    reset_tokens: float | None = None
    """Seconds until the tokens are at their limit again."""

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> RateLimit:
        """Return what the headers of a response say."""
        return cls(
            limit_requests=parse_count(headers.get("x-ratelimit-limit-requests")),
            limit_tokens=parse_count(headers.get("x-ratelimit-limit-tokens")),
            remaining_requests=parse_count(headers.get("x-ratelimit-remaining-requests")),
            remaining_tokens=parse_count(headers.get("x-ratelimit-remaining-tokens")),
            reset_requests=parse_duration(headers.get("x-ratelimit-reset-requests")),
            reset_tokens=parse_duration(headers.get("x-ratelimit-reset-tokens")),
        )


def parse_count(text: str | None) -> int | None:
    """Return a number of requests or tokens; `None` where it is absent, negative or malformed."""
    text = (text or "").strip()
    return int(text) if text.isdecimal() and len(text) < 20 else None


def parse_duration(text: str | None) -> float | None:
    """Return a duration in seconds: `6m0s` and `12ms` (OpenAI), `55` (Azure); `None` if absent or malformed."""
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
