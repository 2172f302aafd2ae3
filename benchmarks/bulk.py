"""Measure bulk runs beside AsyncOpenAI and plain requests: each figure as a ratio within one run.

    pip install -e '.[bench]'
    python benchmarks/bulk.py                          # prints tables; writes docs/bulk-benchmarks.md, .json and .svg
    python benchmarks/bulk.py --check                  # exits 1 and names the targets that are missed; writes nothing
    python benchmarks/bulk.py --rows packs,dask --rounds 1

The server runs in a process of its own. Each contender is a fresh process that warms up before it is measured, and only
one works at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compare import serving

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
NAME = "bulk-benchmarks"
KEY = "sk-benchmark"
LATENCY = 0.05
PACK = 32
TASK_SIZE = 64
"""How many requests the larger chunks of the row `tasks` have."""
PACKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
WORKERS = (1, 16, 64)
PROCESSES = (1, 2, 4, 8)
SIZES = (1_000, 10_000, 100_000, 1_000_000)
LINES = 20_000
PASSES = 10
"""How often finished lines are read: once would take less than a tenth of a second."""

Figures = dict[str, float]
"""What a contender measured: `rate` in prompts a second, `cpu` in µs a prompt, `peak` in MB, `submit` in µs."""

Round = dict[str, Figures]
"""The figures of each contender in one round."""


@dataclass(frozen=True)
class Target:
    """What a row must reach: a contender's figure as a share of another's of the same round."""

    name: str
    figure: str
    who: str
    other: str
    """The other contender; empty for the prompts in a second of `who`."""

    limit: float
    at_least: bool = False

    def value(self, round_: Round) -> float:
        """Return the number of one round."""
        if not self.other:
            return 1e6 / round_[self.who][self.figure]
        return ratio(self.figure, self.who, self.other)(round_)

    def is_met(self, value: float) -> bool:
        """Return whether a value is good enough."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass
class Row:
    """One kind of work, and who does it."""

    key: str
    title: str
    server: tuple[str, ...]
    """How this script is called to serve; empty where there is nothing to serve."""

    contenders: dict[str, tuple[str, dict[str, Any]]]
    """A name in the table to a contender and its options."""

    targets: list[Target] = field(default_factory=list)
    note: str = ""
    rounds: int = 3
    figures: list[Round] = field(default_factory=list)

    def median(self, who: str, figure: str) -> float:
        """Return the middle one of a contender's figures."""
        return statistics.median(round_[who][figure] for round_ in self.figures)

    def result(self, target: Target) -> float:
        """Return the middle one of a target's values, each of which is of one round."""
        return statistics.median(target.value(round_) for round_ in self.figures)


# The servers, each in a process of its own


def serve(latency: float) -> None:
    """Respond to every request after `latency` seconds, on a free port, until standard input ends."""
    from server import listed, run, small, whole

    single = whole(small())
    lists: dict[int, bytes] = {}

    def respond(_: bytes, body: bytes) -> tuple[bytes, float]:
        if b'"prompt":[' not in body:
            return single, latency
        count = len(json.loads(body)["prompt"])
        if count not in lists:
            lists[count] = whole(listed(count))
        return lists[count], latency

    run(respond)


def serve_llama() -> None:
    """Serve the tiny model by llama.cpp until standard input ends."""
    from urllib.parse import urlsplit

    from gpt import local

    with local.Server(n_parallel=8) as server:
        print(urlsplit(server.url).port, flush=True)
        sys.stdin.read()


# The contenders, each in a process of its own


def measured(work: Callable[[int], object], n: int, warm: int) -> Figures:
    """Do work for so many prompts after a warm-up; return its rate, and the CPU time of this process a prompt."""
    work(warm)
    wall, cpu = time.perf_counter(), time.process_time()
    work(n)
    return {"rate": n / (time.perf_counter() - wall), "cpu": (time.process_time() - cpu) / n * 1e6}


def peak() -> float:
    """Return the most memory that this process has had, in MB. (`ru_maxrss` would start at the parent's.)"""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


@contextmanager
def gpt_client(url: str, key: str = "") -> Iterator[Any]:
    """Yield our client; without a key, which other processes would not get, unless it is named."""
    import gpt
    from gpt.models import shared

    with gpt.Gpt(server_url=url, security=shared.Security(api_key_auth=key)) as s:
        yield s


def by_run(
    url: str,
    n: int,
    workers: int = 16,
    batch_size: int = 1,
    executor: Executor | None = None,
    chunksize: int | None = None,
) -> Figures:
    """Send prompts by `bulk.run`."""
    from gpt import bulk
    from gpt.models import shared

    with gpt_client(url) as s:

        def work(n: int) -> None:
            requests = (shared.CreateCompletionRequest(model="m", prompt=f"prompt {i}", max_tokens=8) for i in range(n))
            options: Any = {"max_workers": workers, "batch_size": batch_size, "chunksize": chunksize}
            run = bulk.run(s, requests, executor=executor, **options)
            assert sum(1 for outcome in run if outcome.response) == n

        warm = workers * batch_size if executor is None else min(n, 16 * workers * batch_size)
        return measured(work, n, warm)


def by_processes(url: str, n: int, processes: int, **options: Any) -> Figures:
    """Send prompts by `bulk.run` over worker processes."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as executor:
        return by_run(url, n, executor=executor, **options)


def by_dask(url: str, n: int, processes: int, **options: Any) -> Figures:
    """Send prompts by `bulk.run` over a Dask cluster of this machine."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=processes, threads_per_worker=2, dashboard_address=None) as cluster,  # type: ignore[no-untyped-call]
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        return by_run(url, n, executor=client.get_executor(pure=False), **options)


def by_async_openai(url: str, n: int, workers: int = 16) -> Figures:
    """Send prompts by openai-python's asynchronous client behind a semaphore."""
    import openai

    async def send(n: int) -> None:
        places = asyncio.Semaphore(workers)
        async with openai.AsyncOpenAI(base_url=url, api_key=KEY) as s:

            async def one(i: int) -> None:
                async with places:
                    assert (await s.completions.create(model="m", prompt=f"prompt {i}", max_tokens=8)).choices

            await asyncio.gather(*(one(i) for i in range(n)))

    return measured(lambda n: asyncio.run(send(n)), n, workers)


def by_requests(url: str, n: int, workers: int = 16) -> Figures:
    """Send prompts by requests, over one session and threads."""
    import requests

    session, address = requests.Session(), f"{url}/completions"
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=workers))

    def one(i: int) -> None:
        body: Any = {"model": "m", "prompt": f"prompt {i}", "max_tokens": 8}
        assert session.post(address, json=body, headers={"Authorization": f"Bearer {KEY}"}).json()["choices"]

    with ThreadPoolExecutor(workers) as threads:
        return measured(lambda n: list(threads.map(one, range(n))), n, workers)


def by_call(url: str, n: int) -> Figures:
    """Make one small call after the other."""
    from gpt.models import shared

    with gpt_client(url) as s:

        def work(n: int) -> None:
            for _ in range(n):
                s.completions.create_completion(shared.CreateCompletionRequest(model="m", prompt="x", max_tokens=8))

        return measured(work, n, 20)


def by_growth(url: str, n: int) -> Figures:
    """Send ever more prompts; the peak of memory is that of the process."""
    return {**by_run(url, n, batch_size=PACK), "peak": peak()}


def write_input(path: Path, lines: int) -> Path:
    """Write a batch of so many lines of some 200 bytes."""
    with path.open("w") as file:
        for i in range(lines):
            body = {"model": "m", "prompt": f"prompt {i} " + "x" * 60, "max_tokens": 16}
            line = {"custom_id": f"request-{i}", "method": "POST", "url": "/v1/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    return path


def by_new_lines(url: str, n: int) -> Figures:
    """Run a file whose lines are all new."""
    from gpt import bulk

    cpu = 0.0  # without writing the input
    with tempfile.TemporaryDirectory() as folder, gpt_client(url) as s:

        def work(n: int) -> None:
            nonlocal cpu
            source = write_input(Path(folder, f"in-{n}"), n)
            spent = time.process_time()
            assert bulk.run_jsonl(s, source, Path(folder, f"out-{n}"), batch_size=PACK).answered == n
            cpu = (time.process_time() - spent) / n * 1e6

        return {**measured(work, n, PACK), "cpu": cpu, "peak": peak()}


def by_finished_lines(url: str, n: int) -> Figures:
    """Run a file again whose lines are all finished."""
    return _over_finished(url, n, lambda s, source, output: _resume(s, source, output, n))


def by_orjson(url: str, n: int) -> Figures:
    """Parse the lines of the same two files with orjson."""
    import orjson

    def parse(_: Any, source: Path, output: Path) -> None:
        for path in (source, output):
            with path.open("rb") as file:
                for line in file:
                    orjson.loads(line)

    return _over_finished(url, n, parse)


def _resume(s: Any, source: Path, output: Path, n: int) -> None:
    from gpt import bulk

    assert bulk.run_jsonl(s, source, output, batch_size=PACK).resumed == n


def _over_finished(url: str, n: int, work: Callable[[Any, Path, Path], None]) -> Figures:
    from gpt import bulk

    with tempfile.TemporaryDirectory() as folder, gpt_client(url) as s:
        source, output = write_input(Path(folder, "in"), n), Path(folder, "out")
        assert bulk.run_jsonl(s, source, output, batch_size=PACK).answered == n

        def again(lines: int) -> None:
            for _ in range(lines // n):
                work(s, source, output)

        return measured(again, PASSES * n, n)


CONTENDERS: dict[str, Callable[..., Figures]] = {
    "run": by_run,
    "processes": by_processes,
    "dask": by_dask,
    "AsyncOpenAI": by_async_openai,
    "requests": by_requests,
    "call": by_call,
    "growth": by_growth,
    "new lines": by_new_lines,
    "finished lines": by_finished_lines,
    "orjson": by_orjson,
}


# The rows


def ratio(figure: str, who: str, other: str) -> Callable[[Round], float]:
    """Divide a contender's figure by another's of the same round."""
    return lambda round_: round_[who][figure] / round_[other][figure]


def rows() -> list[Row]:
    """List the work."""
    return [
        pack_row(),
        *latency_rows(),
        llama_row(),
        *process_rows(),
        *dask_rows(),
        task_row(),
        *file_rows(),
        growth_row(),
    ]


FREE = ("--serve", "0")
OURS = f"gpt, batch_size={PACK}"


def pack_row() -> Row:
    """Send prompts in packs of several sizes to a server that costs nothing."""
    ours = {
        f"gpt, batch_size={size}": ("run", {"n": 2_000 if size < 4 else 20_000, "batch_size": size}) for size in PACKS
    }
    peers: dict[str, tuple[str, dict[str, Any]]] = {
        "AsyncOpenAI": ("AsyncOpenAI", {"n": 800}),
        "requests": ("requests", {"n": 1_500}),
    }
    return Row(
        "packs",
        "Prompts in packs, to a server that costs nothing",
        FREE,
        {**peers, **ours},
        [
            Target("CPU of a prompt in a pack of 32 / of an AsyncOpenAI call", "cpu", OURS, "AsyncOpenAI", 0.03),
            Target("prompts a CPU second, packs of 32", "cpu", OURS, "", 10_000, at_least=True),
        ],
        "All have 16 requests in flight.",
        rounds=5,
    )


def latency_rows() -> Iterator[Row]:
    """Send requests at several widths to a server that takes its time."""
    for workers in WORKERS:
        n = min(40 * workers, 4_000)
        options = {"n": n, "workers": workers}
        yield Row(
            f"latency-{workers}",
            f"A server that responds after 50 ms, {workers} requests in flight",
            ("--serve", str(LATENCY)),
            {
                "AsyncOpenAI": ("AsyncOpenAI", options),
                "requests": ("requests", options),
                "gpt": ("run", options),
                OURS: ("run", {"n": min(PACK * n, 40_000), "workers": workers, "batch_size": PACK}),
            },
            note=f"The latency allows {workers / LATENCY:,.0f} requests a second.",
        )


def llama_row() -> Row:
    """Send prompts to a real engine."""
    options = {"n": 256, "workers": 8}
    return Row(
        "llama",
        "llama.cpp with the tiny model, 8 slots, 8 tokens a prompt",
        ("--serve-llama",),
        {
            "AsyncOpenAI": ("AsyncOpenAI", options),
            "requests": ("requests", options),
            "gpt": ("run", options),
            "gpt, batch_size=8": ("run", {"n": 256, "workers": 2, "batch_size": 8}),
        },
        note="All have 8 prompts in flight, in packs of 8 two packs. The engine computes on the same two cores.",
    )


def process_rows() -> Iterator[Row]:
    """Send prompts from one process or from several."""
    single = {"workers": 16}
    yield Row(
        "processes",
        "Worker processes, one prompt a request, to a server that costs nothing",
        FREE,
        {
            "one small call": ("call", {"n": 400}),
            "threads of one process": ("run", {"n": 2_000, **single}),
            **{f"{p} processes": ("processes", {"n": 4_000, "processes": p, **single}) for p in PROCESSES},
        },
        [
            Target("CPU of submitting / of a small call", "cpu", "2 processes", "one small call", 0.15),
        ],
        "CPU is that of the submitting process alone: making requests, submitting, reading replies, handing out.",
    )
    yield Row(
        "processes-latency",
        "Worker processes, one prompt a request, to a server that responds after 50 ms",
        ("--serve", str(LATENCY)),
        {f"{p} processes": ("processes", {"n": 1_500 * p, "processes": p, **single}) for p in PROCESSES},
        [Target("rate of 2 processes / of 1", "rate", "2 processes", "1 processes", 1.6, at_least=True)],
        "What bounds a process here is its 16 requests in flight, so that cores stay idle, as the target wants it.",
    )


def dask_rows() -> Iterator[Row]:
    """Send prompts from two worker processes, of Dask and of the standard library."""
    who = {
        "ProcessPoolExecutor": ("processes", {"n": 4_000, "processes": 2}),
        "Dask": ("dask", {"n": 4_000, "processes": 2}),
    }
    title = "Dask beside ProcessPoolExecutor, two worker processes, one prompt a request"
    note = "CPU is that of the submitting process, which in Dask's case also runs the scheduler."
    target = Target("rate of Dask / of processes", "rate", "Dask", "ProcessPoolExecutor", 0.9, at_least=True)
    yield Row("dask", f"{title}, to a server that responds after 50 ms", ("--serve", str(LATENCY)), who, [target], note)
    busy = "Here all of them share two cores that are busy throughout, and what Dask does besides sending shows."
    yield Row("dask-free", f"{title}, to a server that costs nothing", FREE, who, note=f"{note} {busy}")


def task_row() -> Row:
    """Submit chunks of one request each, so that the price of a task shows beside that of a request."""
    return Row(
        "tasks",
        f"What a task costs: chunks of one request and of {TASK_SIZE}, two worker processes",
        FREE,
        {
            f"{name}, chunksize={size}": (kind, {"n": 1_000 if size == 1 else 4_000, "processes": 2, "chunksize": size})
            for name, kind in (("processes", "processes"), ("Dask", "dask"))
            for size in (1, TASK_SIZE)
        },
        note="CPU is that of the submitting process, which in Dask's case also runs the scheduler. "
        "The difference between the two sizes is the price of a task, which `simulate.py` uses.",
    )


def file_rows() -> Iterator[Row]:
    """Read and write batch files."""
    yield Row(
        "resume",
        f"run_jsonl over {LINES:,} finished lines",
        FREE,
        {"orjson.loads of the two files": ("orjson", {"n": LINES}), "gpt": ("finished lines", {"n": LINES})},
        [Target("CPU of resuming / of orjson.loads", "cpu", "gpt", "orjson.loads of the two files", 2.5)],
        rounds=5,
    )
    yield Row(
        "lines",
        f"run_jsonl over {LINES:,} new lines, batch_size={PACK}",
        FREE,
        {"one small call": ("call", {"n": 600}), "gpt": ("new lines", {"n": LINES})},
        [Target("CPU of a new line / of a small call", "cpu", "gpt", "one small call", 0.2)],
        rounds=5,
    )


def growth_row() -> Row:
    """Send ever more prompts."""
    return Row(
        "growth",
        f"Ever more prompts, batch_size={PACK}",
        FREE,
        {f"{n:,} prompts": ("growth", {"n": n}) for n in SIZES},
        [
            Target(
                "peak memory of 1,000,000 prompts / of 10,000",
                "peak",
                f"{SIZES[-1]:,} prompts",
                f"{SIZES[1]:,} prompts",
                1.1,
            )
        ],
        rounds=1,
    )


# Running them


def contend(name: str, url: str, options: dict[str, Any]) -> Figures:
    """Let a contender do its work in a fresh interpreter, with compiled modules as an installed package has them."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, str(HERE / "bulk.py"), "--contender", name, url, json.dumps(options)]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    figures: Figures = json.loads(process.stdout)
    return figures


def run(wanted: list[str], max_rounds: int) -> list[Row]:
    """Measure the wanted rows: all contenders in turn, in an order that depends on the round."""
    chosen = [row for row in rows() if not wanted or any(word in row.key for word in wanted)]
    for row in chosen:
        with serving(str(HERE / "bulk.py"), *row.server) as url:
            for number in range(min(max_rounds, row.rounds)):
                order = turns(row)[:: -1 if number % 2 else 1]
                found = {who: contend(row.contenders[who][0], url, row.contenders[who][1]) for who in order}
                row.figures.append({who: found[who] for who in row.contenders})
        print(*section(row), sep="\n", flush=True)
    return chosen


def turns(row: Row) -> list[str]:
    """Return the contenders in the order in which they are measured: those that a target compares first, one after
    the other, since the machine changes its speed within minutes."""
    compared = [who for target in row.targets for who in (target.who, target.other) if who]
    return list(dict.fromkeys([*compared, *row.contenders]))


def section(row: Row) -> list[str]:
    """Write a row as a table."""
    base = next(iter(row.contenders))
    has_peak = all("peak" in figures for figures in row.figures[0].values())
    head = ["who", "prompts/s", "CPU a prompt", "prompts a CPU second", f"CPU, as a share of {base}"]
    head += ["peak memory"] * has_peak
    rounds = f"Rounds: {len(row.figures)}. {row.note}".strip()
    lines = [f"### {row.title}", "", rounds, ""]
    lines += [_cells(head), "| --- |" + " ---: |" * (len(head) - 1)]
    for who in row.contenders:
        rate, cpu = row.median(who, "rate"), row.median(who, "cpu")
        share = statistics.median(ratio("cpu", who, base)(each) for each in row.figures)
        cells = [who, f"{rate:,.0f}", f"{cpu:,.{0 if cpu >= 100 else 1}f} µs", f"{1e6 / cpu:,.0f}", f"{share:.3f}"]
        if has_peak:
            cells.append(f"{row.median(who, 'peak'):.1f} MB")
        lines.append(_cells(cells))
    lines.append("")
    return lines


def verdicts(measured: list[Row]) -> list[str]:
    """Write the targets as a table."""
    lines = [
        _cells(["target", "limit", "measured", "rounds, lowest–highest", ""]),
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for row in measured:
        for target in row.targets:
            values = sorted(target.value(round_) for round_ in row.figures)
            result = row.result(target)
            limit = f"{'≥' if target.at_least else '≤'} {target.limit:,}"
            verdict = "met" if target.is_met(result) else "**missed**"
            lines.append(
                _cells([target.name, limit, _number(result), f"{_number(values[0])}–{_number(values[-1])}", verdict])
            )
    return lines


def misses(measured: list[Row]) -> list[str]:
    """Name the targets that the medians miss."""
    return [
        f"{row.key}: {target.name}: {_number(row.result(target))}, target {target.limit:,}"
        for row in measured
        for target in row.targets
        if not target.is_met(row.result(target))
    ]


def _cells(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}"


# The page


def measured_before() -> list[Row]:
    """Return all rows with the figures of the last page."""
    found = {row["key"]: row["figures"] for row in json.loads((DOCS / f"{NAME}.json").read_text())["rows"]}
    for row in (listed := rows()):
        row.figures = found.get(row.key, [])
    return listed


def report(measured: list[Row]) -> None:
    """Write the page, the figures as JSON, and the plot."""
    packages = {name: version(name) for name in ("gpt-sdk", "openai", "requests", "distributed", "xllamacpp", "orjson")}
    machine = f"Python {platform.python_version()}, {platform.machine()}, {platform.system()}, {os.cpu_count()} cores"
    found = [{"key": row.key, "title": row.title, "figures": row.figures} for row in measured]
    data = {"machine": machine, "packages": packages, "rows": found}
    (DOCS / f"{NAME}.json").write_text(json.dumps(data, indent=1) + "\n")
    page = PAGE.format(
        name=NAME,
        machine=machine,
        packages=", ".join(f"{name} {number}" for name, number in packages.items()),
        targets="\n".join(verdicts(measured)),
        tables="\n".join(line for row in measured for line in section(row)),
    )
    (DOCS / f"{NAME}.md").write_text(page.rstrip("\n") + "\n")
    plot(measured)


PAGE = """# Benchmarks of bulk runs

What a prompt costs in a [bulk run](guides/bulk.md), beside AsyncOpenAI with a semaphore of the same width and plain
`requests` over threads. CPU is that of the client process. All contenders of a table ran in turn within one run, each
in a fresh process; figures are medians of the rounds, of which each table says how many. A target is a ratio of figures
of one round. The server, in a process of its own, shares the machine's cores with the clients:
compare lines, not machines.

![CPU time a prompt, by the size of the pack]({name}.svg)

## Targets

{targets}

Two worker processes and Dask are held to their targets where cores are idle. On a server that costs nothing, the
submitter, two workers and the server would need four cores; this machine has two, and a second process brings little.

Not run here: the target against a real vLLM, wall clock (at least 3 × AsyncOpenAI's rate and 1.6 × our own without
packs). It needs vLLM, which this machine lacks. The rows with llama.cpp are not a substitute: its tiny model computes
on the very cores that the client needs.

## Tables

{tables}
## Again

Measured with {machine}; {packages}.

```bash
pip install -e '.[bench]'
python benchmarks/bulk.py           # some ten minutes; --rounds and --rows make it shorter
python benchmarks/bulk.py --check   # exits with 1 and names the targets that are missed
```
"""


def plot(measured: list[Row]) -> None:
    """Draw the CPU time of a prompt by the size of its pack, beside the peers' call."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "gpt"  # the same drawing from the same figures
    from matplotlib import pyplot

    row = next(row for row in measured if row.key == "packs")
    costs = [row.median(f"gpt, batch_size={size}", "cpu") for size in PACKS]
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    axes.loglog(PACKS, costs, "o-", color="#2f6db5", label="gpt")
    for peer, style in (("AsyncOpenAI", "--"), ("requests", ":")):
        axes.axhline(row.median(peer, "cpu"), color="#666", linestyle=style, label=f"{peer}, one prompt a request")
    for size, cost in zip(PACKS, costs, strict=True):
        axes.annotate(f"{cost:,.0f}", (size, cost), textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8)
    axes.set_xticks(PACKS, [str(size) for size in PACKS])
    axes.minorticks_off()
    axes.set_xlabel("batch_size")
    axes.set_ylabel("CPU time of the client, µs a prompt")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(DOCS / f"{NAME}.svg", metadata={"Date": None})


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed; write nothing")
    parser.add_argument("--rounds", type=int, default=sys.maxsize, help="rounds of each row at most, for a quick look")
    parser.add_argument("--rows", default="", help="only rows whose keys contain one of these words; write nothing")
    parser.add_argument("--update", action="store_true", help="with --rows, write them into the page beside the others")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--serve-llama", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--contender", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve)
    elif arguments.serve_llama:
        serve_llama()
    elif arguments.contender:
        name, url, options = arguments.contender
        print(json.dumps(CONTENDERS[name](url, **json.loads(options))))
    else:
        measured = run([word for word in arguments.rows.split(",") if word], arguments.rounds)
        missed = misses(measured)
        for miss in missed:
            print(f"missed: {miss}", file=sys.stderr)
        if arguments.update:
            measured = [next((new for new in measured if new.key == row.key), row) for row in measured_before()]
        if arguments.update or not (arguments.check or arguments.rows):
            report(measured)
        return 1 if arguments.check and missed else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
