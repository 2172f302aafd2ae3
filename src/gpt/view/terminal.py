"""Token probabilities as coloured text for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._parsing.logprobs import Token, tokens_of
from ..models.shared import CreateCompletionResponse, CreateCompletionResponseChoices
from .choices import HasChoice, as_model
from .glyphs import Glyph, alternative_glyphs, glyphs, token_glyphs
from .levels import LEVELS, UNKNOWN, describe, level, percent, probability, summarise

if TYPE_CHECKING:
    from rich.text import Text

UNSURE_TOKENS = 12
"""How many of the least likely tokens are listed with their alternatives."""

_ALTERNATIVES = 4
_TOKEN_WIDTH = 18
_INDENT = 9

# It is unknown whether a terminal is dark, so these are legible on both: foreground and background together, and the
# likelier a token, the fainter. The likely ones get only an underline: any fill would be the brightest thing on a
# dark terminal. Unlike underlines, the level is not told by hue alone.
_STYLES = (
    "",
    "underline",
    "black on #d9b45b",
    "black on #f08a24 bold",
    "white on #9e2a0c bold underline",
    "dim underline",
)


def to_text(
    completion: CreateCompletionResponse | CreateCompletionResponseChoices | HasChoice,
    *,
    width: int | None = None,
    legend: bool = True,
) -> Text:
    """Show how likely each token was, and the alternatives of the least likely tokens under 50 %.

    Args:
        completion: a choice, or a completion with all its choices.
        width: the terminal's columns; the lists of alternatives are wrapped between two alternatives and indented.
        legend: whether to explain the colours; `False` where there are none.

    Returns:
        A `rich.text.Text`, which `rich.print` shows in colours and `print` as plain text with the same numbers.

    Raises:
        ImportError: rich is not installed; the extra `cli` brings it.
    """
    text = _rich_text()
    completion = as_model(completion)
    choices = completion.choices if isinstance(completion, CreateCompletionResponse) else [completion]
    for place, choice in enumerate(choices):
        if len(choices) > 1:
            text.append(f"Choice {place if choice.index is None else choice.index}\n", "bold")
        _append_choice(text, choice, width or sys.maxsize, legend=legend)
    text.rstrip()
    return text


def _rich_text() -> Text:
    try:
        from rich.text import Text
    except ImportError as error:
        raise ImportError("gpt.view.to_text needs rich: run pip install '.[cli]' in a clone of gpt-sdk") from error
    return Text()


def _append_choice(text: Text, choice: CreateCompletionResponseChoices, width: int, *, legend: bool) -> None:
    tokens = tokens_of(choice)
    if not tokens:
        text.append(_write(glyphs(str(choice.text or ""))))
        text.append("\n\nThe server sent no log-probabilities; send logprobs=5.\n", "dim")
        return
    shapes = list(token_glyphs(tokens))
    for token, shape in zip(tokens, shapes, strict=True):
        text.append(_write(shape), _STYLES[level(token.logprob)])
    text.append("\n\n")
    if legend:
        _append_legend(text, unknown=any(token.logprob is None for token in tokens))
    text.append(f"{describe(summarise(tokens))}\n", "dim")
    lines = "".join(_least_likely_lines(tokens, shapes, width))
    if lines:
        text.append("The least likely tokens under 50 %, and their alternatives:\n", "dim")
    text.append(lines)
    text.append("\n")


def _append_legend(text: Text, *, unknown: bool) -> None:
    for n, (_, name) in enumerate(LEVELS):
        text.append(f" {name} ", _STYLES[n])
        text.append(" ")
    if unknown:
        text.append(" not known ", _STYLES[UNKNOWN])
    text.append("\n")


def _least_likely_lines(tokens: list[Token], shapes: list[tuple[Glyph, ...]], width: int) -> Iterator[str]:
    """Yield the lines about each of the least likely tokens under 50 %, in the order of the text."""
    unlikely = [n for n, token in enumerate(tokens) if token.logprob is not None and level(token.logprob) > 1]
    for n in sorted(sorted(unlikely, key=lambda n: tokens[n].logprob or 0.0)[:UNSURE_TOKENS]):
        others = [each for each in tokens[n].alternatives if each.text != tokens[n].text][:_ALTERNATIVES]
        listed = [f"{_cell(alternative_glyphs(each))} {percent(probability(each.logprob))}" for each in others]
        token = _pad(_cell(shapes[n]), _TOKEN_WIDTH)
        yield from _wrap(f"{n + 1:5d}  {token} {percent(probability(tokens[n].logprob)):>7}", listed, width)


def _wrap(head: str, alternatives: list[str], width: int) -> Iterator[str]:
    """Yield the head with its alternatives, each of which stays whole; lines after the first are indented."""
    line = head
    for n, alternative in enumerate(alternatives):
        listed = f"{'' if n else '  or '}{alternative}{',' * (n < len(alternatives) - 1)}"
        if _columns(line) + 1 + _columns(listed) > width:
            yield f"{line}\n"
            line = " " * _INDENT + listed.lstrip()
        else:
            line += f"{' ' * (n > 0)}{listed}"
    yield f"{line}\n"


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _columns(text))


def _columns(text: str) -> int:
    """Return how many columns a text takes."""
    from rich.cells import cell_len

    return cell_len(text)


def _cell(shape: tuple[Glyph, ...]) -> str:
    return f"‘{_write(shape).replace(chr(10), '')}’"


def _write(shape: tuple[Glyph, ...]) -> str:
    return "".join(_glyph(glyph) for glyph in shape)


def _glyph(glyph: Glyph) -> str:
    if glyph.kind == "space":
        return "·" * len(glyph.text)
    if glyph.kind == "mark":
        return f"<{glyph.text}>"
    return {"newline": "⏎\n", "tab": "→   "}.get(glyph.kind, glyph.text)
