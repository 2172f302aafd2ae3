"""Batch outputs survive: kills at any instant, torn lines, full disks, second runs, and files that are none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt.bulk import run_jsonl
from gpt.bulk.ids import Ids
from gpt.bulk.output_file import Output
from tests.support.batch import (
    batch_line,
    each_once,
    ids,
    parrot,
    read_lines,
    wait_for_requests,
    write_batch,
    write_lines,
)
from tests.support.client import make
from tests.support.http_server import Answer, Received, ScriptedServer, json_answer

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
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        server.answer_with(parrot)
        yield server


def start(folder: Path, server: ScriptedServer, most_bytes: int = 0) -> subprocess.Popen[str]:
    """Begin a batch in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(RUN), str(folder / "in"), str(folder / "out"), server.url]
    return subprocess.Popen([*command, str(most_bytes)], stderr=subprocess.PIPE, text=True)


def test_killed_again_and_again(server: ScriptedServer, tmp_path: Path) -> None:
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


def test_torn_anywhere(server: ScriptedServer, tmp_path: Path) -> None:
    """Wherever an output breaks off, the whole lines before count, and the torn one is asked again."""
    s, out = make(server.url), tmp_path / "out"
    run_jsonl(s, write_batch(tmp_path / "in", 3), out)
    whole = out.read_bytes()
    ends = [end + 1 for end, byte in enumerate(whole) if byte == ord("\n")]

    for cut in range(len(whole) + 1):
        out.write_bytes(whole[:cut])
        with Output(out, retry_errors=False) as output:
            assert len(output.finished) == output.answered == sum(end <= cut + 1 for end in ends)
        assert out.read_bytes() == whole[: max([0, *(end for end in ends if end <= cut + 1)])]

    for cut in (0, 1, ends[0] - 1, ends[0], ends[0] + 1, ends[1] + 100):
        out.write_bytes(whole[:cut])
        run_jsonl(s, tmp_path / "in", out)
        assert ids(out) == each_once(3)


def test_zeros_after_a_power_cut(server: ScriptedServer, tmp_path: Path) -> None:
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
def test_other_files_are_left_alone(server: ScriptedServer, tmp_path: Path, text: bytes) -> None:
    """A file that is no output of a batch, an input given by mistake for one, is refused and not touched."""
    (tmp_path / "out").write_bytes(text)
    with pytest.raises(ValueError, match="line 1 is no output of a batch"):
        run_jsonl(make(server.url), write_batch(tmp_path / "in", 2), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == text
    assert server.requests == []


@pytest.mark.parametrize("name", ["in", "out.gz", "folder"])
def test_outputs_that_cannot_be(server: ScriptedServer, tmp_path: Path, name: str) -> None:
    """The input itself, a compressed file and a folder are refused as outputs."""
    (tmp_path / "folder").mkdir()
    path = write_batch(tmp_path / "in", 2)
    with pytest.raises(ValueError, match=r"output: it is|a regular file for the output"):
        run_jsonl(make(server.url), path, tmp_path / name)
    assert path.read_bytes().count(b"\n") == 2


def test_missing_input(server: ScriptedServer, tmp_path: Path) -> None:
    """An input that is not there leaves no output behind."""
    with pytest.raises(FileNotFoundError):
        run_jsonl(make(server.url), tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_second_run_refuses(server: ScriptedServer, tmp_path: Path) -> None:
    """Of two runs on one output the second refuses at once; when the first has ended, another may."""
    path, out = write_batch(tmp_path / "in", 3), tmp_path / "out"
    refusals: list[str] = []

    def meanwhile(received: Received) -> Answer:
        for retry_errors in (False, True):
            with pytest.raises(BlockingIOError) as caught:
                run_jsonl(make(server.url), path, out, retry_errors=retry_errors)
            refusals.append(str(caught.value))
        return json_answer({}, 400)

    server.answer_with(meanwhile)
    run_jsonl(make(server.url), path, out, max_workers=1)
    assert len(refusals) == 6
    assert all("another run is writing to this file" in text for text in refusals)

    refusals.clear()
    run_jsonl(make(server.url), path, out, max_workers=1, retry_errors=True)
    assert len(refusals) == 6


def test_full_disk(server: ScriptedServer, tmp_path: Path) -> None:
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


def test_killed_while_rewriting(server: ScriptedServer, tmp_path: Path) -> None:
    """A half-written copy of a run that died while it took failed lines out is cleared away, the output intact."""
    s, path, out = make(server.url), write_batch(tmp_path / "in", 3), tmp_path / "out"
    run_jsonl(s, path, out)
    (tmp_path / "out.rewriting").write_bytes(out.read_bytes()[:50])
    assert run_jsonl(s, path, out).resumed == 3
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in", "out"]


def test_output_by_link(server: ScriptedServer, tmp_path: Path) -> None:
    """An output that is a symbolic link stays one when failed lines are taken out."""
    server.answer_with(lambda _: json_answer({}, 400))
    path, link = write_lines(tmp_path / "in", [batch_line("r0")]), tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    run_jsonl(make(server.url), path, link)
    server.answer_with(parrot)
    assert run_jsonl(make(server.url), path, link, retry_errors=True).answered == 1
    assert os.readlink(link) == str(tmp_path / "real")
    assert ids(tmp_path / "real") == each_once(1)


def test_ids() -> None:
    """The table of ids tells new names from finished and seen ones, however many there are."""
    table = Ids()
    for i in range(0, 5000, 2):
        table.finish(f"r{i}")
    assert [table.see(f"r{i}") for i in range(5000)] == ["finished", "new"] * 2500
    assert {table.see(f"r{i}") for i in range(5000)} == {"seen"}
    assert len(table) == 5000
    assert "r4999" in table
    assert "r5000" not in table
