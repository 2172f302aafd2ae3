"""Error responses of every server: the class, what the message says, and the details on the exception."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt._http.errors import status_error
from gpt.models import errors, shared
from gpt.models.errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
    ResponseValidationError,
    SDKError,
    UnprocessableEntityError,
)
from tests.support.client import OK, ONCE, create, make, request
from tests.support.fixtures import ErrorSample, error_samples, vllm, vllm_names
from tests.support.http_server import ScriptedResponse, ScriptedServer, json_response
from tests.support.strategies import JSON_ERRORS

W40 = error_samples()

# Of each sample: its class, what its message says, code, type, param.
EXPECTED: list[tuple[type[SDKError], str, Any, str | None, str | None]] = [
    (AuthenticationError, "Incorrect API key provided", "invalid_api_key", "invalid_request_error", None),
    (AuthenticationError, ": Unauthorized;", None, None, None),
    (AuthenticationError, "Invalid API key", None, None, None),
    (AuthenticationError, "an error without a message", "invalid_api_key", "invalid_request_error", None),
    (AuthenticationError, "Unauthorized. Access token is missing", 401, None, None),
    (AuthenticationError, "Access denied", "401", None, None),
    (AuthenticationError, "no explanation", None, None, None),
    (BadRequestError, "too long", 400, "BadRequestError", None),
    (BadRequestError, "exceeds context", 400, "exceed_context_size_error", None),
    (BadRequestError, ": m (code 40301)", 40301, None, None),
    (APIStatusError, "Insufficient credits (code 402); the account has no credit left", 402, None, None),
    (NotFoundError, ": Not Found; check the server URL, which usually ends in", None, None, None),
    (NotFoundError, ": Not Found; check the server URL, which usually ends in", None, None, None),
    (UnprocessableEntityError, "body.prompt: Field required", None, None, None),
    (UnprocessableEntityError, "body.seed: Extra inputs are not permitted", None, "invalid_request_error", None),
    (UnprocessableEntityError, "Input validation error", None, "validation", None),
    (UnprocessableEntityError, "Failed to deserialize the JSON body into the target type: stop", None, None, None),
    (APIStatusError, "Request failed during generation", None, "generation", None),
    (RateLimitError, "Model is overloaded", None, "overloaded", None),
    (RateLimitError, "the quota is used up", "insufficient_quota", "insufficient_quota", None),
    (RateLimitError, "Rate limit", "429", None, None),
    (RateLimitError, "Rate limit", "rate_limit_exceeded", "requests", None),
    (RateLimitError, "Rate limit", "rate_limit_exceeded", "requests", None),
    (RateLimitError, "Rate limit", "rate_limit_exceeded", "requests", None),
    (RateLimitError, "the server asks to wait 86400 s, longer than the 120 s", "rate_limit_exceeded", "requests", None),
    (InternalServerError, "an error without a message", None, "internal_server_error", None),
    (InternalServerError, "an HTML page: api.openai.com | 502: Bad gateway", None, None, None),
    (InternalServerError, "Bad gateway. (type cf_bad_gateway, code 502)", 502, "cf_bad_gateway", None),
    (InternalServerError, "The model is currently scaling. Please try again later.", None, None, None),
    (InternalServerError, "Loading model", 503, "unavailable_error", None),
    (InternalServerError, "an HTML page: 520: Web server is returning an unknown error", None, None, None),
    (InternalServerError, "error code: 524", None, None, None),
    (InternalServerError, "Provider overloaded", 529, None, None),
]


def refuse(response: ScriptedResponse, **options: Any) -> SDKError:
    """Return the error of a call to a server that sends an error status."""
    with ScriptedServer() as server:
        server.reply(response)
        with make(server.url, retry_config=ONCE, **options) as s, pytest.raises(SDKError) as caught:
            create(s)
        server.wait_open(0)
    return caught.value


@pytest.mark.parametrize("number", range(len(W40)), ids=lambda n: f"{n}-{W40[n].status}-{W40[n].note[:30]}")
def test_error_of_each_w40_sample_has_its_class_message_and_details(number: int) -> None:
    """Every sample raises its class, says what it says, and keeps code, type, param and body."""
    sample, (kind, said, code, type_, param) = W40[number], EXPECTED[number]
    error = refuse(sample.response())
    assert type(error) is kind
    assert said in str(error)
    assert (error.code, error.type, error.param) == (code, type_, param)
    assert (error.status_code, error.body) == (sample.status, sample.body)
    assert error.message.startswith(f"{sample.status} ")
    assert "None" not in error.message


def test_samples_of_w40_each_have_an_expectation() -> None:
    """No sample is left out."""
    assert len(EXPECTED) == len(W40) == 33


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("37.412345", 37.412345),
        ("86400", 86400.0),
        ("soon", None),
        ("-1", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_error_given_retry_after_exposes_the_seconds_if_valid(header: str, seconds: float | None) -> None:
    """What the server asks to wait can be read, if it makes sense."""
    assert refuse(json_response({"error": "busy"}, 429, retry_after=header)).retry_after == seconds


@pytest.mark.parametrize("name", [name for name in vllm_names() if name.startswith("error_")])
def test_error_recorded_from_vllm_keeps_message_type_code_and_param(name: str) -> None:
    """vLLM's own errors: message, type, code and the blamed field."""
    recorded = vllm(name)
    said = json.loads(recorded.body)["error"]
    error = refuse(recorded.response())
    assert type(error) is (NotFoundError if recorded.status == 404 else BadRequestError)
    assert " ".join(said["message"].split())[:80] in error.message
    assert (error.code, error.type, error.param) == (said["code"], said["type"], said["param"])
    assert (said["param"] is None) or f"param {said['param']}" in error.message


CLASSES = {400: "BadRequestError", 401: "AuthenticationError", 403: "PermissionDeniedError", 404: "NotFoundError"}
CLASSES |= {409: "ConflictError", 422: "UnprocessableEntityError", 429: "RateLimitError"}
CLASSES |= dict.fromkeys([402, 405, 408, 413, 418, 424, 451, 499, 302, 304, 307], "APIStatusError")
CLASSES |= dict.fromkeys([500, 501, 502, 503, 504, 520, 524, 529, 599, 999], "InternalServerError")


@pytest.mark.parametrize(("status", "name"), CLASSES.items())
def test_error_class_is_picked_by_the_status_alone(status: int, name: str) -> None:
    """Whatever the body claims, the status decides."""
    body = {"error": {"message": "m", "code": 418, "type": "invalid_request_error"}}
    error = refuse(json_response(body, status))
    assert (type(error), error.status_code) == (getattr(errors, name), status)
    assert isinstance(error, APIStatusError)


@pytest.mark.parametrize(
    "header", ["x-request-id", "X-Request-ID", "apim-request-id", "x-litellm-call-id", "x-generation-id", "request-id"]
)
def test_request_id_in_any_known_header_is_on_the_error_and_in_its_message(header: str) -> None:
    """Each server's header for the request's name is read, and shown in the message."""
    error = refuse(json_response({"error": "m"}, 400, headers={header: "req-7"}))
    assert error.request_id == "req-7"
    assert "(request id req-7)" in error.message
    assert error.headers[header.upper()] == "req-7"


def test_request_id_in_several_headers_is_the_first_non_empty_one() -> None:
    """A gateway's id does not hide OpenAI's, and an empty one is none."""
    headers = {"x-litellm-call-id": "second", "x-request-id": "first"}
    assert refuse(json_response({}, 400, headers=headers)).request_id == "first"
    assert refuse(json_response({}, 400, headers={**headers, "x-request-id": ""})).request_id == "second"
    assert refuse(json_response({}, 400)).request_id is None


@pytest.mark.parametrize(
    ("location", "said"),
    [
        (
            "https://u:p@other.example/v1/completions?key=x&v=2",
            "points to https://other.example/v1/completions: server_url='https://other.example/v1?v=2' goes there",
        ),
        ("https://u:p@other.example/v1", "the server points to https://other.example/v1"),
        ("/v2/completions", "the server points to /v2/completions: server_url='http://127.0.0.1"),
        ("http://[", "the server points to (not a URL)"),
        ("", "the server names no other place"),
    ],
)
def test_redirect_raises_naming_its_target_without_secrets(location: str, said: str) -> None:
    """A redirect is not followed; its target is named, without its secrets."""
    error = refuse(ScriptedResponse(307, {"location": location} if location else ()))
    assert (type(error), error.status_code) == (APIStatusError, 307)
    assert said in error.message
    for secret in ("key=x", "u:p"):
        assert secret not in error.message + error.headers.get("Location", "")


@pytest.mark.parametrize("location", ["/login", "/v1/completions/", "https://other.example/v1", "/v1/completions"])
def test_redirect_to_unreachable_target_suggests_no_server_url(location: str) -> None:
    """Only a place that `server_url=` reaches is offered as one; where we already are is not."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(ScriptedResponse(302, {"location": location}))
        with pytest.raises(APIStatusError) as caught:
            create(s)
    assert "the server points to" in caught.value.message
    assert "server_url=" not in caught.value.message


def test_redirect_suggested_server_url_reaches_the_target() -> None:
    """The server URL that the message names reaches the place that the server pointed to, its query included."""
    with ScriptedServer() as server:
        server.reply(ScriptedResponse(308, {"location": "/new/completions?api-version=2"}), OK)
        with make(f"{server.url}/old") as s, pytest.raises(APIStatusError) as caught:
            create(s)
        advised = caught.value.message.split("server_url='")[1].split("'")[0]
        with make(advised) as s:
            create(s)
        assert server.requests[-1].path == "/new/completions?api-version=2"


@pytest.mark.parametrize(("path", "said"), [("", "try server_url='{}/v1'"), ("/v1", "check the server URL")])
def test_error_404_without_url_path_suggests_v1(path: str, said: str) -> None:
    """A 404 for a URL without a path says just that."""
    with ScriptedServer() as server:
        root = server.url.removesuffix("/v1")
        server.reply(ScriptedResponse(404, ()))
        with make(root + path) as s, pytest.raises(NotFoundError) as caught:
            create(s)
    assert said.format(root) in caught.value.message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"message": "The model `x` does not exist.", "code": 404}, "check the model's name; GET /models lists"),
        ({"message": "no", "code": "model_not_found"}, "check the model's name; GET /models lists"),
        ({"message": "File Not Found", "type": "not_found_error"}, "check the server URL, which usually ends in /v1"),
    ],
)
def test_error_404_message_tells_a_missing_model_from_a_wrong_path(body: dict[str, Any], said: str) -> None:
    """A 404 about the model is told from one about the path, as far as the server's words do."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response({"error": body}, 404))
        with pytest.raises(NotFoundError, match=re.escape(said)):
            create(s)


def test_error_404_from_openai_suggests_another_server() -> None:
    """A 404 from api.openai.com says that its completions models end, and how to name another server."""
    response = requests.Response()
    response.status_code, response.url = 404, "https://api.openai.com/v1/completions"
    assert "OPENAI_BASE_URL" in status_error(response, b"").message
    assert "announced the end" in status_error(response, b"").message


@pytest.mark.parametrize("offset", range(440, 500, 7))
@pytest.mark.parametrize("form", [str, str.upper, lambda key: key.replace("/", "\\/")])
def test_error_message_cut_inside_an_echoed_key_is_masked(offset: int, form: Callable[[str], str]) -> None:
    """A key that a server repeats where a message is cut does not show, not even a part of it."""
    key = "sk-" + "heron/" * 8
    body = json.dumps({"error": {"message": "x" * offset + "KEY"}}).replace("KEY", form(key)).encode()
    with ScriptedServer() as server, make(server.url, security=shared.Security(api_key_auth=key)) as s:
        server.reply(ScriptedResponse(400, (("content-type", "application/json"),), body))
        with pytest.raises(BadRequestError) as caught:
            create(s)
    assert "heron" not in caught.value.message.lower()


def test_error_excerpt_cut_inside_an_echoed_key_is_masked() -> None:
    """The same where the first bytes of an unreadable body are shown."""
    key = "sk-" + "heron" * 8
    with ScriptedServer() as server, make(server.url, security=shared.Security(api_key_auth=key)) as s:
        server.reply(ScriptedResponse(200, (("content-type", "text/plain"),), b"x" * 60 + key.encode()))
        with pytest.raises(ResponseValidationError) as caught:
            create(s)
    assert "heron" not in caught.value.message


BODIES = [
    (b"<html><body><h1>Oops</h1> it\n broke</body></html>", "an HTML page: Oops it broke"),
    (b"\n<!doctype html><TITLE lang=en>\n Bad\n gateway </TITLE>", "an HTML page: Bad gateway"),
    (b'<?xml version="1.0"?><Error><Code>X</Code></Error>', "an HTML page: X"),
    (b"  \n ", "no explanation"),
    (b"", "no explanation"),
    (b"{broken", "{broken"),
    (b"\xff\xfe\x00", "\ufffd\ufffd\ufffd"),
    (b'{"error":{"message":"a\\n\\tb\\u001b[31m\\ud800"}}', "a b\ufffd[31m\ufffd"),
    (b'{"error":{"message":{"detail":[{"msg":"m","loc":["body",3]}]}}}', "body.3: m"),
    (b'{"errors":[{"code":7003,"message":"no route"},{"message":"b"}]}', "no route; b"),
    (b'[{"error":{"message":"a list","code":400,"status":"INVALID"}}]', "a list (code 400)"),
    (b'{"title":"T","detail":"D","status":400}', "D (code 400)"),
    (b'{"Message":"M"}', "M"),
    (b'{"foo":{"bar":1}}', '{"foo":{"bar":1}}'),
    (b'{"error":{}}', '{"error":{}}'),
    (b'{"error":false}', "false"),
    (b'{"error":{"message":NaN}}', "NaN"),
    (b"{}", "an error without a message"),
    (b"null", "an error without a message"),
    (b'""', "an error without a message"),
    (b"[]", "an error without a message"),
    (b"5", "5"),
    (b"[" * 900 + b"]" * 900, "(nested too deep to show)"),
    (b'{"message":' * 900 + b"1" + b"}" * 900, "(nested too deep to show)"),
    (b"[" * 100_000, "(nested too deep to show)"),
    (b'{"error":{"message":"' + b"x" * 2_000_000 + b'"}}', "x" * 400),
]


@pytest.mark.parametrize(("body", "said"), BODIES, ids=[repr(body[:40]) for body, _ in BODIES])
def test_error_body_of_odd_form_gives_a_short_printable_message(body: bytes, said: str) -> None:
    """Anything at all gives a short readable line."""
    error = refuse(json_response(body, 400))
    assert type(error) is BadRequestError
    assert said in error.message
    assert len(error.message) < 700
    assert error.message.isprintable()


def test_error_body_too_large_is_cut_at_one_megabyte() -> None:
    """An error that never stops is cut; its beginning is kept."""
    error = refuse(
        ScriptedResponse(500, {"content-type": "text/plain"}, framing="chunked", chunks=[b"x" * 100_000] * 50)
    )
    assert type(error) is InternalServerError
    assert 0 < len(error.body) <= 1024 * 1024


@pytest.mark.parametrize("cut", [True, "fin"])
def test_error_body_cut_short_still_raises_the_class_of_the_status(cut: Any) -> None:
    """The status counts even when its explanation does not arrive whole."""
    error = refuse(json_response(b'{"error":{"message":"half', 400, cut=cut))
    assert type(error) is BadRequestError


def test_error_body_compressed_with_gzip_is_read() -> None:
    """Errors may be compressed."""
    assert "packed" in refuse(ScriptedResponse(400, (), b'{"error":"packed"}', gzip=True)).message


def test_error_message_with_hostile_header_values_is_printable_and_short() -> None:
    """What a server puts into headers cannot paint the terminal or fill the log."""
    headers = {"x-request-id": "a\x9b31m" + "b" * 500, "location": "http://x/\x9b" + "c" * 2000}
    error = refuse(ScriptedResponse(302, headers))
    assert error.message.isprintable()
    assert len(error.message) < 2000


@pytest.fixture(scope="module")
def server() -> Any:
    with ScriptedServer() as server:
        yield server


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(JSON_ERRORS.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=100), st.integers(400, 599))
def test_error_body_of_any_content_raises_a_typed_error(server: ScriptedServer, body: bytes, status: int) -> None:
    """Any JSON value, and any bytes, as an error: its class, a readable message, details of the right types."""
    server.respond_with(lambda _: json_response(body, status))
    with make(server.url, retry_config=ONCE) as s, pytest.raises(APIStatusError) as caught:
        create(s)
    _is_readable(caught.value, status)


@settings(max_examples=150, deadline=None)
@given(JSON_ERRORS)
def test_error_in_a_status_200_body_raises_a_typed_error(server: ScriptedServer, value: Any) -> None:
    """Any JSON value as `error` in a response of success is raised, or refused as no completion."""
    server.respond_with(lambda _: json_response({"error": value, "choices": None}))
    with make(server.url, retry_config=ONCE) as s, pytest.raises(SDKError) as caught:
        s.completions.create_completion(request())
    _is_readable(caught.value, None)


def _is_readable(error: SDKError, status: int | None) -> None:
    assert status is None or error.status_code == status
    assert len(error.message.split(": ", 1)[-1]) > 0
    assert error.message.isprintable()
    assert len(error.message) < 1200
    assert error.code is None or isinstance(error.code, str | int)
    assert all(part is None or (isinstance(part, str) and part) for part in (error.type, error.param))


def test_samples_of_w40_load_as_error_samples() -> None:
    """The samples load as their type."""
    assert all(isinstance(sample, ErrorSample) for sample in W40)


REFUSALS: list[tuple[int, dict[str, Any], str, Any]] = [
    (400, {"error": {"code": "content_filter", "message": "filtered", "status": 400, "innererror": {"code": "R"}}},
        "filtered", "content_filter"),
    (400, {"object": "error", "message": "too long", "type": "BadRequestError", "param": None, "code": None},
        "too long", None),
    (401, {"detail": {"error": {"message": "who?", "type": "t", "param": None, "code": "c"}}}, "who?", "c"),
    (403, {"error": "Forbidden"}, "Forbidden", None),
    (404, {"error": {"object": "error", "type": "invalid_request_error", "code": "NOT_FOUND", "message": "no model"}},
        "no model", "NOT_FOUND"),
    (404, {"error": "the generation failed"}, "the generation failed", None),
    (400, {"error": {"message": "cannot unmarshal array", "type": "invalid_request_error", "code": None}},
        "cannot unmarshal array", None),
    (402, {"error": {"code": 402, "message": "pay", "metadata": {"raw": "x"}}, "user_id": "u"}, "pay", 402),
    (500, {"error": {"message": "m", "type": "None", "param": "None", "code": "500", "litellm_call_id": "x"}},
        "m", "500"),
    (503, {"detail": "Service is not available"}, "Service is not available", None),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "said", "code"), REFUSALS, ids=lambda value: str(value)[:30])
def test_error_body_of_each_server_gives_its_message_and_code(
    status: int, body: dict[str, Any], said: str, code: Any
) -> None:
    """The server's own words and code are found, however it wraps them."""
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response(body, status, x_should_retry="false"))
        with pytest.raises(errors.APIStatusError, match=said) as caught:
            create(s)
    assert (caught.value.status_code, caught.value.code) == (status, code)
