"""What tracebacks with locals, messages and our log show of secrets and of what servers write into headers."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

import gpt
from gpt.models import errors, shared
from tests.support.client import COMPLETION, create, make, stream_text
from tests.support.http_server import ScriptedResponse, ScriptedServer, json_response, sse_response


@pytest.mark.parametrize("options", [{"timeout": 0}, {"hooks": 3}, {"http_headers": 5}, {"server_url": b"x"}], ids=str)
def test_traceback_of_a_refused_client_option_shows_no_environment_key(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """A traceback with locals of a client that could not be made is printed, without the environment's key."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    with pytest.raises((TypeError, ValueError)) as caught:
        gpt.Gpt(**options)
    frames = traceback.StackSummary.extract(traceback.walk_tb(caught.value.__traceback__), capture_locals=True)
    assert [frame.name for frame in frames if "hidden" in str(frame.locals)] == []


def test_traceback_of_a_refused_environment_key_shows_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same when it is the key itself that is refused."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk\x07hidden")
    with pytest.raises(ValueError, match="OPENAI_API_KEY") as caught:
        gpt.Gpt()
    frames = traceback.StackSummary.extract(traceback.walk_tb(caught.value.__traceback__), capture_locals=True)
    rendered = [name for frame in frames[1:] for name, value in (frame.locals or {}).items() if "hidden" in value]
    assert rendered == []


def test_server_url_with_unsendable_userinfo_raises_without_showing_it() -> None:
    """User and password of a URL are checked with it, by name, and not shown."""
    with pytest.raises(ValueError, match=r"^server_url: its user or password has") as caught:
        gpt.Gpt(server_url="http://me:%D1%85idden@localhost:1/v1")
    assert "idden" not in repr(caught.value)


@pytest.mark.parametrize("header", ["Authorization", "api-key"])
@pytest.mark.parametrize(
    "response",
    [
        json_response({"error": {"message": "Incorrect API key provided: sk-hidden"}}),
        json_response({"error": {"message": "m", "code": "sk-hidden"}}),
        json_response(b"<p>sk-hidden</p>"),
        sse_response({"error": {"message": "Incorrect API key provided: sk-hidden"}}),
        sse_response(b"data: sk-hidden\n\n"),
    ],
    ids=["error", "code", "page", "event", "no event"],
)
def test_key_echoed_in_a_success_response_is_masked_in_the_error_message(
    response: ScriptedResponse, header: str
) -> None:
    """A response of success that repeats the key does not get it into our message, either."""
    key = shared.Security(api_key_auth="sk-hidden", header=header)
    with ScriptedServer() as server, make(server.url, security=key) as s:
        server.reply(response)
        with pytest.raises(errors.SDKError, match=r"\*\*\*") as caught:
            stream_text(s) if "event-stream" in str(response.headers) else create(s)
    assert "hidden" not in str(caught.value)


def test_request_id_with_control_characters_is_logged_printable_and_short(caplog: pytest.LogCaptureFixture) -> None:
    """What a server puts into its header is one short printable word in our log, too."""
    caplog.set_level("INFO", "gpt")
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response(COMPLETION, x_request_id="a\x9b31m" + "b" * 500))
        create(s)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "gpt"]
    assert line.isprintable()
    assert len(line) < 250


@pytest.mark.parametrize("options", [{"timeout": 0}, {"deadline": 0}, {"retries": None}, {"http_headers": 5}], ids=str)
def test_traceback_of_a_refused_call_option_shows_no_password(options: dict[str, Any]) -> None:
    """A traceback with locals of a call that could not begin has no part of the server's address."""
    with make("http://me:hidden@127.0.0.1:9/v1?key=hidden") as s, pytest.raises((TypeError, ValueError)) as caught:
        create(s, **options)
    frames = traceback.StackSummary.extract(traceback.walk_tb(caught.value.__traceback__), capture_locals=True)
    assert [frame.name for frame in frames if "hidden" in str(frame.locals)] == []
