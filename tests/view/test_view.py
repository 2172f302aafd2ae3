"""Token probabilities as a page and as terminal text: every form of log-probabilities, hostile texts, notebooks."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from gpt import view
from gpt._parsing.logprobs import tokens_of
from gpt.models.shared import CreateCompletionResponse, CreateCompletionResponseChoices
from gpt.view.levels import UNKNOWN, level
from tests.support.fixtures import wire, wire_names
from tests.support.pages import Page, chat, entry, lists


def test_view_white_space_is_visible() -> None:
    """Spaces, tabs and newlines have a shape, and are still themselves when the text is copied."""
    written = view.to_html(lists(["a  b\t\n"], [-1.0]))

    assert 'a<i class="s">  </i>b<i class="b">\t</i><i class="n">\n</i>' in written
    assert "a··b→   ⏎\n" in str(view.to_text(lists(["a  b\t\n"], [-1.0])))


@pytest.mark.parametrize("zero", [-9999.0, -3.4028234663852886e38, float("-inf")])
def test_view_zero_probability_is_shown_as_zero(zero: float) -> None:
    """A probability of 0 is shown as such in each of the ways servers write it."""
    choice = chat(entry("a", zero, top_logprobs=[entry("b", 0.0), entry("c", zero)]))

    assert "b100 %c0 %a0 %all others0 %" in Page(view.to_html(choice)).rendered
    assert "‘a’" in str(view.to_text(choice))
    assert "perplexity" in str(view.to_text(choice))


@pytest.mark.parametrize("unknown", [None, float("nan"), "None", True, 10**400])
def test_view_logprob_that_is_no_number_is_unknown(unknown: Any) -> None:
    """A log-probability that is not a number is shown as unknown, neither likely nor unlikely."""
    (token,) = tokens_of(lists(["a"], [unknown]))

    assert level(token.logprob) == UNKNOWN
    assert 'class="t l5"' in view.to_html(lists(["a"], [unknown]))


def test_view_parts_of_a_character_show_their_bytes() -> None:
    """Tokens that are parts of a character show their bytes, and the last one the character."""
    parts = "😀".encode()
    choice = chat(
        entry("", -1.0, parts[:1]), entry("", -1.0, parts[1:3]), entry("", -1.0, parts[3:]), entry("a", -1.0, b"a")
    )
    listed = lists(["bytes:\\xf0\\x9f", "bytes:\\x98\\x80", "\ufffd"], [-1.0, -1.0, -1.0])

    assert "<F0><9F 98><80>😀a" in str(view.to_text(choice))
    assert "<F0 9F><98 80>😀\ufffd" in str(view.to_text(listed))
    assert "😀" in view.to_html(choice)


def completions() -> Iterator[Any]:
    """Yield each sample that can be read as a completion."""
    for name in wire_names(".json"):
        with suppress(ValueError):
            yield pytest.param(CreateCompletionResponse.from_json(wire(name)), id=name)


@pytest.mark.parametrize("response", [*completions()])
def test_view_every_sample_is_shown(response: CreateCompletionResponse) -> None:
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
def test_view_misshapen_logprobs_are_shown_without_error(logprobs: Any) -> None:
    """Log-probabilities of any other shape are shown as far as they can be read, without an error."""
    choice = CreateCompletionResponseChoices.from_dict({"text": "a", "logprobs": logprobs})

    assert Page(view.to_html(choice)).open == []
    assert str(view.to_text(choice))


def test_view_without_logprobs_says_how_to_ask_for_them() -> None:
    """Without log-probabilities the text is shown, and how to ask for them."""
    choice = CreateCompletionResponseChoices(text="a <b>")

    assert "a <b>" in Page(view.to_html(choice)).rendered
    assert "logprobs=5" in view.to_html(choice)
    assert "logprobs=5" in str(view.to_text(choice))


def test_view_of_many_responses_keeps_none_in_memory() -> None:
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


def test_import_of_gpt_loads_no_view() -> None:
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
