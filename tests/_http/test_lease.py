"""One owner for a connection: no call gets bytes of another's response, whoever closes, interrupts or forks."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from gpt.models import errors
from tests.support.client import COMPLETION, OK, chunk, create, make, request, text
from tests.support.echo_server import Stress, echo, wrong
from tests.support.http_server import (
    Received,
    ScriptedServer,
    certificate,
    json_response,
    server_context,
    sse_response,
)
from tests.support.raw_server import RawServer, read_request

BODY = b'{"choices":[{"text":"%b","index":0,"finish_reason":"stop"}]}'
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Let threads take turns a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
@pytest.mark.parametrize("own", [True, False], ids=["own", "session"])
def test_calls_beside_closed_streams_get_their_own_responses(own: bool) -> None:
    """Streams closed by other threads and by the collector touch no call beside them: none is mixed up, none fails."""
    with RawServer(echo) as server:
        endings = Stress(server.url, None if own else requests.Session()).run(200, threads=6)
    assert wrong(endings) == {}
    assert endings["plain"] == 1200
    assert endings["closed"] > 10, endings


INTERRUPTED = """
import ctypes, gc, random, sys, threading, time
import warnings; warnings.simplefilter("ignore", ResourceWarning)
import gpt
from gpt.models import shared
from gpt.utils import RetryConfig

sys.setswitchinterval(1e-5)
s = gpt.Gpt(server_url=sys.argv[1], retry_config=RetryConfig("none"), timeout=20)
wrong, interrupts, stop = [], [], threading.Event()

def one(prompt, stream):
    request = shared.CreateCompletionRequest(model="m", prompt=prompt)
    if not stream:
        return [s.completions.create_completion(request).create_completion_response.choices[0].text]
    return [chunk.choices[0].text for chunk in s.completions.stream_completion(request)]

def work(name, interruptible):
    number = 0
    while not stop.is_set():
        number += 1
        prompt = f"{name}-{number}"
        try:
            if set(one(prompt, number % 2)) - {prompt + ";"}:
                wrong.append(prompt)
        except KeyboardInterrupt:
            interrupts.append(1)
        except BaseException as error:
            if not interruptible or not isinstance(error, gpt.models.errors.SDKError):
                wrong.append(f"{prompt}: {type(error).__name__} {error}")

def victim(name):
    while not stop.is_set():
        try:
            work(name, True)
        except BaseException:  # the interrupt came between two calls
            pass

victims = [threading.Thread(target=victim, args=(f"v{n}",), daemon=True) for n in range(3)]
bystanders = [threading.Thread(target=work, args=(f"b{n}", False), daemon=True) for n in range(3)]
for thread in victims + bystanders:
    thread.start()
chance = random.Random(1)
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    time.sleep(chance.random() * 0.004)
    ident = chance.choice(victims).ident
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(KeyboardInterrupt))
stop.set()
for thread in bystanders:
    thread.join(30)
    assert not thread.is_alive(), "a bystander hangs"
assert not wrong, wrong[:5]
assert len(interrupts) > 50, len(interrupts)
print("fine", len(interrupts))
"""


def test_calls_beside_interrupted_ones_get_their_own_responses() -> None:
    """`KeyboardInterrupt` at any line of a call touches no other call."""
    with RawServer(echo) as server:
        done = subprocess.run(
            [sys.executable, "-c", INTERRUPTED, server.url, "4"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stdout.startswith("fine"), done.stderr[-2000:]


class Stalled:
    """A server whose streams send one event and then wait until the connection ends, which it notes."""

    def __init__(self, *, tls: bool = False) -> None:
        self.ended = threading.Event()
        self.server = RawServer(self._serve, tls=server_context() if tls else None)

    def _serve(self, conn: socket.socket, _: int) -> None:
        read_request(conn)
        event = b"data: %b\n\n" % (BODY % b"a").replace(b'"stop"', b"null")
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        conn.sendall(b"%x\r\n%b\r\n" % (len(event), event))
        try:
            while conn.recv(1000):
                pass
        finally:
            self.ended.set()


@pytest.mark.parametrize("own", [True, False], ids=["own", "session"])
@pytest.mark.parametrize("inside", [True, False], ids=["reading", "idle"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_stream_closed_from_another_thread_ends_the_connection(
    own: bool, inside: bool, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server sees the end of a stream that another thread closes, whether or not somebody reads it."""
    stalled = Stalled(tls=tls)
    if tls:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate().cert))
    with stalled.server as server, make(server.url, client=None if own else requests.Session()) as s:
        stream = s.completions.stream_completion(request())
        assert next(stream).choices[0].text == "a"
        rest: list[Any] = []
        reader = threading.Thread(target=lambda: rest.extend(stream))
        if inside:
            reader.start()
        closer = threading.Thread(target=stream.close)
        closer.start()
        closer.join(5)
        assert stalled.ended.wait(5)
        if inside:
            reader.join(5)
            assert not reader.is_alive()
        assert (rest, stream.completed, next(stream, None)) == ([], False, None)
        stream.close()


def test_connection_of_a_blocking_pool_is_always_returned() -> None:
    """A caller's pool of one connection that blocks is never starved: not by closed, dropped or failed responses."""
    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=1, pool_block=True))
    failed = json_response({"error": {"message": "no"}}, 400)
    unfinished = sse_response(chunk("a"), chunk("b"), cut=True)
    with ScriptedServer() as server, make(server.url, client=session, timeout=20) as s:
        for _ in range(5):
            server.reply(
                sse_response(chunk("a"), COMPLETION), sse_response(chunk("a"), COMPLETION), failed, unfinished, OK
            )
            closed, dropped = s.completions.stream_completion(request()), None
            next(closed)
            closed.close()
            dropped = s.completions.stream_completion(request())
            next(dropped)
            del dropped
            with pytest.raises(errors.BadRequestError):
                create(s)
            with pytest.raises(errors.StreamInterruptedError):
                s.completions.stream_completion(request()).collect()
            assert text(create(s)) == " ok"


def test_stream_dropped_in_a_reference_cycle_ends_the_connection() -> None:
    """The collector closes a half-read stream that is part of a reference cycle; the next call works."""
    stalled = Stalled()
    with stalled.server as server, make(server.url) as s:
        stream = s.completions.stream_completion(request())
        next(stream)
        circle: list[Any] = [stream]
        circle.append(circle)
        del stream, circle
        gc.collect()
        assert stalled.ended.wait(5)


@needs_fork
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_stream_closed_in_a_forked_child_touches_no_lock() -> None:
    """A child that closes, drops and reads its parent's stream ends, though a thread held the stream's lock."""
    with ScriptedServer() as server, make(server.url) as s:
        gate = threading.Event()
        server.reply(sse_response(chunk("a"), gate, COMPLETION))
        stream: Any = s.completions.stream_completion(request())
        next(stream)
        lease = stream._abort.__self__.lease
        locked, done = threading.Event(), threading.Event()

        def hold() -> None:
            with lease._lock:
                locked.set()
                done.wait(10)

        holder = threading.Thread(target=hold)
        holder.start()
        assert locked.wait(5)
        pid = os.fork()
        if pid == 0:
            try:
                stream.close()
                del stream
                gc.collect()
            finally:
                os._exit(0)
        ended = threading.Event()

        def wait() -> None:
            os.waitpid(pid, 0)
            ended.set()

        threading.Thread(target=wait, daemon=True).start()
        try:
            assert ended.wait(10), "the child hangs"
        finally:
            done.set()
            holder.join()
            gate.set()
        assert stream.collect().choices[0].text == "a ok"


# What is in doubt is closed


def framed(head: bytes, body: bytes = BODY % b"first") -> Any:
    """Return a handler whose first response has this head, and whose later ones are sound."""

    def serve(conn: socket.socket, _: int) -> None:
        while read_request(conn):
            conn.sendall(b"HTTP/1.1 " + head + b"\r\n\r\n" + body)

    return serve


DOUBTFUL = {
    "a sign": b"200 OK\r\nContent-Length: +%d" % len(BODY % b"first"),
    "two equal": b"200 OK\r\nContent-Length: %d\r\nContent-Length: %d" % ((len(BODY % b"first"),) * 2),
}


@pytest.mark.parametrize("own", [True, False], ids=["own", "session"])
@pytest.mark.parametrize("head", DOUBTFUL.values(), ids=DOUBTFUL)
def test_response_with_a_doubtful_length_closes_the_connection(head: bytes, own: bool) -> None:
    """A length that two readers may read differently is believed once and the connection closed."""
    with RawServer(framed(head)) as server, make(server.url, client=None if own else requests.Session()) as s:
        assert text(create(s)) == text(create(s)) == "first"
        assert server.connections == 2


@pytest.mark.parametrize("own", [True, False], ids=["own", "session"])
def test_response_with_both_length_and_chunks_closes_the_connection(own: bool) -> None:
    """Chunks count where a length says something else, and the connection is closed."""
    body = BODY % b"first"
    head = b"200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked"
    server = RawServer(framed(head, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)))
    with server, make(server.url, client=None if own else requests.Session()) as s:
        assert text(create(s)) == text(create(s)) == "first"
        assert server.connections == 2


@pytest.mark.parametrize("own", [True, False], ids=["own", "session"])
def test_response_followed_by_extra_bytes_closes_the_connection(own: bool) -> None:
    """What was sent behind a response, in the same packet, is nobody's; the connection is closed."""
    body = BODY % b"first"
    server = RawServer(framed(b"200 OK\r\nContent-Length: %d" % len(body), body + b"HTTP/1.1 200 OK\r\n"))
    with server, make(server.url, client=None if own else requests.Session()) as s:
        assert text(create(s)) == text(create(s)) == "first"
        assert server.connections == 2


def interim(heads: bytes) -> Any:
    """Return a handler that sends these interim responses before each final one, which echoes."""

    def serve(conn: socket.socket, _: int) -> None:
        number = 0
        while read_request(conn):
            number += 1
            body = BODY % (b"%d" % number)
            conn.sendall(heads)
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    return serve


@pytest.mark.parametrize("deadline", [None, 30])
@pytest.mark.parametrize("status", [100, 102, 103, 199])
def test_interim_responses_before_the_final_one_are_skipped(status: int, deadline: float | None) -> None:
    """Interim responses of every kind are skipped; each call gets its own final response, on one connection."""
    heads = b"HTTP/1.1 %d Wait\r\nLink: </a>\r\n\r\n" % status * 3
    with RawServer(interim(heads)) as server, make(server.url, deadline=deadline) as s:
        assert [text(create(s)) for _ in range(3)] == ["1", "2", "3"]
        assert server.connections == 1


def test_interim_response_on_a_callers_session_raises_and_costs_the_connection() -> None:
    """What requests takes for the response raises, and the next call has a connection of its own."""
    heads = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    with RawServer(interim(heads)) as server, make(server.url, client=requests.Session()) as s:
        for _ in range(3):
            with pytest.raises(Exception, match="103"):
                create(s)
        assert server.connections == 3


def test_interim_responses_beyond_a_hundred_raise() -> None:
    """More than a hundred interim responses are an error, without any deadline."""
    heads = b"HTTP/1.1 102 Processing\r\n\r\n" * 1000
    with RawServer(interim(heads)) as server, make(server.url) as s, pytest.raises(Exception, match="100 interim"):
        create(s)


def test_connection_after_a_sound_response_is_reused() -> None:
    """A sound response returns its connection, whatever frames it."""

    def response(sent: Received) -> Any:
        number = sent.json()["prompt"]
        return json_response(COMPLETION, framing="chunked" if number == "1" else "length")

    with ScriptedServer() as server, make(server.url) as s:
        server.respond_with(response)
        for number in range(6):
            s.completions.create_completion(request(prompt=str(number % 2)))
        assert server.connections == 1
