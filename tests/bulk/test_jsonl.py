"""Batch files: what is read, what is written, what is skipped, and what the summary says."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import gpt
from gpt import bulk, local
from gpt.bulk import Summary, run_jsonl
from tests.support.batch import batch_line, each_once, echo_prompt, ids, read_lines, write_batch, write_lines
from tests.support.client import COMPLETION, ONCE, make
from tests.support.http_server import ScriptedResponse, ScriptedServer, json_response


@pytest.fixture
def server(server: ScriptedServer) -> ScriptedServer:
    server.respond_with(echo_prompt)
    return server


@pytest.fixture
def s(server: ScriptedServer) -> gpt.Gpt:
    return make(server.url)


def test_run_jsonl_batch_line_is_sent_and_answered(s: gpt.Gpt, server: ScriptedServer, tmp_path: Path) -> None:
    """A line of the Batch format is sent as its body says and its response has the Batch output format."""
    body = {"usage": {"prompt_tokens": 3, "completion_tokens": 5}, "extra": [1.50, None], **COMPLETION}
    server.respond_with(lambda _: json_response(json.dumps(body, indent=2).encode(), x_request_id="req-1"))
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
    size = (tmp_path / "in").stat().st_size
    assert summary == Summary(
        answered=1, failed=0, resumed=0, prompt_tokens=3, completion_tokens=5, bytes_read=size, bytes_total=size
    )


def test_run_jsonl_bare_body_has_its_number_as_id(s: gpt.Gpt, server: ScriptedServer, tmp_path: Path) -> None:
    """A bare request body has its line's number as its id; blank lines are counted but not sent."""
    given = [{"model": "own", "prompt": "x"}, b"  ", {"prompt": [1212, 318]}]

    run_jsonl(s, write_lines(tmp_path / "in", given), tmp_path / "out", model="default")

    assert ids(tmp_path / "out") == {"1": 1, "3": 1}
    assert {received.json()["model"] for received in server.requests} == {"own", "default"}


BAD = {
    "nonsense": (b"{", "2", "invalid_json_line", "the line is not JSON"),
    "latin-1": (b'{"prompt": "\xe9"}', "2", "invalid_json_line", "the line is not JSON"),
    "list": ([1], "2", "invalid_json_line", "expected an object, got a list"),
    "types": (batch_line("t", n="3", stop=[1]), "t", "invalid_request", "n: expected an integer, got str '3'; stop:"),
    "bare types": ({"model": "m", "prompt": 3}, "2", "invalid_request", "prompt: expected a string or a list of"),
    "no model": ({"prompt": "x"}, "2", "invalid_request", "model: name one in the line, or one for all"),
    "no body": ({"custom_id": "b"}, "b", "invalid_request", "body: expected an object, got null"),
    "no id": ({"body": {"model": "m"}}, "2", "invalid_custom_id", "custom_id: expected a string, got null"),
    "url": ({**batch_line("u"), "url": "/v1/chat/completions"}, "u", "invalid_url", "url: expected '/v1/completions'"),
    "method": ({**batch_line("g"), "method": "GET"}, "g", "invalid_method", "method: expected 'POST', got str 'GET'"),
    "stream": (batch_line("s", stream=True), "s", "invalid_request", "stream: a batch has no streams"),
    "null model": (batch_line("z", model=None), "z", "invalid_request", "model: Field may not be null"),
    "duplicate": (batch_line("first"), "first", "duplicate_custom_id", "'first' was used by an earlier line"),
}


@pytest.mark.parametrize(("given", "custom_id", "code", "message"), BAD.values(), ids=BAD.keys())
def test_run_jsonl_invalid_line_becomes_an_error_line(
    s: gpt.Gpt,
    server: ScriptedServer,
    tmp_path: Path,
    given: object,
    custom_id: str,
    code: str,
    message: str,
) -> None:
    """A line that cannot be sent becomes an error line with its number and the reason, and the run goes on."""
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
    "json": (json_response({"error": {"message": "no"}}, 400), "BadRequestError", {"error": {"message": "no"}}),
    "text": (ScriptedResponse(503, (), b"<p>busy</p>"), "InternalServerError", "<p>busy</p>"),
    "silent": (ScriptedResponse(404), "NotFoundError", None),
    "not a completion": (json_response([1]), "ResponseValidationError", [1]),
}


@pytest.mark.parametrize(("response", "code", "body"), ERRORS.values(), ids=ERRORS.keys())
def test_run_jsonl_api_error_is_an_error_line(
    server: ScriptedServer, tmp_path: Path, response: ScriptedResponse, code: str, body: object
) -> None:
    """An error of the API is an output line with its status, what the server said, and our message."""
    server.respond_with(lambda _: response)
    run_jsonl(make(server.url, retry_config=ONCE), write_batch(tmp_path / "in", 1), tmp_path / "out")
    [line] = read_lines(tmp_path / "out")
    assert line["custom_id"] == "r0"
    assert line["response"] == {"status_code": response.status, "request_id": None, "body": body}
    assert line["error"]["code"] == code
    assert "line" not in line["error"]


def test_run_jsonl_refused_connection_has_no_response(tmp_path: Path) -> None:
    """Where there was no response the error line has no response."""
    with ScriptedServer() as server:
        server.tcp.refuse()
        run_jsonl(make(server.url), write_batch(tmp_path / "in", 1), tmp_path / "out")
    [line] = read_lines(tmp_path / "out")
    assert (line["response"], line["error"]["code"]) == (None, "APIConnectionError")


def test_run_jsonl_nan_becomes_null(s: gpt.Gpt, server: ScriptedServer, tmp_path: Path) -> None:
    """NaN and Infinity, which some servers write, become null, since they are not JSON."""
    server.respond_with(lambda _: json_response(b'{"choices": [{"text": "NaN"}], "x": NaN,\n"y": -Infinity}'))
    run_jsonl(s, write_batch(tmp_path / "in", 1), tmp_path / "out")
    [line] = (tmp_path / "out").read_text().splitlines()
    body = json.loads(line, parse_constant=pytest.fail)["response"]["body"]
    assert body == {"choices": [{"text": "NaN"}], "x": None, "y": None}


def test_run_jsonl_gzip_and_byte_order_mark_are_read(s: gpt.Gpt, tmp_path: Path) -> None:
    """Input may be compressed, and may begin with a byte-order mark."""
    text = b"\xef\xbb\xbf" + write_batch(tmp_path / "in", 5).read_bytes()
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(text))
    assert run_jsonl(s, tmp_path / "in.jsonl.gz", tmp_path / "out").answered == 5
    assert ids(tmp_path / "out") == each_once(5)


def test_run_jsonl_damaged_gzip_is_named(s: gpt.Gpt, tmp_path: Path) -> None:
    """A compressed input that was cut off says so, after the responses to what could be read."""
    text = gzip.compress(write_batch(tmp_path / "in", 300).read_bytes())
    (tmp_path / "in.gz").write_bytes(text[:-50])  # cut off
    with pytest.raises(ValueError, match=r"in\.gz: the gzip file is damaged or was cut off"):
        run_jsonl(s, tmp_path / "in.gz", tmp_path / "out")
    assert len(read_lines(tmp_path / "out")) > 10


POISON = {
    "text says Infinity, half a pair": rb'{"choices":[{"text":"Infinity \ud83d","index":0}]}',
    "text says NaN": rb'{"choices":[{"text":"is \"NaN, NaN\"? \\","index":0}],"x":123456789012345678901234567890}',
    "one of two equal keys": b'{"choices":[{"text":"NaN","index":0}],"x":1,"x":2}',
    "huge exponent": b'{"choices":[{"text":"","index":0}],"x":1e999}',
    "line separators": '{"choices":[{"text":"a\u2028b\x85c\\r\\n","index":0}]}'.encode(),
    "as deep as is read": b'{"choices":[],"x":' + b"[" * 199 + b"]" * 199 + b"}",
}


@pytest.mark.parametrize("body", POISON.values(), ids=POISON.keys())
def test_run_jsonl_any_completion_is_written_byte_for_byte(
    s: gpt.Gpt, server: ScriptedServer, tmp_path: Path, body: bytes
) -> None:
    """Whatever JSON a server sends is in the output as it came, and the next run reads that output."""
    server.respond_with(lambda _: ScriptedResponse(200, [("content-type", "application/json")], body))
    path = write_batch(tmp_path / "in", 3)
    run_jsonl(s, path, tmp_path / "out", max_workers=1)
    assert (tmp_path / "out").read_bytes().count(b',"body":' + body + b'},"error":') == 3
    assert run_jsonl(s, path, tmp_path / "out").resumed == 3
    assert len(server.requests) == 3


def test_run_jsonl_completion_too_deep_is_a_failed_line_that_resumes(
    s: gpt.Gpt, server: ScriptedServer, tmp_path: Path
) -> None:
    """A completion nested deeper than is read fails its line, and the next run reads that output all the same."""
    body = b'{"choices":[],"x":' + b"[" * 1022 + b"]" * 1022 + b"}"
    server.respond_with(lambda _: ScriptedResponse(200, [("content-type", "application/json")], body))
    path = write_batch(tmp_path / "in", 3)
    assert run_jsonl(s, path, tmp_path / "out", max_workers=1).failed == 3
    assert run_jsonl(s, path, tmp_path / "out").resumed == 3
    assert len(server.requests) == 3


NOT_QUITE_JSON = {
    "NaN and a large number": (
        b'{"choices":[],"x":NaN,"y":123456789012345678901}',
        b'{"choices":[],"x":null,"y":123456789012345678901}',
    ),
    "mark": (b'\xef\xbb\xbf{"choices":[]}', b'{"choices":[]}'),
    "NaN and half a pair": (
        rb'{"choices":[{"text":"NaN \ud83d"}],"x":[-Infinity,NaN]}',
        rb'{"choices":[{"text":"NaN \ud83d"}],"x":[null,null]}',
    ),
    "line ends": (b'\r\n{"choices":\r\n[],\n"x":"\\n"}\n', b'{"choices":  [], "x":"\\n"}'),
}


@pytest.mark.parametrize(("body", "written"), NOT_QUITE_JSON.values(), ids=NOT_QUITE_JSON.keys())
@pytest.mark.parametrize("status", [200, 400])
def test_run_jsonl_body_that_is_not_strict_json_is_written_as_json(
    server: ScriptedServer, tmp_path: Path, body: bytes, written: bytes, status: int
) -> None:
    """A byte-order mark goes, NaN and infinities become null, line ends become spaces, and nothing else changes."""
    server.respond_with(lambda _: ScriptedResponse(status, [("content-type", "application/json")], body))
    run_jsonl(make(server.url, retry_config=ONCE), write_batch(tmp_path / "in", 1), tmp_path / "out")
    [line] = (tmp_path / "out").read_bytes().split(b"\n")[:-1]
    assert b',"body":' + written + b'},"error":' in line
    json.loads(line, parse_constant=pytest.fail)


@pytest.mark.parametrize("custom_id", ["\ud83d", "é\n", '"\\', "😀", "\x00"])
def test_run_jsonl_any_custom_id_is_known_again(
    s: gpt.Gpt, server: ScriptedServer, tmp_path: Path, custom_id: str
) -> None:
    """A `custom_id` is written and compared exactly, whatever its characters, and however deep the body."""
    deep = b'{"choices":[],"x":' + b"[" * 1022 + b"]" * 1022 + b"}"
    server.respond_with(lambda _: ScriptedResponse(200, [("content-type", "application/json")], deep))
    path = write_lines(tmp_path / "in", [batch_line(name, prompt="x") for name in (custom_id, "?", "\ud83e")])

    run_jsonl(s, path, tmp_path / "out")
    before = (tmp_path / "out").read_bytes()
    assert run_jsonl(s, path, tmp_path / "out").resumed == 3

    assert len(server.requests) == 3
    assert (tmp_path / "out").read_bytes() == before
    beginnings = [line.partition(b',"response"')[0] + b"}" for line in before.splitlines()]
    assert {json.loads(line)["custom_id"] for line in beginnings} == {custom_id, "?", "\ud83e"}


def test_run_jsonl_bare_line_and_equal_custom_id_are_two_lines(
    s: gpt.Gpt, server: ScriptedServer, tmp_path: Path
) -> None:
    """The bare body on line 2 and a line whose `custom_id` is "2" are both sent, once."""
    path = write_lines(tmp_path / "in", [batch_line("2"), {"model": "m", "prompt": "bare"}])
    run_jsonl(s, path, tmp_path / "out")
    assert run_jsonl(s, path, tmp_path / "out").answered == 2
    by_line = {
        line.get("line"): line["response"]["body"]["choices"][0]["text"] for line in read_lines(tmp_path / "out")
    }
    assert by_line == {None: "2", 2: "bare"}
    assert len(server.requests) == 2


@pytest.mark.parametrize("edited", [["new", "a", "b"], ["a", "B"], ["b"]])
def test_run_jsonl_edited_bare_lines_are_refused(
    s: gpt.Gpt, server: ScriptedServer, tmp_path: Path, edited: list[str]
) -> None:
    """Bare lines that have changed are never taken for finished: the run ends and names the line."""
    path, out = tmp_path / "in", tmp_path / "out"
    run_jsonl(s, write_lines(path, [{"model": "m", "prompt": text} for text in "ab"]), out)
    before = out.read_bytes()
    write_lines(path, [{"model": "m", "prompt": text} for text in edited])
    with pytest.raises(ValueError, match=r"line [12] of the input is not the line [12] that .*out was written for"):
        run_jsonl(s, path, out)
    assert out.read_bytes() == before
    assert len(server.requests) == 2


def test_run_jsonl_lines_with_custom_ids_may_move(s: gpt.Gpt, server: ScriptedServer, tmp_path: Path) -> None:
    """Lines with a `custom_id` may change their places, also where there was an invalid line."""
    path, out = tmp_path / "in", tmp_path / "out"
    run_jsonl(s, write_lines(path, [batch_line("a"), b"nonsense", batch_line("b")]), out)
    write_lines(path, [batch_line("c"), batch_line("b"), batch_line("a")])
    assert run_jsonl(s, path, out).answered == 3
    assert len(server.requests) == 3


def test_run_jsonl_appended_and_spaced_bare_lines_go_on(s: gpt.Gpt, server: ScriptedServer, tmp_path: Path) -> None:
    """White space around bare lines, such as Windows line endings, is not an edit, and lines may be appended."""
    path, out = tmp_path / "in", tmp_path / "out"
    path.write_bytes(b'{"model":"m","prompt":"a"}\n{"model":"m","prompt":"b"}')
    run_jsonl(s, path, out)
    path.write_bytes(b'{"model":"m","prompt":"a"}\r\n {"model":"m","prompt":"b"}\r\n{"model":"m","prompt":"c"}\r\n')
    assert run_jsonl(s, path, out).resumed == 2
    assert len(server.requests) == 3


@pytest.mark.parametrize("bad", [[], [b"nonsense"]])
def test_run_jsonl_no_model_anywhere_is_a_usage_error(
    s: gpt.Gpt, server: ScriptedServer, tmp_path: Path, bad: list[bytes]
) -> None:
    """Where no line names a model, nothing is written; with a model the same command goes on."""
    path, out = write_lines(tmp_path / "in", [*bad, *[{"prompt": "x"}] * 1500]), tmp_path / "out"
    with pytest.raises(ValueError, match=r"model: .* name a model for all lines that name none"):
        run_jsonl(s, path, out)
    assert out.read_bytes() == b""
    assert run_jsonl(s, write_lines(path, [*bad, {"prompt": "x"}]), out, model="m").answered == 1


def test_run_jsonl_only_invalid_lines_are_written(s: gpt.Gpt, tmp_path: Path) -> None:
    """An input without a line that can be sent still has an output line for each."""
    assert run_jsonl(s, write_lines(tmp_path / "in", [b"{", [1]]), tmp_path / "out").errors == {"invalid_json_line": 2}
    assert ids(tmp_path / "out") == {"1": 1, "2": 1}


def test_run_jsonl_token_counts_beyond_reason_are_bounded(s: gpt.Gpt, server: ScriptedServer, tmp_path: Path) -> None:
    """A server's token count of 400 digits ends nothing."""
    body = b'{"choices":[],"usage":{"prompt_tokens":%s,"completion_tokens":1,"total_tokens":1}}' % (b"9" * 400)
    server.respond_with(lambda _: ScriptedResponse(200, [("content-type", "application/json")], body))
    assert run_jsonl(s, write_batch(tmp_path / "in", 2), tmp_path / "out").prompt_tokens <= 2**63


def test_run_jsonl_dash_as_output_is_refused(s: gpt.Gpt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of the name `-` is made by mistake."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="output: stdout cannot be continued"):
        run_jsonl(s, write_batch(tmp_path / "in", 1), "-")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_run_jsonl_again_sends_only_what_is_missing(s: gpt.Gpt, server: ScriptedServer, tmp_path: Path) -> None:
    """What is in the output, errors among it, is not sent again; new lines of the input are."""
    server.respond_with(lambda r: json_response({}, 400) if r.json()["prompt"] == "r1" else echo_prompt(r))
    run_jsonl(s, write_batch(tmp_path / "in", 4), tmp_path / "out")

    summary = run_jsonl(s, write_batch(tmp_path / "in", 6), tmp_path / "out")

    assert (summary.answered, summary.failed, summary.resumed) == (5, 1, 4)
    assert ids(tmp_path / "out") == each_once(6)
    assert len(server.requests) == 6


def test_run_jsonl_retry_errors_replaces_failed_lines(s: gpt.Gpt, server: ScriptedServer, tmp_path: Path) -> None:
    """With retry_errors the failed lines, and only those, are sent again and replaced."""
    path = write_lines(tmp_path / "in", [batch_line("r0"), batch_line("r1"), b"bad", batch_line("r3")])
    server.respond_with(lambda r: json_response({}, 400) if r.json()["prompt"] == "r1" else echo_prompt(r))
    assert run_jsonl(s, path, tmp_path / "out").failed == 2
    (tmp_path / "out").chmod(0o640)
    server.respond_with(echo_prompt)
    write_batch(path, 4)

    summary = run_jsonl(s, path, tmp_path / "out", retry_errors=True)

    assert (summary.answered, summary.failed, summary.resumed) == (4, 0, 2)
    assert ids(tmp_path / "out") == each_once(4)
    assert len(server.requests) == 5
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_run_jsonl_progress_is_told_after_every_line(s: gpt.Gpt, tmp_path: Path) -> None:
    """Progress is reported at the start and after every line, and the last report is the summary."""
    run_jsonl(s, write_batch(tmp_path / "in", 2), tmp_path / "out")
    told: list[Summary] = []
    summary = run_jsonl(s, write_batch(tmp_path / "in", 4), tmp_path / "out", progress=told.append)
    assert [(one.answered, one.resumed) for one in told] == [(2, 2), (3, 2), (4, 2)]
    assert told[-1] == summary


def test_run_jsonl_executor_does_the_work(s: gpt.Gpt, tmp_path: Path) -> None:
    """A batch runs on any executor."""
    with ThreadPoolExecutor(2) as executor:
        run_jsonl(s, write_batch(tmp_path / "in", 20), tmp_path / "out", executor=executor)
    assert ids(tmp_path / "out") == each_once(20)


def test_run_jsonl_against_llama_cpp_completes_every_line(local_server: local.Server, tmp_path: Path) -> None:
    """A batch against llama.cpp has a text for every line and counts tokens."""
    with gpt.Gpt(server_url=local_server.url) as s:
        path = write_lines(tmp_path / "in", (batch_line(f"r{i}", prompt="def", max_tokens=4) for i in range(6)))
        summary = bulk.run_jsonl(s, path, tmp_path / "out")
    assert summary.answered == 6
    assert 12 < summary.completion_tokens <= 24
    assert all(line["response"]["body"]["choices"][0]["text"] for line in read_lines(tmp_path / "out"))
