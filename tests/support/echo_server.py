"""A fast raw server that echoes each request's prompt, plain or streamed, and the stress that is run against it."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections import Counter
from typing import Any

import gpt
from gpt.models import shared
from gpt.utils import RetryConfig

from .raw_server import read_request

WORDS = 6
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n"


def _chunk(prompt: str, finish: str | None) -> bytes:
    body = {"choices": [{"text": f"{prompt};", "index": 0, "finish_reason": finish}]}
    return json.dumps(body).encode()


def echo(conn: socket.socket, _: int) -> None:
    """Respond to requests on one connection until it ends; a stream has `WORDS` events, each with the prompt."""
    while request := read_request(conn):
        body = json.loads(request.partition(b"\r\n\r\n")[2])
        if not body.get("stream"):
            data = _chunk(body["prompt"], "stop")
            conn.sendall(_HEAD % b"application/json" + b"Content-Length: %d\r\n\r\n" % len(data) + data)
            continue
        conn.sendall(_HEAD % b"text/event-stream" + b"Transfer-Encoding: chunked\r\n\r\n")
        for number in range(WORDS):
            event = b"data: %b\n\n" % _chunk(body["prompt"], "stop" if number == WORDS - 1 else None)
            conn.sendall(b"%x\r\n%b\r\n" % (len(event), event))
        done = b"data: [DONE]\n\n"
        conn.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(done), done))


class Stress:
    """Calls of one client from many threads, whose streams are closed by others; each call looks at its own id."""

    def __init__(self, url: str, session: Any = None) -> None:
        self.client = gpt.Gpt(server_url=url, client=session, retry_config=RetryConfig(strategy="none"), timeout=30)
        self.endings: Counter[str] = Counter()
        self._open: list[Any] = []
        self._stop = threading.Event()

    def run(self, calls: int, threads: int = 4) -> Counter[str]:
        """Make so many calls in each of 2 × `threads` threads; return how they ended, all wrong ones as `WRONG …`."""
        workers = [
            threading.Thread(target=self._work, args=(kind, number, calls))
            for number in range(threads)
            for kind in (self._plain, self._streamed)
        ]
        closers = [threading.Thread(target=self._close_at_random, args=(number,)) for number in range(4)]
        for thread in (*workers, *closers):
            thread.start()
        for thread in workers:
            thread.join()
        self._stop.set()
        for thread in closers:
            thread.join()
        self.client.close()
        return self.endings

    def _work(self, kind: Any, thread: int, calls: int) -> None:
        for number in range(calls):
            prompt = f"{kind.__name__}-{thread}-{number}"
            request = shared.CreateCompletionRequest(model="m", prompt=prompt)
            try:
                ending = kind(request, prompt, number)
            except BaseException as error:
                ending = f"WRONG {type(error).__name__}: {error}"[:200]
            self.endings[ending] += 1

    def _plain(self, request: Any, prompt: str, _: int) -> str:
        completion = self.client.completions.create_completion(request).create_completion_response
        assert completion is not None
        return self._check(prompt, completion.choices[0].text) or "plain"

    def _streamed(self, request: Any, prompt: str, number: int) -> str:
        stream = self.client.completions.stream_completion(request)
        if number % 5 == 0:
            next(stream, None)
            return "dropped"  # the collector closes it
        if number % 5 == 1:
            circle: list[Any] = [stream]
            circle.append(circle)
            return "dropped in a cycle"
        self._open.append(stream)
        count = 0
        for chunk in stream:
            count += 1
            if wrong := self._check(prompt, chunk.choices[0].text):
                return wrong
        if stream.completed and count != WORDS:
            return f"WRONG {count} events of a complete stream"
        return "streamed" if stream.completed else "closed"

    def _check(self, prompt: str, text: str | None) -> str:
        return "" if text == f"{prompt};" else f"WRONG {text!r} for {prompt!r}"

    def _close_at_random(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self._stop.is_set():
            try:
                stream = self._open.pop()
            except IndexError:
                time.sleep(0)
                continue
            if chance.random() < 0.7:
                end = time.monotonic() + chance.choice((0, 0, chance.random() * 0.002))
                while time.monotonic() < end:
                    pass
                stream.close()


def wrong(endings: Counter[str]) -> dict[str, int]:
    """Return the endings that must not be."""
    return {name: count for name, count in endings.items() if name.startswith("WRONG")}
