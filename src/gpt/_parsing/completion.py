"""Turn JSON into a completion, or into an error that says what was received instead."""

from __future__ import annotations

from typing import Any

import requests

from .._core import codec
from .._core.describe import describe_type
from .._core.errorbody import is_error
from .._http.errors import in_band_error, invalid_response
from ..models import errors
from ..models.shared import CreateCompletionResponse

MAX_CHOICES = 262_144
"""How many choices a response may have: 1,024 prompts (the most that vLLM takes) with `n=256`.

Each takes some 500 bytes in memory, and may take as few as 3 in the response.
"""


def read_completion(response: requests.Response, body: bytes) -> CreateCompletionResponse:
    """Parse the body of a 2xx response.

    Raises:
        errors.APIStatusError: it is an error despite its status.
        errors.ResponseValidationError: it is not a completion.
    """
    try:
        data = codec.loads(body)
    except codec.OversizeError as error:
        raise invalid_response(response, body, f"the body is {error}") from error
    except ValueError as error:
        raise invalid_response(response, body, "the body is not JSON", _likely_cause_of_text(body)) from error
    return to_completion(response, data, body)


def to_completion(response: requests.Response, data: Any, body: bytes) -> CreateCompletionResponse:
    """Build the completion from parsed JSON; raises as `read_completion` does."""
    if type(data) is not dict or data.get("error"):
        raise _not_a_completion(response, data, body, describe_type(data))
    choices = data.get("choices")
    if type(choices) is list and len(choices) > MAX_CHOICES:
        raise invalid_response(response, body, f"it has {len(choices):,} choices, of which {MAX_CHOICES:,} are read")
    try:
        completion = codec.decode(CreateCompletionResponse, data)
    except codec.ShapeError as error:
        raise _not_a_completion(response, data, body, str(error)) from error
    if any(choice.text is None for choice in completion.choices) and _is_chat(data):
        raise invalid_response(response, body, "its choices have no text", _likely_cause_of_data(data))
    return completion


def _not_a_completion(response: requests.Response, data: Any, body: bytes, problem: str) -> errors.SDKError:
    if is_error(data):
        return in_band_error(response, data, body.decode("utf-8", "replace"))
    return invalid_response(response, body, f"the body is not a completion: {problem}", _likely_cause_of_data(data))


def _is_chat(data: dict[str, Any]) -> bool:
    """Return whether this is a chat response: its choices carry a message or a delta and no text."""
    return any(
        "text" not in choice and (choice.get("message") is not None or choice.get("delta") is not None)
        for choice in data["choices"]
    )


def _likely_cause_of_text(body: bytes) -> str:
    head = body[:200].lstrip().lower()
    if head.startswith(b"<"):
        return "a sign-in page, a proxy, or a server URL that is not an API"
    if head.startswith((b"data:", b"event:", b":")):
        return "the server streams although no stream was requested"
    return ""


def _likely_cause_of_data(data: Any) -> str:
    if not isinstance(data, dict):
        return ""
    if isinstance(data.get("choices"), list):
        return "this is the chat endpoint or Mistral's; its responses have messages instead of text"
    if "content" in data and ("tokens_predicted" in data or "stop" in data):
        return "this is llama.cpp's native endpoint; its OpenAI-compatible server URL ends in /v1"
    return "the server URL leads to another endpoint"
