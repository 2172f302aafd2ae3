"""Add the API key to the headers of each attempt, without exposing it."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import requests
from requests.auth import AuthBase, HTTPBasicAuth


class KeyAuth(AuthBase):
    """Put the key into its header, or do what `fallback` does when there is no key.

    Only a callable auth is not overridden by `.netrc`, so this one is set even where it adds nothing.
    """

    def __init__(
        self,
        header: tuple[str, str] | None,
        fallback: Any = None,
        overridden: Container[str] = (),
    ) -> None:
        self._header = header
        self._overridden = overridden
        self._fallback: Callable[[requests.PreparedRequest], requests.PreparedRequest] | None = (
            HTTPBasicAuth(*fallback) if isinstance(fallback, tuple) else fallback
        )

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._header is not None:
            if self._header[0].lower() not in self._overridden:
                request.headers[self._header[0]] = self._header[1]
        elif callable(self._fallback):
            return self._fallback(request)
        return request
