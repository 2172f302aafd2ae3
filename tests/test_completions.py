"""The two operations: their options, and what their results keep."""

from __future__ import annotations

import inspect
import sys
import typing
from typing import Any

import pytest
import typing_extensions

from gpt import Gpt
from gpt.completions import Completions
from gpt.models import operations
from tests.support.client import COMPLETION, create, make
from tests.support.http_server import ScriptedServer, json_response


def test_operations_plain_and_streamed_take_the_same_options() -> None:
    """An option of `create_completion` is one of `stream_completion`, by the same name, type and default."""
    plain, streamed = (inspect.signature(f) for f in (Completions.create_completion, Completions.stream_completion))
    assert list(plain.parameters.values()) == list(streamed.parameters.values())


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_raw_response_of_a_call_can_be_read_again(framing: Any) -> None:
    """`raw_response` gives status, headers and the body once more, as requests does."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response(COMPLETION, framing=framing, x_team="a"))
        raw = create(s).raw_response
    assert (raw.status_code, raw.headers["X-TEAM"], raw.json(), raw.json()) == (200, "a", COMPLETION, COMPLETION)


def test_operations_type_hints_resolve() -> None:
    """Tools that read annotations at run time can; Python 3.10 has no `Unpack`, so there it is passed to them."""
    missing = {} if sys.version_info >= (3, 11) else {"Unpack": typing_extensions.Unpack}
    for operation in (Completions.create_completion, Completions.stream_completion):
        assert "options" in typing.get_type_hints(operation, localns=missing)
    hints = typing.get_type_hints(Completions.create_completion, localns=missing)
    assert hints["return"] is operations.CreateCompletionResponse


def test_client_type_hints_resolve() -> None:
    """The methods that return a client of their own class have annotations that resolve, too."""
    missing = {} if sys.version_info >= (3, 11) else {"Self": typing_extensions.Self}
    for method in (Gpt.with_options, Gpt.__enter__):
        assert "return" in typing.get_type_hints(method, localns=missing)
