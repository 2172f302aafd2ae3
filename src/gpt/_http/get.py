"""A single GET beside the endpoint: what scoring and the doctor read of a server, such as its `/models`.

It goes through the client's session with the same headers, key and proxies as a completion, once and without hooks.
It must not raise for what a server does: whoever looks wants to know, and can do without.
"""

from __future__ import annotations

import requests

from .._core import url
from .failures import FOREIGN
from .request import RequestTemplate, environment_proxies
from .transport import Transport

_SECONDS = 10.0
_LIMIT = 4 * 1024 * 1024


def get_body(transport: Transport, base: str, path: str) -> bytes | None:
    """Return the body of `GET {base}{path}`, or `None` without a 200 of at most 4 MiB within 10 seconds a read."""
    configuration = transport._configuration
    template = RequestTemplate(configuration, url.join(base, path), stream=False, proxies=environment_proxies)
    request = requests.Request("GET", template.url, auth=transport._authenticate(template))
    try:
        prepared = transport.session.prepare_request(request)
        prepared.headers.update(
            {name: value for name, value in template.headers.items() if name != "Content-Type" and value is not None}
        )
        settings = {"proxies": template.proxies, "verify": transport._verify, "cert": None}
        if configuration.client is not None:
            settings = transport.session.merge_environment_settings(prepared.url, {}, True, None, None)
        settings["stream"] = True
        with transport.session.send(prepared, timeout=_SECONDS, allow_redirects=False, **settings) as response:
            body: bytes = response.raw.read(_LIMIT + 1, decode_content=True)
            return body if response.status_code == 200 and len(body) <= _LIMIT else None
    except (*FOREIGN, AttributeError, ValueError):  # a caller's own session may be anything
        return None
