"""Choices with log-probabilities for displays, what hostile models say, and what a browser finds in a page."""

from __future__ import annotations

import html.parser
from typing import Any

from gpt.models.shared import CreateCompletionResponseChoices

HOSTILE = (
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)" x="',
    "'><img src=x onerror=alert(1)>",
    "</style><style>*{display:none}",
    "</span></div></body>",
    "\u202eevil\u2066\u200f",
    "\x1b[2J\x1b]8;;http://evil\x07",
    "\x00\x9b31m\ud800\ufdd0",
    "<!--",
    "&lt;&#x3c;",
)


class Page(html.parser.HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.rendered = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.rendered += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data!r}")


def lists(tokens: list[str], logprobs: list[Any], top: Any = None) -> CreateCompletionResponseChoices:
    """Make a choice with the lists that most servers send."""
    fields = {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": top}
    return CreateCompletionResponseChoices.from_dict({"text": "".join(tokens), "logprobs": fields})


def chat(*content: Any) -> CreateCompletionResponseChoices:
    """Make a choice with the chat form of log-probabilities."""
    return CreateCompletionResponseChoices.from_dict({"text": "?", "logprobs": {"content": list(content)}})


def entry(token: str, logprob: float | None, raw: bytes | None = None, **more: Any) -> dict[str, Any]:
    """Make a token in the chat form."""
    return {"token": token, "logprob": logprob, "bytes": None if raw is None else list(raw), **more}


def luminance(colour: str) -> float:
    """Return the relative luminance of `#rrggbb` (WCAG 2.2)."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
