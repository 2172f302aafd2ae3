"""OpenTelemetry: a span for each call, by the conventions for generative AI.

    from gpt import otel

    s = otel.TracedGpt(server_url="http://localhost:8000/v1")

Needs the extra `otel`. Names of spans, attributes and metrics are those of `opentelemetry-util-genai`, so that they
change with the conventions and not with this package. Prompts and completions are recorded only where
`OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` turns it on. Must not import anything that a client needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, cast
from urllib.parse import urlsplit

try:
    from opentelemetry.util.genai.handler import TelemetryHandler
    from opentelemetry.util.genai.invocation import InferenceInvocation
    from opentelemetry.util.genai.stream import SyncStreamWrapper
    from opentelemetry.util.genai.types import Error, InputMessage, OutputMessage, TextPart
except ImportError as error:
    raise ImportError("gpt.otel needs the extra 'otel': run pip install '.[otel]' in a clone of gpt-sdk") from error

from ._version import __version__
from .completions import Completions
from .models import errors, operations, shared
from .sdk import Gpt
from .utils import EventStream

__all__ = ["TracedGpt"]


class TracedGpt(Gpt):
    """A client whose calls are spans named `text_completion MODEL`.

    A span covers a whole call, retries included; the span of a stream lasts until the stream ends, is closed or is
    garbage-collected. It has the request's parameters, the response's id, model, finish reasons and token counts, for
    a stream the time to its first chunk, and the class of the error. Providers (tracer, meter, logger) are the global
    ones.
    """

    provider: str = "openai"
    """The value of `gen_ai.provider.name`. The conventions require `openai` for a server that uses its protocol and
    is not identified further; set it in a subclass to name yours."""

    def _start(self, *args: Any, **options: Any) -> None:
        super()._start(*args, **options)
        self.completions = _TracedCompletions(self)


class _TracedCompletions(Completions):
    def __init__(self, client: TracedGpt) -> None:
        super().__init__(client._transport)
        self._provider = client.provider
        self._server_url = client.sdk_configuration.server_url

    def create_completion(
        self, request: shared.CreateCompletionRequest, **options: Any
    ) -> operations.CreateCompletionResponse:
        if not isinstance(request, shared.CreateCompletionRequest):
            return super().create_completion(request, **options)  # invalid use: no call is made
        invocation = self._start_span(request, options.get("server_url"))
        try:
            result = super().create_completion(request, **options)
        except BaseException as error:
            _fail(invocation, error)
            raise
        if result.completion_stream is not None:
            stream = _TracedStream(result.completion_stream, invocation)
            result.completion_stream = cast("EventStream[shared.CreateCompletionResponse]", stream)
            invocation.suspend()  # what the caller does between two chunks is not part of this span
            return result
        if result.create_completion_response is not None:
            summary = _Summary()
            summary.add(result.create_completion_response)
            summary.write(invocation)
        invocation.stop()
        return result

    def _start_span(self, request: shared.CreateCompletionRequest, server_url: object) -> InferenceInvocation:
        parts = urlsplit(server_url if isinstance(server_url, str) and server_url.strip() else self._server_url)
        invocation = _handler().inference(
            self._provider,
            request_model=str(getattr(request.model, "value", request.model)),
            server_address=parts.hostname,
            server_port=_port(parts),
            operation_name="text_completion",
        )
        _describe_request(invocation, request)
        return invocation


@cache
def _handler() -> TelemetryHandler:
    """Return the handler of this process; one for each process, since providers are not pickled."""
    return TelemetryHandler(instrumentation_scope_name="gpt.otel", instrumentation_scope_version=__version__)


class _TracedStream(SyncStreamWrapper[shared.CreateCompletionResponse]):
    """A proxy of an `EventStream` that ends the span with the stream, however that ends."""

    def __init__(self, stream: EventStream[shared.CreateCompletionResponse], invocation: InferenceInvocation) -> None:
        super().__init__(stream, invocation)
        self._self_span = invocation
        self._self_summary = _Summary()

    def collect(self) -> shared.CreateCompletionResponse:
        """Read the rest through this proxy, then let the stream join it."""
        for _ in self:
            pass
        return cast(shared.CreateCompletionResponse, self._self_stream.collect())

    def _process_chunk(self, chunk: shared.CreateCompletionResponse) -> None:
        self._self_summary.add(chunk)

    def _on_stream_end(self) -> None:
        self._self_summary.write(self._self_span)
        self._self_span.stop()

    def _on_stream_error(self, error: BaseException) -> None:
        self._self_summary.write(self._self_span)
        _fail(self._self_span, error)


class _Summary:
    """What a span records about a response, gathered from one completion or from its chunks."""

    def __init__(self) -> None:
        self._id: str | None = None
        self._model: str | None = None
        self._usage: shared.CompletionUsage | None = None
        self._finish_reasons: dict[int, str] = {}
        self._texts: dict[int, list[str]] = {}

    def add(self, completion: shared.CreateCompletionResponse) -> None:
        self._id = completion.id if isinstance(completion.id, str) else self._id
        self._model = completion.model if isinstance(completion.model, str) else self._model
        self._usage = completion.usage if isinstance(completion.usage, shared.CompletionUsage) else self._usage
        for position, choice in enumerate(completion.choices):
            index = choice.index if type(choice.index) is int else position
            if isinstance(choice.finish_reason, str) and choice.finish_reason:
                self._finish_reasons[index] = choice.finish_reason
            if isinstance(choice.text, str):
                self._texts.setdefault(index, []).append(choice.text)

    def write(self, invocation: InferenceInvocation) -> None:
        invocation.response_id = self._id
        invocation.response_model_name = self._model
        invocation.finish_reasons = [reason for _, reason in sorted(self._finish_reasons.items())] or None
        if self._usage is not None:
            invocation.input_tokens = _count(self._usage.prompt_tokens)
            invocation.output_tokens = _count(self._usage.completion_tokens)
        if invocation.should_capture_content:
            texts = ["".join(parts) for _, parts in sorted(self._texts.items())]
            invocation.output_messages = [OutputMessage("assistant", [TextPart(text)]) for text in texts]


def _describe_request(invocation: InferenceInvocation, request: shared.CreateCompletionRequest) -> None:
    extras: Mapping[str, Any] = request.additional_properties or {}
    invocation.temperature = _number(request.temperature)
    invocation.top_p = _number(request.top_p)
    invocation.top_k = _count(extras.get("top_k"))
    invocation.max_tokens = _count(request.max_tokens)
    invocation.frequency_penalty = _number(request.frequency_penalty)
    invocation.presence_penalty = _number(request.presence_penalty)
    invocation.seed = _count(request.seed)
    invocation.request_choice_count = _count(request.n)
    stop = [request.stop] if isinstance(request.stop, str) else request.stop
    if invocation.should_capture_content:
        invocation.stop_sequences = list(stop) if stop is not None else None
        invocation.input_messages = [InputMessage("user", [TextPart(text)]) for text in _texts_of(request.prompt)]


def _texts_of(prompt: Any) -> list[str]:
    """Return the prompts that are texts; token ids are not recorded."""
    if isinstance(prompt, str):
        return [prompt]
    return [each for each in prompt if isinstance(each, str)] if isinstance(prompt, list | tuple) else []


def _fail(invocation: InferenceInvocation, error: BaseException) -> None:
    """End a span with an error: its status, else its class; the message may repeat a prompt, so only with content."""
    kind = type(error).__name__
    status = error.status_code if isinstance(error, errors.APIStatusError) else None
    message = str(error) if invocation.should_capture_content else kind if status is None else f"{kind} {status}"
    invocation.fail(Error(message=message, type=kind if status is None else str(status)))


def _port(parts: Any) -> int | None:
    return parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def _count(value: Any) -> int | None:
    return value if type(value) is int else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
