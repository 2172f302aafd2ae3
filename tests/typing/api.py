"""What type checkers see of the public API. Never run: mypy --strict and pyright read it."""

from __future__ import annotations

import array
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import requests
from typing_extensions import assert_type

import gpt
from gpt import bulk, hooks, local, scoring, utils, view
from gpt.completions import CallOptions
from gpt.models import errors, operations, shared


def key() -> shared.Security:
    return shared.Security(api_key_auth="sk-...")


def hook(request: requests.PreparedRequest, send: hooks.Send) -> requests.Response:
    return send(request)


assert_type(gpt.__version__, str)

# A client takes every option by name, and a key or a function that gives one.
s = gpt.Gpt()
s = gpt.Gpt(shared.Security(api_key_auth="sk-..."))
s = gpt.Gpt(security=key, server_url="http://{host}/v1", url_params={"host": "localhost"})
s = gpt.Gpt(client=requests.Session(), retry_config=utils.RetryConfig(strategy="none"))
s = gpt.Gpt(timeout=10, deadline=60.0)
s = gpt.Gpt(timeout=(5, None), http_headers={"X-Team": "search", "User-Agent": None}, hooks=[hook])
s = gpt.Gpt(timeout=None, max_response_bytes=1024)
with gpt.Gpt() as opened:
    assert_type(opened, gpt.Gpt)
assert_type(s.sdk_configuration, gpt.SDKConfiguration)
assert_type(s.sdk_configuration.server_url, str)
assert_type(s.close(), None)

# Every form of a prompt, and every field.
for prompt in ("text", ["a", "b"], [1, 2], [[1], [2, 3]], ("a", "b"), None):
    shared.CreateCompletionRequest(model="m", prompt=prompt)
shared.CreateCompletionRequest(model="m", prompt=np.array([1, 2]))
shared.CreateCompletionRequest(model="m", prompt=[np.array([1, 2]), np.array([3])])
shared.CreateCompletionRequest(model="m", prompt=array.array("l", [1, 2]), logit_bias={50256: -100})
shared.CreateCompletionRequest(model="m", prompt=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
request = shared.CreateCompletionRequest(
    model=shared.CreateCompletionRequestModel.DAVINCI_002,
    prompt="Say this is a test",
    best_of=1,
    echo=False,
    frequency_penalty=0,
    logit_bias={"50256": -100},
    logprobs=5,
    max_tokens=16,
    n=1,
    presence_penalty=0.5,
    seed=0,
    stop=["\n"],
    stream=False,
    stream_options=shared.CompletionStreamOptions(include_usage=True),
    suffix="",
    temperature=0,
    top_p=1,
    user="user-1234",
    additional_properties={"top_k": 40},
)
assert_type(request.model, str | shared.CreateCompletionRequestModel)
assert_type(request.max_tokens, int | None)
assert_type(request.to_json(), str)
assert_type(shared.CreateCompletionRequest.from_dict({"model": "m"}), shared.CreateCompletionRequest)
assert_type(shared.CreateCompletionResponse.from_json("{}"), shared.CreateCompletionResponse)

# A call and its response.
result = s.completions.create_completion(request)
result = s.completions.create_completion(
    request,
    retries=utils.RetryConfig(backoff=utils.BackoffStrategy(initial_interval=100), max_retries=5),
    timeout=(1, 2.5),
    deadline=None,
    http_headers={"X-Request-Id": "1"},
    query={"api-version": "2024-10-21"},
    server_url="http://localhost:8000/v1",
)
assert_type(result, operations.CreateCompletionResponse)
assert_type(result.status_code, int)
assert_type(result.completion, shared.CreateCompletionResponse)
assert_type(result.raw_response, requests.Response)
assert_type(result.request_id, str | None)
assert_type(result.rate_limit, operations.RateLimit)
assert_type(result.rate_limit.reset_tokens, float | None)
assert_type(result.retries_taken, int)
if result.create_completion_response is not None:
    response = result.create_completion_response
    assert_type(response.choices, list[shared.CreateCompletionResponseChoices])
    assert_type(response.choices[0].text, str | None)
    assert_type(response.text, str)
    assert_type(response.choices[0].finish_reason, str | None)
    if response.choices[0].logprobs is not None:
        assert_type(response.choices[0].logprobs.token_logprobs, list[float | None] | None)
    if response.usage is not None:
        assert_type(response.usage.total_tokens, int | None)

# A stream.
stream = s.completions.stream_completion(request, timeout=10, deadline=60)
assert_type(stream, utils.EventStream[shared.CreateCompletionResponse])
assert_type(result.completion_stream, utils.EventStream[shared.CreateCompletionResponse] | None)
assert_type(next(stream), shared.CreateCompletionResponse)
assert_type(stream.collect(), shared.CreateCompletionResponse)
assert_type(stream.completed, bool)
with stream as entered:
    for chunk in entered:
        assert_type(chunk, shared.CreateCompletionResponse)

# Options that every operation takes, and clients that share connections.
options: CallOptions = {"timeout": 10, "query": {"n": [1, 2.5, True, "x"]}}
assert_type(s.completions.create_completion(request, **options), operations.CreateCompletionResponse)
assert_type(s.with_options(deadline=5, hooks=[hook], http_headers={"X-Team": None}), gpt.Gpt)
assert_type(gpt.Gpt.from_configuration(replace(s.sdk_configuration, deadline=2)), gpt.Gpt)
assert_type(s.sdk_configuration.client, requests.Session | None)
s.completions.create_completion(request, query={"n": object()})  # type: ignore[dict-item]
s.completions.create_completion(request, tiemout=1)  # type: ignore[call-arg]

# Errors.
try:
    pass
except errors.APITimeoutError as error:
    assert_type(error.phase, Literal["connect", "send", "read", "deadline"])
except errors.RateLimitError as error:
    assert_type(error.retry_after, float | None)
    assert_type(error.code, str | int | None)
    assert_type(error.headers, Mapping[str, str])
except errors.SDKError as error:
    assert_type(error.status_code, int | None)
    assert_type(error.request_id, str | None)
    assert_type(error.partial, shared.CreateCompletionResponse | None)

# Beyond the endpoint.
with local.Server(n_parallel=2, api_key="sk-...") as server:
    assert_type(server.url, str)
for outcome in bulk.run(s, (request for _ in range(3)), max_workers=8):
    assert_type(outcome, bulk.Outcome)
    assert_type(outcome.index, int)
    assert_type(outcome.response, shared.CreateCompletionResponse | None)
    assert_type(outcome.error, Exception | None)
summary = bulk.run_jsonl(s, "requests.jsonl", "completions.jsonl", model="m", retry_errors=True)
assert_type(summary, bulk.Summary)
assert_type(summary.answered, int)
scores = scoring.score(s, ["The cat sat."], model="m", context="Once: ")
assert_type(scores, list[scoring.Score])
assert_type(scores[0].perplexity, float)
assert_type(view.to_html(shared.CreateCompletionResponse(choices=[])), str)
