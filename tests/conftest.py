"""What every test shares: an environment that says nothing, and one llama.cpp server."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from gpt import local

_SILENCED = ("OPENAI_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(scope="session", autouse=True)
def quiet_environment() -> Iterator[None]:
    """Take away what the machine's environment would tell a client: keys, servers, proxies, certificates."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper().startswith(_SILENCED):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def interrupts_arrive() -> None:
    """Let Ctrl-C through where a background job ignores it, or the tests of interruptions would wait forever."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def local_server() -> Iterator[local.Server]:
    """Run llama.cpp with the bundled model, for all tests."""
    with local.Server() as server:
        yield server
