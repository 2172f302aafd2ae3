"""Where each token stands in the text. Servers' own offsets are believed as far as they agree with the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..models.shared.tokens import Token

_REPLACEMENT = "\ufffd"
_SENTENCEPIECE_SPACE = "\u2581"


class Span(NamedTuple):
    """The characters of a text that a token covers."""

    start: int
    end: int


def align(tokens: Sequence[Token], text: str) -> list[Span] | None:
    """Find each token's span in the text that the tokens spell; `None` when they do not spell it.

    A token that is not in the text (a beginning-of-text token, say) has an empty span. Tokens that are parts of one
    character share its span.
    """
    spans = _by_offset(tokens, text) or _by_counting(tokens, text)
    return spans if spans and spans[-1].end == len(text) else None


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
    if not tokens or len(starts) < len(tokens) or starts != sorted(starts) or starts[-1] > len(text):
        return None
    spans = [Span(start, end) for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    fits = all(_is_part(token) or text[slice(*span)] == token.text for token, span in zip(tokens, spans, strict=True))
    return spans if fits and starts[0] == 0 else None


def _by_counting(tokens: Sequence[Token], text: str) -> list[Span] | None:
    spans: list[Span] = []
    position = 0
    while (index := len(spans)) < len(tokens):
        behind = next((n for n in range(index, len(tokens)) if not _is_part(tokens[n])), len(tokens))
        end = (
            _end_of(tokens[index].text, text, position)
            if behind == index
            else _find(tokens, behind, text, position + 1)
        )
        if end is None:
            return None
        spans += [Span(position, end)] * max(1, behind - index)
        position = end
    return spans


def _is_part(token: Token) -> bool:
    """Tell a token that may be a part of a character only."""
    if token.raw is not None:
        return token.raw.decode("utf-8", "replace") != token.text or _REPLACEMENT in token.text
    return _REPLACEMENT in token.text


def _end_of(token: str, text: str, position: int) -> int:
    """Give the position behind a token; the same position when the token is not there.

    Some servers decode each token alone, which loses or marks the space before a word (SentencePiece).
    """
    token = token.replace(_SENTENCEPIECE_SPACE, " ") if _SENTENCEPIECE_SPACE not in text else token
    if text.startswith(token, position):
        return position + len(token)
    word = token.lstrip(" ")
    spaces = len(text) - position - len(text[position:].lstrip())
    if word and text.startswith(word, position + spaces):
        return position + spaces + len(word)
    return position


def _find(tokens: Sequence[Token], index: int, text: str, position: int) -> int | None:
    """Find where the tokens from `index` up to the next part of a character begin."""
    whole = next((n for n in range(index, len(tokens)) if _is_part(tokens[n])), len(tokens))
    words = [token.text for token in tokens[index:whole] if token.text]
    if not words:
        return len(text)
    found = text.find("".join(words), position)
    if found < 0:  # the server has lost the spaces between words
        found = text.find(words[0].strip(), position)
    return None if found < 0 else found
