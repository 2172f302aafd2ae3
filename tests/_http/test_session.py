"""Our own session: its pools, found by URL, and how many of them and of their connections it keeps."""

from __future__ import annotations

import os
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.client import COMPLETION, OK, chunk, create, make, request, text
from tests.support.http_server import Received, ScriptedResponse, ScriptedServer, json_response, sse_response
from tests.support.raw_server import RawServer, read_request

MOST_POOLS = 64 + 32
"""What urllib3's manager keeps, and what our table of URLs may hold beside it."""

many_addresses = pytest.mark.skipif(sys.platform != "linux", reason="only Linux responds on all of 127.0.0.0/8")


class Everywhere:
    """A server on all addresses of this machine, of which Linux has as many as one likes."""

    def __init__(self) -> None:
        self.server = RawServer(self._serve, host="0.0.0.0")

    def _serve(self, conn: socket.socket, _: int) -> None:
        while read_request(conn):
            body = b'{"choices":[{"text":"%b","index":0}]}' % conn.getsockname()[0].encode()
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def url(self, number: int) -> str:
        return f"http://{self.address(number)}:{self.server.port}/v1"

    @staticmethod
    def address(number: int) -> str:
        return f"127.0.1.{number + 1}"


@many_addresses
def test_session_of_many_hosts_keeps_a_bounded_number_of_connections() -> None:
    """A client that meets 200 hosts keeps the connections of the latest only, and each host responds for itself."""
    everywhere = Everywhere()
    with everywhere.server as server, make(everywhere.url(0)) as s:
        for number in [*range(200), *range(200)]:
            assert text(create(s, server_url=everywhere.url(number))) == everywhere.address(number)
        server.wait_for(lambda: server.open_connections <= MOST_POOLS, f"{server.open_connections} are open")


@many_addresses
def test_session_with_evicted_pools_gives_each_thread_its_own_response() -> None:
    """Threads that evict each other's pools all the time get their own responses, and none fails."""
    everywhere = Everywhere()
    with everywhere.server, make(everywhere.url(0)) as s:

        def call(number: int) -> bool:
            return text(create(s, server_url=everywhere.url(number % 150))) == everywhere.address(number % 150)

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(call, range(900)))


def test_session_closed_while_calls_run_disturbs_none() -> None:
    """Calls in flight when the client is closed end well, later ones too, and their connections are not kept."""
    arrived, gate = threading.Barrier(9), threading.Event()

    def hold(_: Received) -> ScriptedResponse:
        arrived.wait(10)
        gate.wait(10)
        return OK

    with ScriptedServer() as server, make(server.url) as s, ThreadPoolExecutor(8) as threads:
        server.respond_with(hold)
        calls = [threads.submit(create, s) for _ in range(8)]
        arrived.wait(10)
        s.close()
        gate.set()
        assert [text(call.result()) for call in calls] == [" ok"] * 8
        server.wait_open(0)
        server.respond_with(lambda _: OK)
        assert [text(create(s)) for _ in range(2)] == [" ok"] * 2
        assert server.connections == 9


def test_session_url_with_a_query_of_its_own_is_sent_as_it_is() -> None:
    """Requests to one host that differ in their path or query share its connection and keep their own address."""

    def path_of(sent: Received) -> ScriptedResponse:
        choice: dict[str, Any] = {**COMPLETION["choices"][0], "text": sent.path}
        return json_response({**COMPLETION, "choices": [choice]})

    with ScriptedServer() as server, make(server.url) as s:
        server.respond_with(path_of)
        for number in range(70):
            assert text(create(s, query={"n": number})) == f"/v1/completions?n={number}"
        assert text(create(s)) == "/v1/completions"
        assert server.connections == 1


def test_connection_sockets_use_tcp_keep_alive_and_no_delay() -> None:
    """Our sockets ask TCP to notice a peer that is gone, which urllib3's do not."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(chunk("a"), threading.Event()))
        with s.completions.stream_completion(request()) as stream:
            sock = socket.socket(fileno=os.dup(stream.response.raw.fileno()))
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            if hasattr(socket, "TCP_KEEPIDLE"):
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
            sock.close()
