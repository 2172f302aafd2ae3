"""Texts a second, scored: by forced decoding on the local engine by slots, and by echo on a stand-in server by workers.

Run `python -m benchmarks.scoring`. Rates are of this machine; compare the lines of one run with each other. The CPU
time is that of this process, in which the servers run too.
"""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import gpt
from gpt import local, scoring
from gpt.models import shared

TEXTS = [f" item number {n} of the list." for n in range(200)]
CONTEXT = "The function returns"
LATENCY = 0.05


class _Echo(BaseHTTPRequestHandler):
    """A server with 50 ms a request whose tokens are characters."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer({"data": [{"id": "m", "owned_by": "vllm"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        time.sleep(LATENCY)
        self._answer({"choices": [_choice(index, text) for index, text in enumerate(prompts)]})

    def _answer(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _choice(index: int, text: str) -> dict[str, object]:
    lists = {"tokens": list(text), "token_logprobs": [None, *[-1.0] * (len(text) - 1)]}
    return {"index": index, "text": text, "logprobs": lists | {"text_offset": list(range(len(text)))}}


def _measure(url: str, **options: int) -> str:
    with gpt.Gpt(shared.Security(api_key_auth=""), server_url=url) as s:
        wall, cpu = time.perf_counter(), time.process_time()
        scoring.score(s, TEXTS, context=CONTEXT, model="m", **options)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return f"{len(TEXTS) / wall:8.0f} texts/s {cpu / len(TEXTS) * 1e6:8.0f} µs of CPU a text"


def main() -> None:
    """Print both tables."""
    for slots in (1, 2, 4):
        with local.Server(n_parallel=slots) as server:
            print(f"local engine, {slots} slots:          {_measure(server.url, max_workers=2 * slots)}")
    stand_in = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    threading.Thread(target=stand_in.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{stand_in.server_port}/v1"
    for workers, batch in ((1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (16, 16)):
        found = _measure(url, max_workers=workers, batch_size=batch)
        print(f"50 ms, {workers:2d} workers, batches of {batch:2d}: {found}")
    stand_in.shutdown()


if __name__ == "__main__":
    main()
