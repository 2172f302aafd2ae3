"""Reading an error's body, whatever a server has put there."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given

from gpt._core.errorbody import read_error
from tests.support.strategies import JSON_ERRORS


@given(JSON_ERRORS)
def test_read_error_given_any_text_never_raises(value: Any) -> None:
    """The reader takes any text."""
    for text in (json.dumps(value), json.dumps(value)[:-1], json.dumps({"error": value})):
        assert isinstance(read_error(text).message, str)
