"""Batch outputs survive: kills at any instant, torn lines, full disks, second runs, and files that are none."""

from __future__ import annotations

import inspect
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from gpt.bulk import run_jsonl
from gpt.bulk.batch_format import RequestLine, format_response
from gpt.bulk.output_file import OutputFile
from gpt.bulk.worker import Reply
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
from tests.support.client import make
from tests.support.http_server import Received, ScriptedResponse, ScriptedServer, json_response

RUN = """
import resource, sys, gpt
from gpt import bulk
input, output, server_url, most_bytes = sys.argv[1:]
if int(most_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most_bytes), int(most_bytes)))
with gpt.Gpt(server_url=server_url) as s:
    try:
        bulk.run_jsonl(s, input, output, max_workers=8)
    except OSError as error:
        sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def server(server: ScriptedServer) -> ScriptedServer:
    server.respond_with(echo_prompt)
    return server


def start(folder: Path, server: ScriptedServer, most_bytes: int = 0) -> subprocess.Popen[str]:
    """Begin a batch in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(RUN), str(folder / "in"), str(folder / "out"), server.url]
    return subprocess.Popen([*command, str(most_bytes)], stderr=subprocess.PIPE, text=True)


def test_run_killed_again_and_again_loses_nothing(server: ScriptedServer, tmp_path: Path) -> None:
    """However often a run is killed, the next one goes on, and in the end each line is there exactly once."""
    write_batch(tmp_path / "in", 400)
    for asked in (30, 100, 101, 230):
        with start(tmp_path, server) as process:
            wait_for_requests(server, asked)
            process.send_signal(signal.SIGKILL)
    with start(tmp_path, server) as process:
        assert process.wait() == 0

    assert ids(tmp_path / "out") == each_once(400)
    # A kill costs no more than what was in flight: 16 requests.
    assert len(server.requests) <= 400 + 4 * 16


def test_output_file_torn_anywhere_is_repaired(server: ScriptedServer, tmp_path: Path) -> None:
    """Wherever an output breaks off, the complete lines before count, and the incomplete one is sent again."""
    s, out = make(server.url), tmp_path / "out"
    run_jsonl(s, write_batch(tmp_path / "in", 3), out)
    whole = out.read_bytes()
    ends = [end + 1 for end, byte in enumerate(whole) if byte == ord("\n")]

    for cut in range(len(whole) + 1):
        out.write_bytes(whole[:cut])
        with OutputFile(out, retry_errors=False) as output:
            assert output.answered == sum(end <= cut + 1 for end in ends)
        assert out.read_bytes() == whole[: max([0, *(end for end in ends if end <= cut + 1)])]

    for cut in (0, 1, ends[0] - 1, ends[0], ends[0] + 1, ends[1] + 100):
        out.write_bytes(whole[:cut])
        run_jsonl(s, tmp_path / "in", out)
        assert ids(out) == each_once(3)


def test_output_file_zeros_after_a_power_cut_are_removed(server: ScriptedServer, tmp_path: Path) -> None:
    """Bytes that never reached the disk, and read as zeros, are cut off."""
    out = tmp_path / "out"
    for before in (b"", json.dumps({"custom_id": "r0", "response": {}, "error": None}).encode() + b"\n"):
        out.write_bytes(before + b"\0" * 5000)
        run_jsonl(make(server.url), write_batch(tmp_path / "in", 2), out)
        assert ids(out) == each_once(2)


@pytest.mark.parametrize(
    "text",
    [b'{"custom_id": "r0", "body": {}}\n', b"a,b\n1,2\n", b"notes", b'{"custom_id": "r0"}', b"[1]\n[2]\ntorn"],
)
def test_output_file_other_file_is_refused_untouched(server: ScriptedServer, tmp_path: Path, text: bytes) -> None:
    """A file that is not a batch's output, an input given by mistake for one, is refused and not touched."""
    (tmp_path / "out").write_bytes(text)
    with pytest.raises(ValueError, match="line 1 is not from a batch's output"):
        run_jsonl(make(server.url), write_batch(tmp_path / "in", 2), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == text
    assert server.requests == []


@pytest.mark.parametrize("name", ["in", "out.gz", "folder"])
def test_output_file_input_gzip_or_folder_is_refused(server: ScriptedServer, tmp_path: Path, name: str) -> None:
    """The input itself, a compressed file and a folder are refused as outputs."""
    (tmp_path / "folder").mkdir()
    path = write_batch(tmp_path / "in", 2)
    with pytest.raises(ValueError, match=r"output: it is|a regular file for the output"):
        run_jsonl(make(server.url), path, tmp_path / name)
    assert path.read_bytes().count(b"\n") == 2


def test_run_missing_input_leaves_no_output(server: ScriptedServer, tmp_path: Path) -> None:
    """An input that is not there leaves no output behind."""
    with pytest.raises(FileNotFoundError):
        run_jsonl(make(server.url), tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_output_file_second_run_is_refused(server: ScriptedServer, tmp_path: Path) -> None:
    """Of two runs on one output the second refuses at once; when the first has ended, another may."""
    path, out = write_batch(tmp_path / "in", 3), tmp_path / "out"
    refusals: list[str] = []

    def meanwhile(received: Received) -> ScriptedResponse:
        for retry_errors in (False, True):
            with pytest.raises(BlockingIOError) as caught:
                run_jsonl(make(server.url), path, out, retry_errors=retry_errors)
            refusals.append(str(caught.value))
        return json_response({}, 400)

    server.respond_with(meanwhile)
    run_jsonl(make(server.url), path, out, max_workers=1)
    assert len(refusals) == 6
    assert all("another run is writing to this file" in text for text in refusals)

    refusals.clear()
    run_jsonl(make(server.url), path, out, max_workers=1, retry_errors=True)
    assert len(refusals) == 6


def test_run_full_disk_keeps_whole_lines(server: ScriptedServer, tmp_path: Path) -> None:
    """When the output cannot grow the run says so, keeps whole lines, and goes on when there is room again."""
    write_batch(tmp_path / "in", 50)
    process = start(tmp_path, server, most_bytes=5000)
    _, said = process.communicate()

    lines = read_lines(tmp_path / "out")
    assert process.returncode == 1
    assert 0 < len(lines) < 50
    assert f"File too large; {len(lines)} lines are safe: make room and run this again: '{tmp_path / 'out'}'" in said

    run_jsonl(make(server.url), tmp_path / "in", tmp_path / "out")
    assert ids(tmp_path / "out") == each_once(50)


def test_output_file_other_files_beside_it_are_left_alone(server: ScriptedServer, tmp_path: Path) -> None:
    """No file of the user's is deleted, whatever its name; a copy that a killed run left behind is."""
    s, path, out = make(server.url), write_batch(tmp_path / "in", 3), tmp_path / "out"
    server.respond_with(lambda _: json_response({}, 400))
    run_jsonl(s, path, out)
    others = ["out.rewriting", ".out.rewriting", "out.tmp", ".outer.12345678.gpt-rewriting"]
    for name in others:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".out.abcd1234.gpt-rewriting").write_bytes(out.read_bytes()[:50])

    assert run_jsonl(s, path, out).resumed == 3
    run_jsonl(s, path, out, retry_errors=True)

    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(["in", "out", *others])
    assert {(tmp_path / name).read_text() for name in others} == {"mine"}


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_output_file_copy_has_its_mode_before_its_first_byte(tmp_path: Path, mode: int) -> None:
    """While failed lines are taken out, the copy can be read by nobody who could not read the output."""
    out = tmp_path / "out"
    write_outputs(out, 3, failed=1)
    out.chmod(mode)
    modes: list[tuple[int, bool]] = []
    watching = True

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        """Note the copy's mode whenever something is opened, renamed or changed while there is one."""
        if watching and event in ("open", "os.rename", "os.chmod"):
            for entry in os.listdir(tmp_path):
                if entry.startswith(".out."):
                    status = os.stat(tmp_path / entry)
                    modes.append((status.st_mode & 0o777, status.st_size > 0))

    sys.addaudithook(look)
    try:
        OutputFile(out, retry_errors=True).close()
    finally:
        watching = False
    assert {seen for seen, has_content in modes if has_content} == {mode}
    assert {seen for seen, _ in modes} <= {mode, 0o600}
    assert out.stat().st_mode & 0o777 == mode


def write_outputs(path: Path, n: int, failed: int = 0) -> None:
    """Write an output of `n` lines, the last `failed` of them with an error."""
    for i in range(n):
        error = RuntimeError("no") if i >= n - failed else None
        reply = Reply(body=b'{"choices":[]}', status_code=200) if error is None else Reply(error=error)
        with path.open("ab") as file:
            file.write(format_response(RequestLine(i + 1, f"r{i}"), reply))


class Syncs:
    """Stands for `os.fsync`: forces nothing, and notes what would have been on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.calls: list[tuple[str, int]] = []
        """`folder`, `output` or `copy`, and how many lines the output or the copy had then."""

    def __call__(self, fd: int) -> None:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            self.calls.append(("folder", self._path.read_bytes().count(b"\n")))
        else:
            kind = "output" if os.path.samestat(status, self._path.stat()) else "copy"
            self.calls.append((kind, os.pread(fd, status.st_size, 0).count(b"\n")))


def test_output_file_is_synced_every_five_seconds_and_at_the_end(tmp_path: Path) -> None:
    """A new output's folder, its lines every 5 seconds, and the last of them are forced to the disk."""
    out, times = tmp_path / "out", [0.0, 1.0, 4.9, 5.0, 5.0, 6.0, 9.9, 10.1, 10.1, 11.0, 11.0]
    syncs = Syncs(out)
    file = OutputFile(out, retry_errors=False, clock=iter(times).__next__, sync=syncs)
    assert syncs.calls == [("folder", 0)]
    for _ in range(7):
        file.append(b"{}\n", error_code=None)
    file.close()
    assert syncs.calls[1:] == [("output", 3), ("output", 6), ("output", 7)]


def test_output_file_copy_is_synced_before_and_its_folder_after_it_replaces(tmp_path: Path) -> None:
    """Of a power cut while failed lines are taken out, the old output is left, or the new one whole."""
    out = tmp_path / "out"
    write_outputs(out, 3, failed=1)
    syncs = Syncs(out)
    file = OutputFile(out, retry_errors=True, sync=syncs)
    assert syncs.calls == [("copy", 2), ("folder", 2)]
    file.close()


def test_output_file_by_default_forces_to_the_disk() -> None:
    """What stands for forcing in these tests is `os.fsync` for everybody else."""
    assert inspect.signature(OutputFile).parameters["sync"].default is os.fsync


def test_output_file_refused_leaves_descriptors_of_forked_children_alone(tmp_path: Path) -> None:
    """After an output was refused, a forked child has all its descriptors, whatever their numbers."""
    (tmp_path / "out").write_text("notes")
    code = """
        import os, sys
        from gpt.bulk import output_file
        try:
            output_file.OutputFile(sys.argv[1], retry_errors=False)
        except ValueError as error:
            kept = error
        mine = [os.open(sys.executable, os.O_RDONLY) for _ in range(20)]
        closed = output_file.OutputFile(sys.argv[1] + "2", retry_errors=False)
        closed.close()
        mine += [os.open(sys.executable, os.O_RDONLY) for _ in range(20)]
        child = os.fork()
        if not child:
            try:
                [os.fstat(fd) for fd in mine]
            except OSError:
                os._exit(1)
            os._exit(0)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "out")], check=True)


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_output_file_forked_child_does_not_keep_the_lock(tmp_path: Path, end: str) -> None:
    """When a run has ended, or was killed, a child that was forked meanwhile and lives on does not lock the output."""
    code = """
        import os, sys
        from gpt.bulk.output_file import OutputFile
        file = OutputFile(sys.argv[1], retry_errors=False)
        if os.fork():
            if sys.argv[2] == "closed":
                file.close()
                print("ready", flush=True)
        elif sys.argv[2] == "killed":
            print("ready", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "out"), end]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        if end == "killed":
            process.kill()
            process.wait()
        OutputFile(tmp_path / "out", retry_errors=False).close()


def test_output_file_symbolic_link_stays_one(server: ScriptedServer, tmp_path: Path) -> None:
    """An output that is a symbolic link stays one when failed lines are taken out."""
    server.respond_with(lambda _: json_response({}, 400))
    path, link = write_lines(tmp_path / "in", [batch_line("r0")]), tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    run_jsonl(make(server.url), path, link)
    server.respond_with(echo_prompt)
    assert run_jsonl(make(server.url), path, link, retry_errors=True).answered == 1
    assert os.readlink(link) == str(tmp_path / "real")
    assert ids(tmp_path / "real") == each_once(1)
