"""Retries against real servers: what is retried, how often, and what is left open."""

from __future__ import annotations

import socket
import threading
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
import requests

import gpt
from gpt.models import errors, shared
from gpt.utils import BackoffStrategy, RetryConfig
from tests.support.client import (
    COMPLETION,
    OK,
    ONCE,
    QUICK,
    STREAM,
    create,
    make,
    request,
    silent_server,
    stream_text,
    text,
)
from tests.support.http_server import ScriptedResponse, ScriptedServer, json_response
from tests.support.raw_server import RawServer, read_request, reset

BUSY = json_response({"error": {"message": "busy"}}, 503)
PATIENT = RetryConfig(backoff=QUICK.backoff, max_retries=4)
RAW_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(OK.body), OK.body)


@pytest.mark.parametrize("failures", [0, 1, 2])
@pytest.mark.parametrize("stream", [False, True])
def test_retries_taken_counts_failed_attempts_with_the_same_body(failures: int, stream: bool) -> None:
    """A response says how many attempts failed before it; each attempt has the same body on the same connection."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(*[BUSY] * failures, STREAM if stream else OK)
        response = s.completions.create_completion(request(stream=stream))
        assert response.retries_taken == failures
        assert len({sent.body for sent in server.requests}) == 1
        assert len(server.requests) == failures + 1


def test_retry_by_default_happens_twice_and_raises_the_last_error() -> None:
    """The third failure is the caller's; its error is the last response's."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(BUSY, BUSY, json_response({"error": "last"}, 500), OK)
        with pytest.raises(errors.InternalServerError, match="last") as caught:
            create(s)
        assert caught.value.status_code == 500
        assert len(server.requests) == 3


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 529])
def test_retry_given_a_busy_or_broken_status_is_made(status: int) -> None:
    """A request to a busy or broken server is retried."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(ScriptedResponse(status), OK)
        assert text(create(s)) == " ok"


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 422, 424])
def test_retry_given_a_final_status_is_not_made(status: int) -> None:
    """What would only fail again is sent once, whatever its `Retry-After` says."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(ScriptedResponse(status, [("retry-after", "Zun, soon")]), OK)
        with pytest.raises(errors.APIStatusError) as caught:
            create(s)
        assert (caught.value.status_code, caught.value.retry_after) == (status, None)
        assert len(server.requests) == 1


@pytest.mark.parametrize("header", ["true", "false"])
def test_retry_follows_the_x_should_retry_header(header: str) -> None:
    """`x-should-retry` turns a 400 into a retry and a 503 into none."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response({}, 400 if header == "true" else 503, x_should_retry=header), OK)
        if header == "true":
            assert create(s).retries_taken == 1
        else:
            with pytest.raises(errors.InternalServerError):
                create(s)
            assert len(server.requests) == 1


@pytest.mark.parametrize("field", ["code", "type"])
def test_retry_given_a_used_up_quota_is_not_made(field: str) -> None:
    """A 429 for money is final and says what to do."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response({"error": {"message": "quota", field: "insufficient_quota"}}, 429), OK)
        with pytest.raises(errors.RateLimitError, match="check plan and billing"):
            create(s)
        assert len(server.requests) == 1


def date_in(seconds: int) -> str:
    """Return the HTTP date so many seconds ahead."""
    return format_datetime(datetime.now(timezone.utc) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    "header", [("retry-after", "121"), ("retry-after-ms", "120001"), ("retry-after", date_in(1000))]
)
def test_retry_after_longer_than_120_s_raises_at_once(header: tuple[str, str]) -> None:
    """Beyond 120 s the error comes at once and tells how long the server wants to be left alone."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(ScriptedResponse(429, [header]), OK)
        with pytest.raises(
            errors.RateLimitError, match=r"the server asks to wait \d+ s, longer than the 120 s"
        ) as caught:
            create(s)
        assert caught.value.retry_after is not None
        assert caught.value.retry_after > 120
        assert len(server.requests) == 1


@pytest.mark.parametrize("header", [("retry-after", "120"), ("retry-after-ms", "120000")])
def test_retry_after_of_120_s_is_within_the_bound(header: tuple[str, str]) -> None:
    """120 s are waited for: a deadline that is shorter makes the error come at once, one retry earlier."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(ScriptedResponse(429, [header]), OK)
        with pytest.raises(errors.RateLimitError) as caught:
            create(s, deadline=100)
        assert "longer than" not in str(caught.value)
        assert caught.value.retry_after == 120
        assert len(server.requests) == 1


def test_retry_after_ms_of_zero_retries_at_once() -> None:
    """`retry-after-ms: 0` retries at once, whatever the back-off and the other header say."""
    slow = RetryConfig(backoff=BackoffStrategy(initial_interval=3_600_000, max_interval=3_600_000))
    with ScriptedServer() as server, make(server.url, retry_config=slow) as s:
        server.reply(json_response({}, 429, retry_after="60", retry_after_ms="0"), OK)
        assert create(s).retries_taken == 1


def test_retry_wait_beyond_max_elapsed_time_is_not_begun() -> None:
    """A wait that would end later than `max_elapsed_time` is not begun."""
    config = RetryConfig(backoff=BackoffStrategy(initial_interval=500, max_elapsed_time=100))
    with ScriptedServer() as server, make(server.url, retry_config=config) as s:
        server.reply(BUSY, OK)
        with pytest.raises(errors.InternalServerError):
            create(s)
        assert len(server.requests) == 1


@pytest.mark.parametrize(("config", "attempts"), [(ONCE, 1), (RetryConfig(max_retries=0), 1), (PATIENT, 5)])
def test_retry_config_of_client_or_call_sets_the_number_of_attempts(config: RetryConfig, attempts: int) -> None:
    """The client's settings hold for every call, a call's own for that one."""
    with ScriptedServer() as server:
        server.reply(BUSY)
        for options, call in (({"retry_config": config}, {}), ({}, {"retries": config})):
            before = len(server.requests)
            with make(server.url, **options) as s, pytest.raises(errors.InternalServerError):
                create(s, **call)
            assert len(server.requests) - before == attempts


def test_retry_without_settings_is_on() -> None:
    """A client without settings retries; the call's `UNSET` means the client's."""
    with ScriptedServer() as server, gpt.Gpt(server_url=server.url) as s:
        server.reply(json_response({}, 500, retry_after_ms="1"), OK)
        assert create(s, retries=gpt.UNSET).retries_taken == 1


# Failures without a response


def flaky(failures: int, fail: Any) -> Any:
    """Return a handler that fails the first connections and serves the later ones."""

    def handle(conn: socket.socket, number: int) -> None:
        read_request(conn)
        if number <= failures:
            fail(conn)
        else:
            conn.sendall(RAW_OK)

    return handle


@pytest.mark.parametrize("fail", [reset, socket.socket.close], ids=["reset", "closed"])
@pytest.mark.parametrize("own", [True, False])
def test_connection_lost_before_the_response_is_retried(fail: Any, own: bool) -> None:
    """A reset or an end before the headers are there is retried, on either session."""
    with RawServer(flaky(2, fail)) as server:
        s = make(server.url, client=None if own else requests.Session())
        assert create(s).retries_taken == 2


def test_connection_refused_is_retried_until_the_server_listens() -> None:
    """Refused connections are retried until the server listens again."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        server.tcp.refuse()
        with pytest.raises(errors.APIConnectionError, match=f"no response from 127.0.0.1:{server.port}.*refused"):
            create(s)
        waiting = RetryConfig(backoff=BackoffStrategy(100, 100), max_retries=100)
        timer = threading.Timer(0.3, server.tcp.listen)
        timer.start()
        assert create(s, retries=waiting).retries_taken > 0
        timer.join()


def test_connection_closed_while_idle_does_not_fail_the_next_call() -> None:
    """After the server dropped what was idle, the next call works, by a retry at most."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        create(s)
        server.drop()
        assert text(create(s)) == " ok"
        assert len(server.requests) == 2


def test_retry_connection_errors_false_sends_once() -> None:
    """`retry_connection_errors=False` sends once."""
    config = RetryConfig(backoff=QUICK.backoff, retry_connection_errors=False)
    with RawServer(flaky(1, reset)) as server, make(server.url, retry_config=config) as s:
        with pytest.raises(errors.APIConnectionError):
            create(s)
        assert server.connections == 1


@pytest.mark.parametrize(("enabled", "attempts"), [(False, 1), (True, 3)])
def test_timeout_while_reading_is_retried_only_if_enabled(enabled: bool, attempts: int) -> None:
    """A server that is late may be working, and billing: the request is not retried unless the caller says so."""
    config = RetryConfig(backoff=QUICK.backoff, retry_read_timeouts=enabled)
    with silent_server() as server:
        with make(server.url, retry_config=config, timeout=0.1) as s, pytest.raises(errors.APITimeoutError):
            create(s)
        assert server.connections == attempts


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01\x02\x00",
        b"HTTP/9.9 abc\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"<html>\n",
    ],
)
def test_response_that_is_not_http_is_not_retried(garbage: bytes) -> None:
    """What is not HTTP will not become HTTP: one attempt, and a typed error."""

    def response(conn: socket.socket, _: int) -> None:
        read_request(conn)
        conn.sendall(garbage)

    with RawServer(response) as server, make(server.url) as s:
        with pytest.raises(errors.APIConnectionError, match=f"127.0.0.1:{server.port}"):
            create(s)
        assert server.connections == 1


def test_response_cut_short_is_not_retried() -> None:
    """A body that breaks off is an error, not another bill."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response(COMPLETION, cut=True))
        with pytest.raises(errors.APIConnectionError, match="was cut short"):
            create(s)
        assert len(server.requests) == 1


# What is left open


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("own", [True, False])
def test_connection_of_a_failed_attempt_is_closed_with_the_client(stream: bool, own: bool) -> None:
    """Errors, retried or not, read or not, leave nothing open when the client closes."""
    session = None if own else requests.Session()
    big = json_response({"error": {"message": "x" * 3_000_000}}, 500)
    with ScriptedServer() as server, make(server.url, client=session) as s:
        server.reply(
            BUSY,
            big,
            ScriptedResponse(500, framing="close"),
            ScriptedResponse(429, chunks=[b"a"], framing="chunked"),
            json_response({}, 400),
        )
        for _ in range(3):
            with pytest.raises(errors.APIStatusError):
                s.completions.create_completion(request(stream=stream))
        s.close()
        if session is not None:
            session.close()
        server.wait_open(0)


def test_connection_of_a_failed_attempt_is_reused() -> None:
    """Five errors, one connection: their bodies are read, and the next attempt uses the same."""
    with ScriptedServer() as server, make(server.url, retry_config=PATIENT) as s:
        server.reply(*[BUSY] * 4, OK)
        assert create(s).retries_taken == 4
        assert stream_text(s) == " ok"
        assert server.connections == 1


def test_timeout_that_is_retried_closes_its_connection() -> None:
    """Attempts that ran out of time leave nothing open."""
    config = RetryConfig(backoff=QUICK.backoff, retry_read_timeouts=True)
    with silent_server() as server, make(server.url, retry_config=config, timeout=0.05) as s:
        with pytest.raises(errors.APITimeoutError):
            create(s)
        server.wait_closed(3)
        assert server.open_connections == 0


def test_callable_key_is_called_for_each_attempt() -> None:
    """A key that was rotated during the wait is used at once."""
    keys = iter(["first", "second"])
    with ScriptedServer() as server, make(server.url, security=lambda: shared.Security(api_key_auth=next(keys))) as s:
        server.reply(BUSY, OK)
        create(s)
        assert [sent.header("authorization") for sent in server.requests] == ["Bearer first", "Bearer second"]


def test_retry_sends_the_same_request() -> None:
    """No attempt carries a header that the first did not: no counter, no idempotency key."""
    with ScriptedServer() as server, make(server.url, security=shared.Security(api_key_auth="k")) as s:
        server.reply(BUSY, BUSY, OK)
        assert create(s).retries_taken == 2
        first, *others = [(sent.path, sent.headers, sent.body) for sent in server.requests]
    assert others == [first, first]
