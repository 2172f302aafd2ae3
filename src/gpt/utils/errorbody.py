"""One reader for the error bodies of every server we know of.

Shapes met in the wild: an `error` object or string (OpenAI, vLLM, llama.cpp, TGI, LM Studio), `detail` as string,
list or object (FastAPI), a flat object (SGLang, old vLLM, FastChat), `message` as an object (Mistral), `statusCode`
(Azure), plain text, HTML, nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from . import codec

_MAX_SHOWN = 500
_TYPE_NAMES = ("type", "error_type")
_CODE_NAMES = ("code", "http_status_code", "status", "statusCode", "error_code", "status_code")


@dataclass(frozen=True)
class ErrorDetails:
    """What a server said went wrong; any part may be missing."""

    message: str = ""
    type: str | None = None
    code: str | int | None = None
    param: str | None = None


def read_error(body: str | bytes) -> ErrorDetails:
    """Read an error body of any shape; never raises."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    try:
        data = codec.loads(text)
    except ValueError:
        return ErrorDetails(message=_from_text(text))
    return read_error_data(data)


def read_error_data(data: Any) -> ErrorDetails:
    """Read an error from parsed JSON."""
    if not isinstance(data, dict):
        return ErrorDetails(message=_shown(data))
    inner = _unwrap(data)
    if not isinstance(inner, dict):
        return ErrorDetails(message=_shown(inner), type=_text(data.get("error_type")))
    return ErrorDetails(
        message=_shown(_first(inner, "message", "msg", "detail", "text", "description", "error")),
        type=_text(_first(inner, *_TYPE_NAMES)) or _text(_first(data, *_TYPE_NAMES)),
        code=_code(_first(inner, *_CODE_NAMES)) or _code(_first(data, *_CODE_NAMES)),
        param=_text(inner.get("param")) or _text(data.get("param")),
    )


def is_error(data: Any) -> bool:
    """Tell whether parsed JSON, come with a status of success, is an error all the same."""
    if not isinstance(data, dict):
        return False
    if data.get("error"):
        return True
    if "choices" in data:
        return False
    return data.get("object") == "error" or "error_code" in data or "error" in data or "detail" in data


def status_in(data: Any) -> int | None:
    """Find the HTTP status that an in-band error names: an integer from 400 to 599, as a number or as text."""
    if not isinstance(data, dict):
        return None
    inner = _unwrap(data)
    holders = [holder for holder in (inner, data) if isinstance(holder, dict)]
    for holder in holders:
        for name in ("code", "http_status_code", "status"):
            value = holder.get(name)
            if isinstance(value, str) and value.isascii() and value.isdigit():
                value = int(value[:4])
            if type(value) is int and 400 <= value <= 599:
                return value
    return None


def _unwrap(data: dict[str, Any]) -> Any:
    """Descend through `error`, `detail` and a `message` that is an object, to what holds the message itself."""
    for _ in range(4):
        for name in ("error", "detail", "message"):
            inner = data.get(name)
            if isinstance(inner, dict) and inner:
                data = inner
                break
            if name == "error" and isinstance(inner, str | list) and inner and "message" not in data:
                return inner
        else:
            return data
    return data


def _first(data: dict[str, Any], *names: str) -> Any:
    return next((data[name] for name in names if data.get(name) not in (None, "", [], {}, "None")), None)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value and value != "None" else None


def _code(value: Any) -> str | int | None:
    return value if type(value) is int else _text(value)


def _shown(value: Any) -> str:
    """Make one readable line of a message of any form."""
    if value is None:
        return ""
    if isinstance(value, list):
        return _clip("; ".join(filter(None, map(_issue, value[:5]))))
    if isinstance(value, dict):
        return _clip(_shown(_first(value, "message", "msg", "detail")) or _compact(value))
    return _clip(value if isinstance(value, str) else _compact(value))


def _issue(item: Any) -> str:
    """Say a validation problem as FastAPI lists it: where, then what."""
    if isinstance(item, dict) and "msg" in item:
        place = item.get("loc")
        where = ".".join(str(part) for part in place) if isinstance(place, list) else ""
        return f"{where}: {item['msg']}" if where else str(item["msg"])
    return _shown(item)


def _compact(value: Any) -> str:
    try:
        return str(value) if not isinstance(value, dict | list) else codec.dump_payload({"_": value})[5:-1].decode()
    except (TypeError, ValueError, RecursionError):
        return "(unreadable)"


def _from_text(text: str) -> str:
    head = text[:4096]
    if re.match(r"\s*<", head):
        title = re.search(r"<title[^>]*>(.*?)</title>", head, re.IGNORECASE | re.DOTALL)
        stripped = title.group(1) if title else re.sub(r"<[^>]*>", " ", head)
        return _clip(f"an HTML page: {' '.join(stripped.split())}")
    return _clip(head)


def _clip(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"
