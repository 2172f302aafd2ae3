"""A server that commands find in the environment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.client import OK
from tests.support.http_server import ScriptedServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """Run a server at `OPENAI_BASE_URL` that completes every prompt with " ok", unless it is told otherwise."""
    with ScriptedServer() as server:
        server.reply(OK)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        yield server
