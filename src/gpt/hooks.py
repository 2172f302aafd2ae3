"""The one way to extend a call: a function around each attempt.

A hook sees the request as it will be sent, after authentication, and the response as received. It may change the
request (a copy made for this attempt), send it once, several times or not at all, and return any `requests.Response`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import requests

__all__ = ["Hook", "Send"]

Send = Callable[[requests.PreparedRequest], requests.Response]
"""Send a request to the next hook, the last of which is the network."""

Hook = Callable[[requests.PreparedRequest, Send], requests.Response]
"""Called once per attempt, with the request and the function that sends it."""


def chain(hooks: Iterable[Hook], send: Send) -> Send:
    """Wrap `send` in hooks, the first one outermost."""
    for hook in reversed(list(hooks)):
        send = partial(_call, hook, send)
    return send


def _call(hook: Hook, send: Send, request: requests.PreparedRequest) -> requests.Response:
    response = hook(request, send)
    name = getattr(hook, "__name__", type(hook).__name__)
    if not isinstance(response, requests.Response):
        raise TypeError(f"hook {name}: expected a requests.Response to be returned, got {type(response).__name__}")
    if not isinstance(response.status_code, int):
        raise TypeError(f"hook {name}: the response that it returned has no status_code")
    return response
