"""The endpoint `POST /completions`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ._core import codec
from ._http.body import ResponseBody, read_body
from ._http.transport import CallOptions, Transport
from ._parsing.accumulate import accumulate
from ._parsing.completion import read_completion
from ._parsing.stream import open_stream
from .models import errors, operations, shared
from .utils.eventstreaming import EventStream

if sys.version_info >= (3, 11):  # at run time too, so that `typing.get_type_hints` works
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["CallOptions", "Completions"]

PATH = "/completions"


class Completions:
    """Given a prompt, the model will return one or more predicted completions, and can also return the probabilities
    of alternative tokens at each position."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    if not TYPE_CHECKING:  # type checkers already reject an unknown name

        def __getattr__(self, name: str) -> object:
            """Raise the usual error, with a hint for users of openai-python."""
            hint = ": use create_completion(shared.CreateCompletionRequest(...))" if name == "create" else ""
            message = f"{type(self).__name__!r} object has no attribute {name!r}{hint}"
            raise AttributeError(message, name=name, obj=self)

    def create_completion(
        self, request: shared.CreateCompletionRequest, **options: Unpack[CallOptions]
    ) -> operations.CreateCompletionResponse:
        """Create a completion for the provided prompt and parameters.

        Args:
            request: what to complete and how.
            retries: what is retried and how often, for this call.
            timeout: seconds, `(connect, read)`, or `None` for no limit, for this call.
            deadline: seconds of wall clock for the whole call, a stream included.
            http_headers: headers that override the client's and the SDK's own; `None` removes one.
            query: query parameters, added to those of the server URL; they replace those of the same name.
            server_url: another base URL for this call.

        Raises:
            errors.SDKError: the call failed; `models.errors` has the classes.
            TypeError, ValueError: the request or an option cannot be used as it is.
        """
        if not isinstance(request, shared.CreateCompletionRequest):
            raise TypeError(f"request: expected a shared.CreateCompletionRequest, got {type(request).__name__}")
        payload = codec.dumps(request)
        stream = is_stream(request)
        body = self._send(payload, stream, options)
        result = operations.CreateCompletionResponse(
            status_code=body.response.status_code,
            content_type=body.content_type,
            raw_response=body.response,
            retries_taken=body.retries_taken,
        )
        if stream:
            result.completion_stream = open_stream(body)
        else:
            result.create_completion_response = read_completion(body.response, read_body(body))
        return result

    def _send(self, payload: bytes, stream: bool, options: CallOptions) -> ResponseBody:
        try:
            return self._transport.post(PATH, payload, stream=stream, options=options)
        except errors.SDKError as error:
            if stream:
                error.partial = accumulate(())  # as every error of a stream has it
            raise

    def stream_completion(
        self, request: shared.CreateCompletionRequest, **options: Unpack[CallOptions]
    ) -> EventStream[shared.CreateCompletionResponse]:
        """Create a completion and return its stream, as `create_completion` does with `stream=True`.

        The request is not changed. Options and errors are those of `create_completion`.
        """
        if not isinstance(request, shared.CreateCompletionRequest):
            raise TypeError(f"request: expected a shared.CreateCompletionRequest, got {type(request).__name__}")
        extras = {name: value for name, value in (request.additional_properties or {}).items() if name != "stream"}
        streamed = replace(request, stream=True, additional_properties=extras)
        result = self.create_completion(streamed, **options)
        assert result.completion_stream is not None
        return result.completion_stream


def is_stream(request: shared.CreateCompletionRequest) -> bool:
    """Return whether a request asks for a stream, by its field or, above that, by its extra fields."""
    extras = request.additional_properties
    if extras and isinstance(extras, Mapping) and "stream" in extras:
        return bool(extras["stream"])
    return bool(request.stream)
