"""Every exception of the layers below is classified; no other comes out of a call."""

from __future__ import annotations

import http.client
import inspect
import socket
import ssl
import zlib
from collections.abc import Callable, Iterator
from itertools import product
from types import ModuleType
from typing import Any

import pytest
import requests
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from gpt._http.errors import connection_error
from gpt._http.failures import TRANSPORT_EXCEPTIONS, classify, redact_urls
from gpt.models import errors

SECRET = "http://me:hidden@host/v1/completions?key=hidden"
KINDS = {"connection", "timeout", "protocol", "other"}


def exceptions_in(module: ModuleType) -> Iterator[type[BaseException]]:
    """Yield the exception classes that a module defines; warnings are never raised."""
    for _, each in inspect.getmembers(module, inspect.isclass):
        if (
            issubclass(each, Exception)
            and not issubclass(each, Warning)
            and each.__module__ == module.__name__
            and each.__name__[0] != "_"
        ):
            yield each


def attempts(cls: type[BaseException]) -> Iterator[BaseException]:
    """Try the constructors' shapes: nothing, a text, a pool and a text, an error number…"""
    pool = urllib3.HTTPConnectionPool("host", 80)
    cause = OSError(104, "Connection reset by peer")
    shapes: list[tuple[Any, ...]] = [
        (SECRET,),
        (),
        (pool, SECRET),
        (pool, "with url: /v1?key=hidden (x)", cause),
        (1, SECRET),
        (SECRET, cause),
    ]
    shapes += [
        (SECRET, 1),
        (pool, SECRET, cause),
        (SECRET, 1, SECRET),
        (urllib3.HTTPResponse(b""), b"5"),
        (1, 2),
        ("bad", "{", 0),
        (b"", 2),
        ("utf-8", b"\xff", 0, 1, "bad"),
    ]
    for shape in shapes:
        try:
            error = cls(*shape)
            str(error), repr(error)
        except (TypeError, AttributeError, AssertionError):
            continue
        yield error


MODULES = (requests.exceptions, urllib3.exceptions, http.client, socket, ssl, zlib)
CLASSES = sorted(
    {cls for module in MODULES for cls in exceptions_in(module)}, key=lambda cls: f"{cls.__module__}.{cls.__name__}"
)
BUILTIN = [cls for cls in vars(__import__("builtins")).values() if isinstance(cls, type) and issubclass(cls, OSError)]


@pytest.mark.parametrize("cls", [*CLASSES, *BUILTIN], ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_classify_given_every_transport_exception_gives_a_kind_and_no_secrets(cls: type[BaseException]) -> None:
    """Each class of the layers below is caught, classified and described without its secrets, however it is made."""
    made = list(attempts(cls))
    assert made, f"{cls.__name__} could not be made: add its shape to attempts()"
    for error in made:
        assert isinstance(error, TRANSPORT_EXCEPTIONS)
        failure = classify(error)
        assert failure.kind in KINDS
        assert failure.text
        assert "hidden" not in f"{failure.text} {failure.cause!r} {failure.cause.args}"
        assert (failure.cause.__cause__, failure.cause.__context__) == (None, None)
        assert isinstance(connection_error(failure, "host", None), errors.APIConnectionError)


RESET = ConnectionResetError(104, "Connection reset by peer")
POOL = urllib3.HTTPConnectionPool("host", 80)
EXAMPLES: list[tuple[Callable[[], BaseException], str, str]] = [
    (lambda: requests.ConnectTimeout("slow"), "timeout/connect", "slow"),
    (lambda: requests.ReadTimeout("slow"), "timeout/read", "slow"),
    (
        lambda: requests.ConnectionError(urllib3.exceptions.ReadTimeoutError(POOL, "/", "Read timed out.")),
        "timeout/read",
        "timed out",
    ),
    (
        lambda: requests.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", RESET)),
        "connection",
        "reset by peer",
    ),
    (
        lambda: requests.ConnectionError(urllib3.exceptions.ProtocolError("x", http.client.RemoteDisconnected("gone"))),
        "connection",
        "gone",
    ),
    (
        lambda: requests.ConnectionError(urllib3.exceptions.ProtocolError("x", http.client.BadStatusLine("SSH"))),
        "protocol",
        "SSH",
    ),
    (lambda: requests.exceptions.SSLError(ssl.SSLCertVerificationError(1, "self-signed")), "protocol", "self-signed"),
    (
        lambda: requests.exceptions.ProxyError(urllib3.exceptions.ProxyError("no proxy", OSError("407"))),
        "connection",
        "407",
    ),
    (
        lambda: requests.exceptions.ChunkedEncodingError(urllib3.exceptions.ProtocolError("x", RESET)),
        "connection",
        "reset",
    ),
    (lambda: requests.exceptions.ContentDecodingError(urllib3.exceptions.DecodeError("bad gzip")), "other", "bad gzip"),
    (
        lambda: urllib3.exceptions.NewConnectionError(urllib3.connection.HTTPConnection("h"), "refused"),
        "connection",
        "refused",
    ),
    (lambda: requests.exceptions.MissingSchema("no scheme"), "other", "no scheme"),
    (lambda: BrokenPipeError(32, "Broken pipe"), "connection", "Broken pipe"),
    (lambda: TimeoutError("timed out"), "timeout/read", "timed out"),
    (lambda: TimeoutError("_ssl.c:989: The handshake operation timed out"), "timeout/connect", "handshake"),
    (lambda: socket.gaierror(-2, "Name or service not known"), "other", "Name or service"),
]


@pytest.mark.parametrize(("make", "kind", "said"), EXAMPLES, ids=lambda value: str(value)[:20])
def test_classify_given_wrapped_causes_takes_kind_and_text_of_the_innermost(
    make: Callable[[], BaseException], kind: str, said: str
) -> None:
    """The wrapped cause decides the kind, and the innermost reason is what a person reads."""
    failure = classify(make())
    assert kind in (failure.kind, f"{failure.kind}/{failure.phase}")
    assert said in failure.text


def test_classify_follows_cause_and_context_and_ends_in_a_ring() -> None:
    """A reason that hangs on `__cause__` or `__context__` counts; a ring of them ends."""
    outer = requests.ConnectionError("outer")
    outer.__cause__ = urllib3.exceptions.ProtocolError("middle")
    outer.__cause__.__context__ = TimeoutError("inner")
    assert classify(outer).kind == "timeout"
    outer.__cause__.__context__.__context__ = outer
    assert classify(outer).kind == "timeout"


def test_classify_given_an_exception_that_cannot_be_remade_names_its_class() -> None:
    """A class with a constructor of its own becomes a plain exception that names it."""

    class Odd(requests.RequestException):
        def __init__(self, one: int, two: int) -> None:
            super().__init__("odd")

    cause = classify(Odd(1, 2)).cause
    assert type(cause) is RuntimeError
    assert str(cause) == "Odd: Odd: odd"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a http://me:pw@host/v1?key=k b", "a http://host/v1 b"),
        ("'https://host/v1?key=k'", "'https://host/v1'"),
        (
            "Max retries exceeded with url: /v1/completions?key=k (Caused",
            "Max retries exceeded with url: /v1/completions (Caused",
        ),
        ("nothing to hide", "nothing to hide"),
        ("http://host:80 and http://me@host2", "http://host:80 and http://host2"),
    ],
)
def test_redact_urls_removes_userinfo_and_query_and_keeps_the_rest(text: str, expected: str) -> None:
    """User, password and query leave every URL of a text, the rest stays."""
    assert redact_urls(text) == expected


@given(
    st.text("abc:/?#[]@!$&'()*+,;=%-._~ ", max_size=30),
    st.sampled_from(["http://", "https://", "socks5h://"]),
    st.sampled_from(
        ["{0}me:{1}hidden@host/v1", "{0}host/v1?k={1}hidden", "{0}me:hidden{1}@host", "with url: /v1?{1}hidden"]
    ),
)
def test_redact_urls_given_noise_around_a_password_never_shows_it(noise: str, scheme: str, form: str) -> None:
    """Whatever stands around a password in a URL, it does not survive where the URL has no space or quote in it."""
    text = form.format(scheme, noise)
    if not any(c in noise for c in " '\"()"):
        assert "hidden" not in redact_urls(text)


def test_transport_exceptions_contain_no_sdk_or_programming_errors() -> None:
    """`TRANSPORT_EXCEPTIONS` names families: none has a class of ours or a mistake in the caller's code in it."""
    strangers = (TypeError, KeyError, AttributeError, errors.SDKError, AssertionError)
    for family, stranger in product(TRANSPORT_EXCEPTIONS, strangers):
        assert not issubclass(stranger, family)
