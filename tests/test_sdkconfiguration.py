"""The settings of a client: frozen all the way down, equal by value, and without a key for whoever looks."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import traceback
from dataclasses import FrozenInstanceError, asdict, replace
from typing import Any

import pytest

import gpt
from gpt.models import shared
from tests.support.client import OK, create, make
from tests.support.http_server import ScriptedServer

KEY = "sk-nightjar-and-more"


def keyed() -> gpt.Gpt:
    """Make a client with secrets in every place for them."""
    security = shared.Security(api_key_auth=KEY)
    return gpt.Gpt(security, server_url="http://host/v1", http_headers={"X-Api-Key": KEY, "X-Plain": "plain"})


@pytest.mark.parametrize("look", [repr, vars, asdict, lambda c: asdict(replace(c, deadline=2)), copy.deepcopy])
def test_configuration_looked_at_shows_no_key(look: Any) -> None:
    """Neither `repr`, `vars` nor `dataclasses.asdict`, which everybody calls for logging, shows a key."""
    for configuration in (keyed().sdk_configuration, replace(keyed().sdk_configuration, security=None)):
        configuration.key_header()
        rendered = repr(look(configuration))
        assert "nightjar" not in rendered
    assert "nightjar" not in json.dumps(asdict(keyed().sdk_configuration), default=str)


def test_configuration_asdict_hides_the_environments_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for the key of the environment, which is sent all the same."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    configuration = gpt.Gpt().sdk_configuration
    assert "nightjar" not in repr(asdict(configuration)) + repr(vars(configuration))
    assert configuration.key_header() == ("Authorization", f"Bearer {KEY}")


def test_configuration_changed_raises() -> None:
    """Nothing in it can be changed: no field, no header, not the key."""
    configuration = keyed().sdk_configuration
    with pytest.raises(FrozenInstanceError):
        configuration.deadline = 1.0  # type: ignore[misc]
    for headers in (configuration.http_headers, configuration.environment_headers):
        with pytest.raises(TypeError):
            headers["X-New"] = "1"  # type: ignore[index]
    assert isinstance(configuration.security, shared.Security)
    with pytest.raises(FrozenInstanceError):
        configuration.security.api_key_auth = "other"


def test_configuration_given_mutable_parts_keeps_its_own() -> None:
    """What the caller changes later does not reach the client."""
    headers: dict[str, str | None] = {"X-A": "1"}
    security = shared.Security(api_key_auth=KEY)
    with ScriptedServer() as server, make(server.url, security=security, http_headers=headers) as s:
        headers["X-A"] = "2"
        security.api_key_auth = "other"
        server.reply(OK)
        create(s)
        sent = server.requests[0]
    assert (sent.header("x-a"), sent.header("authorization")) == ("1", f"Bearer {KEY}")


def test_configuration_compares_by_value_and_is_not_hashable() -> None:
    """Equal settings are equal, another key is not, and there is no hash that depends on what is in it."""
    assert keyed().sdk_configuration == keyed().sdk_configuration
    other = replace(keyed().sdk_configuration, security=shared.Security(api_key_auth="another-key"))
    assert other != keyed().sdk_configuration
    for configuration in (other, gpt.Gpt().sdk_configuration):
        with pytest.raises(TypeError, match="unhashable"):
            hash(configuration)


def test_configuration_pickled_is_equal() -> None:
    """Without a key it is pickled whole, its headers included; keyless counts as such."""
    keyless = shared.Security(api_key_auth="", header="X-Other")
    configuration = gpt.Gpt(keyless, http_headers={"X-A": "1", "Accept": None}, deadline=3).sdk_configuration
    back = pickle.loads(pickle.dumps(configuration))
    assert back == configuration
    assert dict(back.http_headers) == {"X-A": "1", "Accept": None}


REFUSED: list[dict[str, Any]] = [
    {"timeout": 0},
    {"server_url": f"http://me:{KEY}@host:port/v1"},
    {"server_url": f"ftp://host/?key={KEY}"},
    {"server_url": f"http://me:{KEY}@*.a/v1"},
    {"http_headers": {"X-Key": f"{KEY}\n"}},
    {"http_headers": {"Host": KEY}},
    {"security": shared.Security(api_key_auth=f"{KEY}\n!")},
    {"security": shared.Security(api_key_auth=KEY, header="Host")},
    {"url_params": {"a": KEY}},
]


@pytest.mark.parametrize("options", REFUSED, ids=" ".join)
def test_configuration_refused_leaves_no_key_in_a_traceback(options: dict[str, Any]) -> None:
    """A traceback with locals, as error trackers make them, shows no key of a client that was refused."""
    secrets = {"http_headers": {"X-Key": KEY}, "security": shared.Security(api_key_auth=KEY)}
    try:
        gpt.Gpt(**{**secrets, **options})
    except (TypeError, ValueError) as error:
        taken = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame for frame in taken.stack if "/gpt/" in frame.filename]
    assert frames
    rendered = "".join("".join((frame.locals or {}).values()) for frame in frames) + str(taken)
    assert "nightjar" not in rendered


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"server_idx": 0, "server_url": "http://host/v1"}, "server_idx: it contradicts server_url"),
        ({"url_params": {"a": "b"}}, "url_params: there is no server_url"),
        ({"url_params": {"a": "b"}, "server_idx": 0}, "url_params: there is no server_url"),
        ({"retry_config": 3}, "retry_config: expected a utils.RetryConfig, got int"),
        (
            {"security": shared.Security(api_key_auth="k", header="Content-Length")},
            "security.header: Content-Length is",
        ),
        ({"http_headers": {"transfer-encoding": "chunked"}}, "http_headers: transfer-encoding is set by the client"),
        ({"server_url": "localhost:8000/v1"}, "got 'localhost:8000/v1'; did you mean 'http://localhost:8000/v1'?"),
        ({"server_url": "ftp://host/v1"}, "got the scheme 'ftp'"),
        (
            {"server_url": "https://{r}.example", "url_params": {"r": "evil.example/#"}},
            "server_url: not a URL; its host",
        ),
    ],
)
def test_configuration_given_contradictions_raises(options: dict[str, Any], said: str) -> None:
    """Options that contradict each other, or would move a call elsewhere, are refused by name."""
    with pytest.raises((TypeError, ValueError)) as caught:
        gpt.Gpt(**options)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("template", "value", "expected"),
    [
        ("http://{host}/v1", "localhost:8000", "http://localhost:8000/v1"),
        ("{base}/v1", "http://localhost:8000", "http://localhost:8000/v1"),
        ("http://host/{path}", "a/b c?d#e", "http://host/a/b%20c%3Fd%23e"),
        ("http://{host}/v1", "[::1]:80", "http://[::1]:80/v1"),
    ],
)
def test_url_params_are_quoted_for_their_place(template: str, value: str, expected: str) -> None:
    """A value fills its place and nothing beyond it."""
    name = template[template.index("{") + 1 : template.index("}")]
    assert gpt.Gpt(server_url=template, url_params={name: value}).sdk_configuration.server_url == expected


def test_logging_a_client_shows_no_key() -> None:
    """`logging` of a client, as people do it, shows no key."""
    stream = io.StringIO()
    logger = logging.getLogger("test-of-configuration")
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    logger.warning("%s %r", keyed(), keyed().sdk_configuration)
    logger.removeHandler(handler)
    assert "nightjar" not in stream.getvalue()
