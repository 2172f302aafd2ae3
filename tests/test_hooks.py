"""Hooks: functions around each attempt."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from gpt.hooks import Hook, Send
from gpt.models import errors, shared
from tests.support.client import COMPLETION, OK, create, make, request, stream_text, text
from tests.support.http_server import ScriptedServer, json_response, sse_response

CHUNK = {"choices": [{"text": "a", "index": 0, "finish_reason": "stop"}]}


def tagging(name: str, log: list[str]) -> Hook:
    """Make a hook that writes down when it is entered and left."""

    def hook(prepared: requests.PreparedRequest, send: Send) -> requests.Response:
        log.append(f"{name} in")
        response = send(prepared)
        log.append(f"{name} out {response.status_code}")
        return response

    return hook


def make_response(
    body: bytes = OK.body, status: int = 200, content_type: str = "application/json"
) -> requests.Response:
    """Make a response without a network."""
    response = requests.Response()
    response.status_code = status
    response._content = body
    response.headers["Content-Type"] = content_type
    return response


def test_hooks_given_in_order_run_first_outermost_in_each_attempt() -> None:
    """The first hook is outermost, and each attempt runs them all."""
    log: list[str] = []
    with ScriptedServer() as server, make(server.url, hooks=[tagging("a", log), tagging("b", log)]) as s:
        server.reply(json_response({}, 503), OK)
        assert create(s).retries_taken == 1
    assert log == ["a in", "b in", "b out 503", "a out 503", "a in", "b in", "b out 200", "a out 200"]


@pytest.mark.parametrize("own", [True, False])
def test_hook_receives_the_request_as_sent(own: bool) -> None:
    """Method, URL, headers with the key, and the body as bytes."""
    seen: list[requests.PreparedRequest] = []

    def look(prepared: requests.PreparedRequest, send: Send) -> requests.Response:
        seen.append(prepared)
        return send(prepared)

    client = None if own else requests.Session()
    options: dict[str, Any] = {"security": shared.Security(api_key_auth="k"), "client": client}
    with ScriptedServer() as server, make(server.url, hooks=[look], **options) as s:
        server.reply(OK)
        create(s, http_headers={"X-A": "b"}, query={"c": "d"})
        prepared, sent = seen[0], server.requests[0]
    assert (prepared.method, prepared.url) == ("POST", f"{server.url}/completions?c=d")
    assert prepared.headers["authorization"] == "Bearer k"
    assert prepared.headers["x-a"] == "b"
    assert prepared.body == sent.body == b'{"model":"m","prompt":"Say"}'


@pytest.mark.parametrize("own", [True, False])
def test_hook_changing_the_request_affects_only_its_own_attempt(own: bool) -> None:
    """What a hook does to a request reaches the wire, and neither the next attempt nor the next call."""

    def sign(prepared: requests.PreparedRequest, send: Send) -> requests.Response:
        assert "X-Signed" not in prepared.headers
        prepared.headers["X-Signed"] = str(len(bytes(prepared.body)) if isinstance(prepared.body, bytes) else 0)
        prepared.url = f"{prepared.url}?signed=1"
        return send(prepared)

    with ScriptedServer() as server, make(server.url, hooks=[sign], client=None if own else requests.Session()) as s:
        server.reply(json_response({}, 500), OK)
        create(s)
        create(s)
        assert {(sent.header("x-signed"), sent.path) for sent in server.requests} == {
            ("28", "/v1/completions?signed=1")
        }
        assert len(server.requests) == 3


def test_hook_changing_the_url_sends_to_another_server() -> None:
    """A request that a hook turned round goes where it says."""
    with ScriptedServer() as home, ScriptedServer() as away:
        away.reply(OK)

        def turn(prepared: requests.PreparedRequest, send: Send) -> requests.Response:
            prepared.url = f"{away.url}/elsewhere"
            return send(prepared)

        with make(home.url, hooks=[turn]) as s:
            assert text(create(s)) == " ok"
        assert (home.requests, away.requests[0].path) == ([], "/v1/elsewhere")


def test_hook_responding_itself_sends_nothing() -> None:
    """A cache or a test double returns a response of its own, plain, streamed or an error."""
    responses = iter(
        [
            make_response(),
            make_response(b'{"error": "no"}', 418),
            make_response(b"data: {oops\n\n", content_type="text/event-stream"),
        ]
    )
    s = make("http://nowhere.invalid/v1", hooks=[lambda prepared, send: next(responses)])
    got = create(s)
    assert text(got) == " ok"
    assert (got.status_code, got.content_type, got.request_id, got.retries_taken) == (200, "application/json", None, 0)
    with pytest.raises(errors.APIStatusError, match="418"):
        create(s)
    with pytest.raises(errors.ResponseValidationError, match="not JSON"):
        stream_text(s)


def test_hook_responding_with_events_gives_a_stream() -> None:
    """A response with a ready body streams like one from a server."""
    event = b'data: {"choices":[{"text":"%b","index":0,"finish_reason":"stop"}]}\r\n\r\n'
    body = event % b"a" + event % b"b" + b"data: [DONE]\r\n\r\n"
    s = make("http://nowhere.invalid/v1", hooks=[lambda prepared, send: make_response(body, 200, "text/event-stream")])
    assert stream_text(s) == "ab"


def test_hook_responding_with_a_retryable_status_is_retried() -> None:
    """A status is a status, whoever made it."""
    statuses = iter([503, 429, 200])
    s = make("http://nowhere.invalid/v1", hooks=[lambda prepared, send: make_response(status=next(statuses))])
    assert create(s).retries_taken == 2


def test_hook_sending_twice_makes_two_requests() -> None:
    """A hook with a retry of its own sends what it likes."""

    def twice(prepared: requests.PreparedRequest, send: Send) -> requests.Response:
        send(prepared).close()
        return send(prepared)

    with ScriptedServer() as server, make(server.url, hooks=[twice]) as s:
        server.reply(json_response({}, 400), OK)
        assert create(s).retries_taken == 0
        assert len(server.requests) == 2


def test_hook_reading_only_the_head_leaves_the_stream_unread() -> None:
    """A hook that only looks at the head of a response does not hold the stream back."""
    log: list[str] = []
    with ScriptedServer() as server, make(server.url, hooks=[tagging("a", log)]) as s:
        server.reply(sse_response(CHUNK))
        stream = s.completions.stream_completion(request())
        assert log == ["a in", "a out 200"]
        assert [chunk.choices[0].text for chunk in stream] == ["a"]


@pytest.mark.parametrize("streamed", [False, True])
def test_hook_reading_the_body_leaves_it_readable(streamed: bool) -> None:
    """A hook that reads `response.content` leaves it readable for us, in streams as well."""
    bodies: list[bytes] = []

    def read(prepared: requests.PreparedRequest, send: Send) -> requests.Response:
        response = send(prepared)
        bodies.append(response.content)
        return response

    with ScriptedServer() as server, make(server.url, hooks=[read]) as s:
        server.reply(sse_response(CHUNK) if streamed else OK)
        assert (stream_text(s) if streamed else text(create(s))) == ("a" if streamed else " ok")
        assert len(bodies[0]) > 10


@pytest.mark.parametrize(
    "error", [LookupError("mine"), requests.ConnectionError("mine"), TimeoutError("mine"), KeyboardInterrupt()]
)
def test_hook_raising_any_exception_passes_it_unchanged(error: BaseException) -> None:
    """What a hook raises is what the caller gets, the same object, once, whatever its class."""
    calls: list[int] = []

    def fail(prepared: requests.PreparedRequest, send: Send) -> requests.Response:
        calls.append(1)
        raise error

    s = make("http://nowhere.invalid/v1", hooks=[fail])
    with pytest.raises(type(error)) as caught:
        create(s)
    assert caught.value is error
    assert calls == [1]


def test_hook_raising_an_sdk_error_passes_it_unretried() -> None:
    """One of our classes, made by a hook, is not retried."""
    mine = errors.APIConnectionError("circuit open")
    calls: list[int] = []

    def fail(prepared: requests.PreparedRequest, send: Send) -> requests.Response:
        calls.append(1)
        raise mine

    with pytest.raises(errors.APIConnectionError, match="circuit open") as caught:
        create(make("http://nowhere.invalid/v1", hooks=[fail]))
    assert caught.value is mine
    assert calls == [1]


def test_hook_catching_a_send_error_may_respond_instead() -> None:
    """A failed `send` raises our class inside the hook, which may respond instead."""

    def fall_back(prepared: requests.PreparedRequest, send: Send) -> requests.Response:
        with pytest.raises(errors.APIConnectionError, match="no response from"):
            send(prepared)
        return make_response()

    assert text(create(make("http://127.0.0.1:9/v1", hooks=[fall_back]))) == " ok"


@pytest.mark.parametrize("wrong", [None, "text", COMPLETION, 200])
def test_hook_returning_no_response_raises_type_error_naming_it(wrong: Any) -> None:
    """The message names the hook and what it returned."""

    def forgetful(prepared: requests.PreparedRequest, send: Send) -> requests.Response:
        return wrong  # type: ignore[no-any-return]

    with pytest.raises(TypeError, match=f"hook forgetful: expected a requests.Response .* got {type(wrong).__name__}"):
        create(make("http://nowhere.invalid/v1", hooks=[forgetful]))


def test_hook_given_as_a_callable_object_runs_for_every_call() -> None:
    """Anything callable is a hook; a generator of hooks is read once."""

    class Counting:
        def __init__(self) -> None:
            self.calls = 0

        def __call__(self, prepared: requests.PreparedRequest, send: Send) -> requests.Response:
            self.calls += 1
            return send(prepared)

    hook = Counting()
    with ScriptedServer() as server, make(server.url, hooks=(each for each in [hook])) as s:
        server.reply(OK)
        create(s)
        create(s)
        assert s.sdk_configuration.hooks == (hook,)
    assert hook.calls == 2


def test_hook_responding_without_status_or_body_raises() -> None:
    """A response without a status is the hook's mistake and named; one without a body is a typed error."""
    s = make("http://nowhere.invalid/v1", hooks=[lambda prepared, send: requests.Response()])
    with pytest.raises(TypeError, match="hook <lambda>: the response that it returned has no status_code"):
        create(s)
    for status in (200, 400):
        s = make("http://nowhere.invalid/v1", hooks=[lambda prepared, send, status=status: make_response(b"", status)])
        with pytest.raises(errors.SDKError):
            create(s)


def test_hook_responding_beyond_max_response_bytes_raises() -> None:
    """A response without a network is bounded by `max_response_bytes` in streams, too."""
    body = b": " + b"x" * 5000 + b"\n\ndata: [DONE]\n\n"
    hook = [lambda prepared, send: make_response(body, 200, "text/event-stream")]
    with pytest.raises(errors.ResponseValidationError, match="larger than 1000 bytes"):
        stream_text(make("http://nowhere.invalid/v1", hooks=hook, max_response_bytes=1000))
