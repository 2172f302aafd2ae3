"""Reading an error's body, whatever a server has put there."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gpt._core.errorbody import read_error

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
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


@given(JSON_VALUES)
def test_read_error_given_any_text_never_raises(value: Any) -> None:
    """The reader takes any text."""
    for text in (json.dumps(value), json.dumps(value)[:-1], json.dumps({"error": value})):
        assert isinstance(read_error(text).message, str)
