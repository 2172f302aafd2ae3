"""Token probabilities as a page and as terminal text: every form of log-probabilities, hostile texts, notebooks."""

from __future__ import annotations

import gc
import html.parser
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

import gpt
from gpt import local, view
from gpt._parsing.logprobs import tokens_of
from gpt.models import shared
from gpt.models.shared import CreateCompletionResponse, CreateCompletionResponseChoices
from gpt.view.glyphs import glyphs
from gpt.view.levels import UNKNOWN, level, percent, probability
from gpt.view.terminal import _STYLES
from tests.support.fixtures import vllm, wire, wire_names

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

TAGS = {"!doctype", "html", "head", "meta", "title", "style", "body", "div", "section", "span", "b", "i", "p", "bdi"}
ATTRIBUTES = {"class", "tabindex", "role", "hidden", "style", "dir", "lang", "charset", "http-equiv", "content", "name"}


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


def test_page_stands_alone() -> None:
    """A page holds no script and loads nothing: no link, no source, no import, no URL."""
    text = view.to_html(CreateCompletionResponse.from_json(vllm("echo_logprobs_generate").body))
    page = Page(text)

    assert text.startswith("<!doctype html>")
    assert page.open == []
    assert set(page.tags) <= TAGS
    assert {name for name, _ in page.attributes} <= ATTRIBUTES
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|https?:", text)


def test_page_shows_tokens_and_alternatives() -> None:
    """Each token can be focused and carries its probability, its alternatives and what is left for all others."""
    choice = lists(["Hi", " yo"], [None, -1.0], [None, {" you": -0.5, " yo": -1.0}])
    page = Page(view.to_html(choice))

    assert page.attributes.count(("tabindex", "0")) == 2
    assert "Token 2 · log-probability −1 you60.7 % yo36.8 %all others2.6 %" in page.rendered
    assert "Token 1 · no log-probabilityHi?" in page.rendered


def test_page_marks_the_token_itself() -> None:
    """The token that was chosen is marked once, among its alternatives or, if the server left it out, below them."""
    within = view.to_html(lists(["a"], [-1.0], [{"b": -0.5, "a": -1.0}]))
    below = view.to_html(lists(["a"], [-9.0], [{"b": -0.5}]))

    assert within.count('class="r own"') == below.count('class="r own"') == 1
    assert "b60.7 %a&lt;" not in below
    assert "b60.7 %a< 0.1 %" in Page(below).rendered


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("form", ["lists", "chat", "text", "finish_reason", "title"])
def test_hostile_text(text: str, form: str) -> None:
    """Whatever a model says, or a server as a model's name, is text on the page and cannot leave its place."""
    choice = {
        "lists": lists([text], [-1.0], [{text: -1.0, f"x{text}": -2.0}]),
        "chat": chat(entry(text, -1.0, top_logprobs=[entry(text, -1.0), entry(f"x{text}", -2.0)])),
    }.get(form, CreateCompletionResponseChoices(text=text))
    if form == "finish_reason":
        choice.finish_reason = text
    response = CreateCompletionResponse(choices=[choice, choice], model=text if form == "title" else "m")

    written = view.to_html(response)
    page = Page(written)

    assert written.encode()
    assert page.open == []
    assert set(page.tags) <= TAGS
    assert {name for name, _ in page.attributes} <= ATTRIBUTES
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", written)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_a_terminal(text: str) -> None:
    """No control character reaches the terminal, in the text or among the alternatives."""
    rendered = str(view.to_text(lists([text], [-3.0], [{f"x{text}": -0.5}])))

    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800]", rendered)


def test_white_space_is_visible() -> None:
    """Spaces, tabs and newlines have a shape, and are still themselves when the text is copied."""
    written = view.to_html(lists(["a  b\t\n"], [-1.0]))

    assert 'a<i class="s">  </i>b<i class="b">\t</i><i class="n">\n</i>' in written
    assert "a··b→   ⏎\n" in str(view.to_text(lists(["a  b\t\n"], [-1.0])))


@pytest.mark.parametrize("zero", [-9999.0, -3.4028234663852886e38, float("-inf")])
def test_no_probability(zero: float) -> None:
    """A probability of 0 is shown as such in each of the ways servers write it."""
    choice = chat(entry("a", zero, top_logprobs=[entry("b", 0.0), entry("c", zero)]))

    assert "b100 %c0 %a0 %all others0 %" in Page(view.to_html(choice)).rendered
    assert "‘a’" in str(view.to_text(choice))
    assert "perplexity" in str(view.to_text(choice))


@pytest.mark.parametrize("unknown", [None, float("nan"), "None", True, 10**400])
def test_no_number(unknown: Any) -> None:
    """A log-probability that is no number is unknown, not likely and not unlikely."""
    (token,) = tokens_of(lists(["a"], [unknown]))

    assert level(token.logprob) == UNKNOWN
    assert 'class="t l5"' in view.to_html(lists(["a"], [unknown]))


def test_parts_of_a_character() -> None:
    """Tokens that are parts of a character show their bytes, and the last one the character."""
    parts = "😀".encode()
    choice = chat(
        entry("", -1.0, parts[:1]), entry("", -1.0, parts[1:3]), entry("", -1.0, parts[3:]), entry("a", -1.0, b"a")
    )
    listed = lists(["bytes:\\xf0\\x9f", "bytes:\\x98\\x80", "\ufffd"], [-1.0, -1.0, -1.0])

    assert "<F0><9F 98><80>😀a" in str(view.to_text(choice))
    assert "<F0 9F><98 80>😀\ufffd" in str(view.to_text(listed))
    assert "😀" in view.to_html(choice)


def test_llama_cpp_probabilities() -> None:
    """llama.cpp's `prob` and `top_probs` are read as log-probabilities are."""
    choice = chat(
        {"token": "a", "prob": 0.25, "top_probs": [{"token": "b", "prob": 0.75}, {"token": "c", "prob": 0.0}]}
    )

    assert "b75.0 %c0 %a25.0 %" in Page(view.to_html(choice)).rendered


def completions() -> Iterator[Any]:
    """Yield each sample that can be read as a completion."""
    for name in wire_names(".json"):
        with suppress(ValueError):
            yield pytest.param(CreateCompletionResponse.from_json(wire(name)), id=name)


@pytest.mark.parametrize("response", [*completions()])
def test_every_sample(response: CreateCompletionResponse) -> None:
    """Every response that the client can read can be shown, whatever its log-probabilities look like."""
    assert Page(view.to_html(response)).open == []
    assert "\x1b" not in str(view.to_text(response))


@pytest.mark.parametrize(
    "logprobs",
    [
        {"tokens": "a"},
        {"tokens": ["a"], "top_logprobs": {"a": -1}},
        {"content": [{}, None, 5, {"id": 7}]},
        {"content": {}},
        5,
        [],
    ],
)
def test_misshapen(logprobs: Any) -> None:
    """Log-probabilities of any other shape are shown as far as they can be read, without an error."""
    choice = CreateCompletionResponseChoices.from_dict({"text": "a", "logprobs": logprobs})

    assert Page(view.to_html(choice)).open == []
    assert str(view.to_text(choice))


def test_without_logprobs() -> None:
    """Without log-probabilities the text is shown, and how to ask for them."""
    choice = CreateCompletionResponseChoices(text="a <b>")

    assert "a <b>" in Page(view.to_html(choice)).rendered
    assert "logprobs=5" in view.to_html(choice)
    assert "logprobs=5" in str(view.to_text(choice))


def test_colours() -> None:
    """The terminal text carries a style for each token that is not almost certain, and none for the others."""
    text = view.to_text(lists(["sure", "perhaps", "hardly"], [-0.01, -0.4, -5.0]))
    styles = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}

    assert "sure" not in styles
    assert {"perhaps", "hardly"} <= styles.keys()
    assert "underline" in styles["hardly"]


def test_to_text_wraps_between_alternatives() -> None:
    """In a narrow terminal no alternative is broken; lines after the first are indented, none is too wide."""
    others = dict.fromkeys(("alternative", "another one", "and a third", "a fourth"), -2.0)
    text = str(view.to_text(lists(["token"], [-3.0], [others]), width=50, legend=False))
    lines = text.partition("alternatives:\n")[2].splitlines()

    assert len(lines) > 2
    assert all(len(line) <= 50 for line in lines)
    assert all(re.match(r" {9}(or )?‘", line) for line in lines[1:])
    assert all(f"‘{word.replace(' ', '·')}’ 13.5 %" in text for word in others)


def test_to_text_says_what_it_lists() -> None:
    """A line says that only tokens under 50 % are listed; without such tokens there is none."""
    assert "under 50 %, and their alternatives" in str(view.to_text(lists(["a"], [-3.0])))
    assert "alternatives" not in str(view.to_text(lists(["a"], [-0.1])))


def test_to_text_legend_is_optional() -> None:
    """Where there are no colours, there is nothing to explain."""
    choice = lists(["a"], [-3.0])
    assert "90 % and more" in str(view.to_text(choice))
    assert "90 % and more" not in str(view.to_text(choice, legend=False))


def test_to_text_likely_tokens_are_not_the_brightest() -> None:
    """Fills begin under 50 %, and go from light to dark: on a dark terminal a likely token does not shine."""
    fills = [re.search(r"on (#\w{6})", style) for style in _STYLES]
    assert [bool(fill) for fill in fills] == [False, False, True, True, True, False]
    shades = [luminance(fill[1]) for fill in fills if fill]
    assert shades == sorted(shades, reverse=True)


@pytest.mark.parametrize(
    ("chance", "written"),
    [(1.0, "100 %"), (0.9999, "> 99.9 %"), (0.5, "50.0 %"), (0.0004, "< 0.1 %"), (0.0, "0 %"), (None, "?")],
)
def test_percent(chance: float | None, written: str) -> None:
    """Almost certain is not certain, and unlikely is not impossible."""
    assert percent(chance) == written


@pytest.mark.parametrize(("logprob", "expected"), [(1e-7, 1.0), (0.0, 1.0), (-1e308, 0.0), (None, None)])
def test_probability(logprob: float | None, expected: float | None) -> None:
    """A probability stays between 0 and 1 whatever the server's rounding."""
    assert probability(logprob) == expected


def test_joiners_stay() -> None:
    """What joins emoji and shapes Indic letters is no control to be marked."""
    assert [glyph.kind for glyph in glyphs("👩‍💻क्‍ष")] == ["text"]


def test_notebook() -> None:
    """In a notebook a response and a choice show themselves, as an element with its own style and a bounded size."""
    choice = lists(["a"] * 5000, [-1.0] * 5000)
    rendered = choice._repr_html_()

    assert rendered.startswith('<div class="gpt-view"><style>')
    assert "<html" not in rendered
    assert rendered.count('tabindex="0"') == 2000
    assert "3,000 more tokens" in rendered
    assert CreateCompletionResponse(choices=[choice, choice])._repr_html_().count('tabindex="0"') == 2000


def test_style_stays_in_its_element() -> None:
    """Each rule of a fragment's style is about our own element, not about the notebook around it."""
    style = re.sub(
        r"/\*.*?\*/", "", view.to_html(lists(["a"], [-1.0]), fragment=True).partition("<style>")[2], flags=re.S
    )
    selectors = re.findall(r"([^{};]+)\{", style.partition("</style>")[0])

    rules = [selector for group in selectors if "@" not in group for selector in group.split(",")]
    assert len(rules) > 20
    assert all(".gpt-view" in rule for rule in rules)


def test_real_server() -> None:
    """A response of the real llama.cpp server is shown with its alternatives."""
    request = shared.CreateCompletionRequest(model="tiny", prompt="The ", max_tokens=5, logprobs=3, seed=1)
    with local.Server() as server, gpt.Gpt(server_url=server.url, security=shared.Security(api_key_auth="")) as s:
        response = s.completions.create_completion(request).create_completion_response

    assert response is not None
    page = Page(response._repr_html_())
    assert page.rendered.count("all others") == len(tokens_of(response.choices[0])) == 5


def test_nothing_that_was_shown_is_kept() -> None:
    """A shown response's memory is free again once the response is gone: of ten texts of 50 kB not two are left."""

    def show(text: str) -> None:
        view.to_html(CreateCompletionResponseChoices(text=text))
        view.to_text(lists([text], [-1.0]))

    show("what is loaded once")
    tracemalloc.start()
    try:
        for number in range(10):
            show(f"{number} {'a' * 50_000}")
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()


def test_import_is_light() -> None:
    """`import gpt` loads no view, and a page needs no rich."""
    lines = (
        "import sys, gpt",
        "from gpt.models.shared import CreateCompletionResponseChoices as Choice",
        "assert 'gpt.view' not in sys.modules",
        "Choice(text='a')._repr_html_()",
        "assert 'gpt.view' in sys.modules and 'rich' not in sys.modules",
    )
    code = "; ".join(lines)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def luminance(colour: str) -> float:
    """Return the relative luminance of `#rrggbb` (WCAG 2.2)."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours (WCAG 2.2), from 1 to 21."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colours_are_legible() -> None:
    """In each theme the levels go one way in lightness, and every text on them has the contrast that WCAG asks for."""
    style = view.to_html(lists(["a"], [-1.0]), fragment=True)
    blocks = re.findall(r"\.gpt-view \{\s*(--paper:.*?)\}", style, flags=re.S)
    themes = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks]

    assert len(themes) == 4
    for theme in themes:
        levels = [luminance(theme[name]) for name in ("paper", "l1", "l2", "l3", "l4")]
        assert levels in (sorted(levels), sorted(levels, reverse=True))
        pairs = [("ink", "paper"), ("ink", "l1"), ("ink", "l2"), ("l3-ink", "l3"), ("l4-ink", "l4")]
        pairs += [("soft", "paper"), ("ink", "card"), ("soft", "card"), ("ink", "bar")]
        assert [pair for pair in pairs if contrast(theme[pair[0]], theme[pair[1]]) < 4.5] == []
