"""The command line in this process: what is sent, what is printed where, and with which code it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

import gpt
from gpt.cli import app
from tests.support.client import COMPLETION, OK
from tests.support.http_server import ScriptedServer, json_answer, sse_answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        server.reply(OK)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        yield server


def run(*arguments: str, stdin: str | bytes | None = None) -> Any:
    """Run a command; the result has stdout, stderr and exit_code."""
    return CliRunner().invoke(app, arguments, input=stdin, prog_name="gpt")


def complete(*arguments: str, stdin: str | bytes | None = None) -> Any:
    return run("complete", "-m", "m", *arguments, stdin=stdin)


def test_version() -> None:
    """--version names the package and its version."""
    assert run("--version").stdout == f"gpt-sdk {gpt.__version__}\n"


def test_help_without_arguments() -> None:
    """Without a command the help comes, as a usage error."""
    result = run()
    assert result.exit_code == 2
    assert "complete" in result.output


def test_answer_on_stdout(server: ScriptedServer) -> None:
    """The completion and nothing else goes to stdout; only what was given is sent."""
    result = complete("Say")
    assert (result.stdout, result.stderr, result.exit_code) == (" ok\n", "", 0)
    assert server.requests[0].json() == {"model": "m", "prompt": "Say"}


def test_every_option(server: ScriptedServer) -> None:
    """Each option becomes the request's field of that name."""
    options = (
        "--best-of 3 --echo --frequency-penalty 0.5 --logit-bias 50256=-100 --logit-bias 7=1.5 --logprobs 2"
        " --max-tokens 0 -n 2 --presence-penalty -0.5 --seed 7 --stop END --stop . --suffix ) --temperature 0"
        " --top-p 0.9 --user me --extra top_k=40 --extra min_p=null --extra guided_regex=a|b"
    )
    assert complete("Say", *options.split()).exit_code == 0
    assert server.requests[0].json() == {
        "model": "m",
        "prompt": "Say",
        "best_of": 3,
        "echo": True,
        "frequency_penalty": 0.5,
        "logit_bias": {"50256": -100, "7": 1.5},
        "logprobs": 2,
        "max_tokens": 0,
        "n": 2,
        "presence_penalty": -0.5,
        "seed": 7,
        "stop": ["END", "."],
        "suffix": ")",
        "temperature": 0,
        "top_p": 0.9,
        "user": "me",
        "top_k": 40,
        "min_p": None,
        "guided_regex": "a|b",
    }


@pytest.mark.parametrize("arguments", [(), ("-",)], ids=["nothing", "dash"])
def test_prompt_on_stdin(server: ScriptedServer, arguments: tuple[str, ...]) -> None:
    """The prompt is read from stdin as UTF-8, its last newline left out."""
    complete(*arguments, stdin="def f():\n    # naïve\n\n".encode())
    assert server.requests[0].json()["prompt"] == "def f():\n    # naïve\n"


def test_json(server: ScriptedServer) -> None:
    """--json prints what the server sent, as it is."""
    server.reply(json_answer(b'{"choices": [{"text": "a"}],  "odd": 1.0}\n'))
    complete("x")
    assert complete("x", "--json").stdout == '{"choices": [{"text": "a"}],  "odd": 1.0}\n'


def test_several_choices(server: ScriptedServer) -> None:
    """Several completions are told apart by a line."""
    server.answer_with(lambda _: json_answer({"choices": [{"text": "a\n"}, {"text": "b"}]}))
    assert complete("x").stdout == "a\n---\nb\n"


PIECES = [
    {"choices": [{"text": "a", "index": 0}]},
    {"choices": [{"text": "b", "index": 1}]},
    {"choices": [{"text": "c", "index": 0, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"completion_tokens": 3}},
]


def test_stream(server: ScriptedServer) -> None:
    """--stream asks for a stream and prints the choices one after the other."""
    server.answer_with(lambda _: sse_answer(*PIECES))
    assert complete("x", "--stream").stdout == "ac\n---\nb\n"
    assert server.requests[0].json()["stream"] is True


def test_stream_as_json(server: ScriptedServer) -> None:
    """--stream --json prints a line for each chunk."""
    server.answer_with(lambda _: sse_answer(*PIECES))
    lines = complete("x", "--stream", "--json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == PIECES


def test_stream_breaks_off(server: ScriptedServer) -> None:
    """A stream that stops half-way leaves what came on stdout, the reason on stderr, and exit code 1."""
    server.answer_with(lambda _: sse_answer(PIECES[0], cut=True))
    result = complete("x", "--stream", "--no-stream", "--stream")
    assert (result.stdout, result.exit_code) == ("a\n", 1)
    assert "gpt: the stream from 127.0.0.1" in result.stderr
    assert result.stderr.count("\n") == 1


def test_api_error(server: ScriptedServer) -> None:
    """An error of the API is one line on stderr, without a traceback, and exit code 1."""
    server.answer_with(lambda _: json_answer({"error": {"message": "no such model"}}, 404))
    result = complete("x")
    assert (result.stdout, result.exit_code) == ("", 1)
    assert result.stderr.startswith("gpt: 404 Not Found from 127.0.0.1")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["complete", "x"], "name the model with --model (or try --local)"),
        (["complete", "-m", "m", "x", "--logit-bias", "a=1"], "expected TOKEN_ID=BIAS such as 50256=-100"),
        (["complete", "-m", "m", "x", "--extra", "top_k"], "expected NAME=JSON such as top_k=40"),
        (["complete", "-m", "m", "x", "--server-url", "localhost"], "scheme or host is missing"),
        (["complete", "-m", "m", "x", "--n", "two"], "--n"),
        (["complete", "x", "--local", "--server-url", "http://x/v1"], "leave --server-url out"),
        (["complete", "-m", "m", "x", "--temperature", "nan"], "temperature: expected a finite number"),
        (["serve", "--port", "99999"], "port must be an integer from 0 to 65535"),
        (["batch", "in"], "OUTPUT"),
        (["conjugate"], "conjugate"),
    ],
)
def test_usage_error(server: ScriptedServer, arguments: list[str], message: str) -> None:
    """What is wrong with the command itself is said on stderr, with exit code 2, and nothing is sent."""
    result = run(*arguments)
    assert (result.stdout, result.exit_code) == ("", 2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert server.requests == []


def test_undecodable_prompt(server: ScriptedServer) -> None:
    """A prompt that is not UTF-8 is a usage error."""
    result = complete(stdin=b"caf\xe9")
    assert result.exit_code == 2
    assert "utf-8" in result.stderr


def test_local() -> None:
    """--local needs neither key nor network nor a model's name: llama.cpp answers."""
    command = ["complete", "--local", "A class definition", "--max-tokens", "8", "--temperature", "0"]
    first, second = run(*command), run(*command)
    assert (first.exit_code, first.stderr) == (0, "")
    assert len(first.stdout) > 8
    assert first.stdout == second.stdout


def test_unprintable_answer(server: ScriptedServer) -> None:
    """A lone surrogate in an answer is printed as a question mark."""
    server.answer_with(lambda _: json_answer(b'{"choices": [{"text": "a\\ud800b"}], "x": NaN}'))
    result = complete("x")
    assert (result.stdout, result.exit_code) == ("a?b\n", 0)


def test_key(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is OPENAI_API_KEY, and is not shown when the server refuses it."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-123456")
    server.answer_with(lambda _: json_answer({"error": {"message": "Incorrect API key: sk-123456"}}, 401))
    result = complete("x")
    assert server.requests[0].header("authorization") == "Bearer sk-123456"
    assert "Incorrect API key" in result.stderr
    assert "sk-123456" not in result.stderr


def test_chosen_server_over_environment(server: ScriptedServer) -> None:
    """--server-url wins over OPENAI_BASE_URL."""
    with ScriptedServer() as other:
        other.reply(json_answer(COMPLETION))
        complete("x", "--server-url", other.url)
        assert (len(other.requests), len(server.requests)) == (1, 0)
