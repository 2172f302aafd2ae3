"""Where tokens stand in a text: any division of a text's bytes is found again, whatever the server made of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt._parsing.logprobs import Token
from gpt.scoring.alignment import Span, align, spans_by_length


def spans_of(tokens: Sequence[Token], text: str) -> list[Span] | None:
    """Return the spans of an alignment."""
    found = align(tokens, text)
    return found.spans if found else None


TEXTS = st.text(st.sampled_from("ab \n'éß中😀’"), min_size=1, max_size=20)


@st.composite
def divided(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    """Draw a text and a division of its bytes."""
    text = draw(TEXTS)
    data = text.encode()
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)))) - {len(data)})
    return text, [data[start:end] for start, end in pairwise([0, *cuts, len(data)])]


def characters(text: str, parts: Sequence[bytes]) -> list[tuple[int, int]]:
    """Give the characters that each part touches, by looking at each character's own bytes."""
    owners = [index for index, character in enumerate(text) for _ in character.encode()]
    found, position = [], 0
    for part in parts:
        found.append((owners[position], owners[position + len(part) - 1] + 1))
        position += len(part)
    return found


def assert_found(spans: Sequence[Span] | None, text: str, parts: Sequence[bytes]) -> None:
    """Assert that whole tokens are where they were, and parts of characters between them, without a gap.

    Which of two equal characters side by side a part belongs to cannot always be told.
    """
    assert spans is not None
    assert (spans[0].start, spans[-1].end) == (0, len(text))
    assert all(one.end - 1 <= other.start <= one.end <= other.end for one, other in pairwise(spans))
    for part, span, expected in zip(parts, spans, characters(text, parts), strict=True):
        assert "\ufffd" in part.decode("utf-8", "replace") or span == expected


@settings(deadline=None)
@given(divided())
def test_align_lossy_tokens_finds_each_in_the_text(drawn: tuple[str, list[bytes]]) -> None:
    """Tokens that were decoded one by one, with U+FFFD for parts of characters, are found where they were."""
    text, parts = drawn
    tokens = [Token(part.decode("utf-8", "replace"), -1.0) for part in parts]
    assert_found(spans_of(tokens, text), text, parts)


@settings(deadline=None)
@given(divided())
def test_align_tokens_with_bytes_finds_each_in_the_text(drawn: tuple[str, list[bytes]]) -> None:
    """Tokens that come with their bytes are found by them, whatever their text."""
    text, parts = drawn
    assert spans_of([Token("", -1.0, raw=part) for part in parts], text) == characters(text, parts)


@settings(deadline=None)
@given(divided())
def test_align_special_tokens_gives_empty_spans(drawn: tuple[str, list[bytes]]) -> None:
    """Tokens before the text and behind it that are not in it have empty spans, and move nothing."""
    text, parts = drawn
    tokens = [Token(part.decode("utf-8", "replace"), -1.0) for part in parts]
    spans = spans_of([Token("<s>", None), *tokens, Token("</s>", -1.0)], text)
    assert spans is not None
    assert (spans[0], spans[-1]) == ((0, 0), (len(text), len(text)))
    assert_found(spans[1:-1], text, parts)


def test_align_replacement_character_stands_for_itself_too() -> None:
    """U+FFFD in the text itself is a character like others."""
    tokens = [Token(text, -1.0) for text in ("a\ufffd", "b", "\ufffd", "\ufffd")]
    assert spans_of(tokens, "a\ufffdbé") == [(0, 2), (2, 3), (3, 4), (3, 4)]


@settings(deadline=None)
@given(divided(), st.text(min_size=1, max_size=3))
def test_align_foreign_tokens_is_refused(drawn: tuple[str, list[bytes]], foreign: str) -> None:
    """A text that the tokens do not spell is not aligned, nor is a longer one."""
    text, parts = drawn
    tokens = [Token(part.decode(), -1.0) for part in parts] if all(_is_whole(part) for part in parts) else []
    assert spans_of(tokens, f"{text}{foreign}x") is None


def _is_whole(part: bytes) -> bool:
    return "\ufffd" not in part.decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        pytest.param([0, 2], [(0, 2), (2, 5)], id="right"),
        pytest.param([-1, -1], [(0, 2), (2, 5)], id="none"),
        pytest.param([15, 17], [(0, 2), (2, 5)], id="shifted"),
        pytest.param([0, 3], [(0, 2), (2, 5)], id="wrong"),
        pytest.param([2, 0], [(0, 2), (2, 5)], id="backwards"),
    ],
)
def test_align_wrong_offsets_are_not_believed(offsets: list[int], expected: list[tuple[int, int]]) -> None:
    """A server's offsets are believed only as far as the text at each is the token."""
    tokens = [
        Token(text, -1.0, offset=offset if offset >= 0 else None)
        for text, offset in zip(["Hi", " yo"], offsets, strict=True)
    ]
    assert spans_of(tokens, "Hi yo") == expected


def test_align_offsets_decide_where_the_text_does_not() -> None:
    """Where a token could stand at two places, the server's word counts."""
    tokens = [Token("", None, offset=0), Token("", -1.0, offset=0), Token("aa", -1.0, offset=0)]
    assert spans_of(tokens, "aa") == [(0, 0), (0, 0), (0, 2)]


@pytest.mark.parametrize(("tokens", "text"), [([], "a"), (["b"], "a"), (["a", "b"], "a b c"), (["a", "x", "b"], "ab")])
def test_align_tokens_that_do_not_fit_is_none(tokens: list[str], text: str) -> None:
    """What does not fit gives no spans rather than wrong ones."""
    assert spans_of([Token(token, -1.0) for token in tokens], text) is None


def test_spans_by_length_follow_each_other() -> None:
    """Without a text to go by, each token is as long as its own."""
    assert spans_by_length([Token("Hi", None), Token(" yo", -1.0)]) == [(0, 2), (2, 5)]
