"""Spans of calls, as OpenTelemetry's own exporter receives them."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gpt import local, otel
from gpt.models import errors
from tests.support.client import COMPLETION, ONCE, QUICK, chunk, request
from tests.support.http_server import ScriptedResponse, ScriptedServer, json_response, sse_response

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
PROMPT = "a secret prompt"

_exporter = InMemorySpanExporter()


@pytest.fixture(scope="module", autouse=True)
def _provider() -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_exporter))
    trace.set_tracer_provider(provider)


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """What the calls of one test leave."""
    _exporter.clear()
    yield _exporter
    _exporter.clear()


def only(exporter: InMemorySpanExporter) -> tuple[ReadableSpan, dict[str, Any]]:
    """Return the only span and its attributes."""
    (span,) = exporter.get_finished_spans()
    return span, dict(span.attributes or {})


def error_response(status: int, message: str = "busy") -> ScriptedResponse:
    """Return a scripted error response."""
    return json_response({"error": {"message": message}}, status)


def make(url: str, **options: Any) -> otel.TracedGpt:
    return otel.TracedGpt(**{"server_url": url, "retry_config": QUICK, **options})


def test_call_success_is_one_span_by_the_conventions(spans: InMemorySpanExporter) -> None:
    """A call, its retry included, is one span with the request's and the response's attributes and no text."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(error_response(503), json_response({**COMPLETION, "model": "m-1", "usage": USAGE}))
        s.completions.create_completion(request(prompt=PROMPT, temperature=0.5, max_tokens=7, seed=1, stop=["x"]))
    span, found = only(spans)
    assert span.name == "text_completion m"
    assert span.kind is trace.SpanKind.CLIENT
    expected = {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.seed": 1,
        "gen_ai.response.id": "cmpl-1",
        "gen_ai.response.model": "m-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
        "server.address": "127.0.0.1",
        "server.port": server.port,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert PROMPT not in span.to_json()
    assert " ok" not in [str(value) for value in found.values()]


def test_call_failure_names_the_status_and_shows_no_text(spans: InMemorySpanExporter) -> None:
    """The span of a failed call has the status as its error type, and not the message, which may repeat the prompt."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(error_response(400, f"cannot use {PROMPT}"))
        with pytest.raises(errors.BadRequestError):
            s.completions.create_completion(request(prompt=PROMPT))
    span, found = only(spans)
    assert span.status.status_code is trace.StatusCode.ERROR
    assert found["error.type"] == "400"
    assert PROMPT not in span.to_json()


def test_call_without_response_names_the_class(spans: InMemorySpanExporter) -> None:
    """Without a status the error type is the exception's class."""
    with make("http://127.0.0.1:9/v1", retry_config=ONCE) as s, pytest.raises(errors.APIConnectionError):
        s.completions.create_completion(request())
    assert only(spans)[1]["error.type"] == "APIConnectionError"


def test_stream_end_ends_the_span(spans: InMemorySpanExporter) -> None:
    """A stream's span ends with the stream and has what its chunks said, and the time to the first of them."""
    last = {**chunk("", "stop"), "usage": USAGE}
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(chunk("a"), last))
        stream = s.completions.stream_completion(request())
        assert not spans.get_finished_spans()
        assert not trace.get_current_span().get_span_context().is_valid
        assert stream.collect().choices[0].text == "a"
        assert stream.completed
    _, found = only(spans)
    assert found["gen_ai.response.finish_reasons"] == ("stop",)
    assert found["gen_ai.usage.output_tokens"] == 2
    assert found["gen_ai.response.time_to_first_chunk"] > 0


@pytest.mark.parametrize("how", ["close", "with", "drop"])
def test_stream_left_early_ends_the_span(spans: InMemorySpanExporter, how: str) -> None:
    """Closing a stream, leaving its `with`, or dropping it ends its span and its connection."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(chunk("a"), threading.Event()))
        stream = s.completions.stream_completion(request())
        if how == "with":
            with stream:
                next(stream)
        else:
            next(stream)
            if how == "close":
                stream.close()
        del stream
        server.tcp.wait_closed(1)
    only(spans)


def test_stream_that_breaks_off_is_an_error(spans: InMemorySpanExporter) -> None:
    """A stream that is cut ends its span with an error, and the caller gets the error with what was received."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(chunk("a"), done=False))
        with pytest.raises(errors.StreamInterruptedError) as caught:
            s.completions.stream_completion(request()).collect()
    assert caught.value.partial is not None
    span, found = only(spans)
    assert span.status.status_code is trace.StatusCode.ERROR
    assert found["error.type"] == "StreamInterruptedError"


def test_content_is_recorded_only_where_asked_for(spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The conventions' own variable turns prompts and completions on."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")
    otel._handler.cache_clear()
    try:
        with ScriptedServer() as server, make(server.url) as s:
            server.reply(json_response(COMPLETION))
            s.completions.create_completion(request(prompt=PROMPT))
    finally:
        otel._handler.cache_clear()
    _, found = only(spans)
    assert PROMPT in found["gen_ai.input.messages"]
    assert " ok" in found["gen_ai.output.messages"]


def test_client_traced_and_pickled_still_traces(spans: InMemorySpanExporter, local_server: local.Server) -> None:
    """A traced client stays one through pickle, on a real engine too."""
    with pickle.loads(pickle.dumps(otel.TracedGpt(server_url=local_server.url))) as s:
        s.completions.create_completion(request(prompt="A class", max_tokens=2))
    assert only(spans)[1]["gen_ai.usage.output_tokens"] == 2
