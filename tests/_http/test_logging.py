"""What the logger `gpt` says, and what it never says."""

from __future__ import annotations

import logging
import re
import subprocess
import sys

import pytest

from gpt.models import errors, shared
from tests.support.client import OK, create, make, silent_server, stream_text
from tests.support.http_server import ScriptedServer, json_response, sse_response

LINE = re.compile(r"POST http://127\.0\.0\.1:\d+/v1/completions (\S+) in \d+ ms \(request id (\S+), attempt (\d+)\)")


def ours(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    """Return the messages of our logger at one level."""
    return [record.getMessage() for record in caplog.records if record.name == "gpt" and record.levelno == level]


def test_log_at_info_has_one_line_per_attempt_and_wait(caplog: pytest.LogCaptureFixture) -> None:
    """INFO has method, host and path, status, time, request id and number of each attempt, and the wait between."""
    caplog.set_level(logging.INFO)
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response({}, 503, x_request_id="req-1"), json_response(OK.body, x_request_id="req-2"))
        create(s)
    first, between, second = ours(caplog)
    assert LINE.fullmatch(first).groups() == ("503", "req-1", "1")  # type: ignore[union-attr]
    assert LINE.fullmatch(second).groups() == ("200", "req-2", "2")  # type: ignore[union-attr]
    assert re.fullmatch(r"Retrying request in 0\.00\d s \(retry 1\): http://\S+/v1/completions", between)


def test_log_at_debug_adds_the_sizes(caplog: pytest.LogCaptureFixture) -> None:
    """DEBUG has the number of bytes sent and announced."""
    caplog.set_level(logging.DEBUG, "gpt")
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK, sse_response({"choices": [{"text": "a", "index": 0, "finish_reason": "stop"}]}))
        create(s)
        stream_text(s)
        sent = [len(received.body) for received in server.requests]
    assert ours(caplog, logging.DEBUG) == [
        f"sent {sent[0]} bytes; response of {len(OK.body)} bytes",
        f"sent {sent[1]} bytes; response of unknown bytes",
    ]


def test_log_of_an_attempt_without_a_response_names_the_error_class(caplog: pytest.LogCaptureFixture) -> None:
    """A failed attempt's line names the class of its error; one that the deadline ended has its line, too."""
    caplog.set_level(logging.INFO, "gpt")
    with silent_server() as server, make(server.url, timeout=0.05) as s:
        for options in ({}, {"deadline": 0.05}):
            with pytest.raises(errors.APITimeoutError):
                create(s, **options)
        server.refuse()
        with pytest.raises(errors.APIConnectionError):
            create(s)
    outcomes = [match.group(1) for line in ours(caplog) if (match := LINE.fullmatch(line))]
    assert outcomes == ["APITimeoutError"] * 2 + ["APIConnectionError"] * 3


def test_log_of_a_failed_call_has_nothing_above_info(caplog: pytest.LogCaptureFixture) -> None:
    """Failures are raised, not shouted: no warning and no error is logged by us."""
    caplog.set_level(logging.WARNING)
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response({}, 500))
        with pytest.raises(errors.InternalServerError):
            create(s)
    assert [record for record in caplog.records if record.name.startswith("gpt")] == []


def test_log_of_a_url_leaves_out_userinfo_and_query(caplog: pytest.LogCaptureFixture) -> None:
    """User, password and query of the URL are in no message and no argument of ours."""
    caplog.set_level(logging.DEBUG, "gpt")
    with ScriptedServer() as server:
        url = server.url.replace("://", "://me:hidden@") + "?key=hidden"
        with make(url, security=shared.Security(api_key_auth="hidden"), http_headers={"X-A": "hidden"}) as s:
            server.reply(json_response({"error": "hidden"}, 500), OK)
            create(s, query={"more": "hidden"})
    lines = [f"{record.getMessage()} {record.args} {record.msg}" for record in caplog.records if record.name == "gpt"]
    assert len(lines) == 5
    assert "hidden" not in "".join(lines)


def test_log_configuration_is_untouched_by_import_and_use() -> None:
    """Importing and using the package adds no handler, sets no level and prints nothing."""
    code = (
        "import logging, gpt\n"
        "from gpt.models import errors, shared\n"
        "from gpt.utils import RetryConfig\n"
        "s = gpt.Gpt(server_url='http://127.0.0.1:9/v1', retry_config=RetryConfig('none'))\n"
        "try:\n"
        "    s.completions.create_completion(shared.CreateCompletionRequest(model='m', prompt='p'))\n"
        "except errors.APIConnectionError:\n"
        "    pass\n"
        "assert logging.root.handlers == [] and logging.root.level == logging.WARNING\n"
        "assert logging.getLogger('gpt').handlers == [] and logging.getLogger('gpt').level == logging.NOTSET\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
