"""Completions as coloured text in a terminal."""

from __future__ import annotations

import re

import pytest

from gpt import view
from gpt.view.terminal import _STYLES
from tests.support.pages import HOSTILE, lists, luminance


@pytest.mark.parametrize("text", HOSTILE)
def test_to_text_hostile_text_has_no_control_characters(text: str) -> None:
    """No control character reaches the terminal, in the text or among the alternatives."""
    rendered = str(view.to_text(lists([text], [-3.0], [{f"x{text}": -0.5}])))

    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800]", rendered)


def test_to_text_styles_only_tokens_that_are_not_almost_certain() -> None:
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


def test_to_text_with_unlikely_tokens_says_which_are_listed() -> None:
    """A line says that only tokens under 50 % are listed; without such tokens there is none."""
    assert "under 50 %, and their alternatives" in str(view.to_text(lists(["a"], [-3.0])))
    assert "alternatives" not in str(view.to_text(lists(["a"], [-0.1])))


def test_to_text_without_legend_explains_no_colours() -> None:
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
