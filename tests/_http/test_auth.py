"""From a key to the wire: which one counts, when it is resolved, and what is refused."""

from __future__ import annotations

import base64
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests

import gpt
from gpt.models import shared
from gpt.models.shared import Security
from tests.support.client import OK, create, make, text
from tests.support.http_server import Received, ScriptedServer, json_response

BUSY = json_response({"error": "busy"}, 503)


def key(value: str, header: str = "Authorization") -> Security:
    """Make a security."""
    return Security(api_key_auth=value, header=header)


def basic(user: str, password: str) -> str:
    """Return the header of HTTP's basic authentication."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode("latin-1")).decode()


def sent_with(userinfo: str = "", call_headers: dict[str, str | None] | None = None, **options: Any) -> Received:
    """Make one call and give what came."""
    with ScriptedServer() as server:
        server.reply(OK)
        with make(server.url.replace("://", f"://{userinfo}"), **options) as s:
            create(s, http_headers=call_headers)
        return server.requests[0]


def numbered(*names: str) -> Callable[[], Security]:
    """Return one key after the other."""
    keys = iter(names)
    return lambda: key(next(keys))


def test_key_literal_is_stripped_and_sent_as_bearer() -> None:
    """A literal key is stripped and sent as a bearer token."""
    assert sent_with(security=key(" sk-1\n")).header_all("authorization") == ["Bearer sk-1"]


def test_key_in_another_header_is_sent_bare() -> None:
    """Azure's `api-key` carries the key alone, and nothing goes into `Authorization`."""
    sent = sent_with(security=key("k", "api-key"))
    assert sent.header("api-key") == "k"
    assert sent.header("authorization") is None
    assert sent_with(security=key("k", "authorization")).header("authorization") == "Bearer k"


@pytest.mark.parametrize("blank", ["", " ", "\n"])
def test_key_blank_is_no_key(monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    """`Security(api_key_auth="")` is keyless even where the environment has a key."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    assert sent_with(security=key(blank)).header("authorization") is None
    assert sent_with().header("authorization") == "Bearer sk-env"


def test_key_from_the_environment_is_read_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client keeps the key that it was made with."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one")
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-two")
        create(s)
        assert server.requests[0].header("authorization") == "Bearer sk-one"


def test_callable_key_is_called_once_per_attempt() -> None:
    """A callable key is called when it is needed: not at construction, again for a retry, again for a call."""
    calls = count()
    provider = numbered("first", "second", "third")

    def security() -> Security:
        next(calls)
        return provider()

    with ScriptedServer() as server, make(server.url, security=security) as s:
        server.reply(BUSY, OK)
        assert next(calls) == 0
        assert create(s).retries_taken == 1
        create(s)
        assert [sent.header("authorization") for sent in server.requests] == [
            "Bearer first",
            "Bearer second",
            "Bearer third",
        ]


def test_callable_key_returning_empty_sends_no_key() -> None:
    """An empty key from a callable counts as no key."""
    assert sent_with(security=lambda: key("")).header("authorization") is None


def test_callable_key_with_authorization_given_is_not_called() -> None:
    """With an `Authorization` of the caller's, or its `None`, no key is fetched."""
    never: Callable[[], Security] = numbered()
    assert sent_with(security=never, http_headers={"authorization": "Mine 1"}).header("authorization") == "Mine 1"
    assert sent_with(security=never, call_headers={"AUTHORIZATION": None}).header("authorization") is None


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        ("sk-hidden", TypeError, "security: expected a shared.Security, got str"),
        (None, TypeError, "security: expected a shared.Security, got NoneType"),
        (Security(api_key_auth=b"sk-hidden"), TypeError, "api_key_auth: expected a string, got bytes"),  # type: ignore[arg-type]
        (key("sk-\nhidden"), ValueError, "the key contains a control character"),
        (key("k", "hid den"), ValueError, "security.header: not the name of a header"),
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_callable_key_returning_a_bad_key_raises_without_showing_it(
    value: Any, kind: type[Exception], said: str, own: bool
) -> None:
    """What a provider gives is checked for each attempt; the message says what is wrong and shows nothing of it."""
    client = None if own else requests.Session()
    with ScriptedServer() as server, make(server.url, security=lambda: value, client=client) as s:
        with pytest.raises(kind, match=said) as caught:
            create(s)
        assert server.requests == []
    assert "hid" not in str(caught.value)


def test_callable_key_raising_passes_its_exception_and_sends_nothing() -> None:
    """Whatever a provider raises comes out as it is, and nothing is sent or retried."""
    failures = iter([LookupError("no vault")])

    def security() -> Security:
        raise next(failures)

    with ScriptedServer() as server, make(server.url, security=security) as s:
        with pytest.raises(LookupError, match="no vault"):
            create(s)
        assert server.requests == []


@pytest.mark.parametrize(
    "bad", ["sk\nhidden", "sk\x00hidden", "sk\x7fhidden", "sk\u2028hidden", "sk-hidden\u200b", "хidden"]
)
def test_key_literal_that_no_header_can_carry_fails_at_construction(bad: str) -> None:
    """A key that no header can carry fails at construction, and neither message nor context shows it."""
    with pytest.raises(ValueError, match="the key contains a control character or one outside latin-1") as caught:
        gpt.Gpt(security=key(bad))
    assert "idden" not in f"{caught.value!r} {caught.value.__cause__} {caught.value.__context__}"


def test_credentials_from_several_sources_are_header_then_key_then_userinfo() -> None:
    """Caller's header, then our key, then user and password of the URL."""
    everything: dict[str, Any] = {"userinfo": "u:p@", "security": key("k")}
    assert sent_with(**everything, http_headers={"Authorization": "Mine"}).header_all("authorization") == ["Mine"]
    assert sent_with(**everything).header_all("authorization") == ["Bearer k"]
    assert sent_with("u%40x:p%2F+@").header_all("authorization") == [basic("u@x", "p/+")]
    assert sent_with("u:p@", http_headers={"Authorization": None}).header("authorization") is None


def test_key_in_a_header_that_the_caller_sets_is_not_sent() -> None:
    """The caller's `api-key`, or its `None`, stands against a key that would go into that header."""
    azure = key("k", "api-key")
    assert sent_with(security=azure, http_headers={"Api-Key": "mine"}).header_all("api-key") == ["mine"]
    assert sent_with(security=azure, call_headers={"API-KEY": None}).header("api-key") is None
    session = requests.Session()
    assert sent_with(security=azure, client=session, http_headers={"Api-Key": "mine"}).header_all("api-key") == ["mine"]


def test_session_auth_without_a_key_is_used() -> None:
    """A session's own auth counts where we have no key, in every form that requests takes."""
    session = requests.Session()
    session.auth = ("u", "p")
    assert sent_with(client=session).header("authorization") == basic("u", "p")
    assert sent_with(client=session, security=key("k")).header_all("authorization") == ["Bearer k"]
    assert sent_with(client=session, http_headers={"Authorization": None}).header("authorization") is None

    def sign(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        prepared.headers["X-Signed"] = "yes"
        return prepared

    session.auth = sign
    assert sent_with(client=session).header("x-signed") == "yes"
    assert session.auth is sign
    assert "Authorization" not in session.headers


@pytest.mark.parametrize("own", [True, False])
def test_netrc_entry_is_never_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: bool) -> None:
    """A `.netrc` with an entry for the server neither adds nor replaces a credential."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\ndefault login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert requests.utils.get_netrc_auth("http://127.0.0.1/") == ("someone", "else")

    def client() -> requests.Session | None:
        return None if own else requests.Session()

    assert sent_with(client=client()).header("authorization") is None
    assert sent_with(client=client(), security=key("k")).header_all("authorization") == ["Bearer k"]
    assert sent_with(client=client(), security=key("k", "api-key")).header("authorization") is None
    assert sent_with(client=client(), http_headers={"Authorization": None}).header("authorization") is None


def test_error_401_is_not_retried_and_names_the_key_source() -> None:
    """A wrong key is one request, and the message names where keys come from but not the key."""
    with ScriptedServer() as server, make(server.url, security=key("sk-hidden")) as s:
        server.reply(
            json_response(
                {"error": {"message": "Incorrect API key provided: sk-hidden", "code": "invalid_api_key"}}, 401
            ),
            OK,
        )
        with pytest.raises(gpt.models.errors.AuthenticationError, match="OPENAI_API_KEY") as caught:
            create(s)
        assert len(server.requests) == 1
        assert "hidden" not in str(caught.value)
        assert caught.value.code == "invalid_api_key"
        assert text(create(s)) == " ok"


def test_key_echoed_by_the_server_is_masked_in_the_error_message() -> None:
    """A server that repeats the key of another header does not get it into our message."""
    with ScriptedServer() as server, make(server.url, security=key("hidden", "api-key")) as s:
        server.reply(json_response({"error": {"message": "bad key hidden"}}, 401))
        with pytest.raises(gpt.models.errors.AuthenticationError, match=r"bad key \*\*\*") as caught:
            create(s)
        assert "hidden" not in str(caught.value)


def test_security_repr_masks_the_key_and_equality_sees_it() -> None:
    """The model's `repr` hides the key, and equality still sees it."""
    assert repr(key("hidden")) == "Security(api_key_auth='***', header='Authorization')"
    assert repr(key("")) == "Security(api_key_auth='', header='Authorization')"
    assert key("a") == key("a") != key("b")
    assert shared.Security is Security


@pytest.mark.parametrize("own", [True, False], ids=["own", "session"])
@pytest.mark.parametrize("failure", [FileNotFoundError("no key file"), requests.ConnectionError("no vault")], ids=repr)
def test_callable_key_raising_a_network_error_passes_it_unretried(failure: Exception, own: bool) -> None:
    """A key that cannot be fetched is the provider's own exception on either session, once, and nothing is sent."""
    calls = []

    def provider() -> shared.Security:
        calls.append(1)
        raise failure

    with ScriptedServer() as server:
        s = make(server.url, security=provider, client=None if own else requests.Session())
        with pytest.raises(type(failure)) as caught:
            create(s)
        assert (caught.value, calls, server.requests) == (failure, [1], [])
