"""What can be pickled for another process, without keys, and what is refused with the reason."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import requests

import gpt
from gpt.models import operations
from gpt.models.shared import Security
from tests.support.client import OK, QUICK, create, find_key, make, text
from tests.support.http_server import ScriptedServer, json_response


@pytest.fixture(scope="module")
def worker_process() -> Iterator[ProcessPoolExecutor]:
    """Yield a process that was spawned, and so shares nothing but what is pickled."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def tag(prepared: requests.PreparedRequest, send: Any) -> requests.Response:
    """Mark a request, as a hook that can be pickled."""
    prepared.headers["X-Tag"] = "tagged"
    return send(prepared)  # type: ignore[no-any-return]


def complete(s: gpt.Gpt) -> operations.CreateCompletionResponse:
    """Make a call, in whichever process."""
    return create(s)


def run_with_key(key: str | None, payload: bytes) -> str | None:
    """Unpickle a client where the environment has this key, and give the header that it would send."""
    os.environ.pop("OPENAI_API_KEY", None)
    if key is not None:
        os.environ["OPENAI_API_KEY"] = key
    try:
        header = pickle.loads(payload).sdk_configuration.key_header()
        return header[1] if header else None
    finally:
        os.environ.pop("OPENAI_API_KEY", None)


def test_client_pickled_to_a_worker_process_works(worker_process: ProcessPoolExecutor) -> None:
    """Settings, hooks and a callable key are pickled; the response comes back with its headers and no key."""
    with ScriptedServer() as server:
        server.reply(json_response(OK.body, x_request_id="r", x_ratelimit_remaining_requests="7"))
        s = make(server.url, security=find_key, hooks=[tag], http_headers={"X-A": "b", "User-Agent": None}, deadline=60)
        response = worker_process.submit(complete, s).result(60)
        sent = server.requests[0]
    assert text(response) == " ok"
    assert (response.request_id, response.rate_limit.remaining_requests, response.status_code) == ("r", 7, 200)
    assert response.raw_response.json()["id"] == "cmpl-1"
    assert response.raw_response.request is None
    assert [sent.header(name) for name in ("authorization", "x-tag", "x-a", "user-agent")] == [
        "Bearer found-here",
        "tagged",
        "b",
        None,
    ]


def test_configuration_pickled_is_equal() -> None:
    """A round trip gives an equal configuration, and a client on it."""
    s = make(
        "http://localhost:1/v1?v=1",
        timeout=(1, None),
        deadline=3,
        http_headers={"X-A": None},
        max_response_bytes=9,
        hooks=[tag],
        security=find_key,
    )
    back = pickle.loads(pickle.dumps(s))
    assert back.sdk_configuration == s.sdk_configuration
    assert pickle.loads(pickle.dumps(s.sdk_configuration)) == s.sdk_configuration
    assert back._transport is not s._transport
    assert back.sdk_configuration.retry_config == QUICK


def test_client_pickled_with_environment_key_reads_the_key_on_arrival(
    worker_process: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key from the environment is not pickled: the other process reads its own, and raises without one."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    payload = pickle.dumps(make("http://localhost:1/v1"))
    assert b"hidden" not in payload
    assert worker_process.submit(run_with_key, "sk-there", payload).result(60) == "Bearer sk-there"
    with pytest.raises(ValueError, match="pickled where OPENAI_API_KEY was set; set it here too"):
        worker_process.submit(run_with_key, None, payload).result(60)


def test_client_pickled_without_key_stays_keyless() -> None:
    """A client pickled without a key has none in the other process."""
    s = make("http://localhost:1/v1", security=Security(api_key_auth=""))
    assert run_with_key("sk-there", pickle.dumps(s)) is None


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"security": Security(api_key_auth="hidden")},
        "a literal key is not pickled: leave security= out and set OPENAI_API",
    ),
    ({"client": requests.Session()}, "client= is not pickled: its session may hold credentials; make one there"),
    ({"server_url": "http://me:hidden@localhost/v1"}, "user:password@ in its server URL is not pickled"),
    ({"server_url": "http://hidden@localhost/v1"}, "user:password@ in its server URL is not pickled"),
    ({"server_url": "http://localhost/v1?api-key=hidden"}, "api-key in the query of its server URL is not pickled"),
    ({"http_headers": {"Authorization": "hidden"}}, "Authorization in http_headers is not pickled; give security="),
    ({"http_headers": {"x-API-key": "hidden"}}, "x-API-key in http_headers is not pickled"),
    ({"http_headers": {"Cookie": "hidden"}}, "Cookie in http_headers is not pickled"),
    ({"http_headers": {"X-Auth-Token": "hidden"}}, "X-Auth-Token in http_headers is not pickled"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED, ids=lambda value: str(value)[:30])
def test_client_pickled_with_credentials_raises_type_error(options: dict[str, Any], said: str) -> None:
    """A client that holds a credential is not pickled, and the message says what to do instead."""
    s = gpt.Gpt(**{"server_url": "http://localhost:1/v1", **options})
    for each in (s, s.sdk_configuration):
        with pytest.raises(TypeError, match=said) as caught:
            pickle.dumps(each)
        assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"http_headers": {"Authorization": None}}, {"server_url": "http://a/v1?api-version=1"}]
)
def test_client_pickled_with_harmless_header_or_query_is_equal(options: dict[str, Any]) -> None:
    """A removed header and an ordinary query do not prevent pickling."""
    s = make(**{"url": options.pop("server_url", "http://a/v1"), **options})
    assert pickle.loads(pickle.dumps(s)).sdk_configuration == s.sdk_configuration
