"""Our own connections: sending, connecting in time, idle ones, interim responses, and what urllib3 must keep for it."""

from __future__ import annotations

import queue
import socket
import threading
import time
from typing import Any

import pytest
import requests

from gpt._http.connection import IdleConnections
from gpt._http.session import DefaultSession
from gpt.models import errors
from tests.support.client import OK, ONCE, create, make, request, text
from tests.support.http_server import ScriptedServer
from tests.support.raw_server import RawServer, read_request

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(OK.body) + OK.body


# Sending


def test_send_slower_than_the_connect_timeout_succeeds() -> None:
    """A body that takes longer to send than a connection may take to open is sent."""
    read = threading.Event()

    def serve(conn: socket.socket, _: int) -> None:
        server.hold(conn, read, 0.8)
        read_request(conn)
        conn.sendall(RESPONSE)

    with RawServer(serve) as server, make(server.url, timeout=(0.3, 30), retry_config=ONCE) as s:
        response = s.completions.create_completion(request(prompt="x" * 20_000_000))
    assert text(response) == " ok"


@pytest.mark.parametrize("limits", [{"timeout": (5, 0.3)}, {"deadline": 0.3}], ids=["timeout", "deadline"])
def test_send_that_stalls_times_out_in_its_phase(limits: dict[str, Any]) -> None:
    """A server that does not read ends the sending after the read timeout or the deadline, and the error says which."""
    with (
        RawServer(lambda conn, _: server.stall(conn)) as server,
        make(server.url, retry_config=ONCE, **limits) as s,
        pytest.raises(errors.APITimeoutError) as caught,
    ):
        s.completions.create_completion(request(prompt="x" * 30_000_000))
    assert caught.value.phase == ("send" if "timeout" in limits else "deadline")


@pytest.mark.parametrize("size", [10, 60_000, 70_000, 300_000, 5_000_000])
def test_send_bodies_of_all_sizes_arrive_whole(size: int) -> None:
    """Small bodies are sent with their head, large ones in slices; twice on one connection, nothing lost or doubled."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        for _ in range(2):
            s.completions.create_completion(request(prompt="x" * size))
        assert [len(sent.json()["prompt"]) for sent in server.requests] == [size, size]
        assert server.connections == 1


def test_send_of_a_small_request_puts_head_and_body_in_one_segment() -> None:
    """Head and body of a small request arrive together."""
    first: list[bytes] = []

    def serve(conn: socket.socket, _: int) -> None:
        first.append(conn.recv(65536))
        conn.sendall(RESPONSE)

    with RawServer(serve) as server, make(server.url) as s:
        create(s)
    assert first[0].endswith(b"}")


def test_send_of_a_hooks_post_without_body_succeeds_on_new_and_warm_connection() -> None:
    """A hook may send a POST without a body, on a new connection and on a warm one."""

    def refresh(prepared: requests.PreparedRequest, send: Any) -> requests.Response:
        assert prepared.url is not None
        token = requests.Request("POST", prepared.url.replace("/completions", "/token")).prepare()
        assert send(token).content
        return send(prepared)  # type: ignore[no-any-return]

    with ScriptedServer() as server, make(server.url, hooks=[refresh], timeout=(5, 5), retry_config=ONCE) as s:
        server.reply(OK)
        assert [text(create(s)) for _ in range(3)] == [" ok"] * 3
        assert [len(sent.body) > 0 for sent in server.requests] == [False, True] * 3


@pytest.mark.parametrize("own", [True, False], ids=["own", "session"])
def test_send_of_a_body_changed_by_a_hook_has_its_content_length(own: bool) -> None:
    """A hook that changes the body changes `Content-Length` with it, on a caller's session too."""

    def widen(prepared: requests.PreparedRequest, send: Any) -> requests.Response:
        assert isinstance(prepared.body, bytes)
        prepared.body = prepared.body[:-1] + b',"top_k":40}'
        return send(prepared)  # type: ignore[no-any-return]

    session = None if own else requests.Session()
    with ScriptedServer() as server, make(server.url, hooks=[widen], client=session) as s:
        server.reply(OK)
        create(s)
        create(s)
        assert [sent.json()["top_k"] for sent in server.requests] == [40, 40]


# Connecting


def test_deadline_covers_every_address_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several addresses that do not respond share one deadline."""
    # Loopback addresses with a full accept queue swallow what knocks; the resolver's response is the machine's, so this
    # name is given to it through the one place that decides, socket.getaddrinfo.
    full = [_full_listener() for _ in range(3)]
    port = full[0][0].getsockname()[1]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (listener.getsockname()[0], port)) for listener, _ in full]
    plain = socket.getaddrinfo

    def resolve(host: Any, *rest: Any) -> Any:
        return found if host == "many.test" else plain(host, *rest)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    s = make(f"http://many.test:{port}/v1", deadline=0.6, timeout=60, retry_config=ONCE)
    started = time.monotonic()
    with pytest.raises(errors.APITimeoutError) as caught:
        create(s)
    assert caught.value.phase == "deadline"
    assert time.monotonic() - started < 60, "bounded, with all the room that a loaded machine needs"
    for listener, clients in full:
        for sock in (listener, *clients):
            sock.close()


def _full_listener() -> tuple[socket.socket, list[socket.socket]]:
    """Return a listener on an address of its own whose queue is full, and what fills it."""
    number = _full_listener.__dict__.setdefault("count", 0) + 1
    _full_listener.__dict__["count"] = number
    listener = socket.socket()
    listener.bind((f"127.0.7.{number}", 0 if number == 1 else _full_listener.__dict__["port"]))
    _full_listener.__dict__["port"] = listener.getsockname()[1]
    listener.listen(0)
    clients = []
    for _ in range(4):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
        clients.append(client)
    return listener, clients


def test_connection_by_https_to_a_plain_port_fails_once_and_names_the_cause() -> None:
    """A server of plain HTTP that waits for a request line ends one handshake, and the message says what is wrong."""

    def serve(conn: socket.socket, _: int) -> None:
        data = conn.recv(65536)
        while data and not data.endswith(b"\r\n\r\n"):
            data = conn.recv(65536)
        if data:
            conn.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

    with RawServer(serve) as server, make(server.url.replace("http:", "https:"), timeout=(0.3, 30)) as s:
        with pytest.raises(errors.APIConnectionError, match="no TLS is spoken there, use an http:// URL"):
            create(s)
        assert server.connections == 2, "the handshake and the plain question"


def test_proxy_manager_asked_by_many_threads_is_made_once() -> None:
    """The first use of a proxy by many threads gives all of them the same manager, with our pools."""
    for _ in range(50):
        adapter: Any = DefaultSession().get_adapter("http://x")
        barrier = threading.Barrier(8)
        found: list[Any] = []

        def look(adapter: Any = adapter, barrier: Any = barrier, found: list[Any] = found) -> None:
            barrier.wait()
            found.append(adapter.proxy_manager_for("http://127.0.0.1:3128"))

        threads = [threading.Thread(target=look) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(manager) for manager in found}) == 1
        assert len(found) == 8


# Idle connections


class Idle:
    """The least that a pool keeps."""

    idle_since = 0.0
    closed = False

    def close(self) -> None:
        self.closed = True


def test_idle_connections_older_than_the_limit_are_closed() -> None:
    """What was idle for more than 4 s is closed before it is used, and at the next return at the latest."""
    idle, old, older, fresh = IdleConnections(), Idle(), Idle(), Idle()
    idle.put(older)
    idle.put(old)
    for each in (older, old):
        each.idle_since -= 4.1
    assert idle.get() is old
    assert old.closed
    assert not older.closed
    idle.put(fresh)
    assert (older.closed, fresh.closed, idle.qsize()) == (True, False, 1)


def test_idle_connections_put_after_close_are_closed() -> None:
    """What comes back to a closed pool is closed."""
    idle, one, two = IdleConnections(), Idle(), Idle()
    idle.put(one)
    idle.close()
    idle.put(two)
    idle.put(None)
    assert (one.closed, two.closed) == (True, True)
    with pytest.raises(queue.Empty):
        idle.get()


def test_connection_idle_for_too_long_is_not_reused() -> None:
    """A call after a long pause opens a connection, rather than cross the server's goodbye on the old one."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        create(s)
        adapter: Any = s._transport.session.get_adapter(server.url)
        (pool,) = {id(pool): pool for pool in adapter._pools.values()}.values()
        pool.pool._stack[-1].idle_since -= 4.1
        create(s)
        create(s)
        assert [sent.connection for sent in server.requests] == [1, 2, 2]
