"""The command as a whole: what it needs, what it loads, and completion in a shell."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import gpt
from tests.support.command import GPT, run
from tests.support.http_server import ScriptedServer


def test_gpt_without_typer_says_how_to_install_the_extra() -> None:
    """Without typer the command says in one line how to get it."""
    code = "import sys; sys.modules['typer'] = None; from gpt.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "gpt: the command line needs typer: run pip install '.[cli]' in a clone of gpt-sdk\n"


def test_version_loads_no_display_llama_cpp_or_cluster() -> None:
    """`gpt --version` loads neither rich's display nor llama.cpp nor a cluster."""
    code = (
        "import sys; sys.argv = ['gpt', '--version']\n"
        "try: from gpt.__main__ import main; main()\n"
        "finally: assert not sys.modules.keys() & {'rich.progress', 'xllamacpp', 'distributed'}"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_shell_completion_of_a_prefix_lists_the_command() -> None:
    """The shell can be told of the commands."""
    environment = {**os.environ, "_GPT_COMPLETE": "complete_bash", "COMP_WORDS": "gpt ba", "COMP_CWORD": "1"}
    done = subprocess.run(GPT, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["batch"]


def test_version_prints_package_and_version() -> None:
    """--version names the package and its version."""
    assert run("--version").stdout == f"gpt-sdk {gpt.__version__}\n"


def test_gpt_without_command_prints_help_as_usage_error() -> None:
    """Without a command the help comes, as a usage error."""
    result = run()
    assert result.exit_code == 2
    assert "complete" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["complete", "-m", "m", "-f x"], "goes after '--'"),
        (["complete", "-m", "m", "x", "--logit-bias", "a=1"], "expected TOKEN_ID=BIAS such as 50256=-100"),
        (["complete", "-m", "m", "x", "--extra", "top_k"], "expected NAME=JSON such as top_k=40"),
        (["complete", "-m", "m", "x", "--server-url", "localhost"], "expected a URL such as"),
        (["complete", "-m", "m", "x", "--n", "two"], "--n"),
        (["complete", "x", "--local", "--server-url", "http://x/v1"], "leave --server-url out"),
        (["complete", "-m", "m", "x", "--temperature", "nan"], "temperature: expected a finite number"),
        (["serve", "--port", "99999"], "port must be an integer from 0 to 65535"),
        (["batch", "in"], "OUTPUT"),
        (["conjugate"], "conjugate"),
    ],
)
def test_gpt_usage_error_exits_with_2_and_sends_nothing(
    server: ScriptedServer, arguments: list[str], message: str
) -> None:
    """What is wrong with the command itself is said on stderr, with exit code 2, and nothing is sent."""
    result = run(*arguments)
    assert (result.stdout, result.exit_code) == ("", 2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert server.requests == []
