"""Packs: several requests merged into one with a list of prompts, and its response split again. No network.

A server numbers the choices of a list prompt number × `n` + completion number, and sends them in any order.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import orjson

from .._core import codec
from ..models.shared import CompletionUsage, CreateCompletionRequest, CreateCompletionResponse

T = TypeVar("T")

MAX_PROMPTS = 1024
"""The most prompts in one request: vLLM refuses more, by its default."""

Tokens = tuple[int, int]
"""Numbers of tokens: of the prompt, of the completions."""

_MAX_OPEN = 32
_FIRST_PROMPT_ONLY = ("timings",)
"""Fields of a response that describe only the first prompt of a list (llama.cpp)."""


def pack_key(request: CreateCompletionRequest) -> bytes | None:
    """Return what the requests of one pack have in common, which is everything except the prompt.

    `None` for a request that is sent alone: its prompt is a list already, or it must be checked first.
    """
    try:
        fields = codec.to_payload(request)
        kind = _prompt_kind(fields.pop("prompt", None))
        if kind is None or type(request) is not CreateCompletionRequest or not _is_packable(request, fields):
            return None
        return kind + codec.dump_payload(fields)
    except Exception:  # sent alone, so that it gets its own error
        return None


def _prompt_kind(prompt: Any) -> bytes | None:
    """Return whether a prompt is a text or token ids; few servers accept both in one list."""
    if type(prompt) is str:
        return b"text"
    if type(prompt) is list or type(prompt) is tuple:
        return b"ids" if prompt and type(prompt[0]) is int else None
    is_ids = getattr(prompt, "ndim", None) == 1 and prompt.dtype.kind in "iu" and len(prompt)
    return b"ids" if is_ids else None


def _is_packable(request: CreateCompletionRequest, fields: Mapping[str, Any]) -> bool:
    n = fields.get("n", 1)
    return (
        type(n) is int
        and n > 0
        and not fields.get("stream")
        and "prompt" not in request.additional_properties
        and "prompt_embeds" not in fields
    )


class Packer(Generic[T]):
    """Collects items into packs by their key. A few packs are open at a time, so that interleaved requests with
    other parameters do not split them."""

    def __init__(self, key: Callable[[T], bytes | None]) -> None:
        self._key = key
        self._open: dict[bytes, list[T]] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def add(self, item: T, size: int) -> list[T] | None:
        """Add an item to its pack; return a pack that is now complete, or that is evicted to make room."""
        key = self._key(item) if size > 1 else None
        if key is None:
            return [item]
        pack = self._open.setdefault(key, [])
        pack.append(item)
        if len(pack) >= size:
            return self._open.pop(key)
        return self.take() if len(self._open) > _MAX_OPEN else None

    def take(self) -> list[T]:
        """Remove and return the oldest open pack, which must exist."""
        return self._open.pop(next(iter(self._open)))

    def oldest(self) -> T:
        """Return the first item of the oldest open pack, which must exist."""
        return next(iter(self._open.values()))[0]

    def clear(self) -> None:
        """Forget the items that are in no complete pack."""
        self._open.clear()


def merge(requests: Sequence[CreateCompletionRequest]) -> CreateCompletionRequest:
    """Return the request for a pack; a single request is returned unchanged."""
    if len(requests) == 1:
        return requests[0]
    merged = copy.copy(requests[0])
    merged.prompt = [request.prompt for request in requests]  # type: ignore[assignment]
    return merged


def completions_per_prompt(request: CreateCompletionRequest) -> int:
    """Return how many choices each prompt of a packed request brings."""
    n = request.additional_properties.get("n", request.n)
    return 1 if n is None else int(n)


def split_response(
    whole: CreateCompletionResponse, count: int, n: int
) -> list[tuple[CreateCompletionResponse, Tokens]] | None:
    """Split a response to `count` prompts; return `None` if it is unclear which choice belongs to which prompt.

    Each part has the tokens that it adds to a total: its own if the server reports them; else the first part has all.
    """
    order = _choice_order([choice.index for choice in whole.choices], count * n)
    if order is None:
        return None
    extras, has_ids = whole.additional_properties, "prompt_token_ids" in whole.choices[0].additional_properties
    parts: list[CreateCompletionResponse] = []
    for choices in _by_prompt(whole.choices, order, n):
        for number, choice in enumerate(choices):
            choice.index = number
        usage = _usage([choice.additional_properties for choice in choices]) if has_ids else None
        parts.append(
            codec.changed(
                whole,
                choices=choices,
                usage=None if usage is None else CompletionUsage.from_dict(usage),
                additional_properties=_own_extras(extras, len(parts)) if extras else {},
            )
        )
    return list(zip(parts, _tokens([_counts(part.usage) for part in parts], _counts(whole.usage)), strict=True))


def split_body(body: bytes, count: int, n: int) -> list[tuple[bytes, Tokens]] | None:
    """Split a response's JSON as `split_response` does, into the JSON of each prompt's own completion.

    Raises:
        ValueError, RecursionError: it is not JSON, or nested too deep to be written again.
    """
    whole = codec.loads(body)
    order = _choice_order([choice.get("index") for choice in whole["choices"]], count * n)
    if order is None:
        return None
    parts: list[dict[str, Any]] = []
    for choices in _by_prompt(whole["choices"], order, n):
        own = [{**choice, "index": number} for number, choice in enumerate(choices)]
        fields = _own_extras(whole, len(parts))
        fields["choices"] = own
        if (usage := _usage(own)) is not None or "usage" in whole:
            fields["usage"] = usage
        parts.append(fields)
    tokens = _tokens([_counts(part.get("usage")) for part in parts], _counts(whole.get("usage")))
    return [(_dump(part), own) for part, own in zip(parts, tokens, strict=True)]


def _choice_order(indices: Sequence[object], total: int) -> Sequence[int] | None:
    """Return the positions of the choices 0, 1, 2… in a response; `None` unless each is there exactly once."""
    if len(indices) != total:
        return None
    if all(index is None for index in indices):  # some servers number nothing
        return range(total)
    order = [-1] * total
    for position, index in enumerate(indices):
        if type(index) is not int or not 0 <= index < total or order[index] >= 0:
            return None
        order[index] = position
    return order


def _by_prompt(choices: Sequence[T], order: Sequence[int], n: int) -> Iterator[list[T]]:
    for start in range(0, len(order), n):
        yield [choices[position] for position in order[start : start + n]]


def _own_extras(fields: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Copy the fields of a response beside its choices, without what belongs to another prompt."""
    own = dict(fields)
    for name in _FIRST_PROMPT_ONLY:
        own.pop(name, None)
    filters = own.get("prompt_filter_results")  # Azure's, one for each prompt
    if isinstance(filters, list):
        own["prompt_filter_results"] = [
            {**each, "prompt_index": 0} for each in filters if isinstance(each, dict) and _is_about(each, number)
        ]
    return own


def _is_about(result: Mapping[str, Any], number: int) -> bool:
    return result.get("prompt_index") == number


def _usage(choices: Sequence[Mapping[str, Any]]) -> dict[str, int] | None:
    """Count a prompt's own tokens where its choices list them (`return_token_ids` of vLLM)."""
    prompt = choices[0].get("prompt_token_ids")
    if not isinstance(prompt, list):
        return None
    generated = [choice.get("token_ids") for choice in choices]
    if not all(isinstance(ids, list) for ids in generated):
        return None
    completion = sum(len(ids) for ids in generated if ids is not None)
    return {
        "prompt_tokens": len(prompt),
        "completion_tokens": completion,
        "total_tokens": len(prompt) + completion,
    }


def _tokens(own: Sequence[Tokens | None], whole: Tokens | None) -> list[Tokens]:
    """Divide the total among the parts."""
    known = [counts for counts in own if counts is not None]
    if len(known) == len(own):
        return known
    return [whole or (0, 0)] + [(0, 0)] * (len(own) - 1)


def _counts(usage: Any) -> Tokens | None:
    return None if usage is None else usage_tokens(usage)


def usage_tokens(usage: Any) -> Tokens:
    """Read the tokens of the prompt and of the completions, as far as the server counted them."""
    found = usage if isinstance(usage, Mapping) else getattr(usage, "__dict__", {})
    prompt, completion = found.get("prompt_tokens"), found.get("completion_tokens")
    return prompt if type(prompt) is int else 0, completion if type(completion) is int else 0


def _dump(part: Mapping[str, Any]) -> bytes:
    """Write JSON on one line; what orjson refuses, such as a lone surrogate, stays escaped."""
    try:
        return orjson.dumps(part)
    except TypeError:
        return json.dumps(part, separators=(",", ":")).encode()
