"""`gpt score`: what is sent, what is printed where, what is in the output, and how it ends."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt import local
from tests.support.command import GPT, run
from tests.support.http_server import Received, ScriptedResponse, json_response
from tests.support.scoring_server import ScoringServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScoringServer]:
    with ScoringServer() as server:
        server.owned_by = "vllm"
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        yield server


def echoing(received: Received) -> ScriptedResponse:
    """Repeat prompts as a server does whose tokens are characters, each half as likely as the one before."""
    choices = []
    prompts = received.json()["prompt"]
    for index, text in enumerate([prompts] if isinstance(prompts, str) else prompts):
        logprobs = [None, *(-float(n) for n in range(1, len(text)))]
        lists = {"tokens": list(text), "token_logprobs": logprobs, "text_offset": list(range(len(text)))}
        choices.append({"index": index, "text": text, "logprobs": lists})
    return json_response({"choices": choices})


def test_score_file_prints_a_table(server: ScoringServer, tmp_path: Path) -> None:
    """A file's lines are scored, blank ones left out, and come as a table."""
    server.respond_with(echoing)
    (tmp_path / "texts.txt").write_text("abc\n\nné\r\n", encoding="utf-8")

    result = run("score", str(tmp_path / "texts.txt"), "-m", "m")

    assert [line.split() for line in result.stdout.splitlines()] == [
        ["perplexity", "mean", "sum", "tokens", "text"],
        ["4.482", "-1.5000", "-3.0000", "3", "abc"],
        ["2.718", "-1.0000", "-1.0000", "2", "né"],
    ]
    assert (result.stderr, result.exit_code) == ("", 0)


def test_score_json_prints_a_line_for_each_text(server: ScoringServer, tmp_path: Path) -> None:
    """Of JSON lines the texts are scored after their contexts; --json gives a line for each, null for NaN."""
    server.respond_with(echoing)
    (tmp_path / "texts.jsonl").write_text('{"text": "c", "context": "ab"}\n"x"\n', encoding="utf-8")

    result = run("score", str(tmp_path / "texts.jsonl"), "-m", "m", "--json", "--batch-size", "1")
    first, second = (json.loads(line) for line in result.stdout.splitlines())

    assert (first["text"], first["logprob_sum"], first["tokens"]) == ("c", -2.0, ["c"])
    assert (second["text"], second["perplexity"], second["logprobs"]) == ("x", None, [None])
    assert sorted(received.json()["prompt"] for received in server.posts) == ["abc", "x"]


def test_score_context_comes_before_each_line(server: ScoringServer) -> None:
    """--context comes before each line, which may come from stdin."""
    server.respond_with(echoing)

    result = run("score", "-", "-m", "m", "--context", "ab", "--json", stdin="c\n")

    assert json.loads(result.stdout)["logprobs"] == [-2.0]


def test_score_by_a_server_that_cannot_score_exits_with_1_and_prints_no_number(server: ScoringServer) -> None:
    """A server that cannot score ends the command with one line that says so, and no number."""
    server.reply(json_response({"choices": [{"text": "\n", "index": 0}]}))

    result = run("score", "-", "-m", "m", "--json", stdin="abc\n")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "ignored echo" in result.stderr


def test_score_by_a_server_that_is_down_names_no_exception(server: ScoringServer) -> None:
    """A line that failed says so in the words of a shell, not of Python."""
    url = server.url
    server.close()
    result = run("score", "-", "-m", "m", "--server-url", url, stdin="abc\n")
    assert result.exit_code == 1
    assert "line 1: no response from" in result.stderr
    assert "Connection refused" in result.stderr
    assert "Error" not in result.stderr


@pytest.mark.parametrize("line", ["{", "5", '{"context": "a"}', '{"text": "a", "context": 1}'])
def test_score_bad_line_is_named_by_number_and_starts_no_table(
    server: ScoringServer, tmp_path: Path, line: str
) -> None:
    """A line of a .jsonl file that is not a text is named by its number, and no table begins."""
    (tmp_path / "texts.jsonl").write_text(f"{line}\n")

    result = run("score", str(tmp_path / "texts.jsonl"), "-m", "m")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("line 1: ")


def test_score_bad_line_does_not_end_the_run(server: ScoringServer, tmp_path: Path) -> None:
    """Lines that cannot be scored are reported with their numbers; the others are printed in their order."""
    server.respond_with(echoing)
    (tmp_path / "t.jsonl").write_bytes(b'"ab"\n\n{\n"\xff"\n"cde"\n')

    result = run("score", str(tmp_path / "t.jsonl"), "-m", "m", "--json")

    assert [json.loads(line)["line"] for line in result.stdout.splitlines()] == [1, 5]
    assert [line[:8] for line in result.stderr.splitlines()] == ["line 3: ", "line 4: "]
    assert result.exit_code == 1


def test_score_json_has_line_context_and_greediness(server: ScoringServer) -> None:
    """A line of JSON says where its text came from, and whether it is what the model would have written."""
    server.respond_with(echoing)

    result = run("score", "-", "-m", "m", "--context", "ab", "--json", stdin="\nc\n")

    value = json.loads(result.stdout)
    assert (value["line"], value["context"], value["is_greedy"]) == (2, "ab", None)


def test_score_json_lines_from_stdin_need_the_option(server: ScoringServer) -> None:
    """Objects on stdin are not scored as text unless asked for."""
    server.respond_with(echoing)

    refused = run("score", "-", "-m", "m", stdin='{"text": "c", "context": "ab"}\n')
    scored = run("score", "-", "-m", "m", "--jsonl", "--json", stdin='{"text": "c", "context": "ab"}\n')

    assert refused.exit_code == 2
    assert "--jsonl" in refused.stderr
    assert json.loads(scored.stdout)["logprobs"] == [-2.0]


def test_score_output_of_an_earlier_run_is_continued(server: ScoringServer, tmp_path: Path) -> None:
    """What is in the output is not sent again; a line cut short by a crash is."""
    server.respond_with(echoing)
    texts, scores = tmp_path / "t.txt", tmp_path / "s.jsonl"
    texts.write_text("abc\ncde\nefg\n")

    run("score", str(texts), "-m", "m", "-o", str(scores))
    first = scores.read_bytes()
    scores.write_bytes(first[:-9])
    sent = len(server.posts)
    again = run("score", str(texts), "-m", "m", "-o", str(scores))

    assert again.exit_code == 0
    assert "3 scored (2 by earlier runs), 0 failed" in again.stderr
    assert sorted(json.loads(line)["line"] for line in scores.read_text().splitlines()) == [1, 2, 3]
    assert len(server.posts) == sent + 1


@pytest.mark.parametrize("content", ['{"id": 1}\n', "something else", '{"line": 1, "text": "xyz", "context": ""}\n'])
def test_score_foreign_output_is_refused(server: ScoringServer, tmp_path: Path, content: str) -> None:
    """A file of something else than scores, or of another input's scores, is left as it is."""
    server.respond_with(echoing)
    (tmp_path / "s.jsonl").write_text(content)

    result = run("score", "-", "-m", "m", "-o", str(tmp_path / "s.jsonl"), stdin="abc\n")

    assert result.exit_code in (1, 2)
    assert "name another output" in result.stderr
    assert (tmp_path / "s.jsonl").read_text() == content


def test_score_output_survives_sigkill(local_server: local.Server, tmp_path: Path) -> None:
    """A run that is killed is continued: every line is there once."""
    texts, scores = tmp_path / "t.txt", tmp_path / "s.jsonl"
    texts.write_text("".join(f"The class number {n}.\n" for n in range(150)))
    command = [*GPT, "score", str(texts), "-o", str(scores), "-w", "2", "-m", "tiny"]
    environment = {**os.environ, "OPENAI_BASE_URL": local_server.url}

    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and (not scores.exists() or scores.read_bytes().count(b"\n") < 20):
            pass
        process.send_signal(signal.SIGKILL)
    done = scores.read_bytes().count(b"\n")
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)

    assert 20 <= done < 150
    assert f"({done} by earlier runs)" in finished.stderr
    assert sorted(json.loads(line)["line"] for line in scores.read_text().splitlines()) == list(range(1, 151))


@pytest.mark.parametrize("options", [(), ("--processes", "2")], ids=["threads", "processes"])
def test_score_several_servers_share_the_work(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Each text is scored once, by one of the servers; the model that all of them have need not be named."""
    texts, scores = tmp_path / "t.txt", tmp_path / "s.jsonl"
    texts.write_text("".join(f"number {n}\n" for n in range(200)))
    with ScoringServer() as one, ScoringServer() as other:
        for server in (one, other):
            server.owned_by = "vllm"
            server.respond_with(echoing)
        result = run(
            *("score", str(texts), "-o", str(scores), "--batch-size", "4"),
            *("--server-url", one.url, "--server-url", other.url, *options),
        )

        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr.splitlines() == ["model: m", f"200 scored, 0 failed: {scores}"]
        assert sorted(json.loads(line)["line"] for line in scores.read_text().splitlines()) == list(range(1, 201))
        assert min(len(one.posts), len(other.posts)) > 5


@pytest.mark.parametrize("options", [("-w", "4"), ("-w", "2", "--processes", "2")], ids=["threads", "processes"])
def test_score_ctrl_c_keeps_what_is_done(server: ScoringServer, tmp_path: Path, options: tuple[str, ...]) -> None:
    """At Ctrl-C the code is 130, and the next run goes on: every line is there once."""
    held, numbers = threading.Event(), itertools.count(1)

    def hold_later_ones(received: Received) -> ScriptedResponse:
        if next(numbers) > 30:
            held.wait(60)
        return echoing(received)

    server.respond_with(hold_later_ones)
    texts, scores = tmp_path / "t.txt", tmp_path / "s.jsonl"
    texts.write_text("".join(f"number {n}\n" for n in range(100)))
    command = [*GPT, "score", str(texts), "-o", str(scores), "--batch-size", "1", "-m", "m"]
    # As on a terminal, Ctrl-C goes to a group of processes: the command and its workers.
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        server.wait_requests(32)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.2)
        held.set()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.endswith("stopped; run it again to go on\n")

    assert run(*command[3:]).exit_code == 0
    assert sorted(json.loads(line)["line"] for line in scores.read_text().splitlines()) == list(range(1, 101))


def test_score_wrong_key_ends_the_run(server: ScoringServer, tmp_path: Path) -> None:
    """A server that refuses everybody ends the run after --max-failures, with its reason and nothing written."""
    server.respond_with(lambda _: json_response({"error": {"message": "bad key"}}, 401))
    texts, scores = tmp_path / "t.txt", tmp_path / "s.jsonl"
    texts.write_text("".join(f"number {n}\n" for n in range(200)))

    result = run("score", str(texts), "-m", "m", "-o", str(scores), "--max-failures", "5", "-w", "1")

    assert result.exit_code == 1
    assert "stopped; run it again to go on\ngpt: 401 Unauthorized" in result.stderr
    assert scores.read_bytes() == b""
    assert len(server.posts) < 20


def test_score_local_gives_a_likely_text_a_lower_perplexity() -> None:
    """`gpt score --local` needs nothing but the package: a likely text has a lower perplexity than a shuffled one."""
    result = run(
        "score", "-", "--local", "--json", stdin="The class is used to iterate.\niterate to class used The is.\n"
    )

    likely, unlikely = (json.loads(line)["perplexity"] for line in result.stdout.splitlines())
    assert likely < unlikely


def test_score_reads_utf8_whatever_the_locale(local_server: local.Server, tmp_path: Path) -> None:
    """A file is UTF-8 also where the locale says otherwise."""
    (tmp_path / "t.txt").write_bytes("Né.\n".encode())
    environment = {**os.environ, "OPENAI_BASE_URL": local_server.url, "LC_ALL": "C", "PYTHONUTF8": "0"}
    environment |= {"PYTHONCOERCECLOCALE": "0"}
    command = [*GPT, "score", str(tmp_path / "t.txt"), "-m", "tiny", "-o", str(tmp_path / "s")]

    subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)

    assert json.loads((tmp_path / "s").read_bytes())["text"] == "Né."
