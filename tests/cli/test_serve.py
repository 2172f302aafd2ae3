"""`gpt serve`: what it prints where, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from typer.testing import CliRunner

from gpt.cli import app
from tests.support.client import make, request
from tests.support.command import GPT


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_serve_until_a_signal_prints_its_url_and_exits_with_0(end: signal.Signals) -> None:
    """The URL alone goes to stdout, what to do with it to stderr; Ctrl-C and SIGTERM are its proper end, code 0."""
    command = [sys.executable, "-c", "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
               "from gpt.__main__ import main; main()", "serve", "--port", "0"]  # fmt: skip
    environment = {**os.environ, "GPT_SERVE_API_KEY": "a-secret-key", "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:  # type: ignore[call-overload]
        url = process.stdout.readline().strip()
        said = process.stderr.readline() + process.stderr.readline()
        key = {"Authorization": "Bearer a-secret-key"}
        requests.get(f"{url}/models", headers=key, timeout=60).raise_for_status()
        process.send_signal(end)
        rest, last = process.communicate(timeout=60)
    assert (process.returncode, rest, last) == (0, "", "stopped\n")
    assert f"export OPENAI_BASE_URL={url}\n" in said
    assert "OPENAI_API_KEY" in said
    assert "a-secret-key" not in said
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/models", headers=key, timeout=60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_until_a_signal_responds_at_its_url(number: int) -> None:
    """`gpt serve` prints its URL, responds there, and ends well at Ctrl-C or a polite kill."""
    with subprocess.Popen([*GPT, "serve"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        with make(url) as s:
            assert s.completions.create_completion(request(max_tokens=2)).status_code == 200
        process.send_signal(number)
        said = process.communicate()[1]
    assert process.returncode == 0
    assert said.endswith("stopped\n")


def test_serve_given_a_file_that_is_no_model_is_a_usage_error(tmp_path: Path) -> None:
    """A file that is not GGUF is named in one line."""
    (tmp_path / "x.gguf").write_bytes(b"no model")
    result = CliRunner().invoke(app, ["serve", str(tmp_path / "x.gguf")])
    assert result.exit_code == 2
    assert "is not a GGUF model" in result.stderr
