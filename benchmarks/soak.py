"""Many calls through a proxy that spoils a third of them: does every one end, and does anything leak?

    python benchmarks/soak.py [--calls 10000] [--threads 16]
    python benchmarks/soak.py --kills 20    # kill a batch again and again instead; writes the page's last section

The proxy and the server behind it run in a process of their own, so that what is counted here is the client's alone.
Each call must end in the right completion or in one of `gpt.models.errors`; a stream's error must carry a true
beginning of its completion. Writes the result to docs/soak.md, and exits with 1 when a call ended otherwise or
something leaked.
"""

from __future__ import annotations

import argparse
import gc
import http.client
import json
import multiprocessing
import os
import platform
import random
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bulk import write_input
from compare import serving

import gpt
from gpt.models import errors, shared
from gpt.utils import BackoffStrategy, RetryConfig

DOC = Path(__file__).parent.parent / "docs" / "soak.md"
WORDS = 12
READ_TIMEOUT = 0.6
FAULTS = {
    "reset before the response": 5,
    "closed before the response": 3,
    "reset inside the response": 4,
    "truncated": 4,
    "delayed": 4,
    "delayed beyond the timeout": 1,
    "429": 3,
    "500": 3,
    "HTML": 3,
}
"""Each fault and how many of 100 requests it strikes: 30 in all."""

# The other process: a server, and the proxy before it


def completion_of(prompt: str) -> list[str]:
    """Give the words that complete a prompt."""
    return [f" {prompt}-{number}" for number in range(WORDS)]


class Upstream(BaseHTTPRequestHandler):
    """Complete prompts, plain or streamed."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words = completion_of(body["prompt"])
        if body.get("stream"):
            events = [_completion(word, None) for word in words] + [_completion("", "stop")]
            data = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"
            self._send("text/event-stream", data)
        else:
            self._send("application/json", json.dumps(_completion("".join(words), "stop")).encode())

    def _send(self, content_type: str, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _completion(text: str, finish_reason: str | None) -> dict[str, Any]:
    choice = {"text": text, "index": 0, "finish_reason": finish_reason}
    return {"id": "cmpl", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}


class SpoilingProxy(socketserver.ThreadingTCPServer):
    """Pass requests on to the server, and spoil what comes back at random."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, upstream_port: int, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), Spoiled)
        self.upstream_port = upstream_port
        self.random = random.Random(seed)
        self.struck: Counter[str] = Counter()
        self._lock = threading.Lock()

    def draw(self) -> str:
        """Choose what happens to a request: mostly nothing."""
        with self._lock:
            fault = self.random.choices([*FAULTS, ""], [*FAULTS.values(), 100 - sum(FAULTS.values())])[0]
            self.struck[fault] += 1
            return fault


class Spoiled(socketserver.StreamRequestHandler):
    """One client's connection through the proxy."""

    server: SpoilingProxy

    def handle(self) -> None:
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream_port)
        try:
            while (request := self._read()) is not None:
                if not self._respond(self.server.draw(), upstream, request):
                    return
        except OSError:
            pass
        finally:
            upstream.close()

    def _read(self) -> bytes | None:
        """Read a request and give its body."""
        length = 0
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return self.rfile.read(length) if line else None

    def _respond(self, fault: str, upstream: http.client.HTTPConnection, request: bytes) -> bool:
        """Answer a request, spoiled or not; tell whether the connection goes on."""
        if fault == "reset before the response":
            return self._reset()
        if fault == "closed before the response":
            return False
        if fault in ("429", "500", "HTML"):
            self.wfile.write(_errors()[fault])
            return True
        upstream.request("POST", "/v1/completions", request, {"Content-Type": "application/json"})
        response = upstream.getresponse()
        body = response.read()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n" % response.headers["Content-Type"].encode()
        chunked = b"event-stream" in head
        head += b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Content-Length: %d\r\n\r\n" % len(body)
        wire = _chunks(body) if chunked else body
        if fault.startswith("delayed"):
            time.sleep(2 * READ_TIMEOUT if "beyond" in fault else 0.1)
        if fault in ("reset inside the response", "truncated"):
            self.wfile.write(head + wire[: len(wire) // 2])
            return self._reset() if fault.startswith("reset") else False
        self.wfile.write(head + wire)
        return True

    def _reset(self) -> bool:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        return False


def _chunks(body: bytes) -> bytes:
    events = [event + b"\n\n" for event in body.split(b"\n\n") if event]
    return b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"


def _errors() -> dict[str, bytes]:
    bodies = {
        "429": ("429 Too Many Requests", "application/json", b'{"error": {"message": "slow down", "code": "busy"}}'),
        "500": ("500 Internal Server Error", "application/json", b'{"error": {"message": "the server had an error"}}'),
        "HTML": ("502 Bad Gateway", "text/html", b"<html><title>502 Bad Gateway</title></html>"),
    }
    head = "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nRetry-After-Ms: 5\r\n\r\n"
    return {name: head.format(status, kind, len(body)).encode() + body for name, (status, kind, body) in bodies.items()}


def serve(pipe: Any, seed: int) -> None:
    """Run server and proxy until the other side says stop, then tell what was struck."""
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    upstream.daemon_threads = True
    proxy = SpoilingProxy(upstream.server_port, seed)
    for server in (upstream, proxy):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    pipe.send(proxy.server_address[1])
    pipe.recv()
    pipe.send(dict(proxy.struck))


@contextmanager
def spoiling_proxy(seed: int, struck: dict[str, int]) -> Iterator[str]:
    """Run the other process; what it struck is in `struck` afterwards."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, seed), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1"
        here.send("stop")
        struck.update(here.recv())
    finally:
        process.terminate()
        process.join()
        here.close()
        there.close()


# This process: the client


def one_call(s: gpt.Gpt, number: int) -> str:
    """Make one call, plain, streamed or left early, and name how it ended; raises only what must not happen."""
    prompt = f"p{number}"
    full = "".join(completion_of(prompt))
    request = shared.CreateCompletionRequest(model="m", prompt=prompt)
    options: dict[str, Any] = {"deadline": 30} if number % 5 == 0 else {}
    try:
        if number % 2:
            result = s.completions.create_completion(request, **options)
            assert result.create_completion_response is not None
            _check(result.create_completion_response, full, whole=True)
        elif number % 10 == 4:
            with s.completions.stream_completion(request, **options) as stream:
                _check(next(stream), full, whole=False)
            return "stream left early"
        else:
            _check(s.completions.stream_completion(request, **options).collect(), full, whole=True)
    except errors.SDKError as error:
        if error.partial is not None and error.partial.choices:
            _check(error.partial, full, whole=False)
        return type(error).__name__
    return "completion" if number % 2 else "streamed completion"


def _check(completion: shared.CreateCompletionResponse, full: str, *, whole: bool) -> None:
    text = completion.choices[0].text or ""
    if not (text == full if whole else full.startswith(text)):
        raise AssertionError(f"expected {full!r}, got {text!r}")


def resources() -> dict[str, float]:
    """Count what could leak: threads, file descriptors (sockets are among them), memory, objects."""
    gc.collect()
    with open("/proc/self/statm") as statm:
        resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    return {
        "threads": threading.active_count(),
        "file descriptors": len(os.listdir("/proc/self/fd")),
        "memory, MiB": round(resident / 2**20, 1),
        "objects": len(gc.get_objects()),
    }


def soak(
    calls: int, threads: int, seed: int
) -> tuple[Counter[str], dict[str, int], dict[str, dict[str, float]], float]:
    """Make the calls; give the endings, the faults, the resources over time, and the seconds it took."""
    endings: Counter[str] = Counter()
    struck: dict[str, int] = {}
    seen: dict[str, dict[str, float]] = {}
    retries = RetryConfig(backoff=BackoffStrategy(initial_interval=2, max_interval=10))
    with spoiling_proxy(seed, struck) as url:
        seen["before"] = resources()
        started = time.perf_counter()
        with gpt.Gpt(server_url=url, retry_config=retries, timeout=(5, READ_TIMEOUT)) as s:
            with ThreadPoolExecutor(threads) as pool:
                for part in range(10):
                    numbers = range(part * calls // 10, (part + 1) * calls // 10)
                    endings.update(pool.map(lambda number: ending(s, number), numbers))
                    seen[f"after {(part + 1) * calls // 10:,} calls"] = resources()
            seconds = time.perf_counter() - started
        seen["closed"] = resources()
    return endings, struck, seen, seconds


def ending(s: gpt.Gpt, number: int) -> str:
    """Name how a call ended, also where it ended as none may."""
    try:
        return one_call(s, number)
    except Exception as error:
        return f"WRONG: {type(error).__name__}: {error}"[:200]


def verdicts(endings: Counter[str], seen: dict[str, dict[str, float]], calls: int) -> list[str]:
    """Say what is wrong; nothing is best."""
    wrong = [f"{count} × {name}" for name, count in endings.items() if name.startswith("WRONG")]
    if endings.total() != calls:
        wrong.append(f"{calls} calls, but {endings.total()} endings")
    before, closed = seen["before"], seen["closed"]
    wrong += [
        f"{name}: {before[name]} before, {closed[name]} after"
        for name in ("threads", "file descriptors")
        if closed[name] > before[name]
    ]
    running = [value["memory, MiB"] for name, value in seen.items() if name.startswith("after")]
    if running[-1] > running[2] + 10:
        wrong.append(f"memory grew from {running[2]} to {running[-1]} MiB between 30 % and the end")
    return wrong


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """Make a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        "| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in line) + " |" for line in lines
    )


def page(
    calls: int,
    threads: int,
    endings: Counter[str],
    struck: dict[str, int],
    seen: dict[str, dict[str, float]],
    seconds: float,
    wrong: list[str],
) -> str:
    """Write the result as a page."""
    faults = sum(count for name, count in struck.items() if name)
    requests = sum(struck.values())
    did = [(name or "nothing", struck[name]) for name in ["", *FAULTS] if name in struck]
    shown = [
        name
        for number, name in enumerate(seen)
        if number in (0, 1, 3, 5, 8) or name == "closed" or name.startswith(f"after {calls:,}")
    ]
    kinds = list(seen["before"])
    return f"""# Soak

Many calls through a proxy that spoils 30 % of the requests at random: it resets and closes connections before and
inside responses, delays them, and sends 429, 500 and HTML of its own. Half of the calls stream; a tenth of all leave
their stream early, and a fifth have a deadline. Every call has to end in the right completion, or in one of
`gpt.models.errors` whose `.partial` is a prefix of the completion; afterwards no thread and no file descriptor may be
left.

```sh
python benchmarks/soak.py --calls {calls}
```

The last result: {calls:,} calls from {threads} threads over one client, {requests:,} requests, {faults:,} of them
spoiled, in {seconds:.0f} s with Python {platform.python_version()} on {os.cpu_count()} cores.
**{"Nothing went wrong." if not wrong else "Wrong: " + "; ".join(wrong)}**

{table(("how calls ended", "calls"), endings.most_common())}

The errors are failures that two retries could not recover, or that are not retried: a broken response may have been
billed, so nothing is sent again once a successful response has begun, nor after a read timeout.

{table(("what the proxy did", "requests"), did)}

{table(("the client's process", *kinds), [(name, *(seen[name][kind] for kind in kinds)) for name in shown])}

While calls run, the {threads} threads are the pool's, and each holds one connection at most.
"""


# Kills


def kill_batch(kills: int, lines: int, seed: int) -> dict[str, Any]:
    """Kill `gpt batch` so often, at random moments of its work, then let it finish; return what became of the lines."""
    rng = random.Random(seed)
    options = ["--batch-size", "32", "--processes", "2", "-m", "m"]
    resumed = []
    with (
        serving(str(Path(__file__).with_name("bulk.py")), "--serve", "0.01") as url,
        tempfile.TemporaryDirectory() as at,
    ):
        source, output = write_input(Path(at, "in"), lines), Path(at, "out")
        command = [sys.executable, "-m", "gpt", "batch", str(source), str(output), "--server-url", url, *options]
        for _ in range(kills):
            size = output.stat().st_size if output.exists() else 0
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                while process.poll() is None and (not output.exists() or output.stat().st_size <= size):
                    time.sleep(0.001)
                time.sleep(rng.uniform(0, 0.1))
                process.kill()
            if process.returncode != -signal.SIGKILL:
                raise RuntimeError("the batch ended before it was killed: give it more --lines")
            resumed.append(sum(1 for _ in output.open("rb")))
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found = Counter(json.loads(line)["custom_id"] for line in output.open())
    wanted = {f"request-{i}" for i in range(lines)}
    return {
        "lost": len(wanted - found.keys()),
        "doubled": sum(count - 1 for count in found.values()),
        "foreign": len(found.keys() - wanted),
        "at each kill": resumed,
    }


def kill_section(kills: int, lines: int, found: dict[str, Any]) -> str:
    """Write what the kills have left as a section."""
    at_kills = "; ".join(f"{count:,}" for count in found["at each kill"])
    return f"""{KILL_HEAD}

`gpt batch --batch-size 32 --processes 2` over {lines:,} lines, killed with SIGKILL at random moments and started again
each time, on the same output:

```sh
python benchmarks/soak.py --kills {kills} --lines {lines}
```

**{kills} kills: {found["lost"]} lines lost, {found["doubled"]} doubled, {found["foreign"]} not of the input.**

{textwrap.fill(f"Lines in the output at each kill: {at_kills}.", 118)}
"""


KILL_HEAD = "## Kills"


def soak_kills(kills: int, lines: int, seed: int, *, write: bool) -> int:
    """Run the kills, print their section, and put it at the end of the page."""
    found = kill_batch(kills, lines, seed)
    section = kill_section(kills, lines, found)
    print(section)
    if write:
        before = DOC.read_text(encoding="utf-8").partition(KILL_HEAD)[0].rstrip("\n")
        DOC.write_text(f"{before}\n\n{section}", encoding="utf-8")
    return 1 if found["lost"] or found["doubled"] or found["foreign"] else 0


def main() -> int:
    """Run the soak, print and write its result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-write", action="store_true", help="print the page and leave docs/soak.md alone")
    parser.add_argument("--kills", type=int, default=0, help="kill a batch so often instead of making calls")
    parser.add_argument("--lines", type=int, default=40_000, help="of that batch")
    arguments = parser.parse_args()
    if arguments.kills:
        return soak_kills(arguments.kills, arguments.lines, arguments.seed, write=not arguments.no_write)
    endings, struck, seen, seconds = soak(arguments.calls, arguments.threads, arguments.seed)
    wrong = verdicts(endings, seen, arguments.calls)
    text = page(arguments.calls, arguments.threads, endings, struck, seen, seconds, wrong)
    print(text)
    if not arguments.no_write:
        kept = "".join(DOC.read_text(encoding="utf-8").partition(KILL_HEAD)[1:])
        DOC.write_text(f"{text}\n{kept}" if kept else text, encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
