"""Parsing and formatting of the lines of batch files; no file access.

The formats are OpenAI's, https://platform.openai.com/docs/api-reference/batch/request-input, with two additions: an
input line may be the body of a request alone, and then (or when it cannot be sent) the output line has `line` and
`digest` after the `custom_id`: the input line's number, from 1, and 64 bits of a hash of its text in hexadecimal.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import Any, NamedTuple, get_args

import orjson
from marshmallow import ValidationError

from .._core import codec
from .._core.describe import describe_type
from .._core.unserializable import MAX_DEPTH
from ..models import errors
from ..models.shared import CreateCompletionRequest
from .finished import MAX_LINE_NUMBER, digest
from .worker import Reply

_MAX_DEPTH = MAX_DEPTH + 4
"""The maximum depth of a line, which wraps a body in at most 4 more levels."""

URLS = ("/v1/completions", "/completions")
INVALID_LINE_CODES = frozenset(
    {
        "invalid_json_line",
        "invalid_custom_id",
        "invalid_method",
        "invalid_url",
        "invalid_request",
        "duplicate_custom_id",
    }
)
"""The `error.code` of lines that were not sent; any other code is the name of an exception."""

FIRST_BYTES = b'{"id":"batch_req_'
"""How every output line begins."""


@dataclass(frozen=True, slots=True)
class RequestLine:
    """An input line that can be sent, without its request."""

    number: int
    custom_id: str
    """Its own `custom_id`, or its number if it has none."""

    digest: int | None = None
    """Of a line without a `custom_id` of its own; see `finished.digest`."""


@dataclass(frozen=True, slots=True)
class InvalidLine:
    """An input line that cannot be sent, and why."""

    number: int
    custom_id: str
    digest: int
    code: str
    message: str


class InvalidLineError(Exception):
    """What is wrong with an input line; `code` is one of `INVALID_LINE_CODES`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class MissingModelError(InvalidLineError):
    """A line names no model, and no model was given for such lines."""

    def __init__(self) -> None:
        super().__init__("invalid_request", "model: name one in the line, or one for all lines that name none")


def parse_object(text: bytes) -> dict[str, Any]:
    """Parse an input line as a JSON object.

    Raises:
        InvalidLineError: it is not one.
    """
    try:
        value = codec.loads(text, max_depth=_MAX_DEPTH)
    except ValueError as error:
        raise InvalidLineError("invalid_json_line", f"the line is not JSON: {error}") from None
    if type(value) is not dict:
        raise InvalidLineError("invalid_json_line", f"expected an object, got {describe_type(value)}")
    return value


def own_id(value: Mapping[str, Any]) -> str | None:
    """Return the `custom_id` of an input line, where it has one that can be used."""
    custom_id = value.get("custom_id")
    return custom_id if type(custom_id) is str and custom_id else None


_LEADING_ID = re.compile(rb'\{"custom_id": ?"([^"\\]+)"')


def leading_id(text: bytes) -> bytes | None:
    """Return the `custom_id` that an input line begins with, as `id_bytes` would, without parsing the line.

    `None` if that could be wrong: the id has escapes, the line is cut off, or the key occurs again, perhaps written
    with escapes, in which case the last one counts.
    """
    found = _LEADING_ID.match(text)
    if found is None or not text.endswith(b"}") or text.find(b'"custom_id"', found.end()) >= 0:
        return None
    if b"\\" in text and b"\\u" in text:  # searching for one byte first takes a tenth of the time
        return None
    return found[1]


def id_bytes(custom_id: str) -> bytes:
    """Return a `custom_id` as `FinishedLines` knows it."""
    return custom_id.encode("utf-8", "surrogatepass")


def parse_text(text: bytes) -> dict[str, Any]:
    """Return the request body for a line of plain text.

    Raises:
        InvalidLineError: it is not UTF-8.
    """
    try:
        return {"prompt": text.decode()}
    except UnicodeDecodeError as error:
        raise InvalidLineError("invalid_request", f"the line is not UTF-8: {error.reason}") from None


def parse_request(
    value: dict[str, Any], model: str | None = None, defaults: Mapping[str, Any] = MappingProxyType({})
) -> CreateCompletionRequest:
    """Return the request of an input line in the Batch format, or of one that is a request's body alone.

    Args:
        value: the line's object.
        model: the model for bodies that name none.
        defaults: other fields for bodies that lack them.

    Raises:
        InvalidLineError: it cannot be sent.
    """
    if "body" not in value and "custom_id" not in value:
        return _parse_body(value, model, defaults)
    if own_id(value) is None:
        found = describe_type(value.get("custom_id"))
        raise InvalidLineError("invalid_custom_id", f"custom_id: expected a string, got {found}")
    method, url = value.get("method", "POST"), value.get("url", URLS[0])
    if method != "POST":
        raise InvalidLineError("invalid_method", f"method: expected 'POST', got {describe_type(method)}")
    if url not in URLS:
        raise InvalidLineError("invalid_url", f"url: expected {URLS[0]!r}, got {describe_type(url)}")
    return _parse_body(value.get("body"), model, defaults)


def _parse_body(body: object, model: str | None, defaults: Mapping[str, Any]) -> CreateCompletionRequest:
    if not isinstance(body, dict):
        raise InvalidLineError("invalid_request", f"body: expected an object, got {describe_type(body)}")
    if "model" not in body:
        if model is None:
            raise MissingModelError
        body = {"model": model, **body}
    if defaults:
        body = {**defaults, **body}
    if body.get("stream"):
        raise InvalidLineError("invalid_request", "stream: a batch has no streams; leave it out")
    if _is_plainly_valid(body):
        return codec.decode(CreateCompletionRequest, body)
    try:
        request: CreateCompletionRequest = CreateCompletionRequest.schema().load(body)
    except ValidationError as error:
        raise InvalidLineError("invalid_request", "; ".join(_flatten(error.messages))) from None
    except codec.ShapeError as error:
        raise InvalidLineError("invalid_request", str(error)) from None
    return request


def _flatten(messages: Any, path: str = "") -> Iterator[str]:
    if isinstance(messages, Mapping):
        for key, value in messages.items():
            yield from _flatten(value, f"{path}.{key}" if path else str(key))
    elif isinstance(messages, list):
        for message in messages:
            yield f"{path}: {message}"


def _is_plainly_valid(body: Mapping[str, Any]) -> bool:
    """Return whether the schema would accept a body unchanged; `False` means that the schema must check it.

    The schema takes about 130 µs per line and this about 3 µs. Besides scalars, only lists of one type (texts or token
    ids) are checked here.
    """
    for name, value in body.items():
        kind = type(value)
        if name not in _PLAIN_TYPES:  # a server's own field, any JSON
            continue
        if kind is list:
            if set(map(type, value)) not in _PLAIN_LISTS.get(name, ()):
                return False
        elif kind not in _PLAIN_TYPES[name] or (kind is float and not isfinite(value)):
            return False
    return True


def _plain_types() -> dict[str, frozenset[type]]:
    """Return the types of scalars that the schema takes for each field of a request."""
    null = type(None)
    kinds: dict[Any, tuple[type, ...]] = {str: (str,), int: (int,), bool: (bool,), float: (int, float), null: (null,)}
    return {
        name: frozenset(kind for form in (*get_args(hint), hint) for kind in kinds.get(form, ()))
        for name, hint in codec.class_schema(CreateCompletionRequest).hints.items()
    }


_PLAIN_TYPES = _plain_types()
_PLAIN_LISTS = {"prompt": ({str}, {int}), "stop": ({str},)}


def format_response(line: RequestLine, reply: Reply) -> bytes:
    """Return the output line of a completion or an error."""
    known_by = (line.number, line.digest) if line.digest is not None else None
    if reply.error is None:
        return _format(line.custom_id, known_by, _response(reply, to_json_line(reply.body)), b"null")
    error = b'{"code":%b,"message":%b}' % (_string(type(reply.error).__name__), _string(str(reply.error)))
    response = b"null" if reply.status_code is None else _response(reply, _error_body(reply.error))
    return _format(line.custom_id, known_by, response, error)


def format_invalid(line: InvalidLine) -> bytes:
    """Return the output line of an input line that was not sent."""
    error = b'{"code":%b,"message":%b,"line":%d}' % (_string(line.code), _string(line.message), line.number)
    return _format(line.custom_id, (line.number, line.digest), b"null", error)


_random = random.Random()
"""Seeded only by the system. `uuid4` would make a system call, and release the GIL, for each line."""

if hasattr(os, "register_at_fork"):  # a child would otherwise write the same ids
    os.register_at_fork(after_in_child=_random.seed)


def _format(custom_id: str, known_by: tuple[int, int] | None, response: bytes, error: bytes) -> bytes:
    known = b"" if known_by is None else b',"line":%d,"digest":"%016x"' % known_by
    id = FIRST_BYTES + b"%032x" % _random.getrandbits(128)
    return b'%b","custom_id":%b%b,"response":%b,"error":%b}\n' % (id, _string(custom_id), known, response, error)


def _response(reply: Reply, body: bytes) -> bytes:
    request_id = b"null" if reply.request_id is None else _string(reply.request_id)
    return b'{"status_code":%b,"request_id":%b,"body":%b}' % (orjson.dumps(reply.status_code), request_id, body)


def _error_body(error: Exception) -> bytes:
    """Return what the server sent: its JSON as it is, anything else as a string."""
    text = error.body if isinstance(error, errors.SDKError) else ""
    if not text:
        return b"null"
    try:
        codec.loads(text)
        return to_json_line(text.encode())
    except ValueError:  # of json, or of str.encode where a hook's body has a lone surrogate
        return _string(text)


def _string(text: str) -> bytes:
    """Return a JSON string; a lone surrogate, which has no UTF-8, as its escape."""
    try:
        return orjson.dumps(text)
    except TypeError:
        return json.dumps(text).encode()


_NOT_JSON = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|NaN|-?Infinity')


def to_json_line(body: bytes) -> bytes:
    """Return JSON on one line and otherwise byte for byte, except that a NaN or Infinity becomes null.

    Args:
        body: text that `codec.loads` accepts, which includes a byte-order mark, NaN and infinities. A line end in it
            can only be white space, since a string would have it as an escape.
    """
    body = body.removeprefix(b"\xef\xbb\xbf").strip()
    if b"\n" in body or b"\r" in body:
        body = body.replace(b"\r", b" ").replace(b"\n", b" ")
    if b"NaN" in body or b"Infinity" in body:
        body = _NOT_JSON.sub(lambda found: found[0] if found[0].startswith(b'"') else b"null", body)
    return body


class OutputRecord(NamedTuple):
    """What an output line says about its input line. A tuple: a frozen dataclass takes three times as long to make."""

    custom_id: bytes | None
    """As in `FinishedLines`; `None` when the line is known by its number or not at all."""

    line: tuple[int, int] | None
    """The number and the digest of a line without a `custom_id` of its own, or of one that was not sent."""

    error_code: str | None
    """`None` when it has a completion; the empty string when an error has no code."""


_OWN_LINE = re.compile(
    rb'\{"id":"batch_req_[0-9a-f]{32}","custom_id":"([^"\\]*(?:\\.[^"\\]*)*)"(?:,"line":([0-9]{1,10}),"digest":"([0-9a-f]{16})")?'
    rb',"response":[^\0]'
)
_COMPLETION_END = b',"error":null}\n'
_ERROR_END = b"}}\n"
_ERROR_CODE = re.compile(rb'.*,"error":\{"code":"(\w+)"', re.DOTALL)


def parse_output_line(data: bytes) -> OutputRecord:
    """Read an output line, which may have been rewritten by another program.

    A line in our own format is not parsed: its beginning and end are enough, and its body may be nested deeper than
    any parser accepts. A power cut may leave NULs, which are never JSON.

    Raises:
        ValueError: it is not an output line.
    """
    found = _OWN_LINE.match(data)
    if found is None or b"\0" in data:
        return _parse_foreign_line(data)
    if data.endswith(_COMPLETION_END):
        code = None
    elif data.endswith(_ERROR_END) and (error := _ERROR_CODE.match(data)):
        code = error[1].decode()
    else:
        return _parse_foreign_line(data)
    custom_id, number, digits = found.groups()
    if number is None:
        whole = id_bytes(codec.loads(b'"%b"' % custom_id)) if b"\\" in custom_id else custom_id
        return OutputRecord(whole, None, code)
    return OutputRecord(None, _line(int(number), digits.decode()), code)


def _parse_foreign_line(data: bytes) -> OutputRecord:
    value = codec.loads(data, max_depth=_MAX_DEPTH)
    if not (isinstance(value, dict) and value.keys() >= {"custom_id", "response", "error"}):
        raise ValueError("it lacks the keys custom_id, response and error")
    error, custom_id = value["error"], value["custom_id"]
    code = None if error is None else str(error.get("code") or "") if isinstance(error, dict) else ""
    if "digest" in value:
        return OutputRecord(None, _line(value.get("line"), value["digest"]), code)
    if code in INVALID_LINE_CODES:  # written by a version without digests: it is written again
        return OutputRecord(None, None, code)
    if not isinstance(custom_id, str):
        raise ValueError(f"custom_id: expected a string, got {describe_type(custom_id)}")
    return OutputRecord(id_bytes(custom_id), None, code)


def _line(number: object, digits: object) -> tuple[int, int]:
    if not isinstance(number, int) or not 0 < number <= MAX_LINE_NUMBER:
        raise ValueError(f"line: expected a line number, got {describe_type(number)}")
    if not isinstance(digits, str) or not re.fullmatch("[0-9a-f]{16}", digits):
        raise ValueError(f"digest: expected 16 hexadecimal digits, got {describe_type(digits)}")
    return number, int(digits, 16)


def invalid_line(number: int, text: bytes, custom_id: str | None, problem: InvalidLineError) -> InvalidLine:
    """Return the record of an input line that cannot be sent."""
    return InvalidLine(number, custom_id or str(number), digest(text), problem.code, str(problem))
