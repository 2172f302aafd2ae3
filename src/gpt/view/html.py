"""Token probabilities as one HTML page that needs nothing else: no script, no font, no request to anywhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from html import escape
from pathlib import Path

from .._parsing.logprobs import Alternative, Token, tokens_of
from ..models.shared import CreateCompletionResponse, CreateCompletionResponseChoices
from .choices import HasChoice, as_model
from .glyphs import Glyph, alternative_glyphs, glyphs, token_glyphs
from .levels import LEVELS, UNKNOWN, describe, level, percent, probability, summarise

FRAGMENT_TOKENS = 2000
"""How many tokens a fragment shows at most, since a notebook stores each output."""

_CLASSES = {"space": "s", "newline": "n", "tab": "b", "mark": "m"}
_NO_LOGPROBS = "The server sent no log-probabilities; request logprobs=5, or as many as it allows."

# The page runs no script and loads nothing, even if something in it should have slipped through the escaping.
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ margin: 0; padding: clamp(.5rem, 3vw, 2rem); background: #f3f5f7; }}
body > .gpt-view {{ margin: 0 auto; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #0d0f12; }} }}
@media (max-width: 40rem) {{ body {{ padding-bottom: 40vh; }} }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def to_html(
    completion: CreateCompletionResponse | CreateCompletionResponseChoices | HasChoice,
    *,
    title: str = "",
    fragment: bool = False,
) -> str:
    """Show how sure the model was of each token, its alternatives on hover and on keyboard focus.

    Args:
        completion: a choice, a completion with all its choices, or a `gpt.scoring.Score`.
        title: the page's heading; without it, the name of the model, where the completion says it.
        fragment: whether to return an element for a page (or a notebook's cell), limited to 2,000 tokens.

    Returns:
        A whole page in UTF-8, or the element. It holds no script and loads nothing.
    """
    completion = as_model(completion)
    choices = completion.choices if isinstance(completion, CreateCompletionResponse) else [completion]
    title = title or _title(completion)
    body = _view(title, choices, FRAGMENT_TOKENS if fragment else sys.maxsize)
    return body if fragment else _PAGE.format(title=_plain(glyphs(title)), body=body)


def _title(completion: CreateCompletionResponse | CreateCompletionResponseChoices) -> str:
    model = completion.model if isinstance(completion, CreateCompletionResponse) else None
    return str(model or "Completion")


def _view(title: str, choices: list[CreateCompletionResponseChoices], limit: int) -> str:
    read = [tokens_of(choice) for choice in choices]
    parts = [f'<div class="gpt-view"><style>\n{_style()}</style>\n']
    parts.append(_head(title, _facts(choices[0], read[0]) if len(choices) == 1 else f"{len(choices)} choices"))
    levels = {level(token.logprob) for tokens in read for token in tokens}
    parts.append(_legend(unknown=UNKNOWN in levels) if levels else "")
    for place, (choice, tokens) in enumerate(zip(choices, read, strict=True)):
        name = f"Choice {place if choice.index is None else choice.index}"
        head = _head(name, _facts(choice, tokens)) if len(choices) > 1 else ""
        parts.append(f"<section>{head}{_body(choice, tokens, limit)}</section>\n")
        limit = max(0, limit - len(tokens))
    return "".join([*parts, "</div>\n"])


@cache
def _style() -> str:
    return (Path(__file__).parent / "style.css").read_text(encoding="utf-8")


@cache
def _legend(*, unknown: bool) -> str:
    caption = "Probability of each token"
    named = [*((f"l{n}", name) for n, (_, name) in enumerate(LEVELS)), *([(f"l{UNKNOWN}", "not known")] * unknown)]
    swatches = "".join(f'<span><i class="{css}"></i>{name}</span>' for css, name in named)
    return f'<div class="legend" role="note"><span>{caption}</span>{swatches}</div>\n'


def _head(title: str, facts: str) -> str:
    return f'<div class="head"><b>{_plain(glyphs(title))}</b><span>{_plain(glyphs(facts))}</span></div>\n'


def _facts(choice: CreateCompletionResponseChoices, tokens: list[Token]) -> str:
    facts = [describe(summarise(tokens))] if tokens else []
    return " · ".join([*facts, *([f"finish_reason: {choice.finish_reason}"] if choice.finish_reason else [])])


def _body(choice: CreateCompletionResponseChoices, tokens: list[Token], limit: int) -> str:
    text = "".join(_tokens(tokens[:limit])) if tokens else _glyphs(glyphs(str(choice.text or "")))
    note = "" if tokens else _NO_LOGPROBS
    if len(tokens) > limit:
        note = f"{len(tokens) - limit:,} more tokens: gpt.view.to_html(choice) gives a page with all of them."
    return f'<div class="text" dir="auto">{text}</div>' + (f'<p class="note">{escape(note)}</p>' if note else "")


def _tokens(tokens: list[Token]) -> Iterator[str]:
    for number, (token, shape) in enumerate(zip(tokens, token_glyphs(tokens), strict=True), 1):
        css = f"t l{level(token.logprob)}"
        yield f'<span class="{css}" tabindex="0">{_glyphs(shape)}{_details(number, token, shape)}</span>'


def _details(number: int, token: Token, shape: tuple[Glyph, ...]) -> str:
    """Return what appears on hover and focus; `hidden` takes effect if a page drops our style."""
    own = Alternative(token.text, token.logprob, token.raw)
    rows = [(each, alternative_glyphs(each), _is_same(each, own)) for each in token.alternatives]
    if not any(same for *_, same in rows):
        rows.append((own, shape, True))
    known = [probability(each.logprob) or 0.0 for each, *_ in rows]
    rest = max(0.0, 1.0 - sum(known))
    logprob = "no log-probability" if token.logprob is None else f"log-probability {_signed(token.logprob)}"
    return "".join(
        [
            f'<span class="a" role="tooltip" hidden><span class="h">Token {number} · {logprob}</span>',
            *(_row(other, probability(each.logprob), own=same) for each, other, same in rows),
            f'<span class="r rest"><span>all others</span><span>{percent(rest)}</span></span>'
            if token.alternatives and token.logprob is not None
            else "",
            "</span>",
        ]
    )


def _is_same(one: Alternative, other: Alternative) -> bool:
    return one.text == other.text and (one.raw is None or other.raw is None or one.raw == other.raw)


def _row(shape: tuple[Glyph, ...], chance: float | None, *, own: bool) -> str:
    css = "r own" if own else "r"
    bar = f' style="--p:{chance:.1%}"' if chance else ""
    return f'<span class="{css}"{bar}><bdi>{_glyphs(shape, inline=True)}</bdi><span>{percent(chance)}</span></span>'


def _glyphs(shape: tuple[Glyph, ...], *, inline: bool = False) -> str:
    """Write glyphs; `inline` shows a newline without beginning a line."""
    written = []
    for kind, text in shape:
        text = "" if inline and kind == "newline" else escape(text)
        written.append(text if kind == "text" else f'<i class="{_CLASSES[kind]}">{text}</i>')
    return "".join(written)


def _plain(shape: tuple[Glyph, ...]) -> str:
    return escape("".join(text for _, text in shape))


def _signed(number: float) -> str:
    return f"{number:.4g}".replace("-", "\u2212")
