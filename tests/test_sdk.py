"""The client: its options, what it takes from the environment, its life."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import re
import threading
from collections import Counter
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import requests

import gpt
from gpt._http.session import DefaultSession
from gpt.completions import Completions
from gpt.models import shared
from gpt.sdkconfiguration import SERVERS
from gpt.utils import RetryConfig
from tests.support.client import OK, ONCE, create, make, request, text
from tests.support.http_server import ScriptedServer, sse_response

LOCAL = "http://localhost:1/v1"


def test_client_without_options_goes_to_openai_without_a_key() -> None:
    """Without options and environment the first server of the specification is used, keyless."""
    s = gpt.Gpt()
    assert SERVERS == ("https://api.openai.com/v1",)
    assert s.sdk_configuration.server_url == SERVERS[0]
    assert s.sdk_configuration.get_server_details() == (SERVERS[0], {})
    assert s.sdk_configuration.key_header() is None
    assert s.sdk_configuration.timeout == (5.0, 600.0)
    assert s.sdk_configuration.retry_config == RetryConfig()
    assert gpt.Gpt(server_idx=0).sdk_configuration.server_url == SERVERS[0]


@pytest.mark.parametrize("blank", ["", "  ", "\n"])
def test_client_with_blank_environment_variables_ignores_them(monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    """Docker and CI set variables to nothing; that says nothing."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, blank)
    configuration = gpt.Gpt(server_url=blank).sdk_configuration
    assert configuration.server_url == SERVERS[0]
    assert configuration.key_header() is None
    assert configuration.environment_headers == {}


def test_client_with_environment_variables_uses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key, server, organization and project come from the environment and reach the wire."""
    with ScriptedServer() as server:
        server.reply(OK)
        monkeypatch.setenv("OPENAI_BASE_URL", f" {server.url}/ ")
        monkeypatch.setenv("OPENAI_API_KEY", " sk-env\n")
        monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
        monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
        with gpt.Gpt() as s:
            assert text(create(s)) == " ok"
        sent = server.requests[0]
        assert sent.path == "/v1/completions"
        assert sent.header("authorization") == "Bearer sk-env"
        assert (sent.header("openai-organization"), sent.header("openai-project")) == ("org-1", "proj-1")


def test_client_options_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server given by URL or index is not replaced by the environment's."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere/v1")
    assert gpt.Gpt(server_url=LOCAL).sdk_configuration.server_url == LOCAL
    assert gpt.Gpt(server_idx=0).sdk_configuration.server_url == SERVERS[0]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OPENAI_BASE_URL", "localhost:8000", "OPENAI_BASE_URL: expected a URL"),
        ("OPENAI_API_KEY", "sk\x07hidden", "OPENAI_API_KEY: the key contains a control character"),
        ("OPENAI_ORG_ID", "org\x07hidden", "OPENAI_ORG_ID: it contains a character"),
    ],
)
def test_client_with_invalid_environment_variable_raises_value_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    """A variable that cannot be used is an error at construction that names it and shows no key."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=said) as caught:
        gpt.Gpt()
    assert "hidden" not in str(caught.value)


def test_client_with_url_params_fills_the_server_url() -> None:
    """An Azure address is written once and filled per client."""
    s = gpt.Gpt(
        server_url="https://{resource}.openai.azure.com/openai/deployments/{deployment}?api-version=1",
        url_params={"resource": "r", "deployment": "d"},
    )
    assert s.sdk_configuration.server_url == "https://r.openai.azure.com/openai/deployments/d?api-version=1"
    with pytest.raises(ValueError, match=r"no value for \{resource\}"):
        gpt.Gpt(server_url="https://{resource}.example")


BAD_OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"security": "sk-hidden"}, TypeError, "security: expected a shared.Security, got str"),
    ({"security": shared.Security(api_key_auth=None)}, TypeError, "api_key_auth: expected a string, got NoneType"),  # type: ignore[arg-type]
    ({"security": shared.Security(api_key_auth="k", header="a b")}, ValueError, "security.header: not the name"),
    ({"server_url": b"http://a"}, TypeError, "server_url: expected a string, got bytes"),
    ({"server_url": "a/v1"}, ValueError, "server_url: expected a URL such as"),
    ({"server_url": "http://*.a/v1"}, ValueError, "server_url: 'http://\\*.a/v1' cannot be sent to"),
    ({"server_idx": 1}, ValueError, "server_idx: expected one of 0 .*, got 1"),
    ({"server_idx": True}, TypeError, "server_idx: expected an integer, got bool"),
    ({"client": object()}, TypeError, "client: expected a requests.Session .* got object"),
    ({"client": "http://a"}, TypeError, "client: expected a requests.Session"),
    ({"retry_config": 3}, TypeError, "RetryConfig, got int"),
    ({"timeout": 0}, ValueError, "timeout: expected a positive number of seconds, got 0"),
    ({"timeout": -1.5}, ValueError, "timeout: expected a positive"),
    ({"timeout": math.nan}, ValueError, "timeout: expected a positive"),
    ({"timeout": math.inf}, ValueError, "timeout: .*None means no limit"),
    ({"timeout": 1e10}, ValueError, "timeout: expected at most 1,000,000,000 seconds .None means no"),
    ({"timeout": 10**400}, ValueError, "timeout: expected at most"),
    ({"timeout": "5"}, TypeError, "timeout: expected a number of seconds or None, got str"),
    ({"timeout": True}, TypeError, "timeout: .* got bool"),
    ({"timeout": (1, 2, 3)}, ValueError, "timeout: expected \\(connect, read\\), got 3 values"),
    ({"timeout": (1, 0)}, ValueError, "timeout\\[1\\]: expected a positive"),
    ({"deadline": 0}, ValueError, "deadline: expected a positive"),
    ({"deadline": "1"}, TypeError, "deadline: expected a number"),
    ({"http_headers": [("a", "b")]}, TypeError, "http_headers: expected a mapping, got list"),
    ({"http_headers": {"a": 1}}, TypeError, "http_headers\\['a'\\]: expected a string or None, got int"),
    ({"http_headers": {1: "a"}}, TypeError, "http_headers: expected header names to be strings, got int"),
    ({"hooks": print}, TypeError, "hooks: expected a list of functions, got a single one"),
    ({"hooks": ["a"]}, TypeError, "hooks: expected functions .* got str"),
    ({"max_response_bytes": 0}, ValueError, "max_response_bytes: expected at least 1, got 0"),
    ({"max_response_bytes": 1.5}, TypeError, "max_response_bytes: expected an integer, got float"),
    ({"api_key": "sk-hidden"}, TypeError, "unexpected .* 'api_key': use security=shared.Security"),
    ({"base_url": "http://a"}, TypeError, "unexpected .* 'base_url': use server_url="),
    ({"server": "http://a"}, TypeError, "unexpected keyword argument 'server'$"),
]


@pytest.mark.parametrize(("options", "kind", "said"), BAD_OPTIONS, ids=lambda value: str(value)[:40])
def test_client_with_invalid_options_raises_at_construction(
    options: dict[str, Any], kind: type[Exception], said: str
) -> None:
    """A wrong option fails at construction, and the message says which, what was expected and what came."""
    with pytest.raises(kind, match=said) as caught:
        gpt.Gpt(**options)
    assert type(caught.value) is kind
    assert "hidden" not in str(caught.value)


BAD_CALLS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"retries": None}, TypeError, "retries: None is ambiguous.*strategy='none'"),
    ({"retries": 3}, TypeError, "retries: expected a utils.RetryConfig, got int"),
    ({"timeout": 0}, ValueError, "timeout: expected a positive"),
    ({"deadline": -1}, ValueError, "deadline: expected a positive"),
    ({"http_headers": {"Host": "a"}}, ValueError, "Host is set by the client"),
    ({"query": "a=b"}, TypeError, "query: expected a mapping"),
    ({"server_url": "a"}, ValueError, "server_url: expected a URL"),
    ({"server_url": 1}, TypeError, "server_url: expected a string, got int"),
    ({"server_url": "http://*.a/v1?key=hidden"}, ValueError, "server_url: .* cannot be sent to"),
]


@pytest.mark.parametrize(("options", "kind", "said"), BAD_CALLS, ids=lambda value: str(value)[:40])
def test_call_with_invalid_options_raises_before_sending(
    options: dict[str, Any], kind: type[Exception], said: str
) -> None:
    """A wrong option of a call fails before anything is sent."""
    with ScriptedServer() as server, make(server.url) as s:
        with pytest.raises(kind, match=said) as caught:
            create(s, **options)
        assert server.connections == 0
    assert type(caught.value) is kind
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("bad", [{"model": "m", "prompt": "p"}, None, "Say"])
def test_call_given_anything_but_a_request_raises_type_error(bad: Any) -> None:
    """Anything but the request model is a TypeError, in both operations."""
    s = make(LOCAL)
    with pytest.raises(TypeError, match=r"request: expected a shared\.CreateCompletionRequest, got"):
        s.completions.create_completion(bad)
    with pytest.raises(TypeError, match=r"request: expected a shared\.CreateCompletionRequest, got"):
        s.completions.stream_completion(bad)


def test_call_without_request_raises_type_error() -> None:
    """A call without a request names it, and options are given by name."""
    options: Any = RetryConfig()
    with pytest.raises(TypeError, match="request"):
        make(LOCAL).completions.create_completion()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        make(LOCAL).completions.create_completion(request(), options)  # type: ignore[call-arg]


def test_configuration_assigned_to_raises_and_replaced_is_another() -> None:
    """Settings do not change under a running client; `replace` makes another configuration."""
    configuration = gpt.Gpt(server_url=LOCAL).sdk_configuration
    with pytest.raises(FrozenInstanceError):
        configuration.deadline = 1.0  # type: ignore[misc]
    assert replace(configuration, deadline=2).deadline == 2.0


def test_repr_of_client_configuration_and_security_shows_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Client, configuration and security say where they go and whether there is a key, not which."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    for s in (
        gpt.Gpt(server_url="http://u:hidden@localhost/v1?key=hidden"),
        gpt.Gpt(security=shared.Security(api_key_auth="hidden"), http_headers={"X-Key": "hidden"}, server_url=LOCAL),
    ):
        rendered = f"{s!r} {s} {s.sdk_configuration!r} {s.sdk_configuration.security!r} {s.completions!r}"
        assert "http://localhost" in rendered
        assert "key=set" in rendered
        assert "hidden" not in rendered
    assert "key=none" in repr(gpt.Gpt(security=shared.Security(api_key_auth=""), server_url=LOCAL))
    assert "key=callable" in repr(gpt.Gpt(security=lambda: shared.Security(api_key_auth="hidden")))


def test_user_agent_of_a_call_names_package_python_and_requests() -> None:
    """The package, its version, Python and requests are named, and the version is public."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        create(s)
        agent = server.requests[0].header("user-agent") or ""
    assert re.fullmatch(r"gpt-sdk/[\d.]+\S* python/3\.\d+ requests/[\d.]+", agent)
    assert agent.startswith(f"gpt-sdk/{gpt.__version__} ")


def test_copy_shares_connections_and_deepcopy_does_not() -> None:
    """A copy works on the same connections, a deep copy on its own, both with the key; neither closes the other's."""
    with ScriptedServer() as server, make(server.url, security=shared.Security(api_key_auth="k")) as s:
        server.reply(OK)
        shallow, deep = copy.copy(s), copy.deepcopy(s)
        assert shallow.sdk_configuration is deep.sdk_configuration is s.sdk_configuration
        assert [text(create(each)) for each in (s, shallow, deep)] == [" ok"] * 3
        assert [sent.connection for sent in server.requests] == [1, 1, 2]
        assert {sent.header("authorization") for sent in server.requests} == {"Bearer k"}
        deep.close()
        assert text(create(s)) == " ok"
        assert server.requests[-1].connection == 1
        assert copy.copy(s.sdk_configuration) is copy.deepcopy(s.sdk_configuration) is s.sdk_configuration


def test_client_closed_by_its_block_still_works() -> None:
    """`with` closes the idle connections; the next call opens a new one."""
    with ScriptedServer() as server:
        server.reply(OK)
        with make(server.url) as s:
            create(s)
            assert server.open_connections == 1
        server.wait_open(0)
        s.close()
        assert text(create(s)) == " ok"
        s.close()
        server.wait_open(0)


def test_client_with_a_users_session_does_not_close_the_session() -> None:
    """A session that was passed stays open behind the block."""
    with ScriptedServer() as server, requests.Session() as session:
        server.reply(OK)
        with make(server.url, client=session) as s:
            create(s)
        session.get(server.url)
        assert {sent.connection for sent in server.requests} == {1}


def test_close_from_other_threads_spoils_no_call() -> None:
    """Closing again and again under running calls spoils none of the later ones."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        closing = threading.Event()

        def keep_closing() -> None:
            while not closing.is_set():
                s.close()

        threads = [threading.Thread(target=keep_closing) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(100):
                assert text(create(s)) == " ok"
        finally:
            closing.set()
            for thread in threads:
                thread.join()
        assert text(create(s, retries=ONCE)) == " ok"


def test_close_during_a_stream_leaves_the_stream_alone() -> None:
    """A stream that is being read goes on to its end after `close`."""
    gate = threading.Event()
    with ScriptedServer() as server, make(server.url) as s:
        chunk = {"choices": [{"text": "a", "index": 0, "finish_reason": "stop"}]}
        server.reply(sse_response(chunk, gate, chunk))
        with s.completions.stream_completion(request()) as stream:
            next(stream)
            s.close()
            gate.set()
            assert next(stream).choices[0].text == "a"
            assert stream.collect().choices[0].text == "aa"


def test_client_streaming_and_completing_uses_one_connection() -> None:
    """The same client streams and completes; one connection serves both."""
    with ScriptedServer() as server, make(server.url) as s:
        server.respond_with(lambda sent: sse_response(sent.json()["x"]) if sent.json().get("stream") else OK)
        chunk = {"choices": [{"text": "s", "index": 0, "finish_reason": "stop"}]}
        create_with = request(additional_properties={"x": chunk})
        for _ in range(3):
            assert text(create(s)) == " ok"
            assert s.completions.stream_completion(create_with).collect().choices[0].text == "s"
        assert server.connections == 1


class Tagged(gpt.Gpt):
    """A client of a user's, with something on it."""

    def __init__(self, tags: list[str], **options: Any) -> None:
        super().__init__(**options)
        self.tags = tags


def pickled(s: gpt.Gpt) -> Any:
    return pickle.loads(pickle.dumps(s))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda s: s.with_options(deadline=9), pickled])
def test_copy_of_a_subclass_keeps_class_and_attributes(copied: Any) -> None:
    """Copies, unpickled clients and those by `with_options` are of the same class and have what it put on them."""
    with ScriptedServer() as server, Tagged(["a"], server_url=server.url) as s:
        server.reply(OK)
        other: Any = copied(s)
        assert (type(other), other.tags) == (Tagged, ["a"])
        assert (other.tags is vars(s)["tags"]) == (copied not in (copy.deepcopy, pickled))
        create(other)


def test_with_options_replaces_settings_on_the_same_connections() -> None:
    """What is named is replaced, the rest stays, and no second connection is opened."""
    with ScriptedServer() as server, make(server.url, http_headers={"X-A": "1"}, deadline=30) as s:
        server.reply(OK, OK)
        create(s)
        other = s.with_options(timeout=7, http_headers={"X-B": "2"}, server_url=server.url.replace("/v1", "/v2"))
        create(other)
        sent = server.requests[1]
        assert server.connections == 1
    assert (sent.path, sent.header("x-a"), sent.header("x-b")) == ("/v2/completions", None, "2")
    assert (other.sdk_configuration.timeout, other.sdk_configuration.deadline) == ((7.0, 7.0), 30.0)
    assert s.sdk_configuration.timeout != (7.0, 7.0)


def test_with_options_given_invalid_values_raises_like_the_constructor() -> None:
    """The message names the option."""
    s = gpt.Gpt(server_url="http://host/v1")
    with pytest.raises(ValueError, match=r"^deadline: expected a positive"):
        s.with_options(deadline=0)
    with pytest.raises(TypeError, match=r"^retry_config: expected a utils.RetryConfig, got int"):
        s.with_options(retry_config=3)  # type: ignore[arg-type]


def test_from_configuration_makes_a_client_of_the_settings() -> None:
    """Settings that were changed by `dataclasses.replace` make a client with connections of its own."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        other = gpt.Gpt.from_configuration(replace(s.sdk_configuration, http_headers={"X-A": "1"}))
        create(other)
        assert server.requests[0].header("x-a") == "1"


def test_call_with_unknown_option_raises_type_error() -> None:
    """A misspelt option fails before anything is sent, with the names that there are."""
    with ScriptedServer() as server, make(server.url) as s:
        with pytest.raises(
            TypeError, match=r"^tiemout: not an option of a call; expected one of deadline, http_headers"
        ):
            create(s, tiemout=1)
        assert server.connections == 0


def test_copy_dropped_leaves_the_pool_open() -> None:
    """The connections that a copy shares stay open when it goes."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        other = copy.copy(s)
        assert text(create(other)) == " ok"
        del other
        gc.collect()
        assert text(create(s)) == " ok"
        assert server.connections == 1


def test_copy_repeated_leaves_no_objects_behind() -> None:
    """Copying again and again piles up no objects of ours."""

    def live() -> Counter[type]:
        gc.collect()
        return Counter(type(each) for each in gc.get_objects() if issubclass(type(each), DefaultSession | Completions))

    with make("http://127.0.0.1:9/v1") as s:
        before = live()
        for _ in range(50):
            copy.copy(s)
            copy.deepcopy(s)
        assert live() == before


def test_completions_unknown_method_raises_attribute_error() -> None:
    """`create` leads to `create_completion`; any other unknown name is an ordinary `AttributeError`."""
    completions: Any = make(LOCAL).completions
    with pytest.raises(AttributeError, match=r"no attribute 'create': use create_completion\(shared\."):
        completions.create(model="m")
    with pytest.raises(AttributeError, match=r"no attribute 'other'$"):
        completions.other()
    assert not hasattr(completions, "create")
