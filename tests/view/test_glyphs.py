"""Characters that cannot be seen, made visible."""

from __future__ import annotations

from gpt.view.glyphs import glyphs


def test_glyphs_of_joiners_are_text() -> None:
    """What joins emoji and shapes Indic letters is no control to be marked."""
    assert [glyph.kind for glyph in glyphs("👩‍💻क्‍ष")] == ["text"]
