"""A server for runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.client import OK
from tests.support.http_server import ScriptedServer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Run a server that completes every prompt with " ok", unless it is told otherwise."""
    with ScriptedServer() as server:
        server.reply(OK)
        yield server
