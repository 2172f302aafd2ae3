"""The settings of a client: server, key, time limits, retries, headers, hooks. Frozen, and pickled without keys."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, dataclass, field
from functools import cached_property
from typing import Any

import requests

from ._core import url
from ._core.deadline import parse_seconds, parse_timeout
from ._core.headers import FrozenHeaders, check_headers, check_key_header, is_credential, is_sendable
from .hooks import Hook
from .models.shared import Security
from .utils.retries import RetryConfig, check_retries

__all__ = ["SERVERS", "SDKConfiguration"]

SERVERS = ("https://api.openai.com/v1",)
"""The servers of the API specification."""

DEFAULT_TIMEOUT = (5.0, 600.0)
"""Seconds for connecting, and for each read."""

DEFAULT_MAX_RESPONSE_BYTES = 256 * 1024 * 1024
"""How large a response may be, decompressed."""


class Environment:
    """The environment variables that a client reads when it is made. A blank value counts as unset.

    Proxies (`HTTPS_PROXY` and the like) are read by requests: see `_http.request.EnvironmentProxies`.
    """

    @staticmethod
    def api_key() -> Security | None:
        """Return `OPENAI_API_KEY`."""
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        return Security(api_key_auth=key) if key else None

    @staticmethod
    def base_url() -> str:
        """Return `OPENAI_BASE_URL`; empty when it is not set."""
        return os.environ.get("OPENAI_BASE_URL", "").strip()

    @staticmethod
    def headers() -> dict[str, str]:
        """Return the headers for `OPENAI_ORG_ID` and `OPENAI_PROJECT_ID`.

        Raises:
            ValueError: one cannot be sent in a header.
        """
        names = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}
        found = {header: os.environ.get(variable, "").strip() for variable, header in names.items()}
        for variable, header in names.items():
            if not is_sendable(found[header]):
                raise ValueError(f"{variable}: it contains a character that a header cannot carry")
        return {header: value for header, value in found.items() if value}

    @staticmethod
    def ca_bundle() -> str:
        """Return the file of trusted certificates, by the variables that requests reads; empty for the default."""
        paths = (os.environ.get(name, "") for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"))
        return next((path for path in paths if path.strip()), "")


class _SealedSecurity(Security):
    """A literal key inside a configuration: cannot be changed, and has no fields that `dataclasses.asdict` would show.

    `asdict` uses `__dataclass_fields__`; without any it returns `{}` (`test_sdkconfiguration` checks this).
    """

    __dataclass_fields__ = {}  # noqa: RUF012

    def __init__(self, security: Security) -> None:
        vars(self).update(api_key_auth=security.api_key_auth, header=security.header)

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to {name}: a client's settings are frozen")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Security) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __copy__(self) -> _SealedSecurity:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> _SealedSecurity:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle_security, (self.api_key_auth, self.header)


def _unpickle_security(api_key_auth: str, header: str) -> _SealedSecurity:
    return _SealedSecurity(Security(api_key_auth=api_key_auth, header=header))


class _KeyHeader(tuple[str, str]):
    """The name and value of the header that carries the key; its `repr` hides the value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"({self[0]!r}, '***')"


@dataclass(frozen=True, kw_only=True, repr=False)
class SDKConfiguration:
    """The settings of a client, checked and resolved: frozen, all the way down.

    Its `repr` shows no key, nor does `dataclasses.asdict`. Equal by value, and so not hashable.
    """

    server_url: str
    """The base URL, normalised."""

    security: Security | Callable[[], Security] | None = None
    """The key as it was passed; `None` stands for `OPENAI_API_KEY`."""

    client: requests.Session | None = None
    """The caller's own `requests.Session`, or `None` for ours."""

    retry_config: RetryConfig = field(default_factory=RetryConfig)
    """What is retried and how often."""

    timeout: tuple[float | None, float | None] = DEFAULT_TIMEOUT
    """Seconds for connecting and for each read; `None` for no limit."""

    deadline: float | None = None
    """Seconds for a whole call; `None` for no limit."""

    http_headers: Mapping[str, str | None] = field(default_factory=lambda: FrozenHeaders({}))
    """Headers of every request; `None` removes one."""

    hooks: tuple[Hook, ...] = ()
    """Functions around each attempt, the first one outermost."""

    max_response_bytes: int = DEFAULT_MAX_RESPONSE_BYTES
    """How large a response may be, decompressed, in bytes."""

    environment_headers: Mapping[str, str | None] = field(default_factory=lambda: FrozenHeaders({}))
    """`OpenAI-Organization` and `OpenAI-Project`, where the environment sets them."""

    environment_key: Security | None = field(default=None, compare=False)
    """`OPENAI_API_KEY` as it was at construction; read again where a pickled client is unpickled."""

    __hash__ = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        object.__setattr__(self, "server_url", url.check_base(self.server_url))
        object.__setattr__(self, "timeout", parse_timeout(self.timeout))
        object.__setattr__(self, "deadline", parse_seconds(self.deadline, "deadline"))
        object.__setattr__(self, "http_headers", FrozenHeaders(check_headers(self.http_headers)))
        object.__setattr__(self, "environment_headers", FrozenHeaders(self.environment_headers))
        object.__setattr__(self, "hooks", _check_hooks(self.hooks))
        for name in ("security", "environment_key"):
            if isinstance(getattr(self, name), Security):
                object.__setattr__(self, name, _SealedSecurity(getattr(self, name)))
        _check_client(self.client)
        _check_size(self.max_response_bytes)
        check_retries(self.retry_config, "retry_config")
        if not callable(self.security):
            _ = self._static_header

    @cached_property
    def _static_header(self) -> _KeyHeader | None:
        if self.security is not None:
            return key_header(self.security)
        if self.environment_key is None:
            return None
        return key_header(self.environment_key, "OPENAI_API_KEY")

    def key_header(self) -> _KeyHeader | None:
        """Return the header that carries the key of this attempt; `None` when there is none."""
        if callable(self.security):
            return key_header(self.security())
        return self._static_header

    def get_server_details(self) -> tuple[str, dict[str, str]]:
        """Return the base URL and its parameters, which are already filled in."""
        return self.server_url, {}

    def __repr__(self) -> str:
        try:
            return self._summary()
        except Exception:  # invalid settings, shown in a traceback with locals
            return "<SDKConfiguration, refused>"

    def _summary(self) -> str:
        key = "callable" if callable(self.security) else "set" if self._static_header else "none"
        parts = [
            f"server_url={url.redact(self.server_url)!r}",
            f"key={key}",
            f"timeout={self.timeout}",
            f"deadline={self.deadline}",
            f"http_headers={sorted(self.http_headers)}",
            f"hooks={len(self.hooks)}",
        ]
        return f"SDKConfiguration({', '.join(parts)})"

    def __copy__(self) -> SDKConfiguration:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> SDKConfiguration:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        refuse_to_pickle_keys(self)
        state = {name: value for name, value in vars(self).items() if name not in ("_static_header",)}
        needs_key = state.pop("environment_key") is not None and self.security is None
        for name in ("http_headers", "environment_headers"):
            state[name] = dict(state[name])
        return _unpickle, (state, needs_key)


def _unpickle(state: dict[str, Any], needs_key: bool) -> SDKConfiguration:
    key = Environment.api_key()
    if needs_key and key is None:
        raise ValueError(
            "this client was pickled where OPENAI_API_KEY was set; set it here too,"
            " or give security= a function that finds the key"
        )
    return SDKConfiguration(**state, environment_key=key)


def refuse_to_pickle_keys(configuration: SDKConfiguration) -> None:
    """Raise a `TypeError` that says what to do instead if the pickle would contain a credential."""
    if isinstance(configuration.security, Security) and configuration.key_header() is not None:
        raise TypeError(
            "a client with a literal key is not pickled: leave security= out and set OPENAI_API_KEY where the"
            " client arrives, or give security= a module-level function that finds the key"
        )
    if configuration.client is not None:
        raise TypeError("a client with client= is not pickled: its session may hold credentials; make one there")
    if url.split_userinfo(configuration.server_url)[1]:
        raise TypeError("a client with user:password@ in its server URL is not pickled; give security= a function")
    for name in url.query_names(configuration.server_url):
        if is_credential(name):
            raise TypeError(f"a client with {name} in the query of its server URL is not pickled")
    for name, value in configuration.http_headers.items():
        if value is not None and is_credential(name):
            raise TypeError(f"a client with {name} in http_headers is not pickled; give security= a function")


def resolve_server(server_idx: int | None, server_url: str | None, url_params: Mapping[str, str] | None) -> str:
    """Return the base URL: the `server_url` passed, else `OPENAI_BASE_URL`, else `SERVERS`. Blank counts as absent.

    Raises:
        TypeError, ValueError: an option is not a URL or a server's index, or two options contradict each other.
    """
    if server_url is not None and not isinstance(server_url, str):
        raise TypeError(f"server_url: expected a string, got {type(server_url).__name__}")
    if server_url and server_url.strip():
        if server_idx is not None:
            raise ValueError("server_idx: it contradicts server_url; give one of them")
        return url.check_base(url.fill(server_url, url_params))
    if url_params:
        raise ValueError("url_params: there is no server_url whose {name} parts they could fill")
    if server_idx is None:
        base = Environment.base_url()
        return url.check_base(base, "OPENAI_BASE_URL") if base else SERVERS[0]
    if isinstance(server_idx, bool) or not isinstance(server_idx, int):
        raise TypeError(f"server_idx: expected an integer, got {type(server_idx).__name__}")
    if not 0 <= server_idx < len(SERVERS):
        known = ", ".join(f"{index} ({server})" for index, server in enumerate(SERVERS))
        raise ValueError(f"server_idx: expected one of {known}, got {server_idx}")
    return SERVERS[server_idx]


def key_header(security: object, source: str = "security.api_key_auth") -> _KeyHeader | None:
    """Return the header for a `Security`, `None` if it has no key; `source` names the key in messages.

    Raises:
        TypeError: it is not a `Security`, or its parts are not strings.
        ValueError: the key or the header's name cannot be sent. The message does not show the key.
    """
    if not isinstance(security, Security):
        raise TypeError(f"security: expected a shared.Security, got {type(security).__name__}")
    if not isinstance(security.api_key_auth, str):
        raise TypeError(f"{source}: expected a string, got {type(security.api_key_auth).__name__}")
    if not security.api_key_auth.strip():
        return None
    if not is_sendable(security.api_key_auth.strip()):
        raise ValueError(
            f"{source}: the key contains a control character or one outside latin-1;"
            " was it copied with something around it?"
        )
    name = check_key_header(security.header, "security.header")
    prefix = "Bearer " if name.lower() == "authorization" else ""
    return _KeyHeader((name, prefix + security.api_key_auth.strip()))


def _check_client(client: object) -> None:
    if client is not None and not (
        callable(getattr(client, "send", None)) and callable(getattr(client, "prepare_request", None))
    ):
        raise TypeError(
            f"client: expected a requests.Session (something with send and prepare_request),"
            f" got {type(client).__name__}"
        )


def _check_hooks(hooks: Any) -> tuple[Hook, ...]:
    if callable(hooks) or isinstance(hooks, str):
        raise TypeError("hooks: expected a list of functions, got a single one; write hooks=[hook]")
    checked = tuple(hooks)
    for hook in checked:
        if not callable(hook):
            raise TypeError(f"hooks: expected functions (request, send) -> response, got {type(hook).__name__}")
    return checked


def _check_size(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"max_response_bytes: expected an integer, got {type(value).__name__}")
    if value <= 0:
        raise ValueError(f"max_response_bytes: expected at least 1, got {value}")
