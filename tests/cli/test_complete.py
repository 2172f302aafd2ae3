"""`gpt complete`, and what all commands share: what is sent, what is printed where, and with which code it ends."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from gpt.models import errors
from tests.support.client import COMPLETION, OK, silent_server
from tests.support.command import GPT, complete, run
from tests.support.http_server import Received, ScriptedResponse, ScriptedServer, json_response, sse_response
from tests.support.raw_server import RawServer, read_request


def test_complete_given_a_prompt_prints_only_the_completion(server: ScriptedServer) -> None:
    """The completion and nothing else goes to stdout; only what was given is sent."""
    result = complete("Say")
    assert (result.stdout, result.stderr, result.exit_code) == (" ok\n", "", 0)
    assert server.requests[0].json() == {"model": "m", "prompt": "Say"}


def test_complete_with_every_option_sends_each_as_its_field(server: ScriptedServer) -> None:
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
def test_complete_prompt_on_stdin_is_sent(server: ScriptedServer, arguments: tuple[str, ...]) -> None:
    """The prompt is read from stdin as UTF-8, its last newline left out."""
    complete(*arguments, stdin="def f():\n    # naïve\n\n".encode())
    assert server.requests[0].json()["prompt"] == "def f():\n    # naïve\n"


def test_complete_json_prints_the_body_unchanged(server: ScriptedServer) -> None:
    """--json prints what the server sent, as it is."""
    server.reply(json_response(b'{"choices": [{"text": "a"}],  "odd": 1.0}\n'))
    complete("x")
    assert complete("x", "--json").stdout == '{"choices": [{"text": "a"}],  "odd": 1.0}\n'


def test_complete_several_choices_are_separated_by_a_line(server: ScriptedServer) -> None:
    """Several completions are told apart by a line."""
    server.respond_with(lambda _: json_response({"choices": [{"text": "a\n"}, {"text": "b"}]}))
    assert complete("x").stdout == "a\n---\nb\n"


PIECES: list[dict[str, Any]] = [
    {"choices": [{"text": "a", "index": 0}]},
    {"choices": [{"text": "b", "index": 1}]},
    {"choices": [{"text": "c", "index": 0, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"completion_tokens": 3}},
]


def test_complete_stream_prints_choices_one_after_the_other(server: ScriptedServer) -> None:
    """--stream asks for a stream and prints the choices one after the other."""
    server.respond_with(lambda _: sse_response(*PIECES))
    assert complete("x", "--stream").stdout == "ac\n---\nb\n"
    assert server.requests[0].json()["stream"] is True


def test_complete_stream_as_json_prints_a_line_for_each_chunk(server: ScriptedServer) -> None:
    """--stream --json prints a line for each chunk."""
    server.respond_with(lambda _: sse_response(*PIECES))
    lines = complete("x", "--stream", "--json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == PIECES


def test_complete_stream_that_breaks_off_keeps_its_output_and_exits_with_1(server: ScriptedServer) -> None:
    """A stream that stops half-way leaves what came on stdout, the reason on stderr, and exit code 1."""
    server.respond_with(lambda _: sse_response(PIECES[0], cut=True))
    result = complete("x", "--stream", "--no-stream", "--stream")
    assert (result.stdout, result.exit_code) == ("a\n", 1)
    assert "gpt: the stream from 127.0.0.1" in result.stderr
    assert result.stderr.count("\n") == 1


def test_complete_api_error_is_one_line_and_exits_with_1(server: ScriptedServer) -> None:
    """An error of the API is one line on stderr, without a traceback, and exit code 1."""
    server.respond_with(lambda _: json_response({"error": {"message": "no such model"}}, 404))
    result = complete("x")
    assert (result.stdout, result.exit_code) == ("", 1)
    assert result.stderr.startswith("gpt: 404 Not Found from 127.0.0.1")
    assert result.stderr.count("\n") == 1


def test_complete_undecodable_prompt_is_a_usage_error(server: ScriptedServer) -> None:
    """A prompt that is not UTF-8 is a usage error."""
    result = complete(stdin=b"caf\xe9")
    assert result.exit_code == 2
    assert "utf-8" in result.stderr


def test_complete_local_needs_no_key_network_or_model() -> None:
    """--local needs neither key nor network nor a model's name: llama.cpp responds."""
    command = ["complete", "--local", "A class definition", "--max-tokens", "8", "--temperature", "0"]
    first, second = run(*command), run(*command)
    assert (first.exit_code, first.stderr) == (0, "")
    assert len(first.stdout) > 8
    assert first.stdout == second.stdout


def test_complete_lone_surrogate_is_printed_as_a_question_mark(server: ScriptedServer) -> None:
    """A lone surrogate in a response is printed as a question mark."""
    server.respond_with(lambda _: json_response(b'{"choices": [{"text": "a\\ud800b"}], "x": NaN}'))
    result = complete("x")
    assert (result.stdout, result.exit_code) == ("a?b\n", 0)


def test_complete_environment_key_is_sent_and_not_shown(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is OPENAI_API_KEY, and is not shown when the server refuses it."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-123456")
    server.respond_with(lambda _: json_response({"error": {"message": "Incorrect API key: sk-123456"}}, 401))
    result = complete("x")
    assert server.requests[0].header("authorization") == "Bearer sk-123456"
    assert "Incorrect API key" in result.stderr
    assert "sk-123456" not in result.stderr


def test_complete_server_url_wins_over_the_environment(server: ScriptedServer) -> None:
    """--server-url wins over OPENAI_BASE_URL."""
    with ScriptedServer() as other:
        other.reply(json_response(COMPLETION))
        complete("x", "--server-url", other.url)
        assert (len(other.requests), len(server.requests)) == (1, 0)


# Terminals and pipes

NASTY = "a\x1b]52;c;ZXZpbA==\x07b\x1b[2J\x9b31m\x08\u202ec\td\u200b\n"
CONTROLS = re.compile(r"[^\S \n\r\t]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u202e]")


def on_a_terminal(url: str, *arguments: str) -> tuple[str, str]:
    """Run a command whose stdout and stderr are each a terminal; return what those got."""
    ends = [pty.openpty() for _ in range(2)]
    command = [*GPT, *arguments]
    environment = {**os.environ, "OPENAI_BASE_URL": url, "PYTHONIOENCODING": "utf-8", "TERM": "dumb"}
    streams = {"stdin": subprocess.DEVNULL, "stdout": ends[0][1], "stderr": ends[1][1]}
    with subprocess.Popen(command, env=environment, **streams) as process:  # type: ignore[call-overload]
        for _, theirs in ends:
            os.close(theirs)
        with ThreadPoolExecutor() as pool:
            rendered = list(pool.map(read_to_the_end, [ours for ours, _ in ends]))
        process.wait(60)
    return rendered[0], rendered[1]


def read_to_the_end(terminal: int) -> str:
    """Read all that a terminal gets; Linux reports its end as an error."""
    data = b""
    with suppress(OSError):
        while part := os.read(terminal, 4096):
            data += part
    os.close(terminal)
    return data.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("options", [["--no-stream"], ["--stream"], ["--json"], ["--stream", "--json"]])
def test_complete_on_a_terminal_shows_controls_by_name(server: ScriptedServer, options: list[str]) -> None:
    """No escape, C1 control, backspace or bidi override of a model reaches a terminal, in any form of output."""
    pieces = [{"choices": [{"text": piece, "index": 0}]} for piece in (NASTY[:2], NASTY[2:])]
    end = {"choices": [{"text": "", "index": 0, "finish_reason": "stop"}]}
    whole = json.dumps({"choices": [{"text": NASTY, "index": 0}]}, ensure_ascii=False).encode()
    server.respond_with(
        lambda request: sse_response(*pieces, end) if request.json().get("stream") else json_response(whole)
    )

    rendered, said = on_a_terminal(server.url, "complete", "-m", "m", "x", *options)

    assert not CONTROLS.search(rendered + said)
    if "--json" not in options:
        named = "a<ESC>]52;c;ZXZpbA==<BEL>b<ESC>[2J<U+009B>31m<BS><U+202E>c"
        assert re.sub("[ \t]+", "", rendered.partition("d<U")[0]) == named
        assert rendered.endswith("d<U+200B>\n")


@pytest.mark.parametrize("options", [["--no-stream"], ["--stream"]])
def test_complete_in_a_pipe_writes_every_character(server: ScriptedServer, options: list[str]) -> None:
    """A pipe gets the text as it is, escapes and all, in UTF-8."""
    server.respond_with(
        lambda request: (
            sse_response({"choices": [{"text": NASTY, "index": 0, "finish_reason": "stop"}]})
            if request.json().get("stream")
            else json_response({"choices": [{"text": NASTY, "index": 0}]})
        )
    )
    command = [*GPT, "complete", "-m", "m", "x", *options]
    environment = {**os.environ, "OPENAI_BASE_URL": server.url, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, env=environment, input=b"", capture_output=True, timeout=60, check=True)
    assert done.stdout == NASTY.encode()


def test_complete_error_cannot_control_a_terminal() -> None:
    """What a server puts into its status line is shown by name in a message, on terminals and in pipes."""

    def serve(conn: socket.socket, _: int) -> None:
        read_request(conn)
        conn.sendall(b"\x1b]52;c;ZXZpbA==\x07 garbage\r\n\r\n")

    with RawServer(serve) as server:
        _, said = on_a_terminal(server.url, "complete", "-m", "m", "x", "--retries", "0")
        piped = run("complete", "-m", "m", "x", "--retries", "0", "--server-url", server.url).stderr
    assert "52;c;" in said
    assert not CONTROLS.search(said + piped)


def test_complete_json_on_a_terminal_is_indented(server: ScriptedServer) -> None:
    """On a terminal the JSON is indented."""
    server.respond_with(lambda _: json_response({"choices": [{"text": "é", "index": 0}]}))
    rendered, _ = on_a_terminal(server.url, "complete", "-m", "m", "x", "--json")
    assert rendered.startswith('{\n  "choices": [\n')
    assert '"text": "é"' in rendered


def test_complete_closed_pipe_ends_quietly(server: ScriptedServer) -> None:
    """A reader that has seen enough, such as head, ends the command as a closed pipe does, without a word."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [*GPT, "complete", "-m", "m", "x"]
    environment = {**os.environ, "OPENAI_BASE_URL": server.url}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


# What is asked and advised


def listing(*names: str) -> Callable[[Received], ScriptedResponse]:
    """Respond to /models with these names, and everything else with a completion."""
    models = json_response({"object": "list", "data": [{"id": name} for name in names]})
    return lambda received: models if received.path.endswith("/models") else OK


def test_complete_without_model_takes_the_only_one(server: ScriptedServer) -> None:
    """Without --model the server's only model is taken, and named on stderr."""
    server.respond_with(listing("mine"))
    result = run("complete", "x")
    assert (result.stdout, result.stderr, result.exit_code) == (" ok\n", "model: mine\n", 0)
    assert [(each.method, each.path) for each in server.requests] == [
        ("GET", "/v1/models"),
        ("POST", "/v1/completions"),
    ]
    assert server.requests[1].json()["model"] == "mine"


@pytest.mark.parametrize(
    ("names", "message"), [((), "lists none at /models"), (("a", "b\x1b[2J"), "the server has a, ")]
)
def test_complete_without_model_and_none_or_several_listed_is_a_usage_error(
    server: ScriptedServer, names: tuple[str, ...], message: str
) -> None:
    """Where there is no choice to make for the user, or too much of one, it is a usage error that names the models."""
    server.respond_with(listing(*names))
    result = run("complete", "x")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not CONTROLS.search(result.stderr)


def test_complete_without_server_and_key_is_refused_at_once() -> None:
    """Nothing is sent to OpenAI by someone who named neither a server nor a key."""
    result = run("complete", "-m", "m", "x")
    assert result.exit_code == 2
    assert "OPENAI_BASE_URL" in result.stderr


def test_complete_with_client_options_applies_them(server: ScriptedServer) -> None:
    """--header is sent, retries are logged with --verbose, and a bad header is a usage error without its value."""
    responses = iter([json_response({"error": "busy"}, 503, retry_after="0")])
    server.respond_with(lambda _: next(responses, OK))
    result = complete("x", "--header", "X-Team: search", "--retries", "1", "--verbose", "--deadline", "60")
    assert (result.stdout, result.exit_code) == (" ok\n", 0)
    assert [each.header("x-team") for each in server.requests] == ["search", "search"]
    assert "Retrying" in result.stderr
    assert "Retrying" not in complete("x").stderr
    refused = complete("x", "--header", "sk-secret")
    assert refused.exit_code == 2
    assert "sk-secret" not in refused.stderr


def test_complete_that_fails_names_the_variable_or_option_to_set(server: ScriptedServer) -> None:
    """A 401, a missing /v1 and a timeout name the variable and the option, not Python's arguments and classes."""
    server.respond_with(lambda _: json_response({"error": {"message": "who?"}}, 401))
    refused = complete("x").stderr
    assert "OPENAI_API_KEY" in refused
    assert "security=" not in refused
    server.respond_with(lambda _: json_response({"detail": "Not Found"}, 404))
    base = server.url.removesuffix("/v1")
    assert f"try --server-url {base}/v1" in complete("x", "--server-url", base).stderr
    nobody = complete("x", "--server-url", "http://127.0.0.1:9/v1", "--retries", "0").stderr
    assert nobody == "gpt: no response from 127.0.0.1:9: Connection refused\n"
    with silent_server() as silent:
        late = complete("x", "--server-url", silent.url, "--timeout", "0.2", "--retries", "0").stderr
        silent.release.set()
    assert "--timeout" in late
    assert "timeout=" not in late.replace("--timeout", "")


def test_complete_stop_escapes_are_decoded(server: ScriptedServer) -> None:
    r"""In --stop, \n, \t, \r and \\ are escapes; any other backslash is itself."""
    complete("x", "--stop", r"\n", "--stop", r"a\tb\\n\d")
    assert server.requests[0].json()["stop"] == ["\n", "a\tb\\n\\d"]


def test_complete_empty_prompt_is_sent_only_as_an_argument(server: ScriptedServer) -> None:
    """An empty prompt is sent when it is an argument; an empty stdin is a usage error."""
    assert complete(stdin="").exit_code == 2
    assert complete("").exit_code == 0
    assert [each.json()["prompt"] for each in server.requests] == [""]


def test_complete_local_with_model_says_that_model_is_ignored() -> None:
    """--model beside --local makes no difference, and the command says so."""
    result = run("complete", "--local", "-m", "foo", "--max-tokens", "1", "A")
    assert result.exit_code == 0
    assert "--model foo makes no difference" in result.stderr


def test_gpt_debug_shows_the_traceback(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPT_DEBUG lets an error through, for whoever must report a defect; without it there is a hint."""
    server.respond_with(lambda _: json_response({"error": {"message": "no such model"}}, 404))
    monkeypatch.setenv("GPT_DEBUG", "1")
    assert isinstance(complete("x").exception, errors.NotFoundError)


def test_complete_on_a_terminal_streams(server: ScriptedServer) -> None:
    """On a terminal a completion streams: its first piece is there while the rest is not yet sent."""
    gate = threading.Event()
    pieces = ({"choices": [{"text": "one ", "index": 0}]}, gate, {"choices": [{"text": "two", "index": 0}]})
    server.respond_with(lambda _: sse_response(*pieces))
    ours, theirs = pty.openpty()
    with subprocess.Popen([*GPT, "complete", "-m", "m", "x"], stdout=theirs, stdin=subprocess.DEVNULL) as process:
        os.close(theirs)
        assert os.read(ours, 100) == b"one "
        gate.set()
        assert os.read(ours, 3) == b"two"
    os.close(ours)
    assert process.returncode == 0


def test_complete_interrupted_exits_with_130_without_traceback(server: ScriptedServer) -> None:
    """Ctrl-C ends a completion with 130 and without a traceback."""
    server.respond_with(lambda _: sse_response({"choices": [{"text": "one"}]}, threading.Event()))
    command = [*GPT, "complete", "-m", "m", "x", "--stream"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.read(3) == b"one"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert (process.returncode, said) == (130, b"")
