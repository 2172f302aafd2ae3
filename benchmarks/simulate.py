"""Simulate bulk runs far beyond one machine: a submitter, worker processes with threads, and servers.

    python benchmarks/simulate.py            # prints tables; writes them into docs/scale.md
    python benchmarks/simulate.py --print    # prints only

A discrete-event model on a heap. What the client's parts cost is measured: it is read from docs/bulk-benchmarks.json.
What a server does (slots, seconds a prompt) is assumed, and said beside each table.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bulk import TASK_SIZE

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "scale.md"
FIGURES = HERE.parent / "docs" / "bulk-benchmarks.json"
MARKS = "<!-- Figures: written by benchmarks/simulate.py -->\n", "<!-- End of figures -->"
DAY = 86_400
GOAL = 1_000_000_000
PROMPT_BYTES, COMPLETION_BYTES = 800, 1_200
"""Of JSON on the wire: some 150 tokens each, and the fields around a completion."""

OUTPUT_BYTES = COMPLETION_BYTES + 150


@dataclass(frozen=True)
class Costs:
    """Measured CPU seconds of the client's parts, for one prompt."""

    worker: float
    """Of a worker: packing, sending, reading, taking apart."""

    submitter: float
    """Of the submitting process: making requests, pickling, handing out."""

    line: float
    """Of a process that does all of a batch file's line itself."""

    task: dict[str, float]
    """Of the submitting process for one task, by the kind of executor; with Dask's scheduler in it."""


@dataclass(frozen=True)
class Setup:
    """What is simulated."""

    costs: Costs
    processes: int = 2
    threads: int = 16
    batch_size: int = 32
    rounds: int = 4
    """How many packs of a chunk each thread has."""

    executor: str = "processes"

    servers: int = 1
    slots: int = 256
    """How many prompts a server computes at a time."""

    seconds: float = 2.0
    """What a server needs for a prompt."""

    spread: float = 0.5
    """The standard deviation of the logarithm of that; 0 is all the same."""

    overlap: int = 1
    """How many chunks a process works on at a time."""

    prompts: int = 100_000


@dataclass
class Process:
    """A worker process: its threads, and its core, which one thread has at a time."""

    idle: int
    core_free_at: float = 0.0
    packs: deque[tuple[int, int]] = field(default_factory=deque)
    """Packs that wait for a thread: the chunk's number, and how many prompts."""
    chunks: int = 0


@dataclass
class Result:
    """What came of a simulation."""

    rate: float
    """Prompts a second."""
    submitter: float
    """The share of the time in which the submitter was busy."""
    workers: float
    """The mean share of the time in which a worker process had its core."""
    slots: float
    """The mean share of the servers' slots in use."""


class Simulation:
    """Events on a heap: `(time, number, what to do)`."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._random = random.Random(1)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._now = 0.0
        self._left = setup.prompts
        self._processes = [Process(setup.threads) for _ in range(setup.processes)]
        self._waiting_chunks: deque[tuple[int, int]] = deque()
        self._chunk_packs: dict[int, int] = {}
        self._chunks = 0
        self._submitter_free_at = self._submitter_busy = 0.0
        self._worker_busy = self._slot_seconds = 0.0
        self._slots = [setup.slots] * setup.servers
        self._queues: list[deque[Callable[[], None]]] = [deque() for _ in range(setup.servers)]
        self._next_server = 0

    def run(self) -> Result:
        """Send all prompts; return the shares and the rate."""
        for _ in range(2 * self._setup.processes):
            self._submit()
        while self._events:
            self._now, _, action = heapq.heappop(self._events)
            action()
        setup, total = self._setup, self._now
        return Result(
            rate=setup.prompts / total,
            submitter=self._submitter_busy / total,
            workers=self._worker_busy / total / setup.processes,
            slots=self._slot_seconds / total / (setup.servers * setup.slots),
        )

    def _at(self, time: float, action: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (time, self._number, action))

    def _submit(self) -> None:
        """Let the submitter make a chunk, when its core is free; then it waits for a process."""
        setup = self._setup
        size = min(self._left, setup.rounds * setup.threads * setup.batch_size)
        if not size:
            return
        self._left -= size
        cost = setup.costs.task[setup.executor] + size * setup.costs.submitter
        self._submitter_busy += cost
        self._submitter_free_at = max(self._now, self._submitter_free_at) + cost
        self._chunks += 1
        chunk = (self._chunks, size)
        self._at(self._submitter_free_at, lambda: self._arrive(chunk))

    def _arrive(self, chunk: tuple[int, int]) -> None:
        self._waiting_chunks.append(chunk)
        for process in self._processes:
            self._take_chunk(process)

    def _take_chunk(self, process: Process) -> None:
        """Let a process begin a chunk, if it may; divide it into packs."""
        if process.chunks >= self._setup.overlap or not self._waiting_chunks:
            return
        number, size = self._waiting_chunks.popleft()
        process.chunks += 1
        whole, rest = divmod(size, self._setup.batch_size)
        packs = [self._setup.batch_size] * whole + [rest] * bool(rest)
        self._chunk_packs[number] = len(packs)
        process.packs.extend((number, pack) for pack in packs)
        self._start_threads(process)

    def _start_threads(self, process: Process) -> None:
        """Give waiting packs to idle threads; sending costs the process's only core (the GIL) its time."""
        while process.idle and process.packs:
            process.idle -= 1
            number, prompts = process.packs.popleft()
            cost = prompts * self._setup.costs.worker
            self._worker_busy += cost
            process.core_free_at = max(self._now, process.core_free_at) + cost
            self._at(process.core_free_at, lambda n=number, p=prompts: self._send(process, n, p))  # type: ignore[misc]

    def _send(self, process: Process, chunk: int, prompts: int) -> None:
        """Give a pack to a server, whose slots take its prompts one by one; its end is that of the last."""
        server, self._next_server = self._next_server, (self._next_server + 1) % self._setup.servers
        left = prompts

        def finish() -> None:
            nonlocal left
            left -= 1
            self._slots[server] += 1
            if not left:
                self._receive(process, chunk)
            self._fill_slots(server)

        def start() -> None:
            seconds = self._setup.seconds
            if self._setup.spread:
                seconds *= self._random.lognormvariate(-(self._setup.spread**2) / 2, self._setup.spread)
            self._slot_seconds += seconds
            self._at(self._now + seconds, finish)

        self._queues[server].extend([start] * prompts)
        self._fill_slots(server)

    def _fill_slots(self, server: int) -> None:
        while self._slots[server] and self._queues[server]:
            self._slots[server] -= 1
            self._queues[server].popleft()()

    def _receive(self, process: Process, chunk: int) -> None:
        process.idle += 1
        self._chunk_packs[chunk] -= 1
        if not self._chunk_packs[chunk]:
            process.chunks -= 1
            self._take_chunk(process)
            self._submit()
        self._start_threads(process)


# The tables


def read_costs() -> Costs:
    """Read the measured price of a prompt."""
    found: dict[str, Any] = {row["key"]: row["figures"] for row in json.loads(FIGURES.read_text())["rows"]}

    def cpu(row: str, who: str) -> float:
        return statistics.median(float(figures[who]["cpu"]) for figures in found[row]) / 1e6

    def task(kind: str) -> float:
        """Divide what two sizes of chunks differ in: with `TASK_SIZE` a prompt pays for that part of a task only."""
        alone, shared = cpu("tasks", f"{kind}, chunksize=1"), cpu("tasks", f"{kind}, chunksize={TASK_SIZE}")
        return (alone - shared) / (1 - 1 / TASK_SIZE)

    return Costs(
        worker=cpu("packs", "gpt, batch_size=32"),
        submitter=cpu("processes", "2 processes"),
        line=cpu("lines", "gpt"),
        task={kind: task(kind) for kind in ("processes", "Dask")},
    )


def table(head: list[str], lines: list[list[str]]) -> str:
    """Make a Markdown table whose first column is text."""
    rows = [head, ["---"] + ["---:"] * (len(head) - 1), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def goal_table(costs: Costs) -> str:
    """Say what a billion prompts a day need, by multiplication alone."""
    rate = GOAL / DAY
    in_flight = rate * Setup(costs).seconds
    return table(
        ["a billion prompts a day", "each prompt", "in all"],
        [
            ["rate", "", f"{rate:,.0f} prompts/s"],
            ["CPU of workers, packs of 32", f"{costs.worker * 1e6:.0f} µs", f"{rate * costs.worker:.1f} cores"],
            ["CPU of submitters", f"{costs.submitter * 1e6:.0f} µs", f"{rate * costs.submitter:.1f} cores"],
            [
                "without executor: `gpt batch`, a part each",
                f"{costs.line * 1e6:.0f} µs",
                f"{rate * costs.line:.1f} cores",
            ],
            ["prompts in flight, 2 s each", "", f"{in_flight:,.0f}"],
            ["HTTP requests in flight, packs of 32", "", f"{in_flight / 32:,.0f} connections"],
            ["worker processes of 16 threads", "", f"{math.ceil(in_flight / 32 / 16):,}"],
            ["servers of 256 slots", "", f"{math.ceil(in_flight / 256):,}"],
            ["network, out", f"{PROMPT_BYTES:,} B", f"{rate * PROMPT_BYTES / 1e6:.0f} MB/s"],
            ["network, in", f"{COMPLETION_BYTES:,} B", f"{rate * COMPLETION_BYTES / 1e6:.0f} MB/s"],
            ["output files", f"{OUTPUT_BYTES:,} B", f"{GOAL * OUTPUT_BYTES / 1e12:.1f} TB a day"],
            ["ids in memory while resuming", "85 B", f"{GOAL * 85 / 1e9:.0f} GB"],
        ],
    )


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def growth_table(costs: Costs) -> str:
    """Grow processes and servers together, until the submitter is what bounds them."""
    lines = []
    for kind in costs.task:
        for processes in (1, 2, 4, 8, 16, 32, 64, 128):
            setup = Setup(costs, processes=processes, servers=2 * processes, executor=kind)
            found = Simulation(replace(setup, prompts=6 * setup.rounds * 16 * 32 * processes)).run()
            lines.append(
                [
                    f"{kind}, {processes}",
                    f"{found.rate:,.0f}",
                    f"{found.rate / processes:,.0f}",
                    *map(_percent, (found.submitter, found.workers, found.slots)),
                ]
            )
    return table(["processes", "prompts/s", "a process", "submitter busy", "workers' cores busy", "slots busy"], lines)


def tail_table(costs: Costs) -> str:
    """Show what the end of chunks costs, by how long a chunk is and whether two of them overlap."""
    lines = []
    for rounds in (1, 2, 4, 8, 16):
        rates = []
        for overlap in (1, 2):
            setup = Setup(costs, processes=2, servers=64, batch_size=1, rounds=rounds, overlap=overlap)
            rates.append(Simulation(replace(setup, prompts=16_000)).run().rate)
        ideal = 2 * 16 / Setup(costs).seconds
        lines.append([f"{rounds}", *(f"{rate:.1f}" for rate in rates), *(_percent(rate / ideal) for rate in rates)])
    head = ["packs a thread", "one chunk at a time", "two", "one, of what threads could do", "two"]
    return table(head, lines)


def report() -> str:
    """Make all tables."""
    costs = read_costs()
    ms = {kind: f"{seconds * 1e3:.1f} ms" for kind, seconds in costs.task.items()}
    return f"""
Constants, read from `bulk-benchmarks.json`: a prompt in a pack of 32 costs a worker {costs.worker * 1e6:.0f} µs, and
its submitter {costs.submitter * 1e6:.0f} µs; a line of a batch file costs {costs.line * 1e6:.0f} µs in a process that
does all of it.

{goal_table(costs)}

**One submitter, ever more processes.** Packs of 32, 16 threads a process, two servers of 256 slots for each process,
2 seconds a prompt (log-normal, σ 0.5). A chunk costs the submitter {ms["processes"]} on processes and {ms["Dask"]} on
Dask, beside its prompts.

{growth_table(costs)}

**The end of a chunk.** One prompt a request, two processes of 16 threads, servers with room for all, 2 seconds
a prompt.

{tail_table(costs)}

"""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    figures = report()
    print(figures)
    if not arguments.print:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        PAGE.write_text(before + MARKS[0] + figures + MARKS[1] + after, encoding="utf-8")


if __name__ == "__main__":
    main()
