"""How much of the server's rate limits is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..._core.headers import parse_count, parse_duration


class RateLimit(NamedTuple):
    """The `x-ratelimit-*` headers of an answer; `None` where one is absent or odd."""

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
        """Read the headers of an answer."""
        return cls(
            limit_requests=parse_count(headers.get("x-ratelimit-limit-requests")),
            limit_tokens=parse_count(headers.get("x-ratelimit-limit-tokens")),
            remaining_requests=parse_count(headers.get("x-ratelimit-remaining-requests")),
            remaining_tokens=parse_count(headers.get("x-ratelimit-remaining-tokens")),
            reset_requests=parse_duration(headers.get("x-ratelimit-reset-requests")),
            reset_tokens=parse_duration(headers.get("x-ratelimit-reset-tokens")),
        )
