"""The tokens of a choice in one form, for either of the two forms of log-probabilities that servers send.

OpenAI's completions endpoint sends lists (`tokens`, `token_logprobs`, `top_logprobs`, `text_offset`). Its chat endpoint
sends objects (`content`), and so do llama.cpp and Fireworks for text completions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..models.shared.createcompletionresponse import (
    CreateCompletionResponseChoices,
    CreateCompletionResponseChoicesLogprobs,
)

_LOWEST = -700.0
"""Below it, a probability is 0 as far as a float can tell."""

_OPENAI_BYTES = re.compile(r"bytes:((?:\\x[0-9a-fA-F]{2})+)")


@dataclass(frozen=True)
class Alternative:
    """A token that the model could have chosen at a position."""

    text: str
    logprob: float | None
    raw: bytes | None = None


@dataclass(frozen=True)
class Token:
    """One token of a choice."""

    text: str
    """The token as the server wrote it; part of a character may be `""`, `"\\ufffd"` or `"bytes:\\\\xe2"`."""

    logprob: float | None
    """Its log-probability, as received; `None` when it is null, NaN or not a number."""

    alternatives: tuple[Alternative, ...] = ()
    """The most likely tokens at its position, sorted; most servers list the token itself among them."""

    offset: int | None = None
    """Where it begins in the text, in characters, as the server says; `None` when it does not (SGLang sends -1)."""

    raw: bytes | None = None
    """Its bytes, where the server sends them; they need not be whole characters."""


def tokens_of(choice: CreateCompletionResponseChoices) -> list[Token]:
    """Return the tokens of a choice, none when the server sent none. Never raises, whatever the lists hold."""
    logprobs = choice.logprobs
    if not isinstance(logprobs, CreateCompletionResponseChoicesLogprobs):
        return []
    if isinstance(logprobs.content, list | tuple):
        return [_chat_token(entry) for entry in logprobs.content]
    return list(_tokens_of_lists(logprobs))


def _tokens_of_lists(logprobs: CreateCompletionResponseChoicesLogprobs) -> Iterator[Token]:
    tokens: Any = logprobs.tokens
    for position, text in enumerate(tokens if isinstance(tokens, list | tuple) else ()):
        offset = _at(logprobs.text_offset, position)
        yield Token(
            text=str(text),
            logprob=_number(_at(logprobs.token_logprobs, position)),
            alternatives=_likeliest_first(_alternatives_of_map(_at(logprobs.top_logprobs, position))),
            offset=offset if type(offset) is int and offset >= 0 else None,
            raw=_openai_bytes(str(text)),
        )


def _alternatives_of_map(entry: Any) -> Iterator[Alternative]:
    for text, logprob in entry.items() if isinstance(entry, Mapping) else ():
        yield Alternative(str(text), _number(logprob), _openai_bytes(str(text)))


def _chat_token(entry: Any) -> Token:
    fields = entry if isinstance(entry, Mapping) else {}
    top = fields.get("top_logprobs") or fields.get("top_probs")
    others = (
        (_chat_alternative(each) for each in top if isinstance(each, Mapping)) if isinstance(top, list | tuple) else ()
    )
    own = _chat_alternative(fields)
    return Token(own.text, own.logprob, _likeliest_first(others), None, own.raw)


def _chat_alternative(fields: Mapping[str, Any]) -> Alternative:
    text = fields.get("token")
    if not isinstance(text, str):
        text = f"token {fields['id']}" if "id" in fields else ""
    logprob = _number(fields.get("logprob"))
    # llama.cpp with post_sampling_probs sends probabilities instead.
    if logprob is None and (probability := _number(fields.get("prob"))) is not None:
        logprob = math.log(probability) if probability > 0 else -math.inf
    return Alternative(text, logprob, _chat_bytes(fields.get("bytes")))


def _likeliest_first(alternatives: Any) -> tuple[Alternative, ...]:
    return tuple(
        sorted(alternatives, key=lambda each: -math.inf if each.logprob is None else each.logprob, reverse=True)
    )


def _at(values: Any, position: int) -> Any:
    return values[position] if isinstance(values, list | tuple) and position < len(values) else None


def _number(value: Any) -> float | None:
    if type(value) not in (int, float):
        return None
    try:
        return None if math.isnan(value) else float(value)
    except OverflowError:
        return None


def _chat_bytes(value: Any) -> bytes | None:
    if isinstance(value, list) and all(type(byte) is int and 0 <= byte < 256 for byte in value):
        return bytes(value)
    return None


def _openai_bytes(text: str) -> bytes | None:
    match = _OPENAI_BYTES.fullmatch(text)
    return bytes.fromhex(match[1].replace("\\x", "")) if match else None


def perplexity(logprobs: Sequence[float]) -> float:
    """Return `exp` of the negative mean of log-probabilities, of which there must be one.

    Infinite with a probability of 0, which servers write as -inf, -9999 (vLLM) or -3.4e38 (llama.cpp).
    """
    if min(logprobs) < _LOWEST:
        return math.inf
    return math.exp(-math.fsum(logprobs) / len(logprobs))
