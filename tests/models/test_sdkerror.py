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

from gpt.models import errors, shared
from gpt.models.errors import SDKError, sdkerror
from tests.support.client import ONCE, create, make, request
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


def test_the_tree() -> None:
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
def test_every_class_survives_a_process_pool(processes: ProcessPoolExecutor, kind: type[SDKError]) -> None:
    """Each error arrives whole in another process and comes back whole, returned or raised."""
    error = made(kind)
    assert portrait(processes.submit(there_and_back, error).result(60)) == portrait(error)
    with pytest.raises(kind) as caught:
        processes.submit(raise_it, error).result(60)
    assert portrait(caught.value) == portrait(error)


@pytest.mark.parametrize("make_error", REAL, ids=lambda make_error: make_error.__name__)
def test_real_errors_survive_a_process_pool(processes: ProcessPoolExecutor, make_error: Callable[[], SDKError]) -> None:
    """Errors of real calls do, too, with details, headers and the partial response."""
    error = make_error()
    assert portrait(processes.submit(there_and_back, error).result(60)) == portrait(error)


@pytest.mark.parametrize("make_error", REAL, ids=lambda make_error: make_error.__name__)
def test_copies(make_error: Callable[[], SDKError]) -> None:
    """Copies and pickles of every protocol are equal in all that is public."""
    error = make_error()
    copies = [copy.copy(error), copy.deepcopy(error)]
    copies += [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    assert all(portrait(other) == portrait(error) for other in copies)
    again = pickle.loads(pickle.dumps(copies[-1]))
    assert portrait(again) == portrait(error)


def test_what_an_error_carries() -> None:
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


def test_no_secret_travels() -> None:
    """A pickle holds neither key nor cookies."""
    data = pickle.dumps(failing())
    assert b"sk-secret-key" not in data
    assert b"cookie-secret" not in data
    assert pickle.loads(data).raw_response is None


def test_headers_are_found_in_any_case_after_a_journey() -> None:
    """The headers stay what they were."""
    assert pickle.loads(pickle.dumps(failing())).headers["X-REQUEST-ID"] == "req-1"


def test_errors_without_a_response() -> None:
    """What there was no response for has no status, and says which host and what failed."""
    error = unreachable()
    assert (error.status_code, error.body, error.raw_response, error.request_id) == (None, "", None, None)
    assert (dict(error.headers), error.code, error.retry_after) == ({}, None, None)
    assert error.message.startswith("no response from 127.0.0.1:")
    assert "refused" in error.message
    assert error.__cause__ is not None


def test_the_partial_response_is_a_response() -> None:
    """What had come is collected into the model that a whole response would be."""
    partial = interrupted().partial
    assert type(partial) is shared.CreateCompletionResponse
    assert (partial.id, partial.choices[0].text, partial.choices[0].finish_reason) == ("c", "a", None)
    assert partial.choices[0].logprobs == shared.CreateCompletionResponseChoicesLogprobs(tokens=["a"])


def test_errors_can_be_made_by_hand() -> None:
    """A user's own tests make errors from a message alone."""
    error = errors.RateLimitError("slow down")
    assert (str(error), error.status_code, error.body, error.code) == ("slow down", None, "", None)
    assert repr(error) == "RateLimitError('slow down')"


class MyError(errors.RateLimitError):
    """A user's own error."""

    def __init__(self, tenant: str) -> None:
        super().__init__(f"{tenant} is out of budget", 429)
        self.tenant = tenant


def test_a_subclass_survives_too() -> None:
    """A class with another constructor and attributes of its own is pickled as well."""
    error = pickle.loads(pickle.dumps(MyError("acme")))
    assert (type(error), error.tenant, str(error)) == (MyError, "acme", "acme is out of budget")
