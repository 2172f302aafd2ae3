"""One attempt: what a hook may send, what a failure says, and what the throttle of a run decides."""

from __future__ import annotations

import pickle
import socket
import threading
import time
from typing import Any

import pytest
import requests

import gpt
from gpt._http.transport import Transport
from gpt.completions import Completions
from gpt.hooks import Send
from gpt.models import errors, shared
from gpt.utils import BackoffStrategy, RetryConfig
from tests.support.client import OK, ONCE, create, make, silent_server, text
from tests.support.http_server import Received, ScriptedServer, json_response
from tests.support.proxies import ForwardProxy
from tests.support.raw_server import RawServer, read_request

OWN = pytest.mark.parametrize("own", [True, False], ids=["default session", "caller's session"])


def session(own: bool) -> requests.Session | None:
    """Return the `client=` of a parameter."""
    return None if own else requests.Session()


@OWN
@pytest.mark.parametrize("body", [b"{}", "é", b"", b"x" * 100_000], ids=["shorter", "text", "empty", "longer"])
def test_hook_changing_the_body_sends_its_length(own: bool, body: Any) -> None:
    """The length on the wire is that of the body that goes out; the connection serves the next call."""

    def change(prepared: requests.PreparedRequest, send: Send) -> requests.Response:
        prepared.body = body
        return send(prepared)

    with ScriptedServer() as server, make(server.url, hooks=[change], client=session(own), retry_config=ONCE) as s:
        server.reply(OK, OK)
        create(s)
        sent = server.requests[0].body
        create(s)
        assert server.connections == 1
    assert sent == (body.encode() if isinstance(body, str) else body)


@OWN
def test_hook_sending_a_post_without_body_sends_content_length_zero(own: bool) -> None:
    """A hook may call a token endpoint by a POST without a body, on a new connection and on a used one."""

    def fetch_token(prepared: requests.PreparedRequest, send: Send) -> requests.Response:
        token = requests.Request("POST", str(prepared.url).replace("/completions", "/token")).prepare()
        response = send(token)
        prepared.headers["X-Token"] = response.json()["token"]
        return send(prepared)

    def serve(received: Received) -> Any:
        return json_response({"token": "t-1"}) if received.path.endswith("/token") else OK

    with ScriptedServer() as server, make(server.url, hooks=[fetch_token], client=session(own), timeout=20) as s:
        server.respond_with(serve)
        for _ in range(2):
            create(s)
        assert [(r.path, r.header("x-token"), r.header("content-length")) for r in server.requests[:2]] == [
            ("/v1/token", None, "0"),
            ("/v1/completions", "t-1", "28"),
        ]
        assert server.connections == 1


def test_hook_moving_to_another_host_uses_that_hosts_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxies, and `NO_PROXY`, of the host that is really sent to count."""
    with ForwardProxy() as proxy, ScriptedServer() as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "localhost")

        def move(prepared: requests.PreparedRequest, send: Send) -> requests.Response:
            prepared.url = str(prepared.url).replace("localhost", "127.0.0.1")
            return send(prepared)

        server.reply(OK, OK)
        at_localhost = server.url.replace("127.0.0.1", "localhost")
        with make(at_localhost) as s:
            create(s)
        assert not proxy.requests
        with make(at_localhost, hooks=[move]) as s:
            create(s)
        assert len(proxy.requests) == 1


@pytest.mark.parametrize("status", [102, 103, 199])
def test_interim_response_on_a_callers_session_closes_the_connection(status: int) -> None:
    """What follows an interim response never reaches the next call."""

    served: list[int] = []

    def serve(conn: socket.socket, number: int) -> None:
        read_request(conn)
        served.append(number)
        if len(served) == 1:
            conn.sendall(f"HTTP/1.1 {status} Interim\r\n\r\n".encode())
            time.sleep(0.1)
            late = OK.body.replace(b" ok", b"old")
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(late) + late)
            return
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(OK.body) + OK.body)

    with RawServer(serve) as server, make(server.url, client=requests.Session(), retry_config=ONCE) as s:
        with pytest.raises(errors.APIStatusError):
            create(s)
        assert text(create(s)) == " ok"


@pytest.mark.parametrize("phase", ["connect", "read", "deadline"])
def test_timeout_names_its_phase(phase: str) -> None:
    """`.phase` says what took too long, and survives a pickle."""
    options: dict[str, Any] = {"deadline": 0.2} if phase == "deadline" else {"timeout": 0.2}
    with silent_server() as server, socket.socket() as full:
        url = server.url
        if phase == "connect":
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            waiting = [socket.socket() for _ in range(4)]
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(full.getsockname())
            url = f"http://127.0.0.1:{full.getsockname()[1]}"
        with make(url, retry_config=ONCE, **options) as s, pytest.raises(errors.APITimeoutError) as caught:
            create(s)
        if phase == "connect":
            for each in waiting:
                each.close()
    assert caught.value.phase == phase
    assert pickle.loads(pickle.dumps(caught.value)).phase == phase


def test_timeout_while_sending_is_of_the_phase_send() -> None:
    """A request that the server does not take is said to be that, not a response that was late."""
    large = shared.CreateCompletionRequest(model="m", prompt="x" * 50_000_000)
    with silent_server(lambda _: None) as server:
        s = make(server.url, client=requests.Session(), retry_config=ONCE, timeout=(0.3, 0.3))
        with pytest.raises(errors.APITimeoutError, match="sending the request to") as caught:
            s.completions.create_completion(large)
    assert caught.value.phase == "send"


@OWN
@pytest.mark.parametrize("line", [b"\x1b]52;c;aGk=\x07 KEY", b"HTTP/9.9 \x1b[2J KEY", b"HTTP/1.1 \x1b[31m KEY"])
def test_status_line_with_control_characters_and_the_key_is_printable(own: bool, line: bytes) -> None:
    """What a server puts into a status line neither paints a terminal nor shows the key."""
    key = "sk-nightjar-and-more"

    def serve(conn: socket.socket, _: int) -> None:
        read_request(conn)
        conn.sendall(line.replace(b"KEY", key.encode()) + b"\r\n\r\n")

    security = shared.Security(api_key_auth=key)
    with RawServer(serve) as server:
        s = make(server.url, client=session(own), retry_config=ONCE, security=security)
        with pytest.raises(errors.APIConnectionError) as caught:
            create(s)
    assert caught.value.message.isprintable()
    assert str(caught.value.__cause__).isprintable()
    assert "nightjar" not in caught.value.message + repr(caught.value.__cause__)


@OWN
@pytest.mark.parametrize("proxy", ["socks://me:nightjar@host", "socks6://me:nightjar@host:1", "http://me:nightjar@/"])
def test_proxy_url_of_unusable_form_raises_without_the_password(
    monkeypatch: pytest.MonkeyPatch, own: bool, proxy: str
) -> None:
    """An odd proxy in the environment is a typed error that shows no password."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    s = make("http://host.example/v1", client=session(own), retry_config=ONCE)
    with pytest.raises(errors.APIConnectionError) as caught:
        create(s)
    assert "nightjar" not in caught.value.message + repr(caught.value.__cause__)


def test_adapter_raising_value_error_passes_it_unchanged() -> None:
    """A `ValueError` of the caller's own adapter is the caller's, and stays as it is."""

    class Odd(requests.adapters.HTTPAdapter):
        def send(self, *_: Any, **__: Any) -> requests.Response:
            raise ValueError("mine")

    client = requests.Session()
    client.mount("http://", Odd())
    with make("http://host.example", client=client) as s, pytest.raises(ValueError, match=r"^mine$"):
        create(s)


def test_session_headers_changed_later_are_sent_by_every_call() -> None:
    """A header of the caller's session is read at each call, with or without `http_headers=`."""
    client = requests.Session()
    with ScriptedServer() as server, make(server.url, client=client) as s:
        server.reply(OK, OK, OK, OK)
        create(s)
        client.headers["User-Agent"] = "mine/1"
        create(s)
        create(s, http_headers={"X-A": "b"})
        client.headers["User-Agent"] = "mine/2"
        create(s)
        agents = [received.header("user-agent") or "" for received in server.requests]
    assert agents[0].startswith("gpt-sdk/")
    assert agents[1:] == ["mine/1", "mine/1", "mine/2"]


class Held:
    """A throttle that delays each attempt, and with `take` ends a call that is rate limited."""

    def __init__(self, *, hold: float = 0.0, take: bool = True) -> None:
        self.hold, self.take = hold, take
        self.waits = 0
        self.limits: list[float] = []

    def wait(self) -> None:
        """Delay an attempt."""
        self.waits += 1
        time.sleep(self.hold)

    def pause_for_rate_limit(self, seconds: float) -> bool:
        """Note a limit."""
        self.limits.append(seconds)
        return self.take


def throttled(url: str, throttle: Held, **options: Any) -> Completions:
    """Return the operation of a client with a throttle."""
    return gpt.Gpt.from_configuration(make(url, **options).sdk_configuration, throttle=throttle).completions


def test_throttle_holding_attempts_spends_no_limit_of_the_call() -> None:
    """Neither the deadline nor `max_elapsed_time` runs while the throttle holds an attempt, a retry's too."""
    throttle = Held(hold=0.3)
    backoff = BackoffStrategy(initial_interval=1, max_interval=1, max_elapsed_time=250)
    with ScriptedServer() as server:
        server.reply(json_response({}, 503), json_response({}, 503), OK)
        completions = throttled(server.url, throttle, deadline=0.25, retry_config=RetryConfig(backoff=backoff))
        result = completions.create_completion(shared.CreateCompletionRequest(model="m", prompt="p"))
    assert (result.retries_taken, throttle.waits) == (2, 3)


def test_throttle_taking_over_ends_the_call_with_an_unmarked_response() -> None:
    """The call ends after one attempt, and the response's headers are what the server sent."""
    throttle = Held()
    with ScriptedServer() as server:
        server.reply(json_response({}, 429, headers={"Retry-After": "7", "x-should-retry": "true"}))
        completions = throttled(server.url, throttle)
        with pytest.raises(errors.RateLimitError) as caught:
            completions.create_completion(shared.CreateCompletionRequest(model="m", prompt="p"))
        assert len(server.requests) == 1
    assert throttle.limits == [7.0]
    assert caught.value.headers["x-should-retry"] == "true"
    assert not any("gpt" in name.lower() for name in caught.value.headers)


def test_throttle_leaving_a_limit_to_the_call_lets_it_retry() -> None:
    """Where the run does not take over, and where the server names no wait, the call retries as always."""
    throttle = Held(take=False)
    with ScriptedServer() as server:
        limited = json_response({}, 429, headers={"retry-after-ms": "1"})
        server.reply(limited, json_response({}, 429), OK)
        completions = throttled(server.url, throttle)
        completions.create_completion(shared.CreateCompletionRequest(model="m", prompt="p"))
        assert len(server.requests) == 3
    assert throttle.limits == [0.001]


def test_elapsed_time_of_a_slow_attempt_counts_towards_max_elapsed_time() -> None:
    """No retry begins later than `max_elapsed_time` after the call's start: time already spent counts."""
    begun = threading.Event()

    def slow(prepared: requests.PreparedRequest, send: Send) -> requests.Response:
        begun.set()
        time.sleep(0.3)
        return send(prepared)

    backoff = BackoffStrategy(initial_interval=1, max_interval=1, max_elapsed_time=200)
    with ScriptedServer() as server, make(server.url, hooks=[slow], retry_config=RetryConfig(backoff=backoff)) as s:
        server.reply(json_response({}, 503), OK)
        with pytest.raises(errors.InternalServerError):
            create(s)
        assert len(server.requests) == 1


def test_completions_construction_leaves_its_transport_unchanged() -> None:
    """Making the resource leaves its transport as it was."""
    with ScriptedServer() as server:
        transport = Transport(make(server.url).sdk_configuration)
        before = dict(vars(transport))
        Completions(transport)
        assert vars(transport) == before
