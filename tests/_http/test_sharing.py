"""One client for many threads, for many calls, and on both sides of a fork."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

import gpt
from gpt.models import errors, shared
from tests.support.client import COMPLETION, OK, create, make, request, stream_text, text
from tests.support.http_server import Received, ScriptedResponse, ScriptedServer, json_response, sse_response

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def echo(sent: Received) -> ScriptedResponse:
    """Respond with the prompt, so that a mixed-up response is seen."""
    body = sent.json()
    chunk = {**COMPLETION, "choices": [{"text": body["prompt"], "index": 0, "finish_reason": "stop"}]}
    return sse_response(chunk) if body.get("stream") else json_response(chunk)


def echoed(s: gpt.Gpt, prompt: str, stream: bool) -> str:
    """Complete a prompt that the server echoes."""
    if stream:
        return s.completions.stream_completion(request(prompt=prompt)).collect().choices[0].text or ""
    return text(s.completions.create_completion(request(prompt=prompt)))


def test_client_shared_by_threads_gives_each_its_own_response() -> None:
    """Sixteen threads, plain and streamed, get their own responses over no more connections than threads."""
    with ScriptedServer() as server, make(server.url, security=shared.Security(api_key_auth="k")) as s:
        server.respond_with(echo)
        prompts = [f"prompt {number}" for number in range(400)]
        with ThreadPoolExecutor(16) as pool:
            got = list(pool.map(lambda prompt: echoed(s, prompt, prompt.endswith("3")), prompts))
        assert got == prompts
        assert server.connections <= 16
        assert {sent.header("authorization") for sent in server.requests} == {"Bearer k"}


def test_call_options_of_one_thread_do_not_show_in_anothers() -> None:
    """Headers, queries and deadlines of one thread's calls do not show in another's."""
    with ScriptedServer() as server, make(server.url) as s:
        server.respond_with(echo)

        def one(number: int) -> None:
            options: Any = {"http_headers": {"X-N": str(number)}, "query": {"n": number}} if number % 2 else {}
            s.completions.create_completion(
                request(prompt=str(number)), deadline=60 if number % 3 else gpt.UNSET, **options
            )

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(200)))
        for sent in server.requests:
            number = int(sent.json()["prompt"])
            assert sent.header("x-n") == (str(number) if number % 2 else None)
            assert sent.path.endswith(f"?n={number}" if number % 2 else "/completions")


def test_connection_pool_under_600_concurrent_calls_keeps_600_connections() -> None:
    """Six hundred calls at once keep six hundred connections, and the next round opens no new one."""
    width = 600
    gate = threading.Barrier(width)
    with ScriptedServer() as server, make(server.url) as s:

        def together(_: Received) -> ScriptedResponse:
            gate.wait(60)
            return OK

        server.respond_with(together)
        with ThreadPoolExecutor(width) as pool:
            for _ in range(2):
                assert {text(each) for each in pool.map(lambda _: create(s), range(width))} == {" ok"}
        assert server.connections == width


def test_session_of_the_caller_shared_by_threads_gives_each_its_own_response() -> None:
    """Threads on a client with the caller's session get their own responses."""
    with ScriptedServer() as server, requests.Session() as session, make(server.url, client=session) as s:
        server.respond_with(echo)
        prompts = [f"prompt {number}" for number in range(100)]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda prompt: echoed(s, prompt, False), prompts)) == prompts


def in_child(work: threading.Thread) -> int:
    """Run a thread's target in a forked child, and give its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            work.run()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@needs_fork
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork_gives_each_side_its_own_connections() -> None:
    """The child opens connections of its own, and the parent's go on as if nothing had happened."""
    with ScriptedServer() as server, make(server.url) as s:
        server.respond_with(echo)
        assert echoed(s, "parent 1", False) == "parent 1"

        def child() -> None:
            assert echoed(s, "child 1", False) == "child 1"
            assert echoed(s, "child 2", True) == "child 2"
            s.close()

        assert in_child(threading.Thread(target=child)) == 0
        assert echoed(s, "parent 2", False) == "parent 2"
        used = {sent.json()["prompt"]: sent.connection for sent in server.requests}
        assert used["parent 1"] == used["parent 2"]
        assert used["child 1"] == used["child 2"] != used["parent 1"]


@needs_fork
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork_during_a_stream_leaves_the_parents_stream_running() -> None:
    """A child that inherits a half-read stream, and drops it, does not end the parent's."""
    gate = threading.Event()
    chunk = {"choices": [{"text": "a", "index": 0, "finish_reason": None}]}
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(sse_response(chunk, gate, COMPLETION))
        held = [s.completions.stream_completion(request())]
        assert next(held[0]).choices[0].text == "a"

        def child() -> None:
            held.pop().close()
            gc.collect()

        assert in_child(threading.Thread(target=child)) == 0
        gate.set()
        assert held[0].collect().choices[0].text == "a ok"


def objects_after(work: object, times: int) -> Counter[str]:
    """Count the live objects of our classes and of the network's after doing something so often."""
    assert callable(work)
    for _ in range(times):
        work()
    gc.collect()
    names = ("gpt.", "requests.", "urllib3.", "socket.", "http.")
    kinds = (type(each) for each in gc.get_objects())
    return Counter(f"{kind.__module__}.{kind.__name__}" for kind in kinds if str(kind.__module__).startswith(names))


@pytest.mark.parametrize("closed", [True, False])
def test_client_closed_or_dropped_leaves_nothing_behind(closed: bool) -> None:
    """Making, using and dropping clients does not pile up objects or connections, closed or forgotten."""
    with ScriptedServer() as server:
        server.reply(OK)

        def use() -> None:
            s = make(server.url, security=shared.Security(api_key_auth="k"))
            create(s)
            if closed:
                s.close()

        before = objects_after(use, 5)
        after = objects_after(use, 30)
        server.wait_open(0)
    assert after == before


def test_calls_of_one_client_leave_nothing_behind() -> None:
    """Calls, streams and failures of one client do not pile up objects either."""
    with ScriptedServer() as server, make(server.url) as s:
        server.respond_with(lambda sent: json_response({}, 400) if sent.header("x-fail") else echo(sent))

        def use() -> None:
            create(s, query={"q": "1"})
            stream_text(s)
            s.completions.stream_completion(request(), deadline=60).collect()
            with s.completions.stream_completion(request()) as stream:
                next(stream)
            with pytest.raises(errors.BadRequestError):
                create(s, http_headers={"X-Fail": "1"})

        before = objects_after(use, 10)
        after = objects_after(use, 40)
    assert after == before


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such timer")
def test_call_interrupted_mid_response_does_not_spoil_the_next() -> None:
    """After Ctrl-C in the middle of a response, the rest of it is not taken for the next one."""
    gate = threading.Event()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    half: list[bytes | threading.Event] = [OK.body[:10], gate, OK.body[10:]]
    with ScriptedServer() as server, make(server.url) as s:
        server.reply(ScriptedResponse(200, [("content-type", "application/json")], chunks=half, framing="chunked"), OK)
        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises(KeyboardInterrupt):
                create(s)
        finally:
            signal.signal(signal.SIGALRM, before)
        gate.set()
        assert text(create(s)) == " ok"
        assert [sent.connection for sent in server.requests] == [1, 2]
