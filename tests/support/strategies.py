"""What property tests draw from."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

JSON_ERRORS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["error", "message", "detail", "msg", "loc", "code", "type", "param", "errors", "status"])
            | st.text(max_size=3),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)
"""JSON with the names that errors have."""
