"""`gpt score`: what is sent, what is printed where, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gpt.cli import app
from tests.support.http_server import Answer, Received, ScriptedServer, json_answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        yield server


def run(*arguments: str, stdin: str | None = None) -> Any:
    """Run a command; the result has stdout, stderr and exit_code."""
    return CliRunner().invoke(app, arguments, input=stdin, prog_name="gpt")


def echoing(received: Received) -> Answer:
    """Repeat prompts as a server does whose tokens are characters, each half as likely as the one before."""
    choices = []
    for index, text in enumerate(received.json()["prompt"]):
        logprobs = [None, *(-float(n) for n in range(1, len(text)))]
        lists = {"tokens": list(text), "token_logprobs": logprobs, "text_offset": list(range(len(text)))}
        choices.append({"index": index, "text": text, "logprobs": lists})
    return json_answer({"choices": choices})


def test_score_table(server: ScriptedServer, tmp_path: Path) -> None:
    """A file's lines are scored, blank ones left out, and come as a table."""
    server.answer_with(echoing)
    (tmp_path / "texts.txt").write_text("abc\n\nné\r\n", encoding="utf-8")

    result = run("score", str(tmp_path / "texts.txt"), "-m", "m")

    assert [line.split() for line in result.stdout.splitlines()] == [
        ["perplexity", "mean", "sum", "tokens", "text"],
        ["4.482", "-1.5000", "-3.0000", "3", "abc"],
        ["2.718", "-1.0000", "-1.0000", "2", "né"],
    ]
    assert (result.stderr, result.exit_code) == ("", 0)


def test_score_json(server: ScriptedServer, tmp_path: Path) -> None:
    """Of JSON lines the texts are scored after their contexts; --json gives a line for each, null for NaN."""
    server.answer_with(echoing)
    (tmp_path / "texts.jsonl").write_text('{"text": "c", "context": "ab"}\n"x"\n', encoding="utf-8")

    result = run("score", str(tmp_path / "texts.jsonl"), "-m", "m", "--json", "--batch-size", "1")
    first, second = (json.loads(line) for line in result.stdout.splitlines())

    assert (first["text"], first["logprob_sum"], first["tokens"]) == ("c", -2.0, ["c"])
    assert (second["text"], second["perplexity"], second["logprobs"]) == ("x", None, [None])
    assert [received.json()["prompt"] for received in server.requests] == [["abc"], ["x"]]


def test_score_context(server: ScriptedServer) -> None:
    """--context comes before each line, which may come from stdin."""
    server.answer_with(echoing)

    result = run("score", "-", "-m", "m", "--context", "ab", "--json", stdin="c\n")

    assert json.loads(result.stdout)["logprobs"] == [-2.0]


def test_score_refused(server: ScriptedServer) -> None:
    """A server that cannot score ends the command with one line that says so, and no number."""
    server.reply(json_answer({"choices": [{"text": "\n", "index": 0}]}))

    result = run("score", "-", "-m", "m", "--json", stdin="abc\n")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "ignored echo" in result.stderr


@pytest.mark.parametrize("line", ["{", "5", '{"context": "a"}', '{"text": "a", "context": 1}'])
def test_score_bad_line(server: ScriptedServer, tmp_path: Path, line: str) -> None:
    """A line of a .jsonl file that is no text is named by its number, as a usage error."""
    (tmp_path / "texts.jsonl").write_text(f"{line}\n")

    result = run("score", str(tmp_path / "texts.jsonl"), "-m", "m")

    assert result.exit_code == 2
    assert "line 1: " in result.stderr
