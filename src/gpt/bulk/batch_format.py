"""Lines of batch files: what one asks for or what is wrong with it, and how its answer is written. No files here.

The formats are OpenAI's: https://platform.openai.com/docs/api-reference/batch/request-input
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson
from marshmallow import ValidationError

from .._core import codec
from .._core.describe import describe_type
from ..models import errors
from ..models.shared import CreateCompletionRequest
from .worker import Reply

URLS = ("/v1/completions", "/completions")

FIRST_BYTES = b'{"id":"batch_req_'
"""How every output line begins."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line that can be asked."""

    number: int
    custom_id: str
    request: CreateCompletionRequest


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be asked, and why."""

    number: int
    custom_id: str | None
    """The line's own name, where it has one."""

    code: str
    message: str


class _Problem(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_line(data: bytes, number: int, model: str | None = None) -> Line | BadLine:
    """Read a line in the Batch format, or one that is the body of a request alone, whose name is then its number.

    Args:
        data: the line.
        number: its number, from 1.
        model: the model for bodies that name none.
    """
    custom_id: str | None = None
    try:
        value = _parse(data)
        if not ("body" in value or "custom_id" in value):
            return Line(number, str(number), _read_body(value, model))
        custom_id = _read_id(value)
        _check_address(value)
        return Line(number, custom_id, _read_body(value.get("body"), model))
    except _Problem as problem:
        return BadLine(number, custom_id, problem.code, str(problem))


def duplicate(line: Line) -> BadLine:
    """Make a bad line of one whose name was used before."""
    return BadLine(
        line.number, line.custom_id, "duplicate_custom_id", f"custom_id: {line.custom_id!r} was used by an earlier line"
    )


def _parse(data: bytes) -> dict[str, Any]:
    try:
        value = codec.loads(data)
    except ValueError as error:
        raise _Problem("invalid_json_line", f"the line is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _Problem("invalid_json_line", f"expected an object, got {describe_type(value)}")
    return value


def _read_id(value: Mapping[str, Any]) -> str:
    found = value.get("custom_id")
    if not isinstance(found, str) or not found:
        raise _Problem("invalid_custom_id", f"custom_id: expected a string, got {describe_type(found)}")
    return found


def _check_address(value: Mapping[str, Any]) -> None:
    method, url = value.get("method", "POST"), value.get("url", URLS[0])
    if method != "POST":
        raise _Problem("invalid_method", f"method: expected 'POST', got {describe_type(method)}")
    if url not in URLS:
        raise _Problem("invalid_url", f"url: expected {URLS[0]!r}, got {describe_type(url)}")


def _read_body(body: object, model: str | None) -> CreateCompletionRequest:
    if not isinstance(body, dict):
        raise _Problem("invalid_request", f"body: expected an object, got {describe_type(body)}")
    if "model" not in body:
        if model is None:
            raise _Problem("invalid_request", "model: name one in the line, or one for all lines that name none")
        body = {"model": model, **body}
    if body.get("stream"):
        raise _Problem("invalid_request", "stream: a batch has whole answers only; leave it out")
    try:
        request: CreateCompletionRequest = CreateCompletionRequest.schema().load(body)
    except ValidationError as error:
        raise _Problem("invalid_request", "; ".join(_flat(error.messages))) from None
    return request


def _flat(messages: Any, path: str = "") -> Iterator[str]:
    if isinstance(messages, Mapping):
        for key, value in messages.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    elif isinstance(messages, list):
        for message in messages:
            yield f"{path}: {message}"


def write_answer(line: Line, reply: Reply) -> bytes:
    """Write the output line of an answer or an error."""
    if reply.error is None:
        body: Any = orjson.Fragment(_in_one_line(reply.body))
        return _write(line.custom_id, _response(reply, body), None)
    error = {"code": type(reply.error).__name__, "message": _text(str(reply.error))}
    if reply.status_code is None:
        return _write(line.custom_id, None, error)
    return _write(line.custom_id, _response(reply, _error_body(reply.error)), error)


def write_bad_line(line: BadLine) -> bytes:
    """Write the output line of a line that was not asked."""
    return _write(line.custom_id, None, {"code": line.code, "message": _text(line.message), "line": line.number})


def _write(custom_id: str | None, response: Any, error: Any) -> bytes:
    named = None if custom_id is None else _text(custom_id)
    value = {"id": f"batch_req_{uuid4().hex}", "custom_id": named, "response": response, "error": error}
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def _response(reply: Reply, body: Any) -> dict[str, Any]:
    return {"status_code": reply.status_code, "request_id": reply.request_id, "body": body}


def _error_body(error: Exception) -> Any:
    """Give what the server said: its JSON as it is, anything else as a text."""
    said = error.body if isinstance(error, errors.SDKError) else ""
    try:
        codec.loads(said)
    except ValueError:
        return _text(said) or None
    return orjson.Fragment(_in_one_line(said.encode()))


def _in_one_line(body: bytes) -> bytes:
    """Take the line ends out of JSON, where they can only be white space; and NaN, which is not JSON."""
    if b"NaN" in body or b"Infinity" in body or body.startswith(b"\xef\xbb\xbf"):
        return orjson.dumps(codec.loads(body))
    return body.strip().replace(b"\r", b" ").replace(b"\n", b" ")


def _text(text: str) -> str:
    """Make a text fit for UTF-8."""
    return text.encode("utf-8", "replace").decode()


@dataclass(frozen=True, slots=True)
class Written:
    """What the output says of one input line."""

    name: str
    """The `custom_id`, or for a line that was not asked its number; see `name_of`."""

    failed: bool


def read_written(data: bytes) -> Written:
    """Read an output line.

    Raises:
        ValueError: it is none.
    """
    value = codec.loads(data)
    if not (isinstance(value, dict) and value.keys() >= {"custom_id", "response", "error"}):
        raise ValueError("it has not the keys custom_id, response and error")
    error, custom_id = value["error"], value["custom_id"]
    if isinstance(error, dict) and isinstance(error.get("line"), int):
        return Written(name_of_line(error["line"]), failed=True)
    if not isinstance(custom_id, str):
        raise ValueError(f"custom_id: expected a string, got {describe_type(custom_id)}")
    return Written(name_of(custom_id), failed=error is not None)


def name_of(custom_id: str) -> str:
    """Give the name under which a `custom_id` is remembered."""
    return f"id {custom_id}"


def name_of_line(number: int) -> str:
    """Give the name under which a line that was not asked is remembered."""
    return f"line {number}"
