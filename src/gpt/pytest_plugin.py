"""Fixtures for testing an application against a real engine, with neither key nor network.

Write this in the `conftest.py` at the root of your tests; nothing is loaded for those who do not:

    pytest_plugins = ["gpt.pytest_plugin"]
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import Gpt, local
from .models import shared

__all__ = ["gpt_client", "gpt_server"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; they exist where a `conftest.py` at the root of the tests names this plugin."""
    group = parser.getgroup("gpt", "gpt: a language model for tests")
    group.addoption(
        "--gpt-model", metavar="FILE", help="GGUF model of the gpt_server fixture (default: the bundled one)"
    )
    group.addoption(
        "--gpt-workers",
        metavar="N",
        type=int,
        default=4,
        help="requests that gpt_server processes at a time (default: 4)",
    )


@pytest.fixture(scope="session")
def gpt_server(request: pytest.FixtureRequest) -> Iterator[local.Server]:
    """A llama.cpp server for the whole session, its address in `.url`.

    Tests that use it are skipped where the extra `local` is not installed.
    """
    model = request.config.getoption("--gpt-model", None)
    workers = request.config.getoption("--gpt-workers", None) or 4
    try:
        server = local.Server(model, n_parallel=workers)
    except ImportError as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture
def gpt_client(gpt_server: local.Server) -> Iterator[Gpt]:
    """A client of `gpt_server` that sends no key, whatever the environment holds; one for each test."""
    with Gpt(server_url=gpt_server.url, security=shared.Security(api_key_auth="")) as client:
        yield client
