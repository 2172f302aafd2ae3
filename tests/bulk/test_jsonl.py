"""Batch files: what is read, what is written, what is skipped, and what the summary says."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import gpt
from gpt import bulk, local
from gpt.bulk import Summary, run_jsonl
from tests.support.batch import batch_line, each_once, ids, parrot, read_lines, write_batch, write_lines
from tests.support.client import COMPLETION, ONCE, make
from tests.support.http_server import Answer, ScriptedServer, json_answer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        server.answer_with(parrot)
        yield server


@pytest.fixture
def s(server: ScriptedServer) -> gpt.Gpt:
    return make(server.url)


def test_batch_in_and_out(s: gpt.Gpt, server: ScriptedServer, tmp_path: Path) -> None:
    """A line of the Batch format is sent as its body says and answered in the Batch output format."""
    body = {"usage": {"prompt_tokens": 3, "completion_tokens": 5}, "extra": [1.50, None], **COMPLETION}
    server.answer_with(lambda _: json_answer(json.dumps(body, indent=2).encode(), x_request_id="req-1"))
    given = batch_line("a", max_tokens=0, top_k=40, suffix=None, logit_bias={"50256": -100})

    summary = run_jsonl(s, write_lines(tmp_path / "in", [given]), tmp_path / "out")

    assert server.requests[0].json() == {
        "model": "m",
        "prompt": "a",
        "max_tokens": 0,
        "top_k": 40,
        "logit_bias": {"50256": -100},
    }
    [line] = read_lines(tmp_path / "out")
    assert line.pop("id").startswith("batch_req_")
    assert line == {
        "custom_id": "a",
        "response": {"status_code": 200, "request_id": "req-1", "body": body},
        "error": None,
    }
    assert summary == Summary(answered=1, failed=0, resumed=0, prompt_tokens=3, completion_tokens=5)


def test_bodies_alone(s: gpt.Gpt, server: ScriptedServer, tmp_path: Path) -> None:
    """A bare request body has its line's number as its id; blank lines are counted but not asked."""
    given = [{"model": "own", "prompt": "x"}, b"  ", {"prompt": [1212, 318]}]

    run_jsonl(s, write_lines(tmp_path / "in", given), tmp_path / "out", model="default")

    assert ids(tmp_path / "out") == {"1": 1, "3": 1}
    assert {received.json()["model"] for received in server.requests} == {"own", "default"}


BAD = {
    "nonsense": (b"{", None, "invalid_json_line", "the line is not JSON"),
    "latin-1": (b'{"prompt": "\xe9"}', None, "invalid_json_line", "the line is not JSON"),
    "list": ([1], None, "invalid_json_line", "expected an object, got a list"),
    "types": (batch_line("t", n="3", stop=[1]), "t", "invalid_request", "n: expected an integer, got str '3'; stop:"),
    "bare types": ({"model": "m", "prompt": 3}, None, "invalid_request", "prompt: expected a string or a list of"),
    "no model": ({"prompt": "x"}, None, "invalid_request", "model: name one in the line, or one for all"),
    "no body": ({"custom_id": "b"}, "b", "invalid_request", "body: expected an object, got null"),
    "no id": ({"body": {"model": "m"}}, None, "invalid_custom_id", "custom_id: expected a string, got null"),
    "url": ({**batch_line("u"), "url": "/v1/chat/completions"}, "u", "invalid_url", "url: expected '/v1/completions'"),
    "method": ({**batch_line("g"), "method": "GET"}, "g", "invalid_method", "method: expected 'POST', got str 'GET'"),
    "stream": (batch_line("s", stream=True), "s", "invalid_request", "stream: a batch has whole answers only"),
    "duplicate": (batch_line("first"), "first", "duplicate_custom_id", "'first' was used by an earlier line"),
}


@pytest.mark.parametrize(("given", "custom_id", "code", "message"), BAD.values(), ids=BAD.keys())
def test_bad_line(
    s: gpt.Gpt,
    server: ScriptedServer,
    tmp_path: Path,
    given: object,
    custom_id: str | None,
    code: str,
    message: str,
) -> None:
    """A line that cannot be asked becomes an error line with its number and the reason, and the run goes on."""
    path = write_lines(tmp_path / "in", [batch_line("first"), given, batch_line("last")])

    summary = run_jsonl(s, path, tmp_path / "out")

    assert (summary.answered, summary.failed) == (2, 1)
    assert len(server.requests) == 2
    [line] = [line for line in read_lines(tmp_path / "out") if line["error"]]
    assert (line["custom_id"], line["response"]) == (custom_id, None)
    assert (line["error"]["code"], line["error"]["line"]) == (code, 2)
    assert message in line["error"]["message"]

    before = (tmp_path / "out").read_bytes()
    assert run_jsonl(s, path, tmp_path / "out").resumed == 3
    assert (tmp_path / "out").read_bytes() == before


ERRORS = {
    "json": (json_answer({"error": {"message": "no"}}, 400), "BadRequestError", {"error": {"message": "no"}}),
    "text": (Answer(503, (), b"<p>busy</p>"), "InternalServerError", "<p>busy</p>"),
    "silent": (Answer(404), "NotFoundError", None),
    "not a completion": (json_answer([1]), "ResponseValidationError", [1]),
}


@pytest.mark.parametrize(("answer", "code", "body"), ERRORS.values(), ids=ERRORS.keys())
def test_error_line(server: ScriptedServer, tmp_path: Path, answer: Answer, code: str, body: object) -> None:
    """An error of the API is an output line with its status, what the server said, and our message."""
    server.answer_with(lambda _: answer)
    run_jsonl(make(server.url, retry_config=ONCE), write_batch(tmp_path / "in", 1), tmp_path / "out")
    [line] = read_lines(tmp_path / "out")
    assert line["custom_id"] == "r0"
    assert line["response"] == {"status_code": answer.status, "request_id": None, "body": body}
    assert line["error"]["code"] == code
    assert "line" not in line["error"]


def test_no_answer(tmp_path: Path) -> None:
    """Where there was no answer the error line has no response."""
    with ScriptedServer() as server:
        server.tcp.refuse()
        run_jsonl(make(server.url), write_batch(tmp_path / "in", 1), tmp_path / "out")
    [line] = read_lines(tmp_path / "out")
    assert (line["response"], line["error"]["code"]) == (None, "APIConnectionError")


def test_infinity_in_an_answer(s: gpt.Gpt, server: ScriptedServer, tmp_path: Path) -> None:
    """NaN and Infinity, which some servers write, become null, since they are not JSON."""
    server.answer_with(lambda _: json_answer(b'{"choices": [{"text": "NaN"}], "x": NaN,\n"y": -Infinity}'))
    run_jsonl(s, write_batch(tmp_path / "in", 1), tmp_path / "out")
    [line] = (tmp_path / "out").read_text().splitlines()
    body = json.loads(line, parse_constant=pytest.fail)["response"]["body"]
    assert body == {"choices": [{"text": "NaN"}], "x": None, "y": None}


def test_gzip_and_mark(s: gpt.Gpt, tmp_path: Path) -> None:
    """Input may be compressed, and may begin with a byte-order mark."""
    text = b"\xef\xbb\xbf" + write_batch(tmp_path / "in", 5).read_bytes()
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(text))
    assert run_jsonl(s, tmp_path / "in.jsonl.gz", tmp_path / "out").answered == 5
    assert ids(tmp_path / "out") == each_once(5)


def test_damaged_gzip(s: gpt.Gpt, tmp_path: Path) -> None:
    """A compressed input that was cut off says so, after the answers to what could be read."""
    text = gzip.compress(write_batch(tmp_path / "in", 300).read_bytes())
    (tmp_path / "in.gz").write_bytes(text[:-50])
    with pytest.raises(ValueError, match=r"in\.gz: the gzip file is damaged or was cut off"):
        run_jsonl(s, tmp_path / "in.gz", tmp_path / "out")
    assert len(read_lines(tmp_path / "out")) > 10


def test_resume_asks_only_what_is_missing(s: gpt.Gpt, server: ScriptedServer, tmp_path: Path) -> None:
    """What is in the output, errors among it, is not asked again; new lines of the input are."""
    server.answer_with(lambda r: json_answer({}, 400) if r.json()["prompt"] == "r1" else parrot(r))
    run_jsonl(s, write_batch(tmp_path / "in", 4), tmp_path / "out")

    summary = run_jsonl(s, write_batch(tmp_path / "in", 6), tmp_path / "out")

    assert (summary.answered, summary.failed, summary.resumed) == (5, 1, 4)
    assert ids(tmp_path / "out") == each_once(6)
    assert len(server.requests) == 6


def test_retry_errors(s: gpt.Gpt, server: ScriptedServer, tmp_path: Path) -> None:
    """With retry_errors the failed lines, and only those, are asked again and replaced."""
    path = write_lines(tmp_path / "in", [batch_line("r0"), batch_line("r1"), b"bad", batch_line("r3")])
    server.answer_with(lambda r: json_answer({}, 400) if r.json()["prompt"] == "r1" else parrot(r))
    assert run_jsonl(s, path, tmp_path / "out").failed == 2
    (tmp_path / "out").chmod(0o640)
    server.answer_with(parrot)
    write_batch(path, 4)

    summary = run_jsonl(s, path, tmp_path / "out", retry_errors=True)

    assert (summary.answered, summary.failed, summary.resumed) == (4, 0, 2)
    assert ids(tmp_path / "out") == each_once(4)
    assert len(server.requests) == 5
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_progress(s: gpt.Gpt, tmp_path: Path) -> None:
    """Progress is told at the start and after every line, and its last word is the summary."""
    run_jsonl(s, write_batch(tmp_path / "in", 2), tmp_path / "out")
    told: list[Summary] = []
    summary = run_jsonl(s, write_batch(tmp_path / "in", 4), tmp_path / "out", progress=told.append)
    assert [(one.answered, one.resumed) for one in told] == [(2, 2), (3, 2), (4, 2)]
    assert told[-1] == summary


def test_executor(s: gpt.Gpt, tmp_path: Path) -> None:
    """A batch runs on any executor."""
    with ThreadPoolExecutor(2) as executor:
        run_jsonl(s, write_batch(tmp_path / "in", 20), tmp_path / "out", executor=executor)
    assert ids(tmp_path / "out") == each_once(20)


def test_real_engine(local_server: local.Server, tmp_path: Path) -> None:
    """A batch against llama.cpp has a text for every line and counts tokens."""
    with gpt.Gpt(server_url=local_server.url) as s:
        path = write_lines(tmp_path / "in", (batch_line(f"r{i}", prompt="def", max_tokens=4) for i in range(6)))
        summary = bulk.run_jsonl(s, path, tmp_path / "out")
    assert summary.answered == 6
    assert 12 < summary.completion_tokens <= 24
    assert all(line["response"]["body"]["choices"][0]["text"] for line in read_lines(tmp_path / "out"))
