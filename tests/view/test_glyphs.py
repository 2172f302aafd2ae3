"""Characters that cannot be seen, made visible."""

from __future__ import annotations

from gpt.view.glyphs import glyphs


def test_glyphs_of_joiners_are_text() -> None:
    """Characters that join emoji or shape Indic letters are not marked as control characters."""
    assert [glyph.kind for glyph in glyphs("👩‍💻क्‍ष")] == ["text"]
