"""Token probabilities as coloured text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._parsing.logprobs import Token, tokens_of
from ..models.shared import CreateCompletionResponse, CreateCompletionResponseChoices
from .glyphs import Glyph, alternative_glyphs, glyphs, token_glyphs
from .levels import LEVELS, UNKNOWN, describe, level, percent, probability, summarise

if TYPE_CHECKING:
    from rich.text import Text

UNSURE_TOKENS = 12
"""How many of the least likely tokens are listed with their alternatives."""

_ALTERNATIVES = 4
_TOKEN_WIDTH = 18

# Foreground and background together, to be legible on any terminal; the underline tells the levels without colour.
_STYLES = (
    "",
    "black on #fff3cc",
    "black on #fed98e",
    "black on #fb9a3c underline",
    "bold white on #9e2a0c underline",
    "dim underline",
)


def to_text(answer: CreateCompletionResponse | CreateCompletionResponseChoices) -> Text:
    """Show how sure the model was of each token, and what else it might have chosen where it was least sure.

    Returns:
        A `rich.text.Text`, which `rich.print` shows in colours and `print` as plain text with the same numbers.

    Raises:
        ImportError: rich is not installed; the extra `cli` brings it.
    """
    text = _rich_text()
    choices = answer.choices if isinstance(answer, CreateCompletionResponse) else [answer]
    for place, choice in enumerate(choices):
        if len(choices) > 1:
            text.append(f"Choice {place if choice.index is None else choice.index}\n", "bold")
        _append_choice(text, choice)
    text.rstrip()
    return text


def _rich_text() -> Text:
    try:
        from rich.text import Text
    except ImportError as error:
        raise ImportError("gpt.view.to_text needs rich: pip install 'gpt-sdk[cli]'") from error
    return Text()


def _append_choice(text: Text, choice: CreateCompletionResponseChoices) -> None:
    tokens = tokens_of(choice)
    if not tokens:
        text.append(_write(glyphs(str(choice.text or ""))))
        text.append("\n\nThe server sent no log-probabilities; ask with logprobs=5.\n", "dim")
        return
    shapes = list(token_glyphs(tokens))
    for token, shape in zip(tokens, shapes, strict=True):
        text.append(_write(shape), _STYLES[level(token.logprob)])
    text.append("\n\n")
    _append_legend(text, unknown=any(token.logprob is None for token in tokens))
    text.append(f"{describe(summarise(tokens))}\n", "dim")
    text.append("".join(_unsure(tokens, shapes)))
    text.append("\n")


def _append_legend(text: Text, *, unknown: bool) -> None:
    for n, (_, name) in enumerate(LEVELS):
        text.append(f" {name} ", _STYLES[n])
        text.append(" ")
    if unknown:
        text.append(" not known ", _STYLES[UNKNOWN])
    text.append("\n")


def _unsure(tokens: list[Token], shapes: list[tuple[Glyph, ...]]) -> Iterator[str]:
    """Write a line for each of the least likely tokens that had company, in the order of the text."""
    unsure = [n for n, token in enumerate(tokens) if token.logprob is not None and level(token.logprob) > 1]
    for n in sorted(sorted(unsure, key=lambda n: tokens[n].logprob or 0.0)[:UNSURE_TOKENS]):
        others = [each for each in tokens[n].alternatives if each.text != tokens[n].text][:_ALTERNATIVES]
        listed = ", ".join(f"{_cell(alternative_glyphs(each))} {percent(probability(each.logprob))}" for each in others)
        token = _pad(_cell(shapes[n]), _TOKEN_WIDTH)
        line = f"{n + 1:5d}  {token} {percent(probability(tokens[n].logprob)):>7}  {listed and f'or {listed}'}"
        yield f"{line.rstrip()}\n"


def _pad(text: str, width: int) -> str:
    from rich.cells import cell_len

    return text + " " * (width - cell_len(text))


def _cell(pieces: tuple[Glyph, ...]) -> str:
    return f"‘{_write(pieces).replace(chr(10), '')}’"


def _write(pieces: tuple[Glyph, ...]) -> str:
    return "".join(_glyph(piece) for piece in pieces)


def _glyph(piece: Glyph) -> str:
    if piece.kind == "space":
        return "·" * len(piece.text)
    if piece.kind == "mark":
        return f"<{piece.text}>"
    return {"newline": "⏎\n", "tab": "→   "}.get(piece.kind, piece.text)
