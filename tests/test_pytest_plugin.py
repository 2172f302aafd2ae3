"""The fixtures for users' own tests, run as users run them: by pytest, in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = 'pytest_plugins = ["gpt.pytest_plugin"]'

APPLICATION = """
from gpt.models import shared


def ask(client):
    request = shared.CreateCompletionRequest(model="any", prompt="The ", max_tokens=4, seed=1)
    return client.completions.create_completion(request).create_completion_response.choices[0].text
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A user's project that has opted in, without the plugins of this environment, which take time to load."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(application=APPLICATION)
    return pytester


def test_plugin_fixtures_share_one_server_and_have_no_key(suite: pytest.Pytester) -> None:
    """An application is tested against a real model; the server is one for the session, the client has no key."""
    suite.makepyfile(
        """
        from application import ask

        urls = set()

        def test_answer(gpt_client, gpt_server):
            urls.add(gpt_server.url)
            assert ask(gpt_client)

        def test_again(gpt_client, gpt_server):
            urls.add(gpt_server.url)
            assert ask(gpt_client) == ask(gpt_client)
            assert len(urls) == 1
            assert "key=none" in repr(gpt_client)
        """
    )
    result = suite.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2)


def test_plugin_options_choose_model_and_workers(suite: pytest.Pytester, tmp_path: Path) -> None:
    """`--gpt-model` and `--gpt-workers` choose the model and how many requests run at a time."""
    from gpt.local.server import BUNDLED

    model = tmp_path / "mine.gguf"
    model.write_bytes(BUNDLED.read_bytes())
    suite.makepyfile(
        """
        import requests

        def test_model(gpt_server):
            root = gpt_server.url.removesuffix("/v1")
            assert requests.get(f"{root}/props").json()["total_slots"] == 2
            assert requests.get(f"{gpt_server.url}/models").json()["data"][0]["id"] == "mine"
        """
    )
    result = suite.runpytest_subprocess(f"--gpt-model={model}", "--gpt-workers=2")
    result.assert_outcomes(passed=1)


def test_plugin_help_explains_the_options(suite: pytest.Pytester) -> None:
    """The options explain themselves."""
    result = suite.runpytest_subprocess("--help")
    result.stdout.fnmatch_lines(["*--gpt-model=FILE*", "*--gpt-workers=N*"])


def test_plugin_without_llama_cpp_skips_the_tests(suite: pytest.Pytester) -> None:
    """Without llama.cpp the tests that need it are skipped, and the reason says what to install."""
    suite.makepyfile(xllamacpp="raise ImportError('not installed')")
    suite.makepyfile("def test_it(gpt_client): assert False")
    result = suite.runpytest_subprocess("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*SKIPPED*pip install '.?local?' in a clone of gpt-sdk*"])


def test_plugin_in_a_single_test_module_works(suite: pytest.Pytester) -> None:
    """Opting in within a single test module works, with the defaults of the options."""
    suite.makeconftest("")
    suite.makepyfile(f"{CONFTEST}\ndef test_it(gpt_server): assert gpt_server.url.endswith('/v1')")
    suite.runpytest_subprocess().assert_outcomes(passed=1)


def test_plugin_without_opt_in_loads_nothing(pytester: pytest.Pytester) -> None:
    """Nothing of ours is loaded into the suite of someone who did not ask for it."""
    pytester.makepyfile("import sys\ndef test_it(): assert 'gpt' not in sys.modules")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
