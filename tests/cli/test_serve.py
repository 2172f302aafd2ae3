"""`gpt serve`: what it prints where, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import requests


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_serve_until_a_signal(end: signal.Signals) -> None:
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
