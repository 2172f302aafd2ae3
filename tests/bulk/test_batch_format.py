"""Lines of batch files: what is known of one before it is parsed, and the ids of output lines."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from gpt.bulk import run_jsonl
from gpt.bulk.batch_format import RequestLine, format_response, leading_id
from gpt.bulk.worker import Reply
from tests.support.batch import batch_line, echo_prompt, read_lines, write_lines
from tests.support.client import make
from tests.support.http_server import ScriptedServer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"custom_id": "a", "body": {}}', b"a"),
        (b'{"custom_id":"\xc3\xa9"}', "é".encode()),
        (b'{"custom_id": "a"', None),
        (b'{"custom_id": "a\\u0062"}', None),
        (b'{"custom_id": "a", "custom_id": "b"}', None),
        (b'{"custom_id": ""}', None),
        (b'{"custom_id": 1}', None),
        (b'{"body": {}, "custom_id": "a"}', None),
    ],
)
def test_leading_id_that_could_be_wrong_is_none(text: bytes, expected: bytes | None) -> None:
    """An id is read without parsing only from a whole line that has it first, once and without escapes."""
    assert leading_id(text) == expected


def test_run_jsonl_finished_lines_are_not_parsed(tmp_path: Path) -> None:
    """A line whose id is in the output is passed over by its id alone, whatever has become of the rest of it."""
    path, out = write_lines(tmp_path / "in", [batch_line("a"), batch_line("b")]), tmp_path / "out"
    with ScriptedServer() as server:
        server.respond_with(echo_prompt)
        run_jsonl(make(server.url), path, out)
        write_lines(path, [b'{"custom_id": "a", no JSON}', batch_line("b"), batch_line("c")])
        summary = run_jsonl(make(server.url), path, out)
    assert (summary.answered, summary.failed, summary.resumed) == (3, 0, 2)
    assert [line["custom_id"] for line in read_lines(out)][-1] == "c"


def _line_ids(count: int) -> set[str]:
    lines = (format_response(RequestLine(1, "a"), Reply(body=b"{}", status_code=200)) for _ in range(count))
    return {json.loads(line)["id"] for line in lines}


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_format_response_ids_differ_after_a_fork() -> None:
    """No two output lines have one id, those of a forked child's among them."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        theirs = pool.apply(_line_ids, (100,))
    assert len(theirs | _line_ids(100)) == 200
