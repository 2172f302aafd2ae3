"""The root client."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import requests

from ._core.deadline import Timeout
from ._core.unset import UNSET, Unset
from ._http.transport import Throttle, Transport
from .completions import Completions
from .hooks import Hook
from .models.shared import Security
from .sdkconfiguration import (
    DEFAULT_MAX_RESPONSE_BYTES,
    DEFAULT_TIMEOUT,
    Environment,
    SDKConfiguration,
    resolve_server,
)
from .utils.retries import RetryConfig

if sys.version_info >= (3, 11):  # at run time too, so that `typing.get_type_hints` works
    from typing import Self
elif TYPE_CHECKING:
    from typing_extensions import Self

_SDK_ATTRIBUTES = ("sdk_configuration", "_transport", "completions")

_OTHER_NAMES = {
    "api_key": "security=shared.Security(api_key_auth=...)",
    "base_url": "server_url=",
    "default_headers": "http_headers=",
    "http_client": "client=, a requests.Session",
    "max_retries": "retry_config=utils.RetryConfig(max_retries=...)",
}
"""What the options of openai-python are called here."""


class Gpt:
    """A client of one server. Make one, share it between threads, close it or use it in a `with` block.

    Example:
        with gpt.Gpt(server_url="http://localhost:8000/v1") as s:
            request = shared.CreateCompletionRequest(model="my-model", prompt="Say this is a test")
            print(s.completions.create_completion(request).text)
    """

    completions: Completions
    """The text completions endpoint."""

    sdk_configuration: SDKConfiguration
    """The settings, resolved and frozen."""

    def __init__(
        self,
        security: Security | Callable[[], Security] | None = None,
        server_idx: int | None = None,
        server_url: str | None = None,
        url_params: Mapping[str, str] | None = None,
        client: requests.Session | None = None,
        retry_config: RetryConfig | None = None,
        *,
        timeout: Timeout | Unset = UNSET,
        deadline: float | None = None,
        http_headers: Mapping[str, str | None] | None = None,
        hooks: Iterable[Hook] = (),
        max_response_bytes: int = DEFAULT_MAX_RESPONSE_BYTES,
        **unknown: NoReturn,  # type checkers reject any other name; at run time the error has a hint
    ) -> None:
        """Configure a client; nothing is sent yet.

        Args:
            security: the key, or a function that returns it, called for every attempt. Without it, `OPENAI_API_KEY`.
            server_idx: index into `gpt.sdkconfiguration.SERVERS`; not together with `server_url`.
            server_url: the base URL, such as `http://localhost:8000/v1`. Without it and `server_idx`,
                `OPENAI_BASE_URL`.
            url_params: values for `{name}` parts of `server_url`.
            client: your own `requests.Session`; its headers, auth, adapters and hooks apply; it is never closed.
            retry_config: what is retried and how often; retries are on by default.
            timeout: seconds for connecting and for each read, `(connect, read)`, or `None`; default (5, 600).
            deadline: seconds of wall clock for each call as a whole.
            http_headers: headers of every request, which override the SDK's own; `None` removes one.
            hooks: functions around each attempt, the first one outermost; see `gpt.hooks`.
            max_response_bytes: the largest response that is read, in bytes, decompressed.

        Raises:
            TypeError, ValueError: an option cannot be used as it is.
        """
        try:
            if unknown:
                raise TypeError(_unknown_option(next(iter(unknown))))
            configuration = SDKConfiguration(
                server_url=resolve_server(server_idx, server_url, url_params),
                security=security,
                client=client,
                retry_config=RetryConfig() if retry_config is None else retry_config,
                timeout=DEFAULT_TIMEOUT if isinstance(timeout, Unset) else timeout,  # type: ignore[arg-type]
                deadline=deadline,
                http_headers={} if http_headers is None else http_headers,
                hooks=hooks,  # type: ignore[arg-type]
                max_response_bytes=max_response_bytes,
                environment_headers=Environment.headers(),
                environment_key=Environment.api_key() if security is None else None,
            )
            self._start(configuration, Transport(configuration))
            return
        except (TypeError, ValueError) as error:
            # This frame and those of the checks hold keys and passwords, which a traceback with locals would show.
            # The message names the option.
            refused = error.with_traceback(None)
        del security, server_url, url_params, client, http_headers, hooks, unknown
        try:
            raise refused
        finally:
            del refused  # its traceback holds this frame

    @classmethod
    def from_configuration(cls, configuration: SDKConfiguration, *, throttle: Throttle | None = None) -> Self:
        """Return a client with these settings and connections of its own.

        Args:
            configuration: settings, such as `dataclasses.replace(s.sdk_configuration, deadline=2)`.
            throttle: shared by a bulk run's calls to one server, so that a rate limit on one of them pauses all.
        """
        client = object.__new__(cls)
        client._start(configuration, Transport(configuration, throttle))
        return client

    def with_options(
        self,
        *,
        timeout: Timeout | Unset = UNSET,
        deadline: float | Unset | None = UNSET,
        retry_config: RetryConfig | Unset = UNSET,
        http_headers: Mapping[str, str | None] | Unset = UNSET,
        hooks: Iterable[Hook] | Unset = UNSET,
        server_url: str | Unset = UNSET,
    ) -> Self:
        """Return another client on the same connections, with some settings replaced; `UNSET` keeps one.

        Closing either closes the idle connections of both; the next call opens new ones.

        Args:
            timeout: seconds for connecting and for each read, `(connect, read)`, or `None`.
            deadline: seconds of wall clock for each call as a whole; `None` for no limit.
            retry_config: what is retried and how often.
            http_headers: headers of every request, in place of the client's.
            hooks: functions around each attempt, in place of the client's.
            server_url: another base URL.

        Raises:
            TypeError, ValueError: an option cannot be used as it is.
        """
        options = {
            "timeout": timeout,
            "deadline": deadline,
            "retry_config": retry_config,
            "http_headers": http_headers,
            "hooks": hooks,
            "server_url": server_url,
        }
        changes: dict[str, Any] = {name: value for name, value in options.items() if value is not UNSET}
        configuration = replace(self.sdk_configuration, **changes)
        return self._copy(configuration, self._transport.with_configuration(configuration))

    def _copy(self, configuration: SDKConfiguration, transport: Transport) -> Self:
        """Return a client that keeps the attributes that a subclass set on this one."""
        client = object.__new__(type(self))
        vars(client).update(vars(self))
        client._start(configuration, transport)
        return client

    def _start(self, configuration: SDKConfiguration, transport: Transport) -> None:
        self.sdk_configuration = configuration
        self._transport = transport
        self.completions = Completions(transport)

    def close(self) -> None:
        """Close idle connections, from any thread. A session given as `client` stays open; so do running streams."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Gpt({getattr(self, 'sdk_configuration', 'not made')!r})"

    def __copy__(self) -> Self:
        """Return another client on the same connections."""
        return self._copy(self.sdk_configuration, self._transport)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return another client with the same settings and connections of its own."""
        client = self._copy(self.sdk_configuration, Transport(self.sdk_configuration))
        memo[id(self)] = client
        vars(client).update(deepcopy(self._added_attributes(), memo))
        return client

    def __getstate__(self) -> dict[str, Any]:
        return {**self._added_attributes(), "sdk_configuration": self.sdk_configuration}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start(self.sdk_configuration, Transport(self.sdk_configuration))

    def _added_attributes(self) -> dict[str, Any]:
        """Return the attributes that a subclass or the application set."""
        return {name: value for name, value in vars(self).items() if name not in _SDK_ATTRIBUTES}


def _unknown_option(name: str) -> str:
    hint = f": use {_OTHER_NAMES[name]}" if name in _OTHER_NAMES else ""
    return f"Gpt() got an unexpected keyword argument {name!r}{hint}"
