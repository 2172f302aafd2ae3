"""What a token looks like: nothing in it stays invisible, reorders the page, or controls the terminal."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

from .._parsing.logprobs import Alternative, Token

Kind = Literal["text", "space", "newline", "tab", "mark"]


class Glyph(NamedTuple):
    """A part of a token; a mark stands for something that has no shape of its own."""

    kind: Kind
    text: str


_ZERO_WIDTH_JOINERS = "\u200c\u200d"
"""They shape the letters of Indic scripts and join emoji, and reorder nothing."""

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_CONTROLS = {0: "NUL", 7: "BEL", 8: "BS", 11: "VT", 12: "FF", 13: "CR", 27: "ESC"}
_MAX_CACHED_LENGTH = 64
_PARTS = re.compile(r" +|\t|\r?\n|[^ \t\r\n]+|\r")


def glyphs(text: str) -> tuple[Glyph, ...]:
    """Divide a text into parts that can be displayed."""
    return _cached_glyphs(text) if len(text) <= _MAX_CACHED_LENGTH else _split(text)


def _split(text: str) -> tuple[Glyph, ...]:
    return tuple(glyph for match in _PARTS.finditer(text) for glyph in _glyphs_of(match[0]))


# Tokens repeat, especially among the alternatives: the cache halves the time to render a page. Longer texts are not
# tokens, and a cache of them would keep whole completions alive.
_cached_glyphs = lru_cache(maxsize=8192)(_split)


def _glyphs_of(text: str) -> Iterator[Glyph]:
    if text[0] == " ":
        yield Glyph("space", text)
    elif text == "\t":
        yield Glyph("tab", text)
    elif text.endswith("\n"):
        if text[0] == "\r":
            yield Glyph("mark", _name("\r"))
        yield Glyph("newline", "\n")
    else:
        yield from _marked(text)


def _marked(text: str) -> Iterator[Glyph]:
    plain = ""
    for character in text:
        if is_hidden(character):
            if plain:
                yield Glyph("text", plain)
            plain = ""
            yield Glyph("mark", _name(character))
        else:
            plain += character
    if plain:
        yield Glyph("text", plain)


def printable(text: str) -> str:
    """Return a text that cannot control a terminal.

    Newlines, tabs and spaces of any width stay; every other control becomes `<ESC>`, `<U+202E>` and so on.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"<{_name(c)}>" if c not in "\n\t" and _is_control(c) else c for c in text)


def is_hidden(character: str) -> bool:
    """Return whether a character is a control, or a space that looks like others."""
    return _is_control(character) or (character.isspace() and character not in " \u3000")


def _is_control(character: str) -> bool:
    """Return whether a character is a control (escape code, bidirectional override), a lone surrogate or unassigned."""
    if character in _ZERO_WIDTH_JOINERS or " " <= character < "\x7f":
        return False
    return unicodedata.category(character) in _HIDDEN


def _name(character: str) -> str:
    code = ord(character)
    return _CONTROLS.get(code) or f"U+{code:04X}"


def token_glyphs(tokens: Iterable[Token]) -> Iterator[tuple[Glyph, ...]]:
    """Yield each token's glyphs; the parts of a character show their bytes, and the last one the character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in tokens:
        if token.raw is None:
            decoder.reset()
            yield glyphs(token.text) or _EMPTY
            continue
        begun = bool(decoder.getstate()[0])
        text = decoder.decode(token.raw)
        whole = not begun and not decoder.getstate()[0]
        yield glyphs(text) or _EMPTY if whole else (_bytes_mark(token.raw), *glyphs(text))


def alternative_glyphs(alternative: Alternative) -> tuple[Glyph, ...]:
    """Return the glyphs of an alternative; a part of a character shows its bytes."""
    if alternative.raw is None:
        return glyphs(alternative.text) or _EMPTY
    try:
        return glyphs(alternative.raw.decode()) or _EMPTY
    except UnicodeDecodeError:
        return (_bytes_mark(alternative.raw),)


def _bytes_mark(raw: bytes) -> Glyph:
    return Glyph("mark", raw.hex(" ").upper())


_EMPTY = (Glyph("mark", "∅"),)
"""A token that adds no text: an end-of-text token, or the beginning of a character."""
