"""A single GET beside the endpoint: what scoring and the doctor read of a server, such as its `/models`.

It goes through the client's session with the same headers, key and proxies as a completion, once and without hooks.
It must not raise for what a server does: whoever looks wants to know, and can do without.
"""

from __future__ import annotations

from .._core import url
from .._core.deadline import Deadline
from ..models import errors
from ..utils.retries import RetryConfig
from .attempt import Call
from .body import ResponseBody, read_body
from .failures import TRANSPORT_EXCEPTIONS
from .request import make_template
from .transport import Transport

_SECONDS = 10.0
_TIMEOUT = (5.0, _SECONDS)
_LIMIT = 4 * 1024 * 1024


def get_body(transport: Transport, base: str, path: str) -> bytes | None:
    """Return the body of `GET {base}{path}`, or `None` without a 200 of at most 4 MiB within 10 seconds."""
    sender = transport._sender
    address = url.join(base, path)
    template = make_template(transport._configuration, address, stream=False, proxies=transport._proxies)
    deadline = Deadline(_SECONDS)
    call = Call(template, b"", RetryConfig(strategy="none"), _TIMEOUT, deadline)
    try:
        request = sender._prepare(call)
        request.method, request.body = "GET", None
        for name in ("Content-Length", "Content-Type"):
            request.headers.pop(name, None)
        with sender.session.send(request, **sender.settings(call, request)) as response:
            body = read_body(ResponseBody(response, _LIMIT, deadline))
            return body if response.status_code == 200 else None
    except (errors.SDKError, *TRANSPORT_EXCEPTIONS, AttributeError, ValueError):  # a caller's session may be anything
        return None
