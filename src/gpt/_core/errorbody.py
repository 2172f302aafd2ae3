"""One reader for the error bodies of every server we know of.

Shapes met in the wild: an `error` object or string (OpenAI, vLLM, llama.cpp, TGI, LM Studio), `detail` as string,
list or object (FastAPI), a flat object (SGLang, old vLLM, FastChat), `message` as an object (Mistral), `statusCode`
(Azure), plain text, HTML, nothing.
"""

from __future__ import annotations

import json
import re
from typing import Any

from . import codec
from .text import single_line

_MAX_NESTED = 8
_TOO_DEEP = "(nested too deep to show)"
_MESSAGE_NAMES = (
    *("message", "msg", "detail", "text", "description", "error_description"),
    *("error", "errors", "title", "Message", "reason"),
)
_TYPE_NAMES = ("type", "error_type")
_CODE_NAMES = ("code", "http_status_code", "status", "statusCode", "error_code", "status_code")


class ErrorDetails:
    """What a server said went wrong; any part may be missing."""

    def __init__(
        self, message: str = "", type: str | None = None, code: str | int | None = None, param: str | None = None
    ) -> None:
        self.message = message
        self.type = type
        self.code = code
        self.param = param


def read_error(body: str | bytes) -> ErrorDetails:
    """Read an error body of any shape; never raises."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    try:
        data = codec.loads(text)
    except codec.OversizeError:
        return ErrorDetails(message=_TOO_DEEP)
    except ValueError:
        return ErrorDetails(message=_from_text(text))
    return read_error_data(data)


def read_error_data(data: Any) -> ErrorDetails:
    """Read an error from parsed JSON."""
    if isinstance(data, list) and len(data) == 1:
        data = data[0]  # Google's form
    if not isinstance(data, dict):
        return ErrorDetails(message=_shown(data))
    inner = _unwrap(data)
    if not isinstance(inner, dict):
        return ErrorDetails(_shown(inner), _text(data.get("error_type")), _code(_first(data, *_CODE_NAMES)))
    details = ErrorDetails(
        message=_shown(_first(inner, *_MESSAGE_NAMES)),
        type=_text(_first(inner, *_TYPE_NAMES)) or _text(_first(data, *_TYPE_NAMES)),
        code=_code(_first(inner, *_CODE_NAMES)) or _code(_first(data, *_CODE_NAMES)),
        param=_text(inner.get("param")) or _text(data.get("param")),
    )
    if vars(details) == vars(ErrorDetails()) and data:
        return ErrorDetails(message=single_line(_compact(data)))
    return details


def is_error(data: Any) -> bool:
    """Return whether parsed JSON from a response with a success status is nevertheless an error."""
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


def _shown(value: Any, depth: int = 0) -> str:
    """Make one readable line of a message of any form."""
    if value is None:
        return ""
    if depth > _MAX_NESTED:
        return _TOO_DEEP
    if isinstance(value, list):
        return single_line("; ".join(filter(None, (_issue(item, depth + 1) for item in value[:5]))))
    if isinstance(value, dict):
        return single_line(_shown(_first(value, *_MESSAGE_NAMES), depth + 1) or _compact(value))
    return single_line(value if isinstance(value, str) else _compact(value))


def _issue(item: Any, depth: int) -> str:
    """Format a validation error of FastAPI: where, then what."""
    if isinstance(item, dict) and "msg" in item:
        place = item.get("loc")
        where = ".".join(str(part) for part in place[:9]) if isinstance(place, list) else ""
        said = _shown(item["msg"], depth)
        return f"{where}: {said}" if where else said
    return _shown(item, depth)


def _compact(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        return _TOO_DEEP


def _from_text(text: str) -> str:
    head = text[:4096]
    if re.match(r"\s*<", head):
        title = re.search(r"<title[^>]*>([^<]*)</title>", head, re.IGNORECASE)
        stripped = title.group(1) if title else re.sub(r"<[^>]*>", " ", head)
        return single_line(f"an HTML page: {' '.join(stripped.split())}")
    return single_line(head)
