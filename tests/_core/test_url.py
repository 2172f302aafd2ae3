"""Server URLs as pure functions: normalised, joined, filled, shown without secrets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt._core import url


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://a.example/v1", "https://a.example/v1"),
        ("https://a.example/v1/", "https://a.example/v1"),
        ("  https://a.example/v1 \n", "https://a.example/v1"),
        ("https://a.example", "https://a.example"),
        ("https://a.example/", "https://a.example"),
        ("HTTP://a.example:8080/v1", "http://a.example:8080/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("https://a.example/openai/?api-version=1", "https://a.example/openai?api-version=1"),
        ("https://a.example/v1#part", "https://a.example/v1"),
        ("https://a.example/a%2Fb/v1", "https://a.example/a%2Fb/v1"),
    ],
)
def test_check_base_strips_white_space_and_one_trailing_slash(value: str, expected: str) -> None:
    """White space and one trailing slash go, a query and escapes stay."""
    assert url.check_base(value) == expected


@pytest.mark.parametrize(
    "value",
    ["", "   ", "localhost:8000/v1", "//a.example/v1", "/v1", "https://", "https:///v1", "ftp://a.example", "v1"],
)
def test_check_base_without_scheme_or_host_raises_with_an_example(value: str) -> None:
    """The message names the option and shows a URL that works."""
    with pytest.raises(ValueError, match=r"^server_url: expected a URL such as http://localhost:8000/v1, got"):
        url.check_base(value)


@pytest.mark.parametrize(
    "value",
    [
        "http://a.example:port/v1",
        "http://a.example:99999/v1",
        "http://[::1/v1",
        "http://a example/v1",
        "http://user:hunter2/x@a.example/v1",
        "http://user:hunter2@a℀.example/v1",
        "http://a\x7fb/v1",
    ],
)
def test_check_base_of_an_invalid_url_raises_without_the_password(value: str) -> None:
    """What no URL is an error that shows no part of a password."""
    with pytest.raises(ValueError, match=r"^OPENAI_BASE_URL: ") as caught:
        url.check_base(value, "OPENAI_BASE_URL")
    assert "hunter2" not in str(caught.value)


def test_check_base_of_bytes_raises_type_error() -> None:
    """Bytes are refused with their type."""
    with pytest.raises(TypeError, match="server_url: expected a string, got bytes"):
        url.check_base(b"https://a.example")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("base", "query", "expected"),
    [
        ("https://a/v1", None, "https://a/v1/completions"),
        ("https://a", None, "https://a/completions"),
        ("https://a/v1?v=1", None, "https://a/v1/completions?v=1"),
        ("https://a/v1?v=1", {"w": 2}, "https://a/v1/completions?v=1&w=2"),
        ("https://a/v1?v=1&w=%2F", {"v": "2"}, "https://a/v1/completions?w=%2F&v=2"),
        ("https://a/v1?v=1&v=2&w=3", {"v": None}, "https://a/v1/completions?w=3"),
        ("https://a/v1", {"v": ["a", "b"]}, "https://a/v1/completions?v=a&v=b"),
        ("https://a/v1", {"v": True, "w": 0, "x": ""}, "https://a/v1/completions?v=true&w=0&x="),
        ("https://a/v1", {"v": "a b&c/é"}, "https://a/v1/completions?v=a+b%26c%2F%C3%A9"),
        ("https://a/v1?a%20b=1", {"a b": "2"}, "https://a/v1/completions?a+b=2"),
    ],
)
def test_join_with_a_query_replaces_parameters_by_name(base: str, query: Any, expected: str) -> None:
    """The base's query stays as written; a call's parameter replaces the base's of that name, `None` removes it."""
    assert url.join(base, "/completions", query) == expected


@pytest.mark.parametrize("query", ["a=b", [("a", "b")], 3])
def test_join_with_a_query_that_is_no_mapping_raises_type_error(query: Any) -> None:
    """Anything but a mapping is a TypeError that names the option."""
    with pytest.raises(TypeError, match="query: expected a mapping"):
        url.join("https://a/v1", "/completions", query)


def test_fill_replaces_every_name_and_raises_on_a_missing_value() -> None:
    """Every `{name}` is replaced; one without a value is named."""
    template = "https://{resource}.example/{deployment}/{resource}"
    assert url.fill(template, {"resource": "r", "deployment": "d"}) == "https://r.example/d/r"
    with pytest.raises(ValueError, match=r"server_url: no value for \{deployment\} in url_params"):
        url.fill(template, {"resource": "r"})
    assert url.fill("https://a/v1", {"unused": "x"}) == "https://a/v1"


@pytest.mark.parametrize(
    ("value", "bare", "userinfo"),
    [
        ("https://a/v1", "https://a/v1", None),
        ("https://u:p@a:1/v1?q=1", "https://a:1/v1?q=1", ("u", "p")),
        ("https://u@a/v1", "https://a/v1", ("u", "")),
        ("https://u%40x:p%2F%3A@a/v1", "https://a/v1", ("u@x", "p/:")),
        ("https://u:a+b@a/v1", "https://a/v1", ("u", "a+b")),
    ],
)
def test_split_userinfo_returns_the_bare_url_and_decoded_userinfo(
    value: str, bare: str, userinfo: tuple[str, str] | None
) -> None:
    """User and password leave the URL, decoded; a plus stays a plus there."""
    assert url.split_userinfo(value) == (bare, userinfo)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://u:hunter2@a:1/v1?key=hunter2#hunter2", "https://a:1/v1"),
        ("/elsewhere?key=hunter2", "/elsewhere"),
        ("u:hunter2@a/v1", "a/v1"),
        ("http://[", "(not a URL)"),
        ("", ""),
    ],
)
def test_redact_shows_only_scheme_host_and_path(value: str, expected: str) -> None:
    """Scheme, host and path are shown and nothing else."""
    assert url.redact(value) == expected


@given(st.text())
def test_redact_and_check_base_given_any_text_raise_only_value_error(text: str) -> None:
    """Any text is shown, and is a base URL or a ValueError."""
    assert isinstance(url.redact(text), str)
    for candidate in (text, f"http://{text}", f"http://a/{text}"):
        try:
            base = url.check_base(candidate)
        except ValueError:
            continue
        assert url.join(base, "/completions", {"q": text}).startswith(("http://", "https://"))


@pytest.mark.parametrize("value", [b"x", {"a": 1}, {1}, object(), [b"x"], [[1]], [None]])
def test_join_with_an_odd_query_value_raises_type_error(value: object) -> None:
    """Values that are not strings, numbers, booleans or sequences of them are refused by name, not sent as a repr."""
    with pytest.raises(
        TypeError, match=r"^query\['a'\]: expected a string, number, boolean or a sequence of them, got"
    ):
        url.join("http://host/v1", "/completions", {"a": value})  # type: ignore[dict-item]


def test_join_with_any_sequence_repeats_the_name() -> None:
    """A range, a tuple and a list are sequences alike."""
    joined = url.join("http://host", "/c", {"a": range(2), "b": (True,), "c": [], "d": 1.5, "e": "x y"})
    assert joined == "http://host/c?a=0&a=1&b=true&d=1.5&e=x+y"
