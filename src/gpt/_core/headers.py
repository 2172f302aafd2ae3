"""Headers: request ids, which of them hold credentials, and which a caller may set."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping

_REQUEST_ID_HEADERS = (
    "x-request-id",
    "apim-request-id",
    "x-litellm-call-id",
    "x-generation-id",
    "request-id",
)
_CREDENTIAL_WORDS = (
    *("auth", "key", "token", "secret", "cookie", "pass", "pwd", "credential", "session", "access", "bearer", "jwt"),
    *("signature", "subscription"),
)
_CREDENTIAL_PARTS = {"sig", "sas", "code"}
"""Too short to match anywhere in a name: `design` is not a signature."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token of RFC 9110, 5.6.2."""

_VALUE = re.compile(r"[ -~\xa0-\xff]*")

_OURS = ("host", "content-type", "content-length", "transfer-encoding")
"""Headers that say where a request goes and how long it is."""


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the server's name for the request: OpenAI, vLLM, Azure, LiteLLM and OpenRouter each have a header."""
    return next((headers[name] for name in _REQUEST_ID_HEADERS if headers.get(name)), None)


def is_credential(name: str) -> bool:
    """Return whether a header or parameter of this name is likely to hold a credential."""
    name = name.lower()
    return any(word in name for word in _CREDENTIAL_WORDS) or bool(_CREDENTIAL_PARTS & set(re.split("[-_.]", name)))


def credentials_in(headers: Mapping[str, object]) -> list[str]:
    """Return the keys that are sent with these headers, to keep them out of messages should a server repeat them."""
    found: list[str] = []
    for name, value in headers.items():
        if is_credential(name):
            text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
            scheme, _, rest = text.partition(" ")
            found.append(rest if rest and scheme in ("Bearer", "Basic") else text)
            if scheme == "Basic":
                found += _basic_password(rest)
    return found


def _basic_password(encoded: str) -> list[str]:
    """Return the password of HTTP Basic authentication (RFC 7617)."""
    try:
        return [base64.b64decode(encoded).decode("latin-1").partition(":")[2]]
    except ValueError:
        return []


def check_headers(headers: Mapping[str, str | None] | None, name: str = "http_headers") -> dict[str, str | None]:
    """Check extra headers; `None` as a value removes a header.

    Raises:
        TypeError: a name or value is not a string.
        ValueError: one cannot be sent, or is set by the client itself. The message does not show the value.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise TypeError(f"{name}: expected a mapping, got {type(headers).__name__}")
    return {_checked(key, value, name): value for key, value in headers.items()}


def _checked(key: object, value: object, name: str) -> str:
    header = check_header_name(key, name)
    if header.lower() in _OURS:
        raise ValueError(f"{name}: {header} is set by the client and cannot be replaced")
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name}[{header!r}]: expected a string or None, got {type(value).__name__}")
    if value is not None and not (is_sendable(value) and value == value.strip()):
        raise ValueError(
            f"{name}[{header!r}]: the value has white space around it, a control character or one outside latin-1"
        )
    return header


def check_header_name(value: object, name: str) -> str:
    """Check the name of a header.

    Raises:
        TypeError: it is not a string.
        ValueError: it has characters that a name cannot have.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected header names to be strings, got {type(value).__name__}")
    if not _NAME.fullmatch(value):
        raise ValueError(f"{name}: not the name of a header ({len(value)} characters)")
    return value


def check_key_header(value: object, name: str) -> str:
    """Check the name of the header that carries a key.

    Raises:
        TypeError, ValueError: as `check_header_name`; also for a header that is set by the client itself.
    """
    header = check_header_name(value, name)
    if header.lower() in _OURS:
        raise ValueError(f"{name}: {header} is set by the client and cannot carry a key")
    return header


class FrozenHeaders(Mapping[str, "str | None"]):
    """Headers that cannot be changed, and whose `repr` shows no credential."""

    __slots__ = ("_headers",)

    def __init__(self, headers: Mapping[str, str | None]) -> None:
        self._headers = dict(headers)

    def __getitem__(self, name: str) -> str | None:
        return self._headers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._headers)

    def __len__(self) -> int:
        return len(self._headers)

    def __repr__(self) -> str:
        hidden = {name: value if value is None or not is_credential(name) else "***" for name, value in self.items()}
        return repr(hidden)

    def __copy__(self) -> FrozenHeaders:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> FrozenHeaders:
        return self


def is_sendable(text: str) -> bool:
    """Return whether a header can carry a text: latin-1, no control characters."""
    return _VALUE.fullmatch(text) is not None
