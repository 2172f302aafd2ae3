"""`gpt batch` and `gpt serve`, and commands as processes: terminals, pipes, signals, a missing extra."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
import pty
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.support.batch import (
    batch_line,
    each_once,
    echo_prompt,
    ids,
    read_lines,
    wait_for_requests,
    write_batch,
    write_lines,
)
from tests.support.command import GPT, batch
from tests.support.http_server import Received, ScriptedResponse, ScriptedServer, json_response
from tests.support.lists import echo_lists


@pytest.fixture
def server(server: ScriptedServer) -> ScriptedServer:
    server.respond_with(echo_prompt)
    return server


def test_batch_all_answered_exits_with_0(server: ScriptedServer, tmp_path: Path) -> None:
    """All lines answered: exit code 0, nothing on stdout, the count on stderr."""
    path = write_lines(tmp_path / "in", [{"prompt": "x"}, {"prompt": "y", "model": "own"}])
    result = batch(path, tmp_path / "out", "--model", "m", "-w", 2)
    assert (result.stdout, result.exit_code) == ("", 0)
    assert result.stderr.startswith("2 answered, 0 failed\n2 in 0:00")
    assert ids(tmp_path / "out") == {"1": 1, "2": 1}


def test_batch_failed_lines_exit_with_1_and_are_counted_by_code(server: ScriptedServer, tmp_path: Path) -> None:
    """Some lines failed, of this run or an earlier one: exit code 1, how many of which kind, and what to do."""
    path, out = write_lines(tmp_path / "in", [batch_line("r0"), b"nonsense", b"{", batch_line("r3")]), tmp_path / "out"
    server.respond_with(lambda r: json_response({}, 400) if r.json()["prompt"] == "r3" else echo_prompt(r))

    first, second = batch(path, out, "-w", 1), batch(path, out)
    server.respond_with(echo_prompt)
    write_batch(path, 4)
    third = batch(path, out, "--retry-errors")

    assert (first.exit_code, second.exit_code, third.exit_code) == (1, 1, 0)
    assert "1 answered, 3 failed\n" in first.stderr
    assert "the last error: 400 Bad Request" in first.stderr
    assert second.stderr == (
        "1 answered, 3 failed (4 of them by earlier runs)\n"
        "failed: 2 invalid_json_line, 1 BadRequestError\n"
        "--retry-errors sends failed lines again\n"
    )
    assert third.stderr.startswith("4 answered, 0 failed (1 of them by earlier runs)\n")
    assert ids(out) == each_once(4)


def test_batch_last_error_names_the_options_of_the_command(server: ScriptedServer, tmp_path: Path) -> None:
    """The error of a failed line advises what can be typed: --timeout, and not the name of Python's option."""
    responded = threading.Event()

    def respond_late(received: Received) -> ScriptedResponse:
        responded.wait(60)
        return echo_prompt(received)

    server.respond_with(respond_late)
    said = batch(write_batch(tmp_path / "in", 1), tmp_path / "out", "--timeout", 0.3, "--retries", 0).stderr
    responded.set()
    assert "the last error: reading the response of" in said
    assert "see --timeout\n" in said


def test_batch_invalid_lines_only_advises_to_correct_them(server: ScriptedServer, tmp_path: Path) -> None:
    """Where nothing but invalid lines failed, sending them again is not advised."""
    said = batch(write_lines(tmp_path / "in", [batch_line("r0"), b"nonsense"]), tmp_path / "out").stderr
    assert said.endswith("these lines were not sent: correct them in INPUT, then use --retry-errors\n")
    assert "the last error: line 2: the line is not JSON" in said


def test_batch_local_completes_every_line_without_a_model_name(tmp_path: Path) -> None:
    """--local completes a batch with llama.cpp, without a model's name."""
    path = write_lines(tmp_path / "in", [{"prompt": "def", "max_tokens": 4}] * 3)
    assert batch(path, tmp_path / "out", "--local").exit_code == 0
    assert ids(tmp_path / "out") == {"1": 1, "2": 1, "3": 1}


def test_batch_missing_input_exits_with_1_and_wrong_output_with_2(server: ScriptedServer, tmp_path: Path) -> None:
    """A missing input is one line on stderr and exit code 1; a wrong output is a usage error."""
    missing = batch(tmp_path / "nowhere", tmp_path / "out")
    assert (missing.exit_code, missing.stderr) == (1, f"gpt: {tmp_path / 'nowhere'}: No such file or directory\n")
    path = write_batch(tmp_path / "in", 2)
    assert batch(path, path).exit_code == 2


def test_batch_in_a_pipe_reads_stdin_and_writes_plain_lines(server: ScriptedServer, tmp_path: Path) -> None:
    """In a pipe a batch reads stdin and writes plain lines."""
    text = write_batch(tmp_path / "in", 20).read_bytes()
    done = subprocess.run([*GPT, "batch", "-", str(tmp_path / "out")], input=text, capture_output=True, check=True)
    assert ids(tmp_path / "out") == each_once(20)
    assert done.stdout == b""
    assert done.stderr.startswith(b"20 answered, 0 failed\n")
    assert b"\x1b" not in done.stderr


def test_batch_rate_limited_names_the_wait(server: ScriptedServer, tmp_path: Path) -> None:
    """While a rate limit holds a batch back, it says so; in the end nothing has failed."""
    responses = iter([json_response({"error": {"message": "slow down"}}, 429, retry_after_ms="1200")])
    server.respond_with(lambda received: next(responses, None) or echo_prompt(received))
    result = batch(write_batch(tmp_path / "in", 3), tmp_path / "out")
    assert result.exit_code == 0
    line = f"rate limited by {server.url}: nothing is sent there for 1.2 s\n"
    assert result.stderr.startswith(f"{line}3 answered, 0 failed\n")


@pytest.mark.parametrize("options", [("-w", "4"), ("-w", "2", "--processes", "2")], ids=["threads", "processes"])
def test_batch_ctrl_c_writes_what_is_in_flight(
    server: ScriptedServer, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """At Ctrl-C the requests in flight are awaited and written, hardly any is still sent, and the next run goes on."""
    held, numbers = threading.Event(), itertools.count(1)

    def hold_later_ones(received: Received) -> ScriptedResponse:
        if next(numbers) > 10:
            held.wait(60)
        return echo_prompt(received)

    server.respond_with(hold_later_ones)
    write_batch(tmp_path / "in", 100)
    command = [*GPT, "batch", str(tmp_path / "in"), str(tmp_path / "out"), *options]
    # As on a terminal, Ctrl-C goes to a group of processes: the command and its workers.
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        wait_for_requests(server, 12)  # more than were answered; of a process's last chunk only one may be left
        os.killpg(process.pid, signal.SIGINT)
        assert process.stderr
        # On a slow machine lines of progress come between.
        assert "waiting for the requests in flight; Ctrl-C again leaves at once\n" in iter(process.stderr.readline, "")
        held.set()
        said = process.stderr.read()
    assert process.returncode == 130
    asked = len(server.requests)
    assert 12 <= asked <= 18  # 10 were answered, 4 in flight, and a thread may begin another at that moment
    assert f"{asked} answered, 0 failed\n" in said
    assert said.endswith("stopped; run it again to go on\n")
    assert sum(ids(tmp_path / "out").values()) == asked

    assert batch(tmp_path / "in", tmp_path / "out").exit_code == 0
    assert ids(tmp_path / "out") == each_once(100)


@pytest.mark.parametrize("seconds", [0, 0.2, 0.4, 0.6, 0.8])
def test_batch_ctrl_c_at_any_moment_ends_the_run(server: ScriptedServer, tmp_path: Path, seconds: float) -> None:
    """Ctrl-C while workers start, with more queued for them than a pipe holds, ends the run with 130."""
    server.respond_with(echo_lists)
    write_batch(tmp_path / "in", 20_000)
    command = [*GPT, "batch", str(tmp_path / "in"), str(tmp_path / "out"), "--processes", "2", "--batch-size", "32"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while process.poll() is None and len(children.read_text().split()) < 2:
            time.sleep(0.01)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        try:
            said = process.communicate(timeout=60)[1]
        finally:
            os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    assert (process.returncode, "Traceback" in said) == (130, False), said


@pytest.mark.parametrize("n", [3, 150])
def test_batch_wrong_key_writes_nothing(server: ScriptedServer, tmp_path: Path, n: int) -> None:
    """An API that refuses everybody ends the run with its reason and an output that goes on with the right key."""
    server.respond_with(lambda _: json_response({"error": {"message": "bad key"}}, 401))
    path, out = write_batch(tmp_path / "in", n), tmp_path / "out"
    result = batch(path, out)
    assert result.exit_code == 1
    assert result.stderr.startswith("0 answered, 0 failed\nstopped; run it again to go on\ngpt: 401 Unauthorized")
    assert out.read_bytes() == b""

    server.respond_with(echo_prompt)
    assert batch(path, out).exit_code == 0
    assert ids(out) == each_once(n)


@pytest.mark.parametrize("options", [(), ("--processes", "1"), ("--batch-size", "8")])
def test_batch_server_that_dies_stops_the_run(server: ScriptedServer, tmp_path: Path, options: tuple[str, ...]) -> None:
    """A server that fails from some request on ends the run after --max-failures, without a failed line.

    One worker: of two, one may hear of a failure while the other's success is still in flight, and that failure is
    then rightly the request's own.
    """
    numbers = itertools.count()

    def die_later(received: Received) -> ScriptedResponse:
        return echo_lists(received) if next(numbers) < 5 else json_response({"error": {"message": "dead"}}, 500)

    server.respond_with(die_later)
    path, out = write_batch(tmp_path / "in", 400), tmp_path / "out"
    result = batch(path, out, "--max-failures", 20, "--retries", 0, "-w", 1, *options)
    assert result.exit_code == 1
    assert "stopped; run it again to go on\ngpt: 500 Internal Server Error" in result.stderr
    written = read_lines(out)
    assert 5 <= len(written) < 100
    assert not any(line["error"] for line in written)

    server.respond_with(echo_lists)
    assert batch(path, out, *options).exit_code == 0
    assert ids(out) == each_once(400)


def test_batch_failures_of_some_requests_are_written(server: ScriptedServer, tmp_path: Path) -> None:
    """Failures between completions are failed lines, also with --max-failures, and end nothing."""
    server.respond_with(lambda r: json_response({}, 500) if int(r.json()["prompt"][1:]) % 3 else echo_prompt(r))
    result = batch(write_batch(tmp_path / "in", 60), tmp_path / "out", "--max-failures", 5, "--retries", 0, "-w", 1)
    assert result.exit_code == 1
    assert "20 answered, 40 failed" in result.stderr
    assert ids(tmp_path / "out") == each_once(60)


def test_batch_without_a_model_is_a_usage_error(server: ScriptedServer, tmp_path: Path) -> None:
    """Where no line names a model and the command does not either, it says so and nothing is written."""
    result = batch(write_lines(tmp_path / "in", [{"prompt": "x"}] * 3), tmp_path / "out")
    assert (result.exit_code, (tmp_path / "out").read_bytes()) == (2, b"")
    assert result.stderr.startswith("gpt: model: 3 new lines name none")


def test_batch_edited_input_is_a_usage_error(server: ScriptedServer, tmp_path: Path) -> None:
    """An input that was edited under its output is refused, and nothing is said of running it again."""
    batch(write_lines(tmp_path / "in", [{"prompt": "x"}]), tmp_path / "out", "-m", "m")
    result = batch(write_lines(tmp_path / "in", [{"prompt": "y"}]), tmp_path / "out", "-m", "m")
    assert result.exit_code == 2
    assert result.stderr.startswith("gpt: line 1 of the input is not the line 1 that")


@pytest.mark.parametrize("damage", ["cut", "deflate", "head"])
def test_batch_damaged_gzip_has_no_traceback(server: ScriptedServer, tmp_path: Path, damage: str) -> None:
    """A compressed input that is damaged, wherever, is one line on stderr."""
    server.respond_with(echo_lists)
    whole = gzip.compress(write_batch(tmp_path / "in", 3000).read_bytes())
    middle = len(whole) // 2
    texts = {"cut": whole[:-50], "deflate": whole[:middle] + b"\xff" * 99 + whole[middle + 99 :], "head": b"no gzip"}
    (tmp_path / "in.gz").write_bytes(texts[damage])
    result = batch(tmp_path / "in.gz", tmp_path / "out", "--batch-size", 32)
    assert result.exit_code == 2
    assert re.fullmatch(r"gpt: .*in\.gz: the gzip file is damaged or was cut off: .*\n", result.stderr)


def test_batch_batch_size_sends_lists(server: ScriptedServer, tmp_path: Path) -> None:
    """--batch-size puts several prompts into a request, and nobody sees it in the output."""
    server.respond_with(echo_lists)
    assert batch(write_batch(tmp_path / "in", 64), tmp_path / "out", "--batch-size", 16).exit_code == 0
    assert len(server.requests) < 10
    texts = {line["custom_id"]: line["response"]["body"]["choices"][0]["text"] for line in read_lines(tmp_path / "out")}
    assert texts == {f"r{i}": f"r{i}/0" for i in range(64)}


def test_batch_several_servers_share_the_work(server: ScriptedServer, tmp_path: Path) -> None:
    """Each --server-url is a server of the run; one that refuses connections costs nothing but its turn."""
    with ScriptedServer() as second, ScriptedServer() as dead:
        second.respond_with(echo_prompt)
        dead.tcp.refuse()
        urls = [part for one in (server, second, dead) for part in ("--server-url", one.url)]
        assert batch(write_batch(tmp_path / "in", 200), tmp_path / "out", *urls).exit_code == 0
        assert len(server.requests) + len(second.requests) == 200
        assert min(len(server.requests), len(second.requests)) > 0
    assert ids(tmp_path / "out") == each_once(200)


def test_batch_dask_does_the_work(server: ScriptedServer, tmp_path: Path) -> None:
    """--dask sends the requests from the workers of a cluster."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", dashboard_address=None
    ) as cluster:
        result = batch(write_batch(tmp_path / "in", 50), tmp_path / "out", "--dask", cluster.scheduler_address)
    assert result.exit_code == 0, result.stderr
    assert ids(tmp_path / "out") == each_once(50)


def test_batch_processes_and_dask_exclude_each_other(server: ScriptedServer, tmp_path: Path) -> None:
    """Two places for the work are one too many."""
    result = batch(write_batch(tmp_path / "in", 1), tmp_path / "out", "--processes", 2, "--dask", "tcp://nowhere:1")
    assert (result.exit_code, (tmp_path / "out").exists()) == (2, False)


def test_batch_output_dash_is_refused(server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` is stdin, and no name of an output: no file of this name is left behind."""
    monkeypatch.chdir(tmp_path)
    result = batch(write_batch(tmp_path / "in", 1), "-")
    assert (result.exit_code, [path.name for path in tmp_path.iterdir()]) == (2, ["in"])


def test_batch_killed_again_and_again_loses_and_doubles_nothing(server: ScriptedServer, tmp_path: Path) -> None:
    """With packs of 32 and two processes, too, five kills lose no line and double none, and leave no worker behind."""
    server.respond_with(echo_lists)
    write_batch(tmp_path / "in", 20_000)
    options = ["--batch-size", "32", "--processes", "2", "-w", "2"]
    command = [*GPT, "batch", str(tmp_path / "in"), str(tmp_path / "out"), *options]
    for _ in range(5):
        sent = len(server.requests)
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            wait_for_requests(server, sent + 20)
            process.kill()
            # Its workers have its stdout, too: it ends when they have ended.
            assert process.stdout
            assert process.stdout.read() == b""
    subprocess.run(command, check=True, capture_output=True)
    assert ids(tmp_path / "out") == each_once(20_000)
    answered = {line["response"]["body"]["choices"][0]["text"] for line in read_lines(tmp_path / "out")}
    assert answered == {f"r{i}/0" for i in range(20_000)}


def test_batch_on_a_terminal_shows_a_bar(server: ScriptedServer, tmp_path: Path) -> None:
    """On a terminal the share of the input, and at the end the count, are shown."""
    gate = threading.Event()
    numbers = itertools.count()

    def hold_the_last(received: Received) -> ScriptedResponse:
        if next(numbers) >= 30:
            gate.wait(60)
        return echo_prompt(received)

    server.respond_with(hold_the_last)
    ours, theirs = pty.openpty()
    command = [*GPT, "batch", str(write_batch(tmp_path / "in", 40)), str(tmp_path / "out"), "-w", "1"]
    with subprocess.Popen(command, stderr=theirs, env={**os.environ, "COLUMNS": "120", "TERM": "xterm"}) as process:
        os.close(theirs)
        shown = b""
        while b" %) done, 0 failed" not in shown:
            shown += os.read(ours, 4096)
        gate.set()
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(ours, 4096):
                shown += data
    os.close(ours)
    assert process.returncode == 0
    assert b"40 answered, 0 failed" in shown


def test_batch_text_sends_each_line_as_a_prompt(server: ScriptedServer, tmp_path: Path) -> None:
    """With --text a line is a prompt, as it is but for its line end; options hold for all lines; it resumes."""
    server.respond_with(echo_prompt)
    lines = [b"  Once upon", b"", b'{"custom_id": "a"}\r', "é".encode()]
    path, out = write_lines(tmp_path / "in.txt", lines), tmp_path / "out"
    for _ in range(2):
        result = batch(path, out, "--text", "-m", "m", "--max-tokens", 5, "--temperature", 0)
        assert result.exit_code == 0, result.stderr
    bodies = sorted((received.json() for received in server.requests), key=lambda body: str(body["prompt"]))
    assert [body["prompt"] for body in bodies] == ["  Once upon", '{"custom_id": "a"}', "é"]
    assert {(body["model"], body["max_tokens"], body["temperature"]) for body in bodies} == {("m", 5, 0)}
    assert ids(out) == {"1": 1, "3": 1, "4": 1}


def test_batch_text_line_that_is_no_utf8_fails_alone(server: ScriptedServer, tmp_path: Path) -> None:
    """A line that is not text becomes a failed line that says so."""
    server.respond_with(echo_prompt)
    result = batch(write_lines(tmp_path / "in", [b"\xff", b"x"]), tmp_path / "out", "--text", "-m", "m")
    assert result.exit_code == 1
    assert "1 answered, 1 failed" in result.stderr
    assert "line 1: the line is not UTF-8" in result.stderr


def test_batch_options_leave_lines_that_name_their_own(server: ScriptedServer, tmp_path: Path) -> None:
    """What a line names counts more than the command's options."""
    server.respond_with(echo_prompt)
    path = write_lines(tmp_path / "in", [{"prompt": "a", "max_tokens": 3}, {"prompt": "b"}])
    assert batch(path, tmp_path / "out", "-m", "m", "--max-tokens", 7, "--top-p", 0.5, "-w", 1).exit_code == 0
    found = {received.json()["prompt"]: received.json() for received in server.requests}
    assert [(found[p]["max_tokens"], found[p]["top_p"]) for p in "ab"] == [(3, 0.5), (7, 0.5)]
