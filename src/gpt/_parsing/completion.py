"""From parsed or unparsed JSON to a completion, or to the error that says what came instead."""

from __future__ import annotations

from typing import Any

import requests

from .._core import codec
from .._core.errorbody import is_error
from .._http.errors import in_band_error, invalid_response
from ..models import errors
from ..models.shared import CreateCompletionResponse


def read_completion(response: requests.Response, body: bytes) -> CreateCompletionResponse:
    """Read the body of a 2xx answer.

    Raises:
        errors.APIStatusError: it is an error in spite of its status.
        errors.ResponseValidationError: it is not a completion.
    """
    try:
        data = codec.loads(body)
    except ValueError as error:
        raise invalid_response(response, body, "the body is not JSON", _cause_of_text(body)) from error
    return as_completion(response, data, body)


def as_completion(response: requests.Response, data: Any, body: bytes) -> CreateCompletionResponse:
    """Build the completion from parsed JSON; raises as `read_completion` does."""
    if type(data) is not dict or data.get("error"):
        raise _not_a_completion(response, data, body, codec.describe(data))
    try:
        completion = codec.decode(CreateCompletionResponse, data)
    except codec.ShapeError as error:
        raise _not_a_completion(response, data, body, str(error)) from error
    for choice in completion.choices:
        if choice.text is None and _is_chat(data):
            raise invalid_response(response, body, "its choices have no text", _cause_of_data(data))
    return completion


def _not_a_completion(response: requests.Response, data: Any, body: bytes, problem: str) -> errors.SDKError:
    if is_error(data):
        return in_band_error(response, data, body.decode("utf-8", "replace"))
    return invalid_response(response, body, f"the body is not a completion: {problem}", _cause_of_data(data))


def _is_chat(data: dict[str, Any]) -> bool:
    """Tell a chat answer: its choices carry a message or a delta and no text."""
    return any(
        "text" not in choice and (choice.get("message") is not None or choice.get("delta") is not None)
        for choice in data["choices"]
    )


def _cause_of_text(body: bytes) -> str:
    head = body[:200].lstrip().lower()
    if head.startswith(b"<"):
        return "a sign-in page, a proxy, or a server URL that is not an API"
    if head.startswith((b"data:", b"event:", b":")):
        return "the server streams although no stream was asked for"
    return ""


def _cause_of_data(data: Any) -> str:
    if not isinstance(data, dict):
        return ""
    if isinstance(data.get("choices"), list):
        return "this is the chat endpoint or Mistral's; its answers have messages instead of text"
    if "content" in data and ("tokens_predicted" in data or "stop" in data):
        return "this is llama.cpp's native endpoint; its OpenAI-compatible server URL ends in /v1"
    return "the server URL leads to another endpoint"
