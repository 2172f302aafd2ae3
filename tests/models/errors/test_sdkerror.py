"""The error tree: who inherits from whom, what every error carries, and that it survives any journey."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

import gpt
from gpt.models import errors, shared
from gpt.models.errors import SDKError, sdkerror
from tests.support.client import OK, ONCE, create, find_key, make, request
from tests.support.http_server import ScriptedResponse, ScriptedServer, json_response, sse_response

TREE = {
    "APIStatusError": "SDKError",
    "BadRequestError": "APIStatusError",
    "AuthenticationError": "APIStatusError",
    "PermissionDeniedError": "APIStatusError",
    "NotFoundError": "APIStatusError",
    "ConflictError": "APIStatusError",
    "UnprocessableEntityError": "APIStatusError",
    "RateLimitError": "APIStatusError",
    "InternalServerError": "APIStatusError",
    "APIConnectionError": "SDKError",
    "APITimeoutError": "APIConnectionError",
    "ResponseValidationError": "SDKError",
    "ResponseTooLargeError": "ResponseValidationError",
    "StreamInterruptedError": "SDKError",
    "SDKError": "Exception",
}
KINDS: list[type[SDKError]] = [getattr(errors, name) for name in TREE]


def test_error_classes_in_the_module_match_the_documented_tree() -> None:
    """Every public error has its one place in the tree, and the module's picture shows it."""
    assert {name: getattr(errors, name).__base__.__name__ for name in errors.__all__} == TREE
    picture = (sdkerror.__doc__ or "").split("\n\n")[1]
    rendered = [line.split("─ ")[-1].split()[0] for line in picture.splitlines()]
    assert sorted(rendered) == sorted(TREE)


def failing(status: int = 429) -> SDKError:
    """Make a real error, by a call that a server refuses."""
    body = {"error": {"message": "m", "code": "c", "type": "t", "param": "p"}}
    headers = {"x-request-id": "req-1", "retry-after": "7", "set-cookie": "session=cookie-secret"}
    with ScriptedServer() as server:
        server.reply(json_response(body, status, headers=headers))
        security = shared.Security(api_key_auth="sk-secret-key")
        with make(server.url, retry_config=ONCE, security=security) as s, pytest.raises(SDKError) as caught:
            create(s)
    return caught.value


def interrupted() -> SDKError:
    """Make a real error out of a stream that stops."""
    chunk = {"id": "c", "choices": [{"text": "a", "index": 0, "logprobs": {"tokens": ["a"]}}]}
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(chunk, cut="fin"))
        with pytest.raises(SDKError) as caught:
            s.completions.stream_completion(request()).collect()
    return caught.value


def timed_out() -> SDKError:
    with ScriptedServer() as server, make(server.url, timeout=(5, 0.05)) as s:
        server.reply(ScriptedResponse(chunks=[threading.Event()], framing="close"))
        with pytest.raises(errors.APITimeoutError) as caught:
            create(s)
    return caught.value


def unreachable() -> SDKError:
    with ScriptedServer() as server:
        server.tcp.refuse()
        with make(server.url, retry_config=ONCE) as s, pytest.raises(errors.APIConnectionError) as caught:
            create(s)
    return caught.value


def unreadable() -> SDKError:
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(json_response(b"<html>", x_request_id="r"))
        with pytest.raises(errors.ResponseValidationError) as caught:
            create(s)
    return caught.value


REAL: list[Callable[[], SDKError]] = [failing, interrupted, timed_out, unreachable, unreadable]


def portrait(error: SDKError) -> dict[str, Any]:
    """List everything public of an error, but for the response itself."""
    names = ("message", "status_code", "body", "request_id", "code", "type", "param", "retry_after", "partial")
    headers = {name.lower(): value for name, value in error.headers.items() if name.lower() != "set-cookie"}
    rendered = {name: getattr(error, name) for name in names}
    return rendered | {"kind": type(error), "text": str(error), "args": error.args, "headers": headers}


def there_and_back(error: SDKError) -> SDKError:
    """Run in another process: look at the error there, and return it."""
    assert str(error) == error.message
    assert error.raw_response is None
    assert repr(error)
    return error


def raise_it(error: SDKError) -> None:
    """Run in another process: raise the error there."""
    raise error


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def made(kind: type[SDKError]) -> SDKError:
    error = kind("what happened", 418, '{"error":{"code":5}}')
    error.partial = shared.CreateCompletionResponse(choices=[shared.CreateCompletionResponseChoices(text="a")])
    error.add_note("a note") if hasattr(error, "add_note") else None
    return error


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_error_of_every_class_through_a_process_pool_comes_back_whole(
    processes: ProcessPoolExecutor, kind: type[SDKError]
) -> None:
    """Each error arrives whole in another process and comes back whole, returned or raised."""
    error = made(kind)
    assert portrait(processes.submit(there_and_back, error).result(60)) == portrait(error)
    with pytest.raises(kind) as caught:
        processes.submit(raise_it, error).result(60)
    assert portrait(caught.value) == portrait(error)


@pytest.mark.parametrize("make_error", REAL, ids=lambda make_error: make_error.__name__)
def test_error_of_a_real_call_through_a_process_pool_comes_back_whole(
    processes: ProcessPoolExecutor, make_error: Callable[[], SDKError]
) -> None:
    """Errors of real calls do, too, with details, headers and the partial response."""
    error = make_error()
    assert portrait(processes.submit(there_and_back, error).result(60)) == portrait(error)


@pytest.mark.parametrize("make_error", REAL, ids=lambda make_error: make_error.__name__)
def test_error_copied_or_pickled_equals_the_original(make_error: Callable[[], SDKError]) -> None:
    """Copies and pickles of every protocol are equal in all that is public."""
    error = make_error()
    copies = [copy.copy(error), copy.deepcopy(error)]
    copies += [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    assert all(portrait(other) == portrait(error) for other in copies)
    again = pickle.loads(pickle.dumps(copies[-1]))
    assert portrait(again) == portrait(error)


def test_error_from_a_response_carries_all_the_server_said() -> None:
    """All that the server said is on the exception."""
    error = failing()
    assert (error.status_code, error.request_id, error.retry_after) == (429, "req-1", 7.0)
    assert (error.code, error.type, error.param, error.partial) == ("c", "t", "p", None)
    assert error.headers["RETRY-AFTER"] == "7"
    assert error.raw_response is not None
    assert error.raw_response.json()["error"]["message"] == "m"
    assert str(error) == error.message == error.args[0]
    assert error.message.startswith("429 Too Many Requests from 127.0.0.1:")
    assert error.message.endswith(": m (type t, code c, param p, request id req-1)")


def test_error_pickled_after_a_call_holds_no_key_or_cookies() -> None:
    """A pickle holds neither key nor cookies."""
    data = pickle.dumps(failing())
    assert b"sk-secret-key" not in data
    assert b"cookie-secret" not in data
    assert pickle.loads(data).raw_response is None


def test_error_headers_after_pickling_are_found_in_any_case() -> None:
    """The headers stay what they were."""
    assert pickle.loads(pickle.dumps(failing())).headers["X-REQUEST-ID"] == "req-1"


def test_error_without_a_response_has_no_status_and_names_the_host() -> None:
    """What there was no response for has no status, and says which host and what failed."""
    error = unreachable()
    assert (error.status_code, error.body, error.raw_response, error.request_id) == (None, "", None, None)
    assert (dict(error.headers), error.code, error.retry_after) == ({}, None, None)
    assert error.message.startswith("no response from 127.0.0.1:")
    assert "refused" in error.message
    assert error.__cause__ is not None


def test_error_partial_of_an_interrupted_stream_is_a_completion_response() -> None:
    """What had come is collected into the model that a whole response would be."""
    partial = interrupted().partial
    assert type(partial) is shared.CreateCompletionResponse
    assert (partial.id, partial.choices[0].text, partial.choices[0].finish_reason) == ("c", "a", None)
    assert partial.choices[0].logprobs == shared.CreateCompletionResponseChoicesLogprobs(tokens=["a"])


def test_error_made_from_a_message_alone_has_empty_details() -> None:
    """A user's own tests make errors from a message alone."""
    error = errors.RateLimitError("slow down")
    assert (str(error), error.status_code, error.body, error.code) == ("slow down", None, "", None)
    assert repr(error) == "RateLimitError('slow down')"


class MyError(errors.RateLimitError):
    """A user's own error."""

    def __init__(self, tenant: str) -> None:
        super().__init__(f"{tenant} is out of budget", 429)
        self.tenant = tenant


def test_error_subclass_with_its_own_constructor_is_pickled_whole() -> None:
    """A class with another constructor and attributes of its own is pickled as well."""
    error = pickle.loads(pickle.dumps(MyError("acme")))
    assert (type(error), error.tenant, str(error)) == (MyError, "acme", "acme is out of budget")


CHUNK = {"choices": [{"text": "a", "index": 0, "finish_reason": None}]}


def fail(s: gpt.Gpt, stream: bool) -> None:
    """Make a call that fails, in whichever process."""
    response = s.completions.create_completion(request(stream=stream))
    if response.completion_stream is not None:
        response.completion_stream.collect()


CASES = {
    "status": (
        json_response(
            {"error": {"message": "no", "code": "c", "type": "t", "param": "p"}},
            429,
            retry_after="200",
            x_request_id="r",
        ),
        False,
    ),
    "unreadable": (json_response(b"<html>"), False),
    "cut": (json_response(OK.body, cut=True), False),
    "stream": (sse_response(CHUNK, CHUNK, done=False), True),
    "stream error": (sse_response(CHUNK, {"error": {"message": "boom", "code": 503}}), True),
}


@pytest.mark.parametrize("name", CASES)
def test_error_pickled_in_a_worker_process_keeps_class_and_fields(processes: ProcessPoolExecutor, name: str) -> None:
    """An error raised in another process arrives with its class, message, fields and partial response, without keys."""
    response, stream = CASES[name]
    with ScriptedServer() as server:
        server.reply(response)
        s = make(server.url, security=find_key)
        here = processes.submit(fail, s, stream).exception(60)
        with pytest.raises(errors.SDKError) as caught:
            fail(s, stream)
        there = caught.value
    assert isinstance(here, errors.SDKError)
    assert type(here) is type(there)
    fields = ("message", "status_code", "body", "request_id", "retry_after", "code", "type", "param", "partial", "args")
    assert [getattr(here, field) for field in fields] == [getattr(there, field) for field in fields]
    assert str(here) == str(there)
    assert here.raw_response is None
    assert here.headers.get("X-REQUEST-ID") == here.request_id
    again = pickle.loads(pickle.dumps(here))
    assert (type(again), str(again), again.partial) == (type(here), str(here), here.partial)
    assert b"found-here" not in pickle.dumps(there)


ALL_ERRORS = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, Exception)]


@pytest.mark.parametrize("cls", ALL_ERRORS)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_error_of_every_class_pickled_is_equal(cls: type[errors.SDKError], protocol: int) -> None:
    """Each class, made as a user would in a test, comes back the same."""
    error = cls("message", 418, '{"error": {"code": 7}}')
    error.partial = shared.CreateCompletionResponse(choices=[])
    back = pickle.loads(pickle.dumps(error, protocol))
    assert (type(back), str(back), back.status_code, back.code, back.partial) == (cls, "message", 418, 7, error.partial)
