"""The tools that people already use with requests work with this client: each test runs the real package."""

from __future__ import annotations

import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
import requests
import requests_unixsocket
import responses
import tokenizers
import vcr
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gpt import bulk
from gpt.models import errors, shared
from tests.support.client import COMPLETION, OK, ONCE, STREAM, create, make, request, stream_text, text
from tests.support.http_server import Received, ScriptedResponse, ScriptedServer, certificate, json_response, render
from tests.support.raw_server import RawServer, read_request

URL = "https://api.example.com/v1"
EVENTS = b"".join(STREAM.chunks)  # type: ignore[arg-type]  # all of them bytes


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A server that responds with a stream where the request has `stream`, else with a completion."""
    with ScriptedServer() as server:
        server.respond_with(lambda received: STREAM if received.json().get("stream") else OK)
        yield server


# Interception


@responses.activate
def test_client_under_responses_reads_a_completion_a_stream_and_a_retried_error() -> None:
    """`responses` responds in the network's place, plainly, as a stream and with an error that is retried."""
    responses.post(f"{URL}/completions", status=503)
    responses.post(f"{URL}/completions", json=COMPLETION)
    responses.post(f"{URL}/completions", body=EVENTS, content_type="text/event-stream")
    with make(URL) as s:
        assert text(create(s)) == " ok"
        assert stream_text(s) == " ok"
    assert [call.request.headers["User-Agent"][:7] for call in responses.calls] == ["gpt-sdk"] * 3


@responses.activate
def test_client_under_responses_without_a_match_raises_connection_error() -> None:
    """A request that `responses` does not expect is a connection error, as from a host that is not there."""
    with make(URL, retry_config=ONCE) as s, pytest.raises(errors.APIConnectionError, match="registered"):
        create(s)


def test_client_under_vcrpy_plays_back_a_call_and_a_stream_without_the_key(
    server: ScriptedServer, tmp_path: Path
) -> None:
    """vcrpy records a call and a stream, and plays both back when the server is gone; the key is not in the file."""
    tape = vcr.VCR(filter_headers=["authorization"], match_on=["method", "uri", "body"])
    security = shared.Security(api_key_auth="sk-secret")
    for _ in range(2):
        with tape.use_cassette(str(tmp_path / "tape.yaml")) as cassette, make(server.url, security=security) as s:
            assert text(create(s)) == " ok"
            assert stream_text(s) == " ok"
        server.close()
    assert cassette.play_count == 2
    assert "sk-secret" not in (tmp_path / "tape.yaml").read_text()


# Tracing


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    RequestsInstrumentor().instrument(tracer_provider=provider)
    yield exporter
    RequestsInstrumentor().uninstrument()


def test_client_under_opentelemetry_has_a_span_for_each_attempt(
    server: ScriptedServer, spans: InMemorySpanExporter
) -> None:
    """OpenTelemetry sees each attempt, streams included, and its context is sent to the server."""
    server.reply(json_response({"error": "busy"}, 503), OK, STREAM)
    with make(server.url) as s:
        create(s)
        stream_text(s)
    finished = spans.get_finished_spans()
    statuses = [dict(span.attributes or {}).get("http.status_code") for span in finished]
    assert statuses == [503, 200, 200]
    assert all(received.header("traceparent") for received in server.requests)


# Ways to the server


@pytest.fixture(scope="module")
def client_certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate that a server can ask a client for, and its key."""
    folder = tmp_path_factory.mktemp("client")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout key.pem -out cert.pem -subj /CN=someone"
    usage = ["-addext", "extendedKeyUsage=clientAuth"]
    subprocess.run([*command.split(), *usage], cwd=folder, check=True, capture_output=True, timeout=60)
    return str(folder / "cert.pem"), str(folder / "key.pem")


@contextmanager
def mutual_tls_server(trusted: str) -> Iterator[str]:
    """Respond to those who show a certificate; give the URL."""

    def serve(conn: socket.socket, _: int) -> None:
        while read_request(conn):
            for piece in render(OK):
                conn.sendall(piece)  # type: ignore[arg-type]  # a response without gates

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate().cert, certificate().key)
    context.load_verify_locations(trusted)
    context.verify_mode = ssl.CERT_REQUIRED
    with RawServer(serve, tls=context) as server:
        yield server.url


def test_client_with_a_session_certificate_opens_a_server_that_demands_one(client_certificate: tuple[str, str]) -> None:
    """A session's client certificate opens a server that demands one; without it there is a connection error."""
    with mutual_tls_server(client_certificate[0]) as url, requests.Session() as session:
        session.verify = str(certificate().cert)
        with make(url, client=session, retry_config=ONCE) as s, pytest.raises(errors.APIConnectionError):
            create(s)
        session.cert = client_certificate
        with make(url, client=session) as s:
            assert text(create(s)) == " ok"


class _UnixHandler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while data := read_request(self.connection):
            response = STREAM if b'"stream":true' in data else OK
            for piece in render(response):
                self.wfile.write(piece)  # type: ignore[arg-type]  # a response without gates


def _unix_session() -> Any:
    return requests_unixsocket.Session()  # type: ignore[no-untyped-call]


@pytest.mark.skipif(not hasattr(socketserver, "ThreadingUnixStreamServer"), reason="needs Unix sockets")
def test_client_with_a_unix_socket_session_reaches_the_server(tmp_path: Path) -> None:
    """A session of requests-unixsocket2 reaches a server on a Unix socket, streams included."""
    path = str(tmp_path / "s")
    with socketserver.ThreadingUnixStreamServer(path, _UnixHandler) as server, _unix_session() as session:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with make(f"http+unix://{quote(path, safe='')}/v1", client=session) as s:
            assert text(create(s)) == " ok"
            assert stream_text(s) == " ok"
        server.shutdown()


@contextmanager
def socks5_proxy() -> Iterator[tuple[str, list[bytes]]]:
    """Run a SOCKS5 proxy for names (RFC 1928, no authentication); yield its address and the names of its requests."""
    names: list[bytes] = []

    def serve(conn: socket.socket, _: int) -> None:
        conn.recv(2 + 255)
        conn.sendall(b"\x05\x00")
        handshake = conn.recv(4 + 1 + 255 + 2)
        assert handshake[:4] == b"\x05\x01\x00\x03"
        names.append(handshake[5:-2])
        port = int.from_bytes(handshake[-2:], "big")
        with socket.create_connection(("127.0.0.1", port), timeout=30) as upstream:
            conn.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
            back = threading.Thread(target=pump, args=(upstream, conn), daemon=True)
            back.start()
            pump(conn, upstream)
            back.join()

    with RawServer(serve) as proxy:
        yield f"{proxy.host}:{proxy.port}", names


def pump(source: socket.socket, target: socket.socket) -> None:
    """Pass bytes on until the source ends."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_client_with_a_session_socks_proxy_uses_it_and_its_name_lookup(server: ScriptedServer) -> None:
    """A session's SOCKS proxy is used, streams included, and resolves the names (socks5h)."""
    with socks5_proxy() as (address, names), requests.Session() as session:
        session.proxies = {"http": f"socks5h://{address}"}
        with make(f"http://gpt.test:{server.port}/v1", client=session) as s:
            assert text(create(s)) == " ok"
            assert stream_text(s) == " ok"
        assert set(names) == {b"gpt.test"}


def test_client_with_a_socks_proxy_in_the_environment_uses_it(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own session takes a SOCKS proxy from the environment, and a deadline holds behind it."""
    with socks5_proxy() as (address, names):
        monkeypatch.setenv("HTTP_PROXY", f"socks5h://{address}")
        with make(f"http://gpt.test:{server.port}/v1", deadline=30) as s:
            assert text(create(s)) == " ok"
        assert names == [b"gpt.test"]


# Data


def test_request_with_ids_of_tokenizers_sends_them_as_the_prompt(server: ScriptedServer) -> None:
    """The ids of a `tokenizers` tokenizer are prompts: as its lists, and as NumPy arrays of any integer type."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, show_progress=False)
    tokenizer.train_from_iterator(["the cat sat on the mat"] * 10, trainer)
    first, second = tokenizer.encode_batch(["the cat", "on the mat"])

    with make(server.url) as s:
        for prompt in (first.ids, np.array(first.ids), [np.array(e.ids, "uint16") for e in (first, second)]):
            s.completions.create_completion(request(prompt=prompt))

    assert [r.json()["prompt"] for r in server.requests] == [first.ids, first.ids, [first.ids, second.ids]]
    assert all(type(token) is int for token in server.requests[1].json()["prompt"])


def test_bulk_run_given_a_pandas_column_returns_responses_by_row(server: ScriptedServer) -> None:
    """A frame's column goes through a bulk run and comes back as a column, each response in its prompt's row."""

    def reverse(received: Received) -> ScriptedResponse:
        return json_response({**COMPLETION, "choices": [{"text": received.json()["prompt"][::-1], "index": 0}]})

    server.respond_with(reverse)
    frame = pd.DataFrame({"prompt": [f"p{n}" for n in range(30)]}, index=range(100, 130))

    with make(server.url) as s:
        prompts = (shared.CreateCompletionRequest(model="m", prompt=prompt) for prompt in frame["prompt"])
        responses = {o.index: o.response.choices[0].text for o in bulk.run(s, prompts) if o.response is not None}
        frame["answer"] = [responses.get(row) for row in range(len(frame))]

    assert (frame["answer"] == frame["prompt"].str[::-1]).all()
