"""Tests of the tests' own servers, fixtures and tables, with the standard library's clients only."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from tests.support.fixtures import error_samples, vllm, vllm_names, wire, wire_names
from tests.support.http_server import Framing, Received, ScriptedResponse, ScriptedServer, json_response, sse_response
from tests.support.proxies import ForwardProxy, ToxicProxy
from tests.support.raw_server import RawServer, read_request, reset
from tests.support.sse_cases import NOT_DATA, Expected, SseCase, cases, large_cases

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Yield a running server without a script."""
    with ScriptedServer() as server:
        yield server


def connect(url: str) -> http.client.HTTPConnection:
    """Make a client of a server, with a short time-out so that nothing can hang."""
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)


def dial(port: int) -> socket.socket:
    """Open a bare connection."""
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def post(conn: http.client.HTTPConnection, body: bytes = b"{}") -> http.client.HTTPResponse:
    """Request a completion; the response's body is still to be read."""
    conn.request("POST", "/v1/completions?a=1", body, {"X-One": "1"})
    return conn.getresponse()


def read_all(conn: socket.socket) -> bytes:
    """Read to the end of the connection."""
    return b"".join(iter(lambda: conn.recv(65536), b""))


# ScriptedServer


def test_scripted_server_given_a_request_keeps_it_as_it_came(server: ScriptedServer) -> None:
    """A request is kept as it came: method, target, headers, the exact body, its connection."""
    server.reply(json_response({"ok": True}))
    with closing(connect(server.url)) as conn:
        assert json.load(post(conn, b'{"a": "\xc3\xa9"}')) == {"ok": True}
    (request,) = server.requests
    assert (request.method, request.path, request.connection) == ("POST", "/v1/completions?a=1", 1)
    assert request.body == b'{"a": "\xc3\xa9"}'
    assert request.json() == {"a": "é"}
    assert request.header("x-ONE") == "1"
    assert request.header("missing") is None
    assert ("X-One", "1") in request.headers


def test_scripted_server_given_responses_sends_them_in_order_then_the_last_again(server: ScriptedServer) -> None:
    """Responses queue up, the last repeats, and what is queued later comes next."""
    server.reply(json_response({}, 500), json_response({}, 429))
    server.reply(json_response({}))
    with closing(connect(server.url)) as conn:
        statuses = [post_status(conn) for _ in range(4)]
        server.reply(json_response({}, 404))
        assert [*statuses, post_status(conn)] == [500, 429, 200, 200, 404]
    assert server.connections == 1


def post_status(conn: http.client.HTTPConnection) -> int:
    """Make one request and read its response to the end."""
    response = post(conn)
    response.read()
    return response.status


def test_scripted_server_given_a_function_responds_with_its_result(server: ScriptedServer) -> None:
    """A function can look at the request."""
    server.respond_with(lambda request: json_response(request.json(), 202, retry_after="1", headers={"X-A": "b"}))
    with closing(connect(server.url)) as conn:
        response = post(conn, b'{"n":1}')
        assert (response.status, response.read()) == (202, b'{"n": 1}')
        assert (response.headers["retry-after"], response.headers["x-a"]) == ("1", "b")


def test_scripted_server_without_a_script_raises_lookup_error() -> None:
    """A request that no response was scripted for fails the test at the server's end."""
    server = ScriptedServer()
    with closing(connect(server.url)) as conn, pytest.raises(http.client.RemoteDisconnected):
        post(conn)
    with pytest.raises(LookupError, match="POST /v1/completions"), server:
        server.wait_closed(1)


def test_scripted_server_given_a_response_sends_exactly_its_bytes(server: ScriptedServer) -> None:
    """Nothing is on the wire but what the response says and its framing."""
    server.reply(
        ScriptedResponse(207, [("X-A", "1"), ("X-A", "2")], b"body"),
        ScriptedResponse(299, chunks=[b"ab", b"", b"c"], framing="chunked"),
    )
    create = b"POST /v1 HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"
    with dial(server.port) as conn:
        conn.sendall(create)
        first = b"HTTP/1.1 207 Multi-Status\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 4\r\n\r\nbody"
        assert read_exactly(conn, len(first)) == first
        conn.sendall(create.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        head = b"HTTP/1.1 299 Odd\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        assert read_all(conn) == head + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"


def read_exactly(conn: socket.socket, n: int) -> bytes:
    """Read `n` bytes."""
    with conn.makefile("rb", buffering=0) as file:
        return b"".join(file.read(1) or b"" for _ in range(n))


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("gzip", [False, True])
def test_scripted_server_given_a_gate_holds_back_the_chunks_behind_it(
    server: ScriptedServer, framing: Framing, gzip: bool
) -> None:
    """In every framing a chunk arrives before the gate behind it is opened, and the next one after."""
    gate = threading.Event()
    server.reply(ScriptedResponse(framing=framing, chunks=[b"first", gate, b"second"], gzip=gzip))
    with closing(connect(server.url)) as conn:
        body = post(conn)
        plain = inflate(body, gzip)
        assert next(plain) == b"first"
        gate.set()
        assert b"".join(plain) == b"second"


def inflate(body: http.client.HTTPResponse, gzip: bool) -> Iterator[bytes]:
    """Yield the parts of a body as they arrive, decompressed."""
    unpacker = zlib.decompressobj(wbits=31)
    while block := body.read1(65536):
        if part := unpacker.decompress(block) if gzip else block:
            yield part
    assert not gzip or unpacker.eof


def test_sse_response_given_bytes_and_mappings_sends_events_and_done(server: ScriptedServer) -> None:
    """Events are bytes or mappings, and `[DONE]` comes by itself, but not if the stream is cut."""
    server.reply(sse_response({"a": "é"}, b": ping\n\n"), sse_response({"a": 1}, done=False, x_request_id="r"))
    with closing(connect(server.url)) as conn:
        response = post(conn)
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.read().decode() == 'data: {"a":"é"}\n\n: ping\n\ndata: [DONE]\n\n'
        response = post(conn)
        assert (response.headers["x-request-id"], response.read()) == ("r", b'data: {"a":1}\n\n')


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_scripted_server_given_a_cut_resets_the_connection(server: ScriptedServer, framing: Framing) -> None:
    """A cut response ends with a reset, after its chunks."""
    gate = threading.Event()
    server.reply(ScriptedResponse(chunks=[b"first", gate], framing=framing, cut=True))
    with closing(connect(server.url)) as conn:
        body = post(conn)
        assert body.read1(100) == b"first"
        gate.set()
        with pytest.raises(ConnectionResetError):
            body.read(1)


@pytest.mark.parametrize("response", [json_response({}, cut="fin"), sse_response({}, cut="fin")])
def test_scripted_server_given_a_fin_cut_leaves_the_body_incomplete(
    server: ScriptedServer, response: ScriptedResponse
) -> None:
    """An orderly end that comes too early leaves the body incomplete in either framing."""
    server.reply(response)
    with closing(connect(server.url)) as conn, pytest.raises(http.client.IncompleteRead) as caught:
        post(conn).read()
    assert b"[DONE]" not in caught.value.partial


def test_scripted_server_whose_client_leaves_notices_at_once(server: ScriptedServer) -> None:
    """A client's leaving is seen at once, even while the response waits at a gate."""
    server.reply(sse_response({"a": 1}, threading.Event()))
    conn = connect(server.url)
    response = post(conn)
    assert response.read1(100) == b'data: {"a":1}\n\n'
    assert server.open_connections == 1
    response.close()
    conn.close()
    server.wait_closed(1)
    assert server.open_connections == 0


def test_scripted_server_given_two_connections_counts_and_drops_them(server: ScriptedServer) -> None:
    """Each request says on which connection it came; idle ones can be dropped."""
    server.reply(json_response({}))
    with closing(connect(server.url)) as one, closing(connect(server.url)) as two:
        assert [post_status(one), post_status(two), post_status(one)] == [200] * 3
        server.wait_requests(3)
        assert [request.connection for request in server.requests] == [1, 2, 1]
        assert (server.connections, server.open_connections) == (2, 2)
        server.drop()
        assert server.open_connections == 0
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            post(one)


def test_scripted_server_given_many_threads_sends_each_its_own_response(server: ScriptedServer) -> None:
    """Requests of many threads each get their own response."""
    server.respond_with(lambda request: json_response(request.json()))
    seen: list[object] = []

    def work(n: int) -> None:
        with closing(connect(server.url)) as conn:
            seen.extend(json.load(post(conn, b"%d" % (10 * n + i))) for i in range(10))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen, key=str) == sorted(range(80), key=str)
    assert (server.connections, len(server.requests)) == (8, 80)


def test_scripted_server_over_tls_is_trusted_only_with_its_ca_file() -> None:
    """Over TLS all is the same; the certificate is good for both names, and only if it is trusted."""
    with ScriptedServer(tls=True) as server:
        server.reply(json_response({"ok": 1}))
        context = ssl.create_default_context(cafile=server.ca_file)
        for host in ("127.0.0.1", "localhost"):
            with urllib.request.urlopen(f"https://{host}:{server.port}/v1", context=context, timeout=10) as response:
                assert json.load(response) == {"ok": 1}
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(server.url, timeout=10)


def test_scripted_server_over_tls_cuts_and_notices_a_client_that_leaves() -> None:
    """A cut and a client that leaves work through TLS too."""
    with ScriptedServer(tls=True) as server:
        gate = threading.Event()
        server.reply(sse_response(b"one", gate, cut=True), sse_response(b"two", threading.Event()))
        context = ssl.create_default_context(cafile=server.ca_file)
        with closing(http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=10)) as conn:
            body = post(conn)
            assert body.read1(10) == b"one"
            gate.set()
            with pytest.raises((http.client.IncompleteRead, OSError)):  # Python's ssl may take a reset for an end
                body.read(1)
            conn.close()
            body = post(conn)
            assert body.read1(10) == b"two"
            body.close()
        server.wait_closed(2)


def test_scripted_server_closed_while_clients_wait_ends_at_once() -> None:
    """A server closes at once, whatever its clients and handlers wait for."""
    with ScriptedServer() as server:
        server.reply(sse_response(b"one", threading.Event()))
        idle, waiting = dial(server.port), connect(server.url)
        assert post(waiting).read1(10) == b"one"
        server.tcp.wait_connections(2)
    with idle, closing(waiting):
        assert server.open_connections == 0
        assert idle.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        dial(server.port)


# RawServer


def test_raw_server_handler_given_a_connection_gets_its_number() -> None:
    """A handler is given the connection and its number, and reads a request whole."""
    seen: list[tuple[int, bytes]] = []

    def handler(conn: socket.socket, n: int) -> None:
        seen.append((n, read_request(conn)))
        conn.sendall(OK)

    with RawServer(handler) as raw:
        for body in (b"one", b"2" * 300_000):
            with closing(connect(raw.url)) as client:
                assert post(client, body).read() == b"ok"
        raw.wait_closed(2)
    assert [(n, data.rpartition(b"\r\n\r\n")[2]) for n, data in seen] == [(1, b"one"), (2, b"2" * 300_000)]


def test_raw_server_drip_stops_at_its_limit_or_when_the_client_leaves() -> None:
    """A drip sends byte by byte up to its bound, or until the client leaves."""
    sent: list[int] = []

    def handler(conn: socket.socket, n: int) -> None:
        sent.append(raw.drip(conn, b"abc", interval=0.001, limit=7 if n == 1 else 100_000))

    with RawServer(handler) as raw:
        with dial(raw.port) as client:
            assert read_all(client) == b"abcabca"
        with dial(raw.port) as client:
            assert client.recv(1) == b"a"
        raw.wait_closed(2)
    assert sent == [7]


def test_raw_server_stall_when_released_ends() -> None:
    """A stall holds the connection open until it is released."""

    def handler(conn: socket.socket, n: int) -> None:
        raw.stall(conn)
        conn.sendall(OK)

    with RawServer(handler) as raw, dial(raw.port) as client:
        raw.wait_open(1)
        raw.release.set()
        assert read_all(client) == OK


@pytest.mark.parametrize("leaver", ["client", "server"])
def test_raw_server_stall_when_either_side_closes_ends(leaver: str) -> None:
    """A stall ends when the client leaves and when the server closes."""
    with RawServer(lambda conn, n: raw.stall(conn)) as raw, dial(raw.port) as client:
        raw.wait_open(1)
        (client if leaver == "client" else raw).close()
        raw.wait_closed(1)


def test_reset_of_a_connection_reaches_the_client_as_a_reset() -> None:
    """A reset reaches the client as one."""

    def handler(conn: socket.socket, n: int) -> None:
        conn.recv(1)  # so that the reset cannot overtake the connecting
        reset(conn)

    with RawServer(handler) as raw, dial(raw.port) as client:
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_raw_server_handler_that_fails_raises_at_the_servers_end() -> None:
    """An exception of a handler is raised at the server's end; a lost connection is not."""

    def handler(conn: socket.socket, n: int) -> None:
        raise ConnectionResetError if n == 1 else ZeroDivisionError

    raw = RawServer(handler)
    for _ in range(2):
        with dial(raw.port) as client:
            assert client.recv(1) == b""
    with pytest.raises(ZeroDivisionError), raw:
        raw.wait_closed(2)


def test_raw_server_after_refusing_connections_accepts_them_again() -> None:
    """A server can refuse connections for a while, on its port, and drops those it has."""
    with RawServer(lambda conn, n: conn.sendall(conn.recv(1))) as raw:
        with dial(raw.port) as client:
            raw.wait_open(1)
            raw.refuse()
            assert client.recv(1) == b""
            with pytest.raises(ConnectionRefusedError):
                dial(raw.port)
        raw.listen()
        with dial(raw.port) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"


# Proxies


def test_forward_proxy_given_a_plain_request_records_it_and_passes_it_on(server: ScriptedServer) -> None:
    """An absolute-form request is recorded as it came and passes in origin form, without the proxy's."""
    server.reply(sse_response({"a": 1}))
    with ForwardProxy() as proxy:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy.url}))
        create = urllib.request.Request(server.url + "/x?q=1", b"{}", {"Proxy-Authorization": "Basic eDp5"})
        with opener.open(create, timeout=10) as response:
            assert response.read() == b'data: {"a":1}\n\ndata: [DONE]\n\n'
        (proxied,) = proxy.requests
    (received,) = server.requests
    assert (proxied.method, proxied.path) == ("POST", server.url + "/x?q=1")
    assert proxied.header("proxy-authorization") == "Basic eDp5"
    assert (received.path, received.body, received.header("proxy-authorization")) == (
        "/v1/x?q=1",
        b"{}",
        None,
    )


def test_forward_proxy_given_connect_opens_a_tunnel() -> None:
    """CONNECT opens a tunnel, which TLS and keep-alive pass."""
    with ScriptedServer(tls=True) as server, ForwardProxy() as proxy:
        server.reply(json_response({"ok": 1}))
        context = ssl.create_default_context(cafile=server.ca_file)
        through = urlsplit(proxy.url)
        with closing(http.client.HTTPSConnection("127.0.0.1", through.port, context=context, timeout=10)) as conn:
            conn.set_tunnel("127.0.0.1", server.port)
            assert [post_status(conn), post_status(conn)] == [200, 200]
        assert [(proxied.method, proxied.path) for proxied in proxy.requests] == [
            ("CONNECT", f"127.0.0.1:{server.port}")
        ]
        assert server.connections == 1
        server.wait_closed(1)


def test_forward_proxy_without_a_server_responds_502() -> None:
    """A server that cannot be reached is a 502."""
    with RawServer(lambda conn, n: None) as gone:
        gone.refuse()
        with ForwardProxy() as proxy, closing(connect(proxy.url)) as conn:
            conn.request("GET", gone.url)
            assert conn.getresponse().status == 502


BODY = bytes(range(256)) * 8


@pytest.fixture
def toxic(server: ScriptedServer) -> Iterator[ToxicProxy]:
    """Yield a proxy before a server that responds with BODY."""
    server.reply(ScriptedResponse(body=BODY))
    with ToxicProxy(server.url) as proxy:
        yield proxy


def test_toxic_proxy_without_a_toxic_passes_everything(toxic: ToxicProxy) -> None:
    """Without a toxic all passes, on one connection."""
    assert toxic.url.endswith("/v1")
    with closing(connect(toxic.url)) as conn:
        assert [post(conn).read(), post(conn).read()] == [BODY, BODY]
    assert toxic.tcp.connections == 1


def test_toxic_proxy_with_reset_after_resets_after_so_many_bytes(toxic: ToxicProxy) -> None:
    """A reset comes after so many bytes, and not any more when the toxic is over."""
    with toxic.reset_after(100), dial(toxic.tcp.port) as conn:
        conn.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert len(read_exactly(conn, 100)) == 100
        with pytest.raises(ConnectionResetError):
            conn.recv(1)
    with closing(connect(toxic.url)) as fresh:
        assert post(fresh).read() == BODY


@pytest.mark.parametrize("n", [0, 1, 100])
def test_toxic_proxy_with_truncate_after_ends_after_so_many_bytes(toxic: ToxicProxy, n: int) -> None:
    """An orderly end comes after so many bytes."""
    with toxic.truncate_after(n), dial(toxic.tcp.port) as conn:
        conn.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert len(read_all(conn)) == n


def test_toxic_proxy_with_latency_or_slowness_passes_the_body_whole(toxic: ToxicProxy) -> None:
    """What is late or slow arrives whole."""
    with closing(connect(toxic.url)) as conn:
        with toxic.latency(0.01):
            assert post(conn).read() == BODY
        with toxic.slow(100, 0.001):
            assert post(conn).read() == BODY


def test_toxic_proxy_with_refuse_fails_until_it_is_over(toxic: ToxicProxy) -> None:
    """While it refuses, open connections end and new ones fail; then all is well again."""
    with closing(connect(toxic.url)) as conn:
        assert post(conn).read() == BODY
        with toxic.refuse():
            with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
                post(conn)
            with pytest.raises(ConnectionRefusedError):
                dial(toxic.tcp.port)
    with closing(connect(toxic.url)) as fresh:
        assert post(fresh).read() == BODY


def test_toxic_proxy_given_a_reset_by_the_server_resets_the_client(server: ScriptedServer) -> None:
    """A reset by the server is a reset for the client."""
    gate = threading.Event()
    server.reply(sse_response(b"one", gate, cut=True))
    with ToxicProxy(server.url) as proxy, closing(connect(proxy.url)) as conn:
        body = post(conn)
        assert body.read1(10) == b"one"
        gate.set()
        with pytest.raises(ConnectionResetError):
            body.read(1)


# Fixtures


def test_wire_samples_with_odd_bytes_keep_them() -> None:
    """The samples keep the odd bytes for which they are there."""
    assert wire("w11.json").startswith(b"\n\n\n{")
    assert b"-Infinity" in wire("w15.json")
    assert wire("w23.sse").count(b"\r\n") == wire("w23.sse").count(b"\n") == 7
    assert "é".encode() in wire("w23.sse")
    assert wire("w37.sse") == b'data: {"id":"c","obj'
    assert all(wire(name).endswith(b"\n\n") for name in wire_names(".sse") if name not in ("w23.sse", "w37.sse"))


def test_wire_samples_of_json_are_parsed() -> None:
    """Every JSON sample can be read, by a reader that knows NaN."""
    assert all(json.loads(wire(name)) for name in wire_names(".json"))


def test_error_samples_sent_by_a_server_arrive_as_listed(server: ScriptedServer) -> None:
    """Each listed response goes over the wire as it is listed."""
    samples = [sample for name in ("w20.json", "w38.json", "w40.json") for sample in error_samples(name)]
    server.reply(*(sample.response() for sample in samples))
    with closing(connect(server.url)) as conn:
        for sample in samples:
            response = post(conn)
            assert (response.status, response.read().decode()) == (sample.status, sample.body)
            assert response.headers["content-type"] == sample.content_type
            assert all(response.headers[name] == value for name, value in sample.headers)


@pytest.mark.parametrize("name", vllm_names())
def test_vllm_recording_sent_by_a_server_arrives_in_its_own_framing(server: ScriptedServer, name: str) -> None:
    """Each recorded response goes over the wire in its own framing."""
    recorded = vllm(name)
    server.reply(recorded.response())
    with closing(connect(server.url)) as conn:
        response = post(conn, json.dumps(recorded.request).encode())
        assert (response.status, response.read().decode()) == (recorded.status, recorded.body)
        assert response.headers["transfer-encoding"] == recorded.transfer_encoding


# The table of SSE cases


def test_sse_cases_for_inputs_1_to_33_are_listed_or_explained() -> None:
    """Inputs 1 to 33 are either in the table or explained, and no two cases share an id."""
    table = [*cases(), *large_cases()]
    assert {case.number for case in table} - {0} | NOT_DATA.keys() == set(range(1, 34))
    assert len({case.id for case in table}) == len(table)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.id)
def test_sse_case_read_plainly_gives_the_expected_events(case: SseCase) -> None:
    """What a case expects is what the rules say of its bytes taken as one."""
    *events, end = interpret(b"".join(case.chunks))
    assert (tuple(events), end) == (case.events, case.end)


def test_sse_large_cases_read_plainly_give_the_expected_events() -> None:
    """The same for those that take time, but for the very large one."""
    for case in [*large_cases()][:-1]:
        *events, end = interpret(b"".join(case.chunks))
        assert (tuple(events), end) == (case.events, case.end), case.id


def interpret(text: bytes) -> Iterator[Expected | None]:
    """Read a whole stream by the rules, slowly; last comes the unfinished event or None."""
    lines = re.split(rb"\r\n|\r|\n", text.removeprefix(b"\xef\xbb\xbf"))
    name, data, last_id = "", list[bytes](), ""
    for line in lines[:-1] if not lines[-1] else lines:
        if not line:
            if data:
                yield name or "message", b"\n".join(data), last_id
            name, data = "", []
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field in (b"data", b"error"):
            data.append(value)
        if field in (b"event", b"error"):
            name = "error" if field == b"error" else value.decode()
        if field == b"id" and b"\0" not in value:
            last_id = value.decode()
    yield (name or "message", b"\n".join(data), last_id) if data else None


def test_received_with_repeated_headers_finds_them_in_any_case_and_in_order() -> None:
    """Headers are found whatever their case, and all of them in order."""
    received = Received("GET", "/", [("A", "1"), ("a", "2")], b"", 1)
    assert (received.header("a"), received.header_all("A")) == ("1", ["1", "2"])
