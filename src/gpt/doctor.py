"""What a server really honours."""

from __future__ import annotations

from typing import Any

from ._core import codec
from ._http.get import get_body
from .sdk import Gpt


def models(s: Gpt) -> list[str]:
    """Return the names of the models that a server lists at `GET /models`; none when it has no such list."""
    found = _get_json(s, s.sdk_configuration.server_url, "/models")
    entries = found.get("data") if isinstance(found, dict) else None
    names = [entry.get("id") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [name for name in names if isinstance(name, str) and name]


def _get_json(s: Gpt, base: str, path: str) -> Any:
    body = get_body(s._transport, base, path)
    try:
        return None if body is None else codec.loads(body.decode("utf-8", "replace"))
    except ValueError:
        return None
