"""Completions as a page, and in a notebook."""

from __future__ import annotations

import re

import pytest

import gpt
from gpt import local, view
from gpt._parsing.logprobs import tokens_of
from gpt.models import shared
from gpt.models.shared import CreateCompletionResponse, CreateCompletionResponseChoices
from tests.support.fixtures import vllm
from tests.support.pages import HOSTILE, Page, chat, entry, lists, luminance

TAGS = {"!doctype", "html", "head", "meta", "title", "style", "body", "div", "section", "span", "b", "i", "p", "bdi"}


ATTRIBUTES = {"class", "tabindex", "role", "hidden", "style", "dir", "lang", "charset", "http-equiv", "content", "name"}


def test_to_html_page_holds_no_script_and_loads_nothing() -> None:
    """A page holds no script and loads nothing: no link, no source, no import, no URL."""
    text = view.to_html(CreateCompletionResponse.from_json(vllm("echo_logprobs_generate").body))
    page = Page(text)

    assert text.startswith("<!doctype html>")
    assert page.open == []
    assert set(page.tags) <= TAGS
    assert {name for name, _ in page.attributes} <= ATTRIBUTES
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|https?:", text)


def test_to_html_shows_tokens_and_alternatives() -> None:
    """Each token can be focused and carries its probability, its alternatives and what is left for all others."""
    choice = lists(["Hi", " yo"], [None, -1.0], [None, {" you": -0.5, " yo": -1.0}])
    page = Page(view.to_html(choice))

    assert page.attributes.count(("tabindex", "0")) == 2
    assert "Token 2 · log-probability −1 you60.7 % yo36.8 %all others2.6 %" in page.rendered
    assert "Token 1 · no log-probabilityHi?" in page.rendered


def test_to_html_marks_the_chosen_token_once() -> None:
    """The token that was chosen is marked once, among its alternatives or, if the server left it out, below them."""
    within = view.to_html(lists(["a"], [-1.0], [{"b": -0.5, "a": -1.0}]))
    below = view.to_html(lists(["a"], [-9.0], [{"b": -0.5}]))

    assert within.count('class="r own"') == below.count('class="r own"') == 1
    assert "b60.7 %a&lt;" not in below
    assert "b60.7 %a< 0.1 %" in Page(below).rendered


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("form", ["lists", "chat", "text", "finish_reason", "title"])
def test_to_html_hostile_text_stays_text(text: str, form: str) -> None:
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


def test_to_html_llama_cpp_probabilities_are_read_as_logprobs() -> None:
    """llama.cpp's `prob` and `top_probs` are read as log-probabilities are."""
    choice = chat(
        {"token": "a", "prob": 0.25, "top_probs": [{"token": "b", "prob": 0.75}, {"token": "c", "prob": 0.0}]}
    )

    assert "b75.0 %c0 %a25.0 %" in Page(view.to_html(choice)).rendered


def test_repr_html_is_an_element_of_bounded_size() -> None:
    """In a notebook a response and a choice show themselves, as an element with its own style and a bounded size."""
    choice = lists(["a"] * 5000, [-1.0] * 5000)
    rendered = choice._repr_html_()

    assert rendered.startswith('<div class="gpt-view"><style>')
    assert "<html" not in rendered
    assert rendered.count('tabindex="0"') == 2000
    assert "3,000 more tokens" in rendered
    assert CreateCompletionResponse(choices=[choice, choice])._repr_html_().count('tabindex="0"') == 2000


def test_to_html_fragment_styles_only_its_own_element() -> None:
    """Each rule of a fragment's style is about our own element, not about the notebook around it."""
    style = re.sub(
        r"/\*.*?\*/", "", view.to_html(lists(["a"], [-1.0]), fragment=True).partition("<style>")[2], flags=re.S
    )
    selectors = re.findall(r"([^{};]+)\{", style.partition("</style>")[0])

    rules = [selector for group in selectors if "@" not in group for selector in group.split(",")]
    assert len(rules) > 20
    assert all(".gpt-view" in rule for rule in rules)


def test_repr_html_of_a_llama_cpp_response_shows_alternatives() -> None:
    """A response of the real llama.cpp server is shown with its alternatives."""
    request = shared.CreateCompletionRequest(model="tiny", prompt="The ", max_tokens=5, logprobs=3, seed=1)
    with local.Server() as server, gpt.Gpt(server_url=server.url, security=shared.Security(api_key_auth="")) as s:
        response = s.completions.create_completion(request).create_completion_response

    assert response is not None
    page = Page(response._repr_html_())
    assert page.rendered.count("all others") == len(tokens_of(response.choices[0])) == 5


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours (WCAG 2.2), from 1 to 21."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_to_html_colours_are_legible_in_each_theme() -> None:
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
