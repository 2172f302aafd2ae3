"""The position of each token in the text. Offsets from the server are used if they agree with the text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .._parsing.logprobs import Token

_REPLACEMENT = "\ufffd"
_SENTENCEPIECE_SPACE = "\u2581"

# Costs of the assumptions that a match needs; paths worse than the best by `_COST_MARGIN` are pruned.
_COST_SPACE = 1
_COST_SKIPPED = 4
_COST_MARGIN = 2 * _COST_SKIPPED

_MOST_SPACES = 16
"""How many spaces before a word a server may have dropped."""

_MOST_PATHS = 64
"""The maximum number of places where a token may end. With more, nothing can be proven in reasonable time."""

_SPECIAL_TOKENS = 2
"""How many tokens at either end may not be part of the text."""


class Span(NamedTuple):
    """The characters of a text that a token covers."""

    start: int
    end: int


class Alignment(NamedTuple):
    """Where tokens stand in a text."""

    spans: list[Span]

    begin: int | None
    """The first token that ends after the boundary; `None` when the text can be divided in several ways."""


class _Path(NamedTuple):
    """The cheapest paths to a position: their cost, where they come from, and where they cross the boundary."""

    cost: int
    start: int
    first: int
    last: int


def align(tokens: Sequence[Token], text: str, boundary: int = 0) -> Alignment | None:
    """Find each token's span in the text that the tokens spell; `None` when they do not spell it.

    A token that is not in the text, such as one for its beginning or end, has an empty span. A token that is a part
    of a character has the character's span. `boundary` is a number of characters.
    """
    if not tokens:
        return None
    spans = _by_offset(tokens, text)
    if spans is None:
        return _by_spelling(tokens, text, len(text[:boundary].encode("utf-8", "surrogatepass")))
    begin = next((n for n, span in enumerate(spans) if span.end > boundary), len(spans))
    return Alignment(spans, begin)


def spans_by_length(tokens: Sequence[Token]) -> list[Span]:
    """Return a span of each token's own length, whatever the text."""
    spans, position = [], 0
    for token in tokens:
        spans.append(Span(position, position + len(token.text)))
        position += len(token.text)
    return spans


def is_plain(token: Token) -> bool:
    """Return whether a token's text is complete, not a part of a character that the server could not write."""
    return bool(token.text) and _REPLACEMENT not in token.text


def _by_offset(tokens: Sequence[Token], text: str) -> list[Span] | None:
    """Use the server's offsets if they fit: vLLM's are off by a beginning-of-text token, SGLang's are all -1."""
    starts = [token.offset for token in tokens if token.offset is not None]
    if len(starts) < len(tokens) or starts[0] != 0 or not all(map(is_plain, tokens)):
        return None
    spans = [Span(start, end) for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    fits = all(text[slice(*span)] == token.text for token, span in zip(tokens, spans, strict=True))
    return spans if fits else None


def _by_spelling(tokens: Sequence[Token], text: str, boundary: int) -> Alignment | None:
    """Align tokens to the UTF-8 text by dynamic programming, minimising total cost, in linear time."""
    data = text.encode("utf-8", "surrogatepass")
    least_rest = _least_bytes(tokens)
    paths = {0: _Path(0, 0, 0, 0)}
    layers: list[dict[int, _Path]] = []
    for number, token in enumerate(tokens):
        found: dict[int, _Path] = {}
        for start, path in paths.items():
            for end, more in _ends(token, data, start):
                if end + least_rest[number + 1] > len(data):
                    continue
                crossing = (number, number) if start <= boundary < end else (path.first, path.last)
                found[end] = _merge(found.get(end), _Path(path.cost + more, start, *crossing))
        limit = min((path.cost for path in found.values()), default=0) + _COST_MARGIN
        paths = {end: path for end, path in found.items() if path.cost <= limit}
        if len(paths) > _MOST_PATHS:
            return None
        layers.append(paths)
    if len(data) not in paths:
        return None
    last = paths[len(data)]
    return Alignment(
        _in_characters(_walk_back(layers, len(data)), data), last.first if last.first == last.last else None
    )


def _merge(known: _Path | None, new: _Path) -> _Path:
    """Keep the cheaper path; of two with the same cost, keep both crossings of the boundary."""
    if known is None or new.cost < known.cost:
        return new
    if new.cost > known.cost:
        return known
    return known._replace(first=min(known.first, new.first), last=max(known.last, new.last))


def _least_bytes(tokens: Sequence[Token]) -> list[int]:
    """Return, for each position in the tokens, the minimum number of bytes of the tokens from there on."""
    least = [0]
    for number in range(len(tokens) - 1, -1, -1):
        special = number < _SPECIAL_TOKENS or number >= len(tokens) - _SPECIAL_TOKENS
        least.append(least[-1] + (0 if special else _least(tokens[number])))
    return least[::-1]


def _least(token: Token) -> int:
    if token.raw is not None or _REPLACEMENT in token.text:
        return 1
    return len(token.text.strip(" " + _SENTENCEPIECE_SPACE))


def _walk_back(layers: Sequence[dict[int, _Path]], end: int) -> list[Span]:
    spans = []
    for layer in reversed(layers):
        spans.append(Span(layer[end].start, end))
        end = layer[end].start
    return spans[::-1]


def _in_characters(spans: Sequence[Span], data: bytes) -> list[Span]:
    """Convert byte positions to character positions; a partly covered character counts as a whole."""
    begun, ended, characters = [], [], 0
    for byte in data:
        characters += byte & 0xC0 != 0x80
        begun.append(characters - 1)
        ended.append(characters)
    begun.append(characters)
    return [Span(begun[start], ended[end - 1] if end > start else begun[start]) for start, end in spans]


def _ends(token: Token, data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Yield where a token that begins here may end, and the cost of that assumption."""
    if token.raw is not None and data.startswith(token.raw, start):
        yield start + len(token.raw), 0
    elif not token.text:
        if start < len(data) and data[start] >= 0x80:
            yield from ((end, 0) for end in range(start + 1, _end_of_character(data, start) + 1))
    elif _REPLACEMENT in token.text:
        yield from ((end, 0) for end in _ends_of_parts(token.text, data, start))
    else:
        yield from _ends_of_word(token.text, data, start)
    if start in (0, len(data)):
        yield start, _COST_SKIPPED


def _end_of_character(data: bytes, start: int) -> int:
    """Return the end of the character at a position; the position itself at the end of the text."""
    end = start + 1
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end += 1
    return min(end, len(data))


def _ends_of_word(token: str, data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Match a token, also if the server decodes each alone and so drops or marks the space before a word.

    vLLM writes nothing for the first parts of a character and the whole character for its last part.
    """
    exact = token.encode("utf-8", "surrogatepass")
    begin = start
    while 0 < begin < len(data) and data[begin] & 0xC0 == 0x80:
        begin -= 1
    if data.startswith(exact, begin):
        yield begin + len(exact), 0
        return
    word = token.replace(_SENTENCEPIECE_SPACE, " ").lstrip(" ").encode("utf-8", "surrogatepass")
    spaces = start
    while spaces < start + _MOST_SPACES and data[spaces : spaces + 1].isspace():
        spaces += 1
    if word and data.startswith(word, spaces):
        yield spaces + len(word), _COST_SPACE


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
        if not ends:
            break
    return ends


def _ends_of_part(data: bytes, start: int, *, last: bool) -> Iterator[int]:
    """Yield where a part of a character may end: after a byte inside it or, at a token's end, after its first bytes."""
    byte = data[start] if start < len(data) else 0
    if 0x80 <= byte < 0xC0:
        yield start + 1
    elif byte >= 0xC0:
        length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        yield from range(start + 1, start + length) if last else ()
        if data.startswith(_REPLACEMENT.encode(), start):
            yield start + 3
