"""Where each token stands in the text. Servers' own offsets are believed as far as they agree with the text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .._parsing.logprobs import Token

_REPLACEMENT = "\ufffd"
_SENTENCEPIECE_SPACE = "\u2581"

# What has to be assumed for a token to fit costs this much; paths that cost more than the best and some are given up.
_LOST_SPACE = 1
_LEFT_OUT = 4
_PATIENCE = 2 * _LEFT_OUT


class Span(NamedTuple):
    """The characters of a text that a token covers."""

    start: int
    end: int


def align(tokens: Sequence[Token], text: str) -> list[Span] | None:
    """Find each token's span in the text that the tokens spell; `None` when they do not spell it.

    A token that is not in the text, such as one for its beginning or end, has an empty span. A token that is a part
    of a character has the character's span.
    """
    return (_by_offset(tokens, text) or _by_spelling(tokens, text)) if tokens else None


def count(tokens: Sequence[Token]) -> list[Span]:
    """Give each token the length of its own text, whatever the text."""
    spans, position = [], 0
    for token in tokens:
        spans.append(Span(position, position + len(token.text)))
        position += len(token.text)
    return spans


def _by_offset(tokens: Sequence[Token], text: str) -> list[Span] | None:
    """Believe the server: vLLM's offsets are off by a beginning-of-text token, SGLang's are all -1."""
    starts = [token.offset for token in tokens if token.offset is not None]
    if len(starts) < len(tokens) or starts[0] != 0:
        return None
    spans = [Span(start, end) for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    fits = all(text[slice(*span)] == token.text for token, span in zip(tokens, spans, strict=True))
    return spans if fits else None


def _by_spelling(tokens: Sequence[Token], text: str) -> list[Span] | None:
    """Lay the tokens along the text's bytes, in the way that needs the fewest excuses."""
    data = text.encode("utf-8", "surrogatepass")
    costs = {0: 0}
    layers: list[dict[int, int]] = []
    for token in tokens:
        found: dict[int, tuple[int, int]] = {}
        for start, cost in costs.items():
            for end, more in _ends(token, data, start):
                found[end] = min(found.get(end, (cost + more, start)), (cost + more, start))
        limit = min((cost for cost, _ in found.values()), default=0) + _PATIENCE
        costs = {end: cost for end, (cost, _) in found.items() if cost <= limit}
        layers.append({end: start for end, (_, start) in found.items()})
    return _in_characters(_walk_back(layers, len(data)), data) if len(data) in costs else None


def _walk_back(layers: Sequence[dict[int, int]], end: int) -> list[Span]:
    spans = []
    for layer in reversed(layers):
        spans.append(Span(layer[end], end))
        end = layer[end]
    return spans[::-1]


def _in_characters(spans: Sequence[Span], data: bytes) -> list[Span]:
    """Turn positions of bytes into those of characters; a character that was entered counts whole."""
    begun, ended, characters = [], [], 0
    for byte in data:
        characters += byte & 0xC0 != 0x80
        begun.append(characters - 1)
        ended.append(characters)
    begun.append(characters)
    return [Span(begun[start], ended[end - 1] if end > start else begun[start]) for start, end in spans]


def _ends(token: Token, data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Yield where a token that begins here may end, and what it costs to believe so."""
    if token.raw is not None and data.startswith(token.raw, start):
        yield start + len(token.raw), 0
    elif _REPLACEMENT in token.text:
        yield from ((end, 0) for end in _ends_of_parts(token.text, data, start))
    else:
        yield from _ends_of_word(token.text, data, start)
    if start in (0, len(data)):
        yield start, _LEFT_OUT


def _ends_of_word(token: str, data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Match a token, also by a server that decodes each alone, which loses or marks the space before a word."""
    exact = token.encode("utf-8", "surrogatepass")
    if data.startswith(exact, start):
        yield start + len(exact), 0
        return
    word = token.replace(_SENTENCEPIECE_SPACE, " ").lstrip(" ").encode("utf-8", "surrogatepass")
    spaces = start
    while data[spaces : spaces + 1].isspace():
        spaces += 1
    if data.startswith(word, spaces):
        yield spaces + len(word), _LOST_SPACE


def _ends_of_parts(token: str, data: bytes, start: int) -> set[int]:
    """Match a token in which U+FFFD stands for a part of a character, or for itself."""
    ends = {start}
    for index, character in enumerate(token):
        if character == _REPLACEMENT:
            last = index == len(token) - 1
            ends = {end for begin in ends for end in _ends_of_part(data, begin, last=last)}
        else:
            whole = character.encode("utf-8", "surrogatepass")
            ends = {begin + len(whole) for begin in ends if data.startswith(whole, begin)}
    return ends


def _ends_of_part(data: bytes, start: int, *, last: bool) -> Iterator[int]:
    """Yield where a part of a character may end: a byte inside of it, or at a token's end its first bytes."""
    byte = data[start] if start < len(data) else 0
    if 0x80 <= byte < 0xC0:
        yield start + 1
    elif byte >= 0xC0:
        length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        yield from range(start + 1, start + length) if last else ()
        if data.startswith(_REPLACEMENT.encode(), start):
            yield start + 3
