"""Headers and query on the wire: ours, the client's, the call's."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

import gpt
from gpt._core.headers import request_id
from gpt.models import shared
from gpt.models.operations.ratelimit import parse_count, parse_duration
from tests.support.client import COMPLETION, OK, create, make, request
from tests.support.http_server import Received, ScriptedServer, sse_response


def sent_by(options: dict[str, Any] | None = None, *, path: str = "", **call: Any) -> Received:
    """Make one call with a client of these options and give what came."""
    with ScriptedServer() as server, make(server.url + path, **(options or {})) as s:
        server.reply(OK)
        create(s, **call)
        return server.requests[0]


def test_headers_by_default_are_exactly_these_once_each() -> None:
    """Exactly these headers are sent, once each."""
    sent = sent_by({"security": shared.Security(api_key_auth="k")})
    names = sorted(name.lower() for name, _ in sent.headers)
    assert names == [
        "accept",
        "accept-encoding",
        "authorization",
        "content-length",
        "content-type",
        "host",
        "user-agent",
    ]
    assert sent.header("content-type") == "application/json"
    assert sent.header("accept") == "application/json"
    assert sent.header("content-length") == str(len(sent.body))
    assert "gzip" in (sent.header("accept-encoding") or "")


def test_header_accept_of_a_streaming_call_is_event_stream() -> None:
    """`Accept` says what is wanted, when `stream` comes in `additional_properties` too."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(COMPLETION))
        s.completions.stream_completion(request()).collect()
        s.completions.create_completion(request(additional_properties={"stream": True})).completion_stream.collect()  # type: ignore[union-attr]
        assert [sent.header("accept") for sent in server.requests] == ["text/event-stream"] * 2


@pytest.mark.parametrize("name", ["User-Agent", "user-agent", "ACCEPT", "accept-Encoding"])
def test_header_given_in_any_case_replaces_the_default(name: str) -> None:
    """A header of the client replaces ours, and one of the call replaces both; the header is sent once."""
    assert sent_by({"http_headers": {name: "mine"}}).header_all(name) == ["mine"]
    sent = sent_by({"http_headers": {name: "mine"}}, http_headers={name.swapcase(): "call"})
    assert sent.header_all(name) == ["call"]


@pytest.mark.parametrize("own_session", [True, False])
@pytest.mark.parametrize("name", ["User-Agent", "accept-encoding", "ACCEPT", "Authorization"])
def test_header_set_to_none_is_not_sent(name: str, own_session: bool) -> None:
    """`None` removes our header, and what the layers below would put in its place."""
    client = None if own_session else requests.Session()
    options = {"security": shared.Security(api_key_auth="k"), "client": client}
    assert sent_by(options).header(name) is not None
    assert sent_by({**options, "http_headers": {name: None}}).header(name) is None
    assert sent_by(options, http_headers={name: None}).header(name) is None


def test_headers_of_a_call_override_those_of_the_client_in_both_directions() -> None:
    """The call's word is the last, in both directions."""
    sent = sent_by(
        {"http_headers": {"X-One": None, "X-Two": "2", "User-Agent": None}},
        http_headers={"x-one": "1", "X-Two": None, "user-agent": "u"},
    )
    assert (sent.header("x-one"), sent.header("x-two"), sent.header("user-agent")) == ("1", None, "u")


def test_headers_of_a_call_are_not_sent_by_the_next_one() -> None:
    """What a call adds is gone in the next one, and the caller's mapping is as it was."""
    extra = {"X-One": "1"}
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(OK)
        create(s, http_headers=extra)
        create(s)
        assert [sent.header("x-one") for sent in server.requests] == ["1", None]
    assert extra == {"X-One": "1"}


@pytest.mark.parametrize("name", ["Host", "host", "Content-Type", "CONTENT-LENGTH"])
@pytest.mark.parametrize("value", ["x", None])
def test_header_that_frames_the_request_is_refused_in_options(name: str, value: str | None) -> None:
    """Replacing or removing what frames the request is refused."""
    with pytest.raises(ValueError, match=f"http_headers: {name} is set by the client"):
        gpt.Gpt(http_headers={name: value})


@pytest.mark.parametrize(
    "value", ["hide\nb", "hide\r\nX: y", "hide\x00", " hide", "hide ", "hide\u2028", "hide日", "hide\x7f"]
)
def test_header_value_that_cannot_be_sent_is_refused_without_showing_it(value: str) -> None:
    """A value with control or non-latin-1 characters is refused by name; the message does not show it."""
    with pytest.raises(ValueError, match=r"http_headers\['X-Secret'\]: the value has") as caught:
        gpt.Gpt(http_headers={"X-Secret": value})
    assert "hide" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\n", "é", "X-Secrét"])
def test_header_name_that_http_does_not_allow_is_refused(name: str) -> None:
    """A name that HTTP does not allow is refused."""
    with pytest.raises(ValueError, match="http_headers: not the name of a header"):
        gpt.Gpt(http_headers={name: "a"})


def test_header_value_of_latin_1_or_empty_is_sent_unchanged() -> None:
    """What a header can carry arrives as it is."""
    sent = sent_by({"http_headers": {"X-Latin": "é\xa0x", "X-Empty": ""}})
    assert sent.header("x-latin") == "é\xa0x".strip()
    assert sent.header("x-empty") == ""


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("?api-version=1", None, "/v1/completions?api-version=1"),
        ("?api-version=1", {"api-version": "2"}, "/v1/completions?api-version=2"),
        ("?a=%2F&b=1", {"c": "x/y"}, "/v1/completions?a=%2F&b=1&c=x%2Fy"),
        ("/a%2Fb", None, "/v1/a%2Fb/completions"),
        ("/", {"n": 0, "on": False, "many": [1, 2]}, "/v1/completions?n=0&on=false&many=1&many=2"),
        ("?a=1&b=2", {"a": None}, "/v1/completions?b=2"),
        ("", {"q": "é&=+ "}, "/v1/completions?q=%C3%A9%26%3D%2B+"),
    ],
)
def test_query_of_url_and_call_is_merged_with_escapes_kept(
    path: str, query: dict[str, Any] | None, expected: str
) -> None:
    """A query is merged by name, what was escaped stays escaped, and the body stays out of it."""
    assert sent_by(path=path, query=query).path == expected


def test_server_url_of_a_call_applies_to_that_call_only() -> None:
    """A call can go elsewhere, with headers, key and its own query; the next goes home."""
    with ScriptedServer() as home, ScriptedServer() as away:
        home.reply(OK)
        away.reply(OK)
        with make(home.url, security=shared.Security(api_key_auth="k"), http_headers={"X-One": "1"}) as s:
            create(s, server_url=f"{away.url}/other/?v=1", query={"w": 2})
            create(s)
            create(s, server_url="")
            create(s, server_url=" \n")
        assert [sent.path for sent in away.requests] == ["/v1/other/completions?v=1&w=2"]
        assert away.requests[0].header("authorization") == "Bearer k"
        assert away.requests[0].header("x-one") == "1"
        assert len(home.requests) == 3


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-request-id": "a", "apim-request-id": "b"}, "a"),
        ({"apim-request-id": "b"}, "b"),
        ({"x-litellm-call-id": "c"}, "c"),
        ({"x-generation-id": "d"}, "d"),
        ({"request-id": "e"}, "e"),
        ({"x-request-id": "", "request-id": "e"}, "e"),
        ({}, None),
    ],
)
def test_request_id_given_known_headers_returns_the_first_non_empty_one(
    headers: dict[str, str], expected: str | None
) -> None:
    """Every known header is read, the first one that says something counts."""
    assert request_id(headers) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("12ms", 0.012),
        ("1h2m3.5s", 3723.5),
        ("1d", 86400.0),
        ("250µs", 0.00025),
        ("55", 55.0),
        ("0.5", 0.5),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("-1", None),
        ("", None),
        ("soon", None),
        ("1x", None),
        ("1s!", None),
        ("nan", None),
        ("inf", None),
        ("9" * 41, None),
        (None, None),
    ],
)
def test_parse_duration_reads_go_durations_and_seconds_else_none(text: str | None, seconds: float | None) -> None:
    """Go's durations and plain seconds are read; what is odd is `None`."""
    assert parse_duration(text) == (pytest.approx(seconds) if seconds is not None else None)


@given(st.text(max_size=60))
def test_parse_duration_and_parse_count_given_any_text_never_raise(text: str) -> None:
    """Any text is a number or `None`."""
    assert isinstance(parse_duration(text), float | None)
    assert isinstance(parse_count(text), int | None)
    assert parse_count("12") == 12
