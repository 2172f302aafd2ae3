"""`gpt view` and `gpt complete --view`: what is read, what is printed where, and how they end."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from gpt import view
from gpt.models.shared import CreateCompletionResponse
from tests.support.command import run
from tests.support.fixtures import vllm
from tests.support.http_server import ScriptedServer

RESPONSE = vllm("echo_logprobs_generate")


def test_view_saved_response_is_shown_as_text_or_written_as_a_page(tmp_path: Path) -> None:
    """A saved response is shown as text; -o writes the page and says so on stderr."""
    (tmp_path / "completion.json").write_text(RESPONSE.body, encoding="utf-8")

    rendered = run("view", str(tmp_path / "completion.json"))
    written = run("view", str(tmp_path / "completion.json"), "-o", str(tmp_path / "page.html"))

    assert rendered.stdout.startswith("A·class·definitions.")
    assert "90 % and more" not in rendered.stdout
    assert "or ‘n’ 11.4 %" in rendered.stdout
    assert (written.stdout, written.exit_code) == ("", 0)
    assert "page.html" in written.stderr
    completion = CreateCompletionResponse.from_json(RESPONSE.body)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == view.to_html(completion)


def test_view_of_streamed_chunks_shows_one_response() -> None:
    """The lines of `gpt complete --stream --json` are one response."""
    events = vllm("stream_echo_logprobs").body.split("\n\n")
    chunks = "\n".join(event.removeprefix("data: ") for event in events if "{" in event)

    assert run("view", "-", stdin=chunks).stdout.startswith("Return·the·current·tab·will")


@pytest.mark.parametrize("text", ["", "nothing", "[]", '{"choices": 5}', '{"a": 1}\n{"b": 2}'])
def test_view_of_anything_but_a_response_is_a_usage_error(text: str) -> None:
    """A file that is not a response is a usage error that says what was expected."""
    result = run("view", "-", stdin=text)
    assert result.exit_code == 2
    assert "expected the JSON of a completion" in result.stderr


def test_complete_view_asks_for_logprobs_and_shows_them(server: ScriptedServer) -> None:
    """`gpt complete --view` asks for log-probabilities and shows them; an explicit number is kept."""
    server.respond_with(lambda _: RESPONSE.response())

    rendered = run("complete", "-m", "m", "--view", "A class")
    run("complete", "-m", "m", "--view", "--logprobs", "2", "A class")

    assert "perplexity 5.32" in rendered.stdout
    assert [received.json()["logprobs"] for received in server.requests] == [5, 2]


def test_complete_view_with_json_is_a_usage_error(server: ScriptedServer) -> None:
    """--view and --json exclude each other."""
    result = run("complete", "-m", "m", "--view", "--json", "A class")
    assert (result.exit_code, server.requests) == (2, [])


def test_complete_local_view_needs_no_key_or_network() -> None:
    """`gpt complete --local --view` needs neither key nor network."""
    result = run("complete", "--local", "--view", "--max-tokens", "3", "--seed", "1", "A class")
    assert result.exit_code == 0
    assert "3 tokens · perplexity" in result.stdout


def test_to_text_on_a_terminal_is_coloured() -> None:
    """On a terminal the text is coloured; controls of a model's text never are ours to obey."""
    out = io.StringIO()
    response = CreateCompletionResponse.from_json(RESPONSE.body)
    Console(file=out, force_terminal=True, color_system="truecolor", width=80).print(view.to_text(response))
    assert "\x1b[30;48;2;217;180;91m" in out.getvalue()


def test_view_batch_output_shows_every_choice(tmp_path: Path) -> None:
    """Lines that `gpt batch` wrote are shown with all their choices; failed lines have none."""
    body = json.loads(RESPONSE.body)
    good = {"custom_id": "a", "response": {"status_code": 200, "body": body}, "error": None}
    bad = {"custom_id": "b", "response": {"status_code": 400, "body": {"error": {"message": "no"}}}, "error": None}
    (tmp_path / "out.jsonl").write_text("\n".join(map(json.dumps, [good, bad, good])), encoding="utf-8")
    (tmp_path / "one.json").write_text(json.dumps(good), encoding="utf-8")

    several, one = run("view", str(tmp_path / "out.jsonl")), run("view", str(tmp_path / "one.json"))

    assert one.stdout.startswith("A·class·definitions.")
    assert several.stdout.startswith("Choice 0\nA·class")
    assert "Choice 1\nA·class" in several.stdout
    assert run("view", "-", stdin=json.dumps(bad)).exit_code == 2


def test_view_batch_output_with_failed_lines_shows_the_others() -> None:
    """A failed line, the first one too, is left out; without any completion that is the message."""
    failed = json.dumps({"id": "1", "custom_id": "1", "response": None, "error": {"code": "x", "message": "no"}})
    body = json.loads(RESPONSE.body)
    done = json.dumps({"id": "2", "custom_id": "2", "response": {"status_code": 200, "body": body}, "error": None})

    assert run("view", "-", stdin=f"{failed}\n{done}\n").stdout == run("view", "-", stdin=RESPONSE.body).stdout
    refused = run("view", "-", stdin=f"{failed}\n")
    assert (refused.exit_code, "no line of this batch has a completion" in refused.stderr) == (2, True)


def test_view_output_dash_is_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-o -` writes the page to stdout, and no file of that name."""
    monkeypatch.chdir(tmp_path)
    assert run("view", "-", "-o", "-", stdin=RESPONSE.body).stdout.startswith("<!doctype html>")
    assert list(tmp_path.iterdir()) == []
