"""A keep-alive server with canned answers, run in a process of its own so that its cost stays outside.

The model's name picks the answer: `small`, `scored` (16 choices of 512 tokens with their top 5 log-probabilities), or
`stream` (10,000 events, one a chunk). Prints its port, serves until its input ends.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import struct
import sys
from collections.abc import Callable
from itertools import accumulate
from typing import Any

EVENTS = 10_000
TOKENS = [f" w{number}" for number in range(2_000)]
_WEIGHTS = list(accumulate(1 / (rank + 1) for rank in range(len(TOKENS))))
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def small() -> bytes:
    """Give a short completion as JSON."""
    choice = {"index": 0, "text": " a test", "logprobs": None, "finish_reason": "length"}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    return _json({"choices": [choice], "usage": usage})


def listed(count: int) -> bytes:
    """Give the short completions of a list of so many prompts as JSON."""
    choices = [
        {"index": index, "text": " a test", "logprobs": None, "finish_reason": "length"} for index in range(count)
    ]
    usage = {"prompt_tokens": 5 * count, "completion_tokens": 2 * count, "total_tokens": 7 * count}
    return _json({"choices": choices, "usage": usage})


def scored() -> bytes:
    """Give 16 choices of 512 tokens with log-probabilities as JSON, above 1 MB.

    As from a model: tokens are as frequent as words of a text (Zipf's law), numbers are of single precision.
    """
    rng = random.Random(0)
    return _json({"choices": [_scored_choice(rng, index) for index in range(16)]})


def stream() -> list[bytes]:
    """Give the events of a stream, the last one `[DONE]`."""
    events = []
    for number in range(EVENTS):
        finish = "length" if number == EVENTS - 1 else None
        choice = {"index": 0, "text": f" w{number}", "logprobs": None, "finish_reason": finish}
        events.append(b"data: " + _json({"choices": [choice]}) + b"\n\n")
    return [*events, b"data: [DONE]\n\n"]


def _scored_choice(rng: random.Random, index: int) -> dict[str, Any]:
    top = [{token: _logprob(rng) for token in _distinct_tokens(rng, 5)} for _ in range(512)]
    tokens = [rng.choice(list(candidates)) for candidates in top]
    logprobs = {
        "text_offset": list(range(0, 512 * 5, 5)),
        "token_logprobs": [candidates[token] for candidates, token in zip(top, tokens, strict=True)],
        "tokens": tokens,
        "top_logprobs": top,
    }
    return {"index": index, "text": "".join(tokens), "logprobs": logprobs, "finish_reason": "length"}


def _distinct_tokens(rng: random.Random, count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[rng.choices(TOKENS, cum_weights=_WEIGHTS)[0]] = None
    return list(found)


def _logprob(rng: random.Random) -> float:
    single: float = struct.unpack("f", struct.pack("f", -10 * rng.random()))[0]
    return single


def _json(fields: dict[str, Any]) -> bytes:
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    return json.dumps(head | fields, separators=(",", ":")).encode()


def whole(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _chunked(events: list[bytes]) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"


ANSWERS = {b'"small"': whole(small()), b'"scored"': whole(scored()), b'"stream"': _chunked(stream())}


Respond = Callable[[bytes, bytes], tuple[bytes, float]]
"""From a request's head and body to the whole response, and the seconds after which it is sent."""


def run(respond: Respond) -> None:
    """Print a free port of the loopback interface, and serve there until standard input ends."""

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._transport: Any = transport
            self._buffer = b""

        def data_received(self, data: bytes) -> None:
            self._buffer += data
            while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
                length = _LENGTH.search(self._buffer, 0, end)
                size = end + 4 + (int(length.group(1)) if length else 0)
                if len(self._buffer) < size:
                    return
                head, body, self._buffer = self._buffer[:end], self._buffer[end + 4 : size], self._buffer[size:]
                response, seconds = respond(head, body)
                if seconds:
                    asyncio.get_running_loop().call_later(seconds, self._transport.write, response)
                else:
                    self._transport.write(response)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.read)

    asyncio.run(main())


if __name__ == "__main__":
    run(lambda _, body: (next(answer for key, answer in ANSWERS.items() if key in body), 0.0))
