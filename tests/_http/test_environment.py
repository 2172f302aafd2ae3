"""Proxies and certificates that the environment names, and when it is read."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpt
from gpt.models import errors, shared
from tests.support.client import OK, create, make, stream_text, text
from tests.support.http_server import ScriptedServer, sse_response
from tests.support.proxies import ForwardProxy
from tests.support.raw_server import RawServer, read_request


@pytest.fixture
def proxy() -> Iterator[ForwardProxy]:
    """Yield a running proxy."""
    with ForwardProxy() as proxy:
        yield proxy


def test_proxy_from_http_proxy_carries_http_calls(monkeypatch: pytest.MonkeyPatch, proxy: ForwardProxy) -> None:
    """`HTTP_PROXY` carries plain calls and streams; the server sees our headers, the proxy the whole URL."""
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    with ScriptedServer() as server, make(server.url, security=shared.Security(api_key_auth="k")) as s:
        server.reply(OK, sse_response({"choices": [{"text": "a", "index": 0, "finish_reason": "stop"}]}))
        assert (text(create(s)), stream_text(s)) == (" ok", "a")
        assert [sent.path for sent in proxy.requests] == [f"{server.url}/completions"] * 2
        assert server.requests[0].header("authorization") == "Bearer k"


def test_proxy_from_https_proxy_gets_a_connect_without_key_or_path(
    monkeypatch: pytest.MonkeyPatch, proxy: ForwardProxy
) -> None:
    """`HTTPS_PROXY` gets a CONNECT and sees neither key nor path."""
    with ScriptedServer(tls=True) as server:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", server.ca_file)
        server.reply(OK)
        with make(server.url, security=shared.Security(api_key_auth="hidden")) as s:
            assert text(create(s)) == " ok"
        (sent,) = proxy.requests
        assert (sent.method, sent.path) == ("CONNECT", f"127.0.0.1:{server.port}")
        assert "hidden" not in str(sent)
        assert server.requests[0].header("authorization") == "Bearer hidden"


def test_proxy_credentials_are_sent_to_the_proxy_only(monkeypatch: pytest.MonkeyPatch, proxy: ForwardProxy) -> None:
    """The proxy gets the credentials; the server behind it does not."""
    monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("://", "://u:p%40@"))
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        create(s)
        assert (proxy.requests[0].header("proxy-authorization") or "").startswith("Basic ")
        assert server.requests[0].header("proxy-authorization") is None


@pytest.mark.parametrize("names", ["127.0.0.1", "localhost,127.0.0.1", "*", " 127.0.0.1 , other"])
def test_no_proxy_naming_the_host_connects_directly(
    monkeypatch: pytest.MonkeyPatch, proxy: ForwardProxy, names: str
) -> None:
    """A host that `NO_PROXY` names is reached directly."""
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", names)
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        assert text(create(s)) == " ok"
    assert proxy.requests == []


def test_proxy_from_the_environment_is_read_at_construction(
    monkeypatch: pytest.MonkeyPatch, proxy: ForwardProxy
) -> None:
    """A proxy that appears later does not move a running client; one that vanishes does not either."""
    with ScriptedServer() as server:
        server.reply(OK)
        direct = make(server.url)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        through = make(server.url)
        create(direct)
        assert proxy.requests == []
        monkeypatch.delenv("HTTP_PROXY")
        create(through)
        assert len(proxy.requests) == 1


def test_proxy_refusing_the_tunnel_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a proxy says instead of a tunnel is in the message; its password is not."""

    def refuse(conn: socket.socket, _: int) -> None:
        read_request(conn)
        conn.sendall(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")

    with RawServer(refuse) as proxy, ScriptedServer(tls=True) as server:
        monkeypatch.setenv("HTTPS_PROXY", f"http://u:hidden@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", server.ca_file)
        with (
            make(server.url) as s,
            pytest.raises(errors.APIConnectionError, match=r"407 Who are you \(at the proxy\)") as caught,
        ):
            create(s)
        assert "hidden" not in f"{caught.value} {caught.value.__cause__!r}"
        assert server.requests == []


@pytest.mark.parametrize("password", ["hidden", "hid/den", "hid@den", "hid?den", "hid:den", "hid%2Fden"])
@pytest.mark.parametrize("place", ["127.0.0.1:1", "127.0.0.1:port", "[", "a b"])
def test_proxy_url_broken_raises_without_the_password(
    monkeypatch: pytest.MonkeyPatch, password: str, place: str
) -> None:
    """Whatever is wrong with a proxy's URL is a typed error without its user and password."""
    monkeypatch.setenv("HTTP_PROXY", f"http://u:{password}@{place}")
    with make("http://127.0.0.1:9/v1") as s, pytest.raises(errors.APIConnectionError) as caught:
        create(s)
    rendered = f"{caught.value} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert "hid" not in rendered
    assert "den@" not in rendered


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_ca_bundle_from_the_environment_is_trusted(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """A corporate CA from the environment makes a certificate good."""
    with ScriptedServer(tls=True) as server:
        server.reply(OK)
        monkeypatch.setenv(variable, server.ca_file)
        with make(server.url) as s:
            assert text(create(s)) == " ok"


def test_ca_bundle_variable_that_is_blank_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A blank variable is passed over, as everywhere."""
    with ScriptedServer(tls=True) as server:
        server.reply(OK)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", " ")
        monkeypatch.setenv("CURL_CA_BUNDLE", server.ca_file)
        with make(server.url) as s:
            assert text(create(s)) == " ok"


def test_certificate_unknown_is_refused_without_a_retry() -> None:
    """Without the CA nothing is sent, nothing is retried, and the message says what is wrong with whom."""
    with ScriptedServer(tls=True) as server, make(server.url, security=shared.Security(api_key_auth="k")) as s:
        server.reply(OK)
        with pytest.raises(errors.APIConnectionError, match="self-signed certificate") as caught:
            create(s)
        assert f"127.0.0.1:{server.port}" in str(caught.value)
        assert (server.requests, server.connections) == ([], 1)


def test_ca_bundle_path_missing_raises_naming_the_path_without_a_retry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A path that leads nowhere is a typed error that shows the path, and is not retried."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing.pem"))
    with ScriptedServer(tls=True) as server, make(server.url) as s:
        with pytest.raises(errors.APIConnectionError, match=r"missing\.pem"):
            create(s)
        assert server.connections == 0


def test_https_url_of_a_plain_server_fails_once_and_suggests_http() -> None:
    """An `https` URL of a plain server is one attempt, and a message that says what to change."""

    def respond_plainly(conn: socket.socket, _: int) -> None:
        conn.recv(5)
        conn.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    with RawServer(respond_plainly) as server, make(server.url.replace("http:", "https:")) as s:
        with pytest.raises(errors.APIConnectionError, match="use an http:// URL") as caught:
            create(s)
        assert server.connections == 1
    assert "TLS" in str(caught.value.__cause__)


def test_environment_after_client_use_is_unchanged() -> None:
    """Making and using a client leaves the environment alone."""
    before = dict(os.environ)
    with ScriptedServer() as server, gpt.Gpt(server_url=server.url) as s:
        server.reply(OK)
        create(s)
    assert dict(os.environ) == before


def test_proxy_set_after_construction_is_ignored_by_calls_with_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that appears later moves no call to the client's server, whatever its query, headers or path."""
    with ForwardProxy() as proxy, ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        create(s, query={"a": 1})
        create(s, http_headers={"X-A": "1"})
        create(s, server_url=f"{server.url}/other")
        for number in range(40):
            create(s, query={"n": number})
        create(s)
        assert (len(server.requests), len(proxy.requests)) == (44, 0)
