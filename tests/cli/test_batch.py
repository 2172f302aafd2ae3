"""`gpt batch` and `gpt serve`, and commands as processes: terminals, pipes, signals, a missing extra."""

from __future__ import annotations

import itertools
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gpt.bulk import Summary
from gpt.cli import app
from gpt.cli._progress import clock, conclude, describe
from tests.support.batch import batch_line, each_once, ids, parrot, wait_for_requests, write_batch, write_lines
from tests.support.client import make, request
from tests.support.http_server import Answer, Received, ScriptedServer, json_answer, sse_answer

GPT = [sys.executable, "-m", "gpt"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        server.answer_with(parrot)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        yield server


def batch(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["batch", *map(str, arguments)], prog_name="gpt")


def test_batch(server: ScriptedServer, tmp_path: Path) -> None:
    """All lines answered: exit code 0, nothing on stdout, the count on stderr."""
    path = write_lines(tmp_path / "in", [{"prompt": "x"}, {"prompt": "y", "model": "own"}])
    result = batch(path, tmp_path / "out", "--model", "m", "-w", 2)
    assert (result.stdout, result.exit_code) == ("", 0)
    assert result.stderr.startswith("2 answered, 0 failed\n2 in 0:00")
    assert ids(tmp_path / "out") == {"1": 1, "2": 1}


def test_batch_with_failed_lines(server: ScriptedServer, tmp_path: Path) -> None:
    """Some lines failed, of this run or an earlier one: exit code 1 and what to do; --retry-errors does it."""
    path, out = write_lines(tmp_path / "in", [batch_line("r0"), b"nonsense"]), tmp_path / "out"

    first, second = batch(path, out), batch(path, out)
    write_batch(path, 2)
    third = batch(path, out, "--retry-errors")

    assert (first.exit_code, second.exit_code, third.exit_code) == (1, 1, 0)
    assert "1 answered, 1 failed\n" in first.stderr
    assert "the last error: line 2: the line is not JSON" in first.stderr
    assert second.stderr == (
        "1 answered, 1 failed (2 of them by earlier runs)\n--retry-errors asks failed lines again\n"
    )
    assert third.stderr.startswith("2 answered, 0 failed (1 of them by earlier runs)\n")
    assert ids(out) == each_once(2)


def test_batch_local(tmp_path: Path) -> None:
    """--local answers a batch with llama.cpp, without a model's name."""
    path = write_lines(tmp_path / "in", [{"prompt": "def", "max_tokens": 4}] * 3)
    assert batch(path, tmp_path / "out", "--local").exit_code == 0
    assert ids(tmp_path / "out") == {"1": 1, "2": 1, "3": 1}


def test_batch_system_errors(server: ScriptedServer, tmp_path: Path) -> None:
    """A missing input is one line on stderr and exit code 1; a wrong output is a usage error."""
    missing = batch(tmp_path / "nowhere", tmp_path / "out")
    assert (missing.exit_code, missing.stderr) == (1, f"gpt: {tmp_path / 'nowhere'}: No such file or directory\n")
    path = write_batch(tmp_path / "in", 2)
    assert batch(path, path).exit_code == 2


def test_batch_piped(server: ScriptedServer, tmp_path: Path) -> None:
    """In a pipe a batch reads stdin and writes plain lines."""
    text = write_batch(tmp_path / "in", 20).read_bytes()
    done = subprocess.run([*GPT, "batch", "-", str(tmp_path / "out")], input=text, capture_output=True, check=True)
    assert ids(tmp_path / "out") == each_once(20)
    assert done.stdout == b""
    assert done.stderr.startswith(b"20 answered, 0 failed\n")
    assert b"\x1b" not in done.stderr


def test_batch_rate_limited(server: ScriptedServer, tmp_path: Path) -> None:
    """While a rate limit holds a batch back, it says so; in the end nothing has failed."""
    answers = iter([json_answer({"error": {"message": "slow down"}}, 429, retry_after_ms="1200")])
    server.answer_with(lambda received: next(answers, None) or parrot(received))
    result = batch(write_batch(tmp_path / "in", 3), tmp_path / "out")
    assert result.exit_code == 0
    assert result.stderr.startswith("rate limited: everything waits 1.2 s\n3 answered, 0 failed\n")


def test_batch_interrupted(server: ScriptedServer, tmp_path: Path) -> None:
    """At Ctrl-C the answers in flight are written, the code is 130, and the next run goes on."""
    held, numbers = threading.Event(), itertools.count(1)

    def hold_later_ones(received: Received) -> Answer:
        if next(numbers) > 10:
            held.wait(60)
        return parrot(received)

    server.answer_with(hold_later_ones)
    write_batch(tmp_path / "in", 100)
    command = [*GPT, "batch", str(tmp_path / "in"), str(tmp_path / "out"), "-w", "4"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for_requests(server, 14)
        process.send_signal(signal.SIGINT)
        assert process.stderr
        # On a slow machine lines of progress come between.
        assert "waiting for the requests in flight; Ctrl-C again leaves at once\n" in iter(process.stderr.readline, "")
        held.set()
        said = process.stderr.read()
    assert process.returncode == 130
    asked = len(server.requests)
    assert 14 <= asked <= 10 + 2 * 4 + 4
    assert f"{asked} answered, 0 failed\n" in said
    assert said.endswith("stopped; run it again to go on\n")
    assert sum(ids(tmp_path / "out").values()) == asked

    assert batch(tmp_path / "in", tmp_path / "out").exit_code == 0
    assert ids(tmp_path / "out") == each_once(100)


def test_terminal(server: ScriptedServer) -> None:
    """On a terminal a completion streams: its first piece is there while the rest is not yet sent."""
    gate = threading.Event()
    pieces = ({"choices": [{"text": "one ", "index": 0}]}, gate, {"choices": [{"text": "two", "index": 0}]})
    server.answer_with(lambda _: sse_answer(*pieces))
    ours, theirs = pty.openpty()
    with subprocess.Popen([*GPT, "complete", "-m", "m", "x"], stdout=theirs, stdin=subprocess.DEVNULL) as process:
        os.close(theirs)
        assert os.read(ours, 100) == b"one "
        gate.set()
        assert os.read(ours, 3) == b"two"
    os.close(ours)
    assert process.returncode == 0


def test_interrupted_completion(server: ScriptedServer) -> None:
    """Ctrl-C ends a completion with 130 and without a traceback."""
    server.answer_with(lambda _: sse_answer({"choices": [{"text": "one"}]}, threading.Event()))
    command = [*GPT, "complete", "-m", "m", "x", "--stream"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.read(3) == b"one"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert (process.returncode, said) == (130, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve(number: int) -> None:
    """`gpt serve` prints its URL, answers there, and ends well at Ctrl-C or a polite kill."""
    with subprocess.Popen([*GPT, "serve"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        with make(url) as s:
            assert s.completions.create_completion(request(max_tokens=2)).status_code == 200
        process.send_signal(number)
        said = process.communicate()[1]
    assert process.returncode == 0
    assert said.endswith("stopped\n")


def test_serve_refuses_what_is_no_model(tmp_path: Path) -> None:
    """A file that is not GGUF is named in one line."""
    (tmp_path / "x.gguf").write_bytes(b"no model")
    result = CliRunner().invoke(app, ["serve", str(tmp_path / "x.gguf")])
    assert result.exit_code == 2
    assert "is not a GGUF model" in result.stderr


def test_without_the_extra() -> None:
    """Without typer the command says in one line how to get it."""
    code = "import sys; sys.modules['typer'] = None; from gpt.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "gpt: the command line needs typer: pip install 'gpt-sdk[cli]'\n"


def test_version_loads_little() -> None:
    """`gpt --version` loads neither rich's display nor llama.cpp nor a cluster."""
    code = (
        "import sys; sys.argv = ['gpt', '--version']\n"
        "try: from gpt.__main__ import main; main()\n"
        "finally: assert not sys.modules.keys() & {'rich.progress', 'xllamacpp', 'distributed'}"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_shell_completion() -> None:
    """The shell can be told of the commands."""
    environment = {**os.environ, "_GPT_COMPLETE": "complete_bash", "COMP_WORDS": "gpt ba", "COMP_CWORD": "1"}
    done = subprocess.run(GPT, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["batch"]


COUNT = Summary(answered=1200, failed=3, resumed=203, prompt_tokens=10, completion_tokens=50_000)


def test_progress_text() -> None:
    """Progress says what is done and failed, the rates, and the time left, each only where it is known."""
    assert describe(COUNT, 5203, 100.0) == "1,203/5,203 done, 3 failed, 10/s, 500 tokens/s, 6:40 left"
    assert describe(COUNT, None, 100.0) == "1,203 done, 3 failed, 10/s, 500 tokens/s"
    nothing = Summary(answered=0, failed=0, resumed=0, prompt_tokens=0, completion_tokens=0)
    assert describe(nothing, 5, 0.0) == "0/5 done, 0 failed"
    assert conclude(COUNT, 100.0) == (
        "1,200 answered, 3 failed (203 of them by earlier runs)\n"
        "1,000 in 1:40, 10/s, 10 prompt and 50,000 completion tokens"
    )
    assert [clock(5), clock(754), clock(3723)] == ["0:05", "12:34", "1:02:03"]


def test_answers_that_never_fit(server: ScriptedServer, tmp_path: Path) -> None:
    """An API that refuses everything is told at the end by what it said last."""
    server.answer_with(lambda _: json_answer({"error": {"message": "bad key"}}, 401))
    result = batch(write_batch(tmp_path / "in", 3), tmp_path / "out")
    assert result.exit_code == 1
    assert "0 answered, 3 failed" in result.stderr
    assert "the last error: 401 Unauthorized" in result.stderr
