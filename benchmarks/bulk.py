"""Measure bulk runs: what a prompt costs, beside AsyncOpenAI and plain requests, on all cores, and over large files.

    pip install -e '.[bench,dask,local]'
    python benchmarks/bulk.py                 # prints tables; writes docs/bulk-benchmarks.md, .json and .svg
    python benchmarks/bulk.py --check         # exits 1 and names the rows that miss their targets
    python benchmarks/bulk.py --only packs,files --rounds 3

Each figure is of a fresh client process; the server runs in another. `benchmarks/kills.py` kills runs, and
`benchmarks/simulate.py` goes on from these figures to a billion prompts a day.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compare import child, serving

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
LATENCY = 0.05
WORKERS = (1, 16, 64, 256)
PACKS = (1, 4, 16, 32, 64, 256)
PROCESSES = (1, 2, 4, 8)
GROWTH = (1_000, 10_000, 100_000, 1_000_000)
LINES = 20_000
PACK = 32


@dataclass
class Found:
    """The tables and the figures of a run, and which of them have targets."""

    rounds: int
    tables: dict[str, list[str]] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    misses: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)

    def row(self, table: str, *cells: object) -> None:
        """Add a line to a table and print it."""
        line = "| " + " | ".join(map(str, cells)) + " |"
        self.tables.setdefault(table, []).append(line)
        print(line, flush=True)

    def check(self, name: str, value: float, *, most: float | None = None, least: float | None = None) -> None:
        """Hold a figure against its target."""
        self.figures[name] = value
        target = f"≤ {most:,}" if most is not None else f"≥ {least:,}"
        held = value <= most if most is not None else value >= (least or 0)
        self.row("targets", name, f"{value:,.3f}" if value < 100 else f"{value:,.0f}", target, "" if held else "missed")
        if not held:
            self.misses.append(f"{name}: {value:,.3f}, target {target}")

    def median(self, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Measure several times and return the median of each figure."""
        rounds = [measure() for _ in range(self.rounds)]
        return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


# The server


def serve(latency: float) -> None:
    """Answer every request after `latency` seconds, on a free port, until standard input ends."""
    from server import _LENGTH, _whole, listed, small

    alone = _whole(small())
    lists: dict[int, bytes] = {}

    def response_to(body: bytes) -> bytes:
        if b'"prompt":[' not in body:
            return alone
        count = body.count(b'","') + 1  # prompts of these runs have no quotes in them
        if count not in lists:
            lists[count] = _whole(listed(count))
        return lists[count]

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._transport: Any = transport
            self._buffer = b""

        def data_received(self, data: bytes) -> None:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            length = _LENGTH.search(self._buffer, 0, end) if end >= 0 else None
            if length and len(self._buffer) >= end + 4 + int(length.group(1)):
                prompt = self._buffer.find(b'"prompt":[', end)
                listing = self._buffer[prompt : self._buffer.find(b"]", prompt)] if prompt >= 0 else b""
                response, self._buffer = response_to(listing), b""
                if latency:
                    asyncio.get_running_loop().call_later(latency, self._transport.write, response)
                else:
                    self._transport.write(response)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.read)

    asyncio.run(main())


def serving_after(latency: float) -> AbstractContextManager[str]:
    """Run the server in another process; yield its base URL."""
    return serving(str(HERE / "bulk.py"), "--serve", str(latency))


# The clients: each is run by a fresh interpreter and prints its figures

BY_GPT = """
import json, os, sys, time
import gpt
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from gpt import bulk
from gpt.models import shared
url, kind, processes, workers, batch_size, n, max_tokens = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
with ExitStack() as stack:
    s = stack.enter_context(gpt.Gpt(server_url=url, security=shared.Security(api_key_auth="")))
    executor = None
    if kind == "processes":
        executor = stack.enter_context(ProcessPoolExecutor(processes, mp_context=get_context("spawn")))
    elif kind == "dask":
        from distributed import Client, LocalCluster
        cluster = stack.enter_context(
            LocalCluster(n_workers=processes, threads_per_worker=2, dashboard_address=None, memory_limit=0)
        )
        executor = stack.enter_context(Client(cluster)).get_executor(pure=False)
    def go(n):
        requests = (
            shared.CreateCompletionRequest(model="m", prompt=f"prompt {i}", max_tokens=max_tokens) for i in range(n)
        )
        run = bulk.run(s, requests, executor=executor, max_workers=workers, batch_size=batch_size)
        assert sum(outcome.result() is not None for outcome in run) == n
    go(max(workers * batch_size, 4000 if executor else 0) if n > 1000 else workers)
    wall, cpu = time.perf_counter(), time.process_time()
    go(n)
    print(json.dumps({"rate": n / (time.perf_counter() - wall), "cpu": (time.process_time() - cpu) / n * 1e6}))
"""

BY_ASYNC_OPENAI = """
import asyncio, json, sys, time
import openai
url, workers, n, max_tokens = sys.argv[1], *map(int, sys.argv[2:])
async def main():
    async with openai.AsyncOpenAI(base_url=url, api_key="k") as s:
        async def go(n):
            places = asyncio.Semaphore(workers)
            async def one(i):
                async with places:
                    create = s.completions.create
                    assert (await create(model="m", prompt=f"prompt {i}", max_tokens=max_tokens)).choices
            await asyncio.gather(*(one(i) for i in range(n)))
        await go(workers)
        wall, cpu = time.perf_counter(), time.process_time()
        await go(n)
        print(json.dumps({"rate": n / (time.perf_counter() - wall), "cpu": (time.process_time() - cpu) / n * 1e6}))
asyncio.run(main())
"""

BY_REQUESTS = """
import json, sys, time
import requests
from concurrent.futures import ThreadPoolExecutor
from requests.adapters import HTTPAdapter
url, workers, n, max_tokens = sys.argv[1], *map(int, sys.argv[2:])
with requests.Session() as s, ThreadPoolExecutor(workers) as threads:
    s.mount("http://", HTTPAdapter(pool_maxsize=workers))
    def one(i):
        body = {"model": "m", "prompt": f"prompt {i}", "max_tokens": max_tokens}
        assert s.post(url + "/completions", json=body).json()["choices"]
    list(threads.map(one, range(workers)))
    wall, cpu = time.perf_counter(), time.process_time()
    list(threads.map(one, range(n)))
    print(json.dumps({"rate": n / (time.perf_counter() - wall), "cpu": (time.process_time() - cpu) / n * 1e6}))
"""

SMALL_CALL = """
import json, sys, time
import gpt
from gpt.models import shared
url, n = sys.argv[1], int(sys.argv[2])
with gpt.Gpt(server_url=url, security=shared.Security(api_key_auth="")) as s:
    def go(n):
        for i in range(n):
            s.completions.create_completion(shared.CreateCompletionRequest(model="m", prompt=f"prompt {i}"))
    go(200)
    cpu = time.process_time()
    go(n)
    print(json.dumps({"cpu": (time.process_time() - cpu) / n * 1e6}))
"""

FILE = """
import json, sys, time
import orjson
import gpt
from gpt import bulk
from gpt.models import shared
url, input, output, lines = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
def cpu_of(work):
    begun = time.process_time()
    work()
    return time.process_time() - begun
def parse():
    for path in (input, output):
        with open(path, "rb") as file:
            for line in file:
                orjson.loads(line)
with gpt.Gpt(server_url=url, security=shared.Security(api_key_auth="")) as s:
    run = lambda: bulk.run_jsonl(s, input, output, batch_size=32)
    new = cpu_of(run)
    again, parsed = cpu_of(run), cpu_of(parse)
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"new": new / lines * 1e6, "again": again / lines * 1e6, "parsed": parsed / lines * 1e6,
                  "peak": peak / 1024}))
"""

PEAK = """
import json, sys, time
import gpt
from gpt import bulk
from gpt.models import shared
url, n = sys.argv[1], int(sys.argv[2])
with gpt.Gpt(server_url=url, security=shared.Security(api_key_auth="")) as s:
    requests = (shared.CreateCompletionRequest(model="m", prompt=f"prompt {i}") for i in range(n))
    wall = time.perf_counter()
    assert sum(1 for outcome in bulk.run(s, requests, batch_size=32) if outcome.response) == n
    wall = time.perf_counter() - wall
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"wall": wall, "peak": peak / 1024}))
"""


def by_gpt(
    url: str, n: int, *, kind: str = "threads", processes: int = 1, workers: int = 16, pack: int = 1, tokens: int = 2
):  # type: ignore[no-untyped-def]
    """Run prompts by gpt; return the rate, and the CPU of the submitting process a prompt in µs."""
    return child(BY_GPT, url, kind, processes, workers, pack, n, tokens)


# The tables


def packs(found: Found) -> None:
    """Send prompts in packs of several sizes to a server that costs nothing."""
    found.row(
        "packs", "prompts a request", "prompts/s", "CPU a prompt", "prompts a CPU second", "of AsyncOpenAI's call"
    )
    found.row("packs", "---:", "---:", "---:", "---:", "---:")
    with serving_after(0.0) as url:
        peer = found.median(lambda: child(BY_ASYNC_OPENAI, url, 16, 1_000, 2))
        plain = found.median(lambda: child(BY_REQUESTS, url, 16, 1_000, 2))
        for size in PACKS:
            ours = found.median(lambda n=2_000 if size == 1 else 40_000, size=size: by_gpt(url, n, pack=size))  # type: ignore[misc]
            cells = f"{ours['rate']:,.0f}", f"{ours['cpu']:,.0f} µs", f"{1e6 / ours['cpu']:,.0f}"
            found.row("packs", size, *cells, f"{ours['cpu'] / peer['cpu']:.3f}")
            found.figures[f"µs a prompt in packs of {size}"] = ours["cpu"]
            if size == PACK:
                found.check(
                    "CPU of a prompt in a pack of 32, of a call by AsyncOpenAI", ours["cpu"] / peer["cpu"], most=0.03
                )
                found.check("prompts a CPU second in packs of 32", 1e6 / ours["cpu"], least=10_000)
        found.row(
            "packs", "AsyncOpenAI", f"{peer['rate']:,.0f}", f"{peer['cpu']:,.0f} µs", f"{1e6 / peer['cpu']:,.0f}", "1"
        )
        share = f"{plain['cpu'] / peer['cpu']:.3f}"
        found.row(
            "packs",
            "`requests`",
            f"{plain['rate']:,.0f}",
            f"{plain['cpu']:,.0f} µs",
            f"{1e6 / plain['cpu']:,.0f}",
            share,
        )


def latency(found: Found) -> None:
    """Send requests at several widths to a server that answers after 50 ms, by everybody in turn."""
    found.row(
        "latency", "in flight", "possible", "gpt", "CPU", "gpt, packs of 32", "AsyncOpenAI", "CPU", "requests", "CPU"
    )
    found.row("latency", *["---:"] * 9)
    with serving_after(LATENCY) as url:
        for workers in WORKERS:
            n = min(40 * workers, 4_000)
            ours = found.median(lambda n=n, w=workers: by_gpt(url, n, workers=w))  # type: ignore[misc]
            packed = found.median(lambda n=n, w=workers: by_gpt(url, 8 * n, workers=w, pack=PACK))  # type: ignore[misc]
            peer = found.median(lambda n=n, w=workers: child(BY_ASYNC_OPENAI, url, w, n, 2))  # type: ignore[misc]
            plain = found.median(lambda n=n, w=workers: child(BY_REQUESTS, url, w, n, 2))  # type: ignore[misc]
            cells = [f"{ours['rate']:,.0f}/s", f"{ours['cpu']:,.0f} µs", f"{packed['rate']:,.0f}/s"]
            cells += [text for one in (peer, plain) for text in (f"{one['rate']:,.0f}/s", f"{one['cpu']:,.0f} µs")]
            found.row("latency", workers, f"{workers / LATENCY:,.0f}/s", *cells)


def engine(found: Found) -> None:
    """Complete prompts of one token on the real llama.cpp server, which runs on the same cores."""
    from gpt import local

    found.row("engine", "client of llama.cpp, 8 slots", "prompts/s", "of AsyncOpenAI")
    found.row("engine", "---", "---:", "---:")
    with local.Server(n_parallel=8) as server:
        peer = found.median(lambda: child(BY_ASYNC_OPENAI, server.url, 16, 300, 1))["rate"]
        found.row("engine", "AsyncOpenAI", f"{peer:,.0f}", "1")
        for pack in (1, 8, 32):
            rate = found.median(lambda pack=pack: by_gpt(server.url, 600, pack=pack, tokens=1))["rate"]  # type: ignore[misc]
            found.row("engine", f"gpt, {pack} prompts a request", f"{rate:,.0f}", f"{rate / peer:.2f}")
            found.figures[f"prompts/s on llama.cpp in packs of {pack}"] = rate


def cores(found: Found) -> None:
    """Spread packs of 32 over processes and over Dask."""
    found.row("cores", "where", "prompts/s", "of one process", "CPU of the submitter, a prompt")
    found.row("cores", "---", "---:", "---:", "---:")
    with serving_after(0.0) as url:
        call = found.median(lambda: child(SMALL_CALL, url, 1_000))["cpu"]
        found.figures["µs a small call"] = call
        rates: dict[int, float] = {}
        for processes in PROCESSES:
            ours = found.median(lambda p=processes: by_gpt(url, 60_000, kind="processes", processes=p, pack=PACK))  # type: ignore[misc]
            rates[processes] = ours["rate"]
            of_one = f"{ours['rate'] / rates[1]:.2f}"
            found.row("cores", f"{processes} processes", f"{ours['rate']:,.0f}", of_one, f"{ours['cpu']:.0f} µs")
            if processes == 2:
                found.figures["µs to submit a prompt to processes"] = ours["cpu"]
                found.check("submitting a prompt to processes, of a small call", ours["cpu"] / call, most=0.15)
        dask = found.median(lambda: by_gpt(url, 60_000, kind="dask", processes=2, pack=PACK))
        found.row(
            "cores",
            "Dask, 2 workers",
            f"{dask['rate']:,.0f}",
            f"{dask['rate'] / rates[1]:.2f}",
            f"{dask['cpu']:.0f} µs",
        )
        found.figures["µs to submit a prompt to Dask"] = dask["cpu"]
        found.check("rate of Dask's two workers, of two processes", dask["rate"] / rates[2], least=0.9)
    with serving_after(LATENCY) as url:  # with 16 × 32 prompts in flight in each process, no core is busy
        one, two = (
            found.median(lambda p=p: by_gpt(url, 20_000, kind="processes", processes=p, workers=4, pack=PACK))["rate"]  # type: ignore[misc]
            for p in (1, 2)
        )
        found.check("rate of two processes, of one, on a server of 50 ms", two / one, least=1.6)


def files(found: Found) -> None:
    """Run a file, and run it again when all is done."""
    found.row(
        "files", "lines", "CPU of a new line", "of a finished line", "of `orjson.loads` of both lines", "peak memory"
    )
    found.row("files", *["---:"] * 5)
    with serving_after(0.0) as url, tempfile.TemporaryDirectory() as folder:
        call = found.median(lambda: child(SMALL_CALL, url, 1_000))["cpu"]
        for lines in (1_000, LINES, 5 * LINES):
            input = write_input(Path(folder, f"in-{lines}"), lines)

            def measure(input: Path = input, lines: int = lines) -> dict[str, float]:
                output = Path(folder, "out")
                output.unlink(missing_ok=True)
                return child(FILE, url, input, output, lines)

            each = found.median(measure)
            cells = [f"{each[name]:.1f} µs" for name in ("new", "again", "parsed")]
            found.row("files", f"{lines:,}", *cells, f"{each['peak']:.0f} MB")
            if lines == 5 * LINES:
                found.figures["µs a new line in packs of 32"] = each["new"]
                found.check("a finished line, of orjson.loads of both", each["again"] / each["parsed"], most=2.5)
                found.check("a new line in packs of 32, of a small call", each["new"] / call, most=0.2)


def growth(found: Found) -> None:
    """Run ever more prompts in packs of 32, once each."""
    found.row("growth", "prompts", "wall", "prompts/s", "peak memory")
    found.row("growth", *["---:"] * 4)
    with serving_after(0.0) as url:
        for n in GROWTH:
            each = child(PEAK, url, n)
            found.row("growth", f"{n:,}", f"{each['wall']:.1f} s", f"{n / each['wall']:,.0f}", f"{each['peak']:.0f} MB")


def write_input(path: Path, lines: int) -> Path:
    """Write a batch of so many lines of some 200 bytes."""
    with path.open("w") as file:
        for i in range(lines):
            body = {"model": "m", "prompt": f"prompt {i} " + "x" * 60, "max_tokens": 16}
            line = {"custom_id": f"request-{i}", "method": "POST", "url": "/v1/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    return path


WORK: dict[str, Callable[[Found], None]] = {
    "packs": packs,
    "latency": latency,
    "engine": engine,
    "cores": cores,
    "files": files,
    "growth": growth,
}

PAGE = """# Benchmarks of bulk runs

What a prompt costs the client when there are many of them. Written by `benchmarks/bulk.py`; medians of {rounds} runs in
turn, each in a fresh process, but for growth. The machine's {cpus} cores also ran the servers: compare the lines of a
table, not machines.

![What a prompt costs, by the number of prompts in a request](bulk-benchmarks.svg)

## Targets

| what | measured | target | |
| --- | ---: | ---: | --- |
{targets}

Against a real vLLM nothing is measured here: this machine has none.

## Prompts in one request

16 requests in flight, against a server that costs nothing. CPU is that of the client process.

{packs}

## A server that answers after 50 ms

Requests a second, and CPU of the client for each. *Possible* is what the latency allows one prompt a request.

{latency}

## The real llama.cpp

It computes on the same cores, so the client's savings are its gain.

{engine}

## All cores

Packs of 32, 16 requests in flight in each process, against a server that costs nothing; more processes than cores only
share them.

{cores}

## Files

`run_jsonl` in packs of 32, and again over its own output.

{files}

## Growth

`run` in packs of 32, in one process.

{growth}

Measured with {machine}; {packages}.
"""


def report(found: Found) -> None:
    """Write the page, the figures and the plot."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("gpt-sdk", "openai", "requests", "distributed"))
    machine = f"Python {platform.python_version()}, {platform.machine()}, {platform.system()}"
    tables = {name: "\n".join(lines) for name, lines in found.tables.items()}
    page = PAGE.format(rounds=found.rounds, cpus=os.cpu_count(), machine=machine, packages=packages, **tables)
    (DOCS / "bulk-benchmarks.md").write_text(page)
    (DOCS / "bulk-benchmarks.json").write_text(json.dumps(found.figures, indent=1) + "\n")
    plot(found)


def plot(found: Found) -> None:
    """Draw the cost of a prompt by the size of its pack."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "gpt"  # the same drawing from the same figures
    from matplotlib import pyplot

    costs = [found.figures[f"µs a prompt in packs of {size}"] for size in PACKS]
    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    axes.loglog(PACKS, costs, "o-", color="#2f6db5", base=2)
    axes.set_yscale("log", base=10)
    for size, cost in zip(PACKS, costs, strict=True):
        axes.annotate(f"{cost:,.0f} µs", (size, cost), textcoords="offset points", xytext=(0, 8), ha="center")
    axes.set_xticks(PACKS, [str(size) for size in PACKS])
    axes.set_ylim(min(costs) / 2, max(costs) * 3)
    axes.set_xlabel("prompts in a request")
    axes.set_ylabel("CPU a prompt")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(DOCS / "bulk-benchmarks.svg", metadata={"Date": None})


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Measure bulk runs.")
    parser.add_argument("--only", default="", help=f"some of {', '.join(WORK)}; writes nothing")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed; write nothing")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each measurement (default 3)")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve)
        return 0
    found = Found(options.rounds)
    for name, work in WORK.items():
        if not options.only or name in options.only.split(","):
            work(found)
    for miss in found.misses:
        print(f"missed: {miss}", file=sys.stderr)
    if not options.check and not options.only:
        report(found)
    return 1 if options.check and found.misses else 0


if __name__ == "__main__":
    sys.exit(main())
