"""No secret in a log, `repr`, message, cause, traceback or pickle, on any path a call can take.

Each secret is a word of its own, so that a failing test says which one got out. The logger `gpt` is held to silence;
urllib3's own DEBUG lines show a request's path and query, which is urllib3's business and documented.
"""

from __future__ import annotations

import base64
import logging
import pickle
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests

import gpt
from gpt.models import errors, operations, shared
from tests.support.client import COMPLETION, OK, QUICK, make, silent_server
from tests.support.http_server import ScriptedResponse, ScriptedServer, json_response, sse_response
from tests.support.raw_server import RawServer, read_request, reset

KEY, HEADER, QUERY, USERINFO, PROMPT, EXTRA, PROXY, CALL = (
    "sk-wagtail-key",
    "plover-header",
    "dunlin-query",
    "bittern-userinfo",
    "whimbrel-prompt",
    "avocet-extra",
    "knot-proxy",
    "sanderling-call",
)
SECRETS = (KEY, HEADER, QUERY, USERINFO, PROMPT, EXTRA, PROXY, CALL)
CHUNK = {"choices": [{"text": "a", "index": 0, "finish_reason": None}]}


def leaks(text: str) -> list[str]:
    """Name the secrets that a text shows, also in the URL's and HTTP's own spellings."""
    spelled = {secret: (secret, secret.replace("-", "%2D"), _basic(secret)) for secret in SECRETS}
    return [secret for secret, forms in spelled.items() if any(form in text for form in forms)]


def _basic(secret: str) -> str:
    return base64.b64encode(f"me:{secret}".encode()).decode()


def everything_said(records: list[logging.LogRecord]) -> str:
    """Return all that the records of our logger hold."""
    return "\n".join(
        f"{r.getMessage()} {r.msg} {r.args} {r.exc_info} {r.exc_text} {vars(r)}"
        for r in records
        if r.name.startswith("gpt")
    )


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that hangs on it."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        current = waiting.pop()
        if current is not None and id(current) not in seen:
            seen.add(id(current))
            yield current
            waiting += [current.__cause__, current.__context__]


def said_by(error: BaseException) -> str:
    """Return everything that printing, formatting or pickling an error may show."""
    parts = [f"{e} {e!r} {e.args}" for e in chain_of(error)]
    parts += traceback.format_exception(error)
    parts += traceback.TracebackException.from_exception(error).format(chain=True)
    if isinstance(error, errors.SDKError):
        parts.append(repr(pickle.dumps(error)))
        parts.append(repr(vars(pickle.loads(pickle.dumps(error)))))
    return "\n".join(parts)


def serve_reset(conn: socket.socket, _: int) -> None:
    """Reset each connection after its request."""
    read_request(conn)
    reset(conn)


def serve_garbage(conn: socket.socket, _: int) -> None:
    """Respond with what is not HTTP."""
    read_request(conn)
    conn.sendall(b"SSH-2.0\r\n")


def serve_long_line(conn: socket.socket, _: int) -> None:
    """Respond with a header that is too long."""
    read_request(conn)
    conn.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n")


RESPONSES: dict[str, ScriptedResponse] = {
    "400": json_response({"error": {"message": "bad", "param": "p"}}, 400),
    "401 that repeats the key": json_response({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401),
    "error in a 200 that repeats the key": json_response({"error": {"message": f"bad key {KEY}"}}),
    "no completion that repeats the key": json_response({"note": f"your key is {KEY}"}),
    "stream with an error that repeats the key": sse_response(CHUNK, {"error": {"message": f"bad key {KEY}"}}),
    "403 that repeats a header": json_response({"error": f"your token {HEADER} is bad"}, 403),
    "429": json_response({}, 429, retry_after="0.001"),
    "500 as HTML": ScriptedResponse(500, [("content-type", "text/html")], b"<title>down</title>"),
    "redirect": ScriptedResponse(307, [("location", f"http://me:{USERINFO}@127.0.0.1:1/v1?key={QUERY}")]),
    "cookie": ScriptedResponse(400, [("set-cookie", f"sid={HEADER}")]),
    "not JSON": json_response(b"<html>"),
    "chat": json_response({"choices": [{"message": {}}]}),
    "error in a 200": json_response({"error": {"message": "inside", "code": 502}}),
    "cut": json_response(COMPLETION, cut=True),
    "bad gzip": ScriptedResponse(200, [("content-encoding", "gzip")], b"nope"),
    "bad stream": sse_response(CHUNK, b"data: {oops\n\n"),
    "cut stream": sse_response(CHUNK, cut=True),
    "stream with an error": sse_response(CHUNK, {"error": {"message": "inside"}}),
    "stream without an end": sse_response(CHUNK, done=False),
}
SERVERS: dict[str, Callable[[], RawServer]] = {
    "reset": lambda: RawServer(serve_reset),
    "garbage": lambda: RawServer(serve_garbage),
    "long header": lambda: RawServer(serve_long_line),
    "silence": silent_server,
}


def secretive(url: str, **options: Any) -> gpt.Gpt:
    """Make a client with a secret in everything that can hold one."""
    url = url.replace("://", f"://me:{USERINFO}@") + f"?api-key={QUERY}"
    settings = {"security": shared.Security(api_key_auth=KEY), "http_headers": {"X-Token": HEADER}, "timeout": (5, 0.2)}
    return make(url, **{**settings, **options})


def _finish(response: operations.CreateCompletionResponse) -> None:
    assert response.completion_stream is not None
    response.completion_stream.collect()


def failing_call(s: gpt.Gpt, stream: bool) -> BaseException:
    """Make a call with a secret in everything that can hold one, and give its error."""
    body = shared.CreateCompletionRequest(
        model="m", prompt=PROMPT, stream=stream, additional_properties={"note": EXTRA}
    )
    with pytest.raises(errors.SDKError) as caught:
        _finish(s.completions.create_completion(body, http_headers={"X-Call": CALL}, query={"call": CALL}))
    return caught.value


@pytest.mark.parametrize("own", [True, False], ids=["own", "session"])
@pytest.mark.parametrize("name", [*RESPONSES, *SERVERS, "refused"])
def test_failure_of_every_kind_shows_no_secrets(name: str, own: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Error, causes, traceback, pickle and our log of every kind of failure are free of secrets."""
    caplog.set_level(logging.DEBUG)
    with ExitStack() as stack:
        if name in SERVERS or name == "refused":
            server: Any = stack.enter_context(SERVERS.get(name, silent_server)())
            if name == "refused":
                server.refuse()
        else:
            server = stack.enter_context(ScriptedServer())
            server.reply(RESPONSES[name])
        session = None if own else stack.enter_context(requests.Session())
        s = stack.enter_context(secretive(server.url, client=session))
        error = failing_call(s, stream="stream" in name)
    assert leaks(said_by(error)) == []
    assert leaks(everything_said(caplog.records)) == []
    assert [record for record in caplog.records if record.name == "gpt"] != []


@pytest.mark.parametrize("kind", ["tls", "tunnel refused", "proxy refused", "proxy URL"])
def test_failure_of_proxy_or_tls_shows_no_secrets(
    kind: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failures below HTTP, with a password in the proxy's URL, are free of secrets as well."""
    caplog.set_level(logging.DEBUG)

    def refuse(conn: socket.socket, _: int) -> None:
        read_request(conn)
        conn.sendall(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")

    with ExitStack() as stack:
        server = stack.enter_context(ScriptedServer(tls=True))
        proxy = stack.enter_context(RawServer(refuse))
        place = {"proxy refused": "127.0.0.1:9", "proxy URL": "127.0.0.1:port"}.get(kind, f"127.0.0.1:{proxy.port}")
        if kind != "tls":
            monkeypatch.setenv("HTTPS_PROXY", f"http://me:{PROXY}@{place}")
        error = failing_call(stack.enter_context(secretive(server.url)), stream=False)
    assert leaks(said_by(error)) == []
    assert leaks(everything_said(caplog.records)) == []


def test_response_and_log_of_a_good_call_show_no_secrets(caplog: pytest.LogCaptureFixture) -> None:
    """Client, configuration, wrapper, stream and request id of a good call are free of secrets but for the models."""
    caplog.set_level(logging.DEBUG)
    with ScriptedServer() as server, secretive(server.url) as s:
        server.reply(json_response({}, 503), OK, sse_response(COMPLETION))
        plain = shared.CreateCompletionRequest(model="m", prompt=PROMPT)
        response = s.completions.create_completion(plain)
        stream = s.completions.stream_completion(plain)
        rendered = (
            f"{[s, s.sdk_configuration, s.completions, s._transport, response, stream]} {pickle.dumps(response)!r}"
        )
        stream.collect()
    assert leaks(rendered) == []
    assert leaks(everything_said(caplog.records)) == []


def test_traceback_with_locals_of_a_failed_call_shows_no_key() -> None:
    """Tools that print the locals of our frames show no key, header or query."""
    with ScriptedServer() as server, secretive(server.url) as s:
        server.reply(json_response({}, 400))
        error = failing_call(s, stream=False)
    summary = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), capture_locals=True)
    inside = [frame for frame in summary if "/gpt/" in frame.filename]
    assert inside
    found = {
        name
        for frame in inside
        for name, value in (frame.locals or {}).items()
        if set(leaks(value)) - {PROMPT, EXTRA, CALL}
    }
    assert found == set()


@pytest.mark.parametrize("what", ["security", "http_headers", "server_url"])
def test_option_with_a_bad_value_raises_without_showing_it(what: str) -> None:
    """A bad value in an option is described, not repeated."""
    bad: dict[str, Any] = {
        "security": shared.Security(api_key_auth=f"{KEY}\n{KEY}"),
        "http_headers": {"X-Token": f"{HEADER}\n"},
        "server_url": f"http://me:{USERINFO}/x@host:port/v1?key={QUERY}",
    }
    with pytest.raises(ValueError) as caught:
        gpt.Gpt(**{what: bad[what]})
    assert leaks(said_by(caught.value)) == []


def test_log_of_urllib3_shows_only_path_and_query(caplog: pytest.LogCaptureFixture) -> None:
    """urllib3's DEBUG lines show path and query, never headers or bodies: what the guide tells people is true."""
    caplog.set_level(logging.DEBUG)
    with ScriptedServer() as server, secretive(server.url, retry_config=QUICK) as s:
        server.reply(OK)
        s.completions.create_completion(
            shared.CreateCompletionRequest(model="m", prompt=PROMPT), http_headers={"X-Call": CALL}
        )
    lines = " ".join(record.getMessage() for record in caplog.records if record.name.startswith("urllib3"))
    assert leaks(lines) == [QUERY]
