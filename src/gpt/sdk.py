"""The root client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._core.deadline import Timeout
from ._http.transport import Throttle, Transport
from .completions import Completions
from .hooks import Hook
from .models.shared import Security
from .sdkconfiguration import (
    DEFAULT_MAX_RESPONSE_BYTES,
    DEFAULT_TIMEOUT,
    SDKConfiguration,
    environment_headers,
    environment_key,
    resolve_server,
)
from .utils.retries import RetryConfig, check_retries
from .utils.unset import UNSET, Unset

if TYPE_CHECKING:
    from typing_extensions import Self


class Gpt:
    """A client of one server. Make one, share it between threads, close it or use it in a `with` block."""

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
        client: Any = None,
        retry_config: RetryConfig | None = None,
        *,
        timeout: Timeout | Unset = UNSET,
        deadline: float | None = None,
        http_headers: Mapping[str, str | None] | None = None,
        hooks: Iterable[Hook] = (),
        max_response_bytes: int = DEFAULT_MAX_RESPONSE_BYTES,
    ) -> None:
        """Configure a client; nothing is sent yet.

        Args:
            security: the key, or a function that gives it, called for every attempt. Without it, `OPENAI_API_KEY`.
            server_idx: which of the specification's servers.
            server_url: the base URL, such as `http://localhost:8000/v1`. Without it and `server_idx`,
                `OPENAI_BASE_URL`.
            url_params: values for `{name}` parts of `server_url`.
            client: your own `requests.Session`; it is used with everything on it and never closed.
            retry_config: what is retried and how often; retries are on by default.
            timeout: seconds for connecting and for each read, `(connect, read)`, or `None`; default (5, 600).
            deadline: seconds of wall clock for each call as a whole.
            http_headers: headers of every request, winning over ours; `None` takes one off the wire.
            hooks: functions around each attempt, the first one outermost; see `gpt.hooks`.
            max_response_bytes: how large an answer may be, decompressed.

        Raises:
            TypeError, ValueError: an option cannot be used as it is.
        """
        self._start(
            SDKConfiguration(
                server_url=resolve_server(server_idx, server_url, url_params),
                security=security,
                client=client,
                retry_config=RetryConfig() if retry_config is None else check_retries(retry_config, "retry_config"),
                timeout=DEFAULT_TIMEOUT if isinstance(timeout, Unset) else timeout,  # type: ignore[arg-type]
                deadline=deadline,
                http_headers={} if http_headers is None else http_headers,
                hooks=hooks,  # type: ignore[arg-type]
                max_response_bytes=max_response_bytes,
                environment_headers=environment_headers(),
                environment_key=environment_key() if security is None else None,
            )
        )

    @classmethod
    def from_configuration(cls, configuration: SDKConfiguration, *, throttle: Throttle | None = None) -> Self:
        """Return a client with these settings and connections of its own.

        Args:
            configuration: settings, such as `dataclasses.replace(s.sdk_configuration, deadline=2)`.
            throttle: what the calls of a bulk run share, so that a rate limit of one holds all of them.
        """
        client = cls.__new__(cls)
        client._start(configuration, Transport(configuration, throttle))
        return client

    def _start(self, configuration: SDKConfiguration, transport: Transport | None = None) -> None:
        self.sdk_configuration = configuration
        self._transport = transport or Transport(configuration)
        self.completions = Completions(self._transport)

    def close(self) -> None:
        """Close idle connections, from any thread. A session given as `client` stays open; so do running streams."""
        self._transport.close()

    def __enter__(self) -> Gpt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Gpt({getattr(self, 'sdk_configuration', 'not made')!r})"

    def __copy__(self) -> Gpt:
        """Give another client on the same connections."""
        other = object.__new__(type(self))
        other._start(self.sdk_configuration, self._transport)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Gpt:
        """Give another client with the same settings and connections of its own."""
        other = object.__new__(type(self))
        other._start(self.sdk_configuration)
        return other

    def __getstate__(self) -> dict[str, Any]:
        return {"sdk_configuration": self.sdk_configuration}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._start(state["sdk_configuration"])
