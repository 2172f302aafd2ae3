"""`gpt doctor`: its table, its JSON and its exit code."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpt import local
from tests.support.command import run
from tests.support.http_server import ScriptedServer, json_response


def doctor(*arguments: str) -> Any:
    return run("doctor", *arguments)


def test_doctor_prints_a_table(local_server: local.Server) -> None:
    """Each check has its row, and the options that fit come last; the number of requests goes to stderr."""
    result = doctor("--server-url", local_server.url)
    rows = [line.split() for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert rows[0] == ["tiny", "at", local_server.url]
    assert ["echo", "ignored"] in [row[:2] for row in rows]
    assert rows[-1] == ["batch_size=32", "scoring:", "forced"]
    assert "12 requests" in result.stderr


def test_doctor_json_prints_the_report(local_server: local.Server) -> None:
    """--json prints the report for programs."""
    report = json.loads(doctor("--server-url", local_server.url, "--json", "-m", "tiny").stdout)
    assert report["ok"] is True
    assert {check["name"]: check["result"] for check in report["checks"]}["stream"] == "yes"


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_doctor_of_a_server_that_completes_nothing_exits_with_1(options: tuple[str, ...]) -> None:
    """A server that completes nothing is exit code 1; the table holds its words and none of its escapes or markup."""
    with ScriptedServer() as server:
        server.reply(json_response({"error": {"message": "[bold]down\x1b[2J[/bold]"}}, 503))
        result = doctor("--server-url", server.url, "-m", "m\x1b[2J", *options)
    assert result.exit_code == 1
    assert "[bold]down" in result.stdout
    assert "\x1b" not in result.stdout


def test_doctor_of_a_server_that_is_down_names_no_exception() -> None:
    """The table says what happened in the words of a shell, not of Python."""
    with ScriptedServer() as server:
        url = server.url
    result = doctor("--server-url", url, "-m", "m")
    assert "Connection refused" in result.stdout
    assert "Error" not in result.stdout


def test_doctor_without_model_and_several_listed_is_a_usage_error() -> None:
    """Several models and no --model is a usage error that names them."""
    with ScriptedServer() as server:
        server.reply(json_response({"data": [{"id": "a"}, {"id": "b"}]}))
        result = doctor("--server-url", server.url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "a, b" in result.stderr
