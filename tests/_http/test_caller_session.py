"""The caller's own `requests.Session`: used with all that is on it, changed in nothing but its cookies."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

import gpt
from gpt.models import errors, shared
from tests.support.client import COMPLETION, OK, ONCE, create, make, request, stream_text, text
from tests.support.http_server import ScriptedServer, json_response, sse_response
from tests.support.proxies import ForwardProxy
from tests.support.raw_server import RawServer, read_request


def state_of(session: requests.Session) -> dict[str, Any]:
    """Return everything that a session carries, copied, but for its cookies."""
    names = [name for name in vars(session) if name != "cookies"]
    return {name: copy.copy(getattr(session, name)) for name in names}


def test_session_headers_params_and_cookies_are_sent() -> None:
    """What the session adds to every request is on ours too; its query comes after the URL's."""
    session = requests.Session()
    session.headers["X-Team"] = "a"
    session.params = {"tenant": "t 1"}
    session.cookies.set("sid", "1")
    with ScriptedServer() as server, make(f"{server.url}?v=1", client=session) as s:
        server.reply(OK)
        assert text(create(s)) == " ok"
        sent = server.requests[0]
    assert sent.header("x-team") == "a"
    assert sent.path == "/v1/completions?v=1&tenant=t+1"
    assert sent.header("cookie") == "sid=1"
    assert sent.json() == {"model": "m", "prompt": "Say"}


def test_session_header_changed_wins_over_defaults_but_not_over_options() -> None:
    """A session's own user agent stands; the defaults that requests gives every session do not replace ours."""
    session = requests.Session()
    with ScriptedServer() as server:
        server.reply(OK)
        create(make(server.url, client=session))
        session.headers.update({"User-Agent": "theirs", "Accept": "x/y", "Content-Type": "text/plain"})
        create(make(server.url, client=session))
        create(make(server.url, client=session, http_headers={"user-agent": "option"}))
        agents = [sent.header_all("user-agent") for sent in server.requests]
        accepts = [sent.header_all("accept") for sent in server.requests]
        types = {sent.header("content-type") for sent in server.requests}
    assert agents[0][0].startswith("gpt-sdk/")
    assert agents[1:] == [["theirs"], ["option"]]
    assert accepts == [["application/json"], ["x/y"], ["x/y"]]
    assert types == {"application/json"}


def test_session_after_calls_has_changed_only_its_cookies() -> None:
    """After calls, errors and streams the session is as it was, apart from what servers put into its jar."""
    session = requests.Session()
    session.auth = ("u", "p")
    session.headers["X-Team"] = "a"
    session.hooks["response"].append(lambda response, **_: None)
    before = state_of(session)
    with ScriptedServer() as server:
        chunk = sse_response(COMPLETION)
        server.reply(json_response(COMPLETION, set_cookie="sid=1; Path=/"), json_response({}, 400), chunk)
        with make(
            server.url, client=session, security=shared.Security(api_key_auth="k"), http_headers={"X-A": "b"}
        ) as s:
            create(s)
            with pytest.raises(errors.BadRequestError):
                create(s)
            assert stream_text(s) == " ok"
        assert server.requests[1].header("cookie") == "sid=1"
    assert state_of(session) == before
    assert session.cookies.get_dict() == {"sid": "1"}


def test_session_default_keeps_no_cookies() -> None:
    """Without a session of the caller's, tenants share nothing through a jar."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response(COMPLETION, set_cookie="sid=1; Path=/"))
        create(s)
        create(s)
        assert server.requests[1].header("cookie") is None


def test_session_adapter_mounted_by_the_caller_sends_the_request() -> None:
    """An adapter that the caller mounted carries the request, with our timeouts and without redirects."""
    seen: list[dict[str, Any]] = []

    class Recording(HTTPAdapter):
        def send(self, prepared: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
            seen.append(options)
            return super().send(prepared, **options)

    session = requests.Session()
    session.mount("http://", Recording())
    with ScriptedServer() as server, make(server.url, client=session) as s:
        server.reply(OK)
        create(s)
        create(s, timeout=7)
        create(s, timeout=None)
    assert [options["timeout"] for options in seen] == [(5.0, 600.0), (7.0, 7.0), (None, None)]
    assert {options["stream"] for options in seen} == {True}


def test_session_hook_raise_for_status_gives_the_typed_error_and_retries() -> None:
    """A response hook that calls `raise_for_status` changes neither class nor message of the error, nor retries."""
    session = requests.Session()
    session.hooks["response"].append(lambda response, **_: response.raise_for_status())
    with ScriptedServer() as server, make(server.url, client=session) as s:
        server.reply(json_response({"error": {"message": "no such model", "code": "nope"}}, 404))
        with pytest.raises(errors.NotFoundError, match="no such model") as caught:
            create(s)
        assert (caught.value.code, caught.value.raw_response.status_code) == ("nope", 404)  # type: ignore[union-attr]
        server.reply(json_response({}, 503), OK)
        assert create(s).retries_taken == 1
        server.wait_open(1)


def test_session_hook_raising_its_own_exception_passes_it_unchanged() -> None:
    """What else such a hook raises comes out as it is."""

    session = requests.Session()
    session.hooks["response"].append(lambda response, **_: (_ for _ in ()).throw(LookupError("audit says no")))
    with ScriptedServer() as server, make(server.url, client=session) as s:
        server.reply(OK)
        with pytest.raises(LookupError, match="audit says no"):
            create(s)
        assert len(server.requests) == 1


def test_session_proxy_is_used() -> None:
    """A proxy on the session carries the call."""
    session = requests.Session()
    with ScriptedServer() as server, ForwardProxy() as proxy:
        server.reply(OK)
        session.proxies = {"http": proxy.url}
        session.trust_env = False
        assert text(create(make(server.url, client=session))) == " ok"
        assert [sent.path for sent in proxy.requests] == [f"{server.url}/completions"]


def test_session_verify_decides_which_certificate_is_trusted() -> None:
    """A CA on the session makes a certificate good; without it, the error says so at once."""
    with ScriptedServer(tls=True) as server:
        server.reply(OK)
        trusting, plain = requests.Session(), requests.Session()
        trusting.verify = server.ca_file
        assert text(create(make(server.url, client=trusting))) == " ok"
        with pytest.raises(errors.APIConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            create(make(server.url, client=plain))
        assert server.connections == 2


def test_redirect_on_a_callers_session_is_not_followed() -> None:
    """A 3xx on the caller's session raises with its target, and nothing is sent there."""
    session = requests.Session()
    with ScriptedServer() as server, ScriptedServer() as other, make(server.url, client=session) as s:
        server.reply(json_response({}, 307, location=f"{other.url}/completions?key=hidden"))
        with pytest.raises(errors.APIStatusError, match=f"the server points to {other.url}") as caught:
            create(s)
        assert other.connections == 0
        assert (caught.value.status_code, "hidden" in str(caught.value)) == (307, False)


@pytest.mark.parametrize("location", ["http://[", "ftp://x", "", "//", "http://é.ü:99999999/"])
@pytest.mark.parametrize("own", [True, False])
def test_redirect_with_an_odd_location_raises_a_typed_error(location: str, own: bool) -> None:
    """Whatever stands in `Location`, the response is a typed error with its status."""
    client = None if own else requests.Session()
    with ScriptedServer() as server, make(server.url, client=client) as s:
        server.reply(json_response({}, 302, location=location))
        with pytest.raises(errors.SDKError):
            create(s)


class Duck:
    """The least that serves as a session."""

    def __init__(self, response: bytes) -> None:
        self.response = response
        self.sent: list[tuple[requests.PreparedRequest, dict[str, Any]]] = []

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        return request.prepare()

    def send(self, prepared: requests.PreparedRequest, **options: Any) -> requests.Response:
        self.sent.append((prepared, options))
        response = requests.Response()
        response.status_code, response._content, response.url = 200, self.response, prepared.url or ""
        return response


def test_session_with_only_prepare_request_and_send_works() -> None:
    """Anything with `prepare_request` and `send` works, with key, body and timeout."""
    duck: Any = Duck(OK.body)
    s = gpt.Gpt(security=shared.Security(api_key_auth="k"), server_url="http://duck/v1", client=duck)
    assert text(create(s, timeout=3)) == " ok"
    prepared, options = duck.sent[0]
    assert (prepared.method, prepared.url) == ("POST", "http://duck/v1/completions")
    assert prepared.headers["Authorization"] == "Bearer k"
    assert options == {"stream": True, "timeout": (3.0, 3.0), "allow_redirects": False}
    assert "closed" not in vars(duck)


@pytest.mark.parametrize("bad", [object(), requests, "session", HTTPAdapter()])
def test_session_without_prepare_request_and_send_raises_type_error(bad: Any) -> None:
    """What cannot prepare and send is a TypeError that says what is expected."""
    with pytest.raises(TypeError, match=r"client: expected a requests\.Session \(something with send and"):
        gpt.Gpt(client=bad)


def test_session_header_that_cannot_be_sent_raises_without_showing_it() -> None:
    """A broken header on the session is a typed error, not retried, that does not show the value."""
    session = requests.Session()
    session.headers["X-Secret"] = "hid\nden"
    with ScriptedServer() as server, make(server.url, client=session) as s:
        with pytest.raises(errors.APIConnectionError, match="a header of the session cannot be sent") as caught:
            create(s)
        assert server.requests == []
    assert "hid" not in f"{caught.value} {caught.value.__cause__!r} {caught.value.__context__!r}"


def test_failure_on_a_callers_session_raises_a_typed_error() -> None:
    """Refused connections and cut responses come out as our errors there, too."""
    session = requests.Session()

    def cut(conn: Any, _: int) -> None:
        read_request(conn)
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")

    with RawServer(cut) as server, make(server.url, client=session) as s:
        with pytest.raises(errors.APIConnectionError, match="was cut short"):
            create(s)
        server.refuse()
        with pytest.raises(errors.APIConnectionError, match="refused"):
            s.completions.create_completion(request(), retries=ONCE)
