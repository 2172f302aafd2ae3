"""Simulate bulk runs too large to measure: submitter, worker processes and servers, with the measured costs of each.

    python benchmarks/bulk.py               # measures; writes docs/bulk-benchmarks.json
    python benchmarks/simulate.py           # prints tables; writes the figures of docs/scale.md

A discrete-event model. The submitter is one core that makes chunks and takes them back; each worker process is one core
that sends packs and reads responses, with a limited number of packs in flight; each server completes a limited number
of packs at a time, the others wait. What each step costs was measured; how fast a server is, is an assumption.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "scale.md"
MARKS = "<!-- Figures: written by benchmarks/simulate.py -->\n", "<!-- End of figures -->"
DAY = 86_400
BILLION_A_DAY = 1e9 / DAY
SECONDS, WARM_UP = 40.0, 10.0
PACK = 32
IN_FLIGHT = 16
"""Packs that a worker process has in flight, and that a server computes at a time: 512 prompts, as engines do."""

PACK_SECONDS = 1.0
"""How long a server takes for a pack, on average: 512 prompts a second each, say 64 tokens of an 8B model."""


@dataclass(frozen=True)
class Costs:
    """Seconds of CPU, as measured by `benchmarks/bulk.py`."""

    prompt: float
    """In the process that sends: building, sending, reading a prompt's share of a pack."""

    submit: float
    """In the process that submits, where other processes send."""

    chunk: float = 0.0
    """More for each chunk in the submitter, for a scheduler's task."""


@dataclass
class Core:
    """One core, which does its work in the order in which it came."""

    free_at: float = 0.0
    busy: float = 0.0

    def do(self, now: float, seconds: float) -> float:
        """Queue some work; return when it is done."""
        self.free_at = max(now, self.free_at) + seconds
        self.busy += seconds
        return self.free_at


@dataclass
class Server:
    """An engine that computes so many packs at a time."""

    running: int = 0
    waiting: deque[Callable[[], None]] = field(default_factory=deque)
    in_flight: int = 0
    is_alive: bool = True


@dataclass(frozen=True)
class Result:
    """What came out of a simulated run."""

    rate: float
    """Prompts a second, after the warm-up."""

    submitter: float
    worker: float
    server: float
    """How much of their time each kind was busy: of a server, of its places."""

    wait: float
    """Seconds from a pack's sending to its response, on average."""


class Simulation:
    """One run: `workers` processes, or none for the threads of the submitter."""

    def __init__(self, costs: Costs, *, workers: int, servers: int, in_flight: int = IN_FLIGHT, dead_at: float = 0.0):
        self._costs = costs
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._now = 0.0
        self._chance = random.Random(0)
        self._submitter = Core()
        self._workers = [Core() for _ in range(workers)] or [self._submitter]
        self._is_remote = workers > 0
        self._in_flight = in_flight
        self._servers = [Server() for _ in range(servers)]
        self._done = 0
        self._waits: list[float] = []
        self._computed = 0.0
        if dead_at:
            self._at(dead_at, self._kill_one)

    def run(self) -> Result:
        """Run for the simulated time."""
        for worker in self._workers:
            for _ in range(self._in_flight):
                self._at(0.0, lambda worker=worker: self._submit(worker))  # type: ignore[misc]
        while self._events and self._events[0][0] < SECONDS:
            self._now, _, event = heapq.heappop(self._events)
            event()
        places = len(self._servers) * IN_FLIGHT
        return Result(
            rate=self._done * PACK / (SECONDS - WARM_UP),
            submitter=min(1.0, self._submitter.busy / SECONDS),
            worker=min(1.0, sum(each.busy for each in self._workers) / len(self._workers) / SECONDS),
            server=min(1.0, self._computed / places / SECONDS),
            wait=sum(self._waits) / max(1, len(self._waits)),
        )

    def _at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), event))

    def _submit(self, worker: Core) -> None:
        """Give a worker its next pack, as soon as the submitter comes to it."""
        ready = self._now
        if self._is_remote:
            ready = self._submitter.do(self._now, PACK * self._costs.submit + self._costs.chunk)
        self._at(ready, lambda: self._send(worker))

    def _send(self, worker: Core) -> None:
        sent = worker.do(self._now, PACK * self._costs.prompt / 2)
        self._at(sent, lambda: self._arrive(worker, self._now))

    def _arrive(self, worker: Core, sent: float) -> None:
        """Queue a pack at the server with the fewest in flight."""
        server = min((each for each in self._servers if each.is_alive), key=lambda each: each.in_flight)
        server.in_flight += 1
        server.waiting.append(lambda: self._compute(server, worker, sent))
        self._start(server)

    def _start(self, server: Server) -> None:
        while server.waiting and server.running < IN_FLIGHT and server.is_alive:
            server.running += 1
            server.waiting.popleft()()

    def _compute(self, server: Server, worker: Core, sent: float) -> None:
        seconds = PACK_SECONDS * self._chance.uniform(0.5, 1.5)
        self._at(self._now + seconds, lambda: self._respond(server, worker, sent, seconds))

    def _respond(self, server: Server, worker: Core, sent: float, seconds: float) -> None:
        server.running -= 1
        server.in_flight -= 1
        if not server.is_alive:  # the pack is lost, and sent again
            self._arrive(worker, sent)
            return
        self._computed += seconds
        self._start(server)
        self._at(worker.do(self._now, PACK * self._costs.prompt / 2), lambda: self._finish(worker, sent))

    def _finish(self, worker: Core, sent: float) -> None:
        if self._now >= WARM_UP:
            self._done += 1
            self._waits.append(self._now - sent)
        self._submit(worker)

    def _kill_one(self) -> None:
        """Let a server die; what waits there goes to the others at once, what it computes when that is noticed."""
        dead = self._servers[0]
        dead.is_alive = False
        waiting, dead.waiting = dead.waiting, deque()
        for _ in waiting:
            dead.in_flight -= 1
            self._arrive(self._chance.choice(self._workers), self._now)


# The tables


def measured() -> tuple[dict[str, float], Costs, Costs, Costs]:
    """Return the measured figures, and the costs of threads, of processes and of Dask."""
    figures: dict[str, float] = json.loads((DOCS / "bulk-benchmarks.json").read_text())
    prompt = figures[f"µs a prompt in packs of {PACK}"] * 1e-6
    processes = Costs(prompt=prompt, submit=figures["µs to submit a prompt to processes"] * 1e-6)
    dask = Costs(prompt=prompt, submit=figures["µs to submit a prompt to Dask"] * 1e-6)
    return figures, Costs(prompt=prompt, submit=0.0), processes, dask


def by_hand() -> list[str]:
    """Divide a billion prompts a day by what each part can do."""
    figures, threads, processes, dask = measured()
    single = figures["µs a prompt in packs of 1"] * 1e-6
    line = figures["µs a new line in packs of 32"] * 1e-6
    lines = [
        "| what | a prompt | prompts a second and core | cores for a billion a day |",
        "| --- | ---: | ---: | ---: |",
    ]
    for what, seconds in (
        ("send, one prompt a request", single),
        (f"send, {PACK} prompts a request", threads.prompt),
        (f"read a line, send it in packs of {PACK}, write its line", line),
        ("submit to processes", processes.submit),
        ("submit to Dask", dask.submit),
    ):
        lines.append(f"| {what} | {seconds * 1e6:,.0f} µs | {1 / seconds:,.0f} | {BILLION_A_DAY * seconds:.2f} |")
    return lines


HEAD = ["| servers | worker processes | prompts/s | a day | submitter | workers | servers | a pack takes |"]


def by_servers() -> list[str]:
    """Add servers and workers until something else is the limit."""
    _, threads, processes, dask = measured()
    lines = [*HEAD, "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    cases = [(servers, 0, threads, "none: threads") for servers in (1, 8, 24, 32)]
    cases += [(s, max(2, s // 12), processes, "{}") for s in (24, 64, 128, 256)]
    cases += [(s, max(2, s // 12), dask, "{}, Dask") for s in (64, 128, 256)]
    for servers, workers, costs, name in cases:
        in_flight = -(-servers * IN_FLIGHT * 5 // 4 // max(1, workers))
        found = Simulation(costs, workers=workers, servers=servers, in_flight=in_flight).run()
        lines.append(_line(servers, name.format(workers), found))
    return lines


def by_packs_in_flight() -> list[str]:
    """Vary how many packs are in flight for each place of a server."""
    _, _, processes, _ = measured()
    lines = [
        "| packs in flight, of the servers' places | prompts/s | servers | a pack takes |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for share in (0.5, 1.0, 1.25, 2.0, 4.0):
        in_flight = round(24 * IN_FLIGHT * share / 4)
        found = Simulation(processes, workers=4, servers=24, in_flight=in_flight).run()
        lines.append(f"| {share:.2f} | {found.rate:,.0f} | {found.server:.0%} | {found.wait:.2f} s |")
    return lines


def with_a_death() -> list[str]:
    """Let one of the servers die."""
    _, _, processes, _ = measured()
    lines = ["| 24 servers, 4 workers | prompts/s | servers | a pack takes |", "| --- | ---: | ---: | ---: |"]
    for name, dead_at in (("all live", 0.0), ("one dies after 10 s", WARM_UP)):
        found = Simulation(processes, workers=4, servers=24, in_flight=120, dead_at=dead_at).run()
        lines.append(f"| {name} | {found.rate:,.0f} | {found.server:.0%} | {found.wait:.2f} s |")
    return lines


def _line(servers: int, workers: str, found: Result) -> str:
    rate = f"{found.rate:,.0f} | {found.rate * DAY / 1e9:.2f} billion"
    busy = f"{found.submitter:.0%} | {found.worker:.0%} | {found.server:.0%}"
    return f"| {servers} | {workers} | {rate} | {busy} | {found.wait:.2f} s |"


def main() -> int:
    """Print the tables and write them into the page."""
    tables = {
        "What each part costs": by_hand(),
        "More and more servers": by_servers(),
        "How much in flight": by_packs_in_flight(),
        "A server dies": with_a_death(),
    }
    text = MARKS[0]
    for title, lines in tables.items():
        print(title, *lines, sep="\n", end="\n\n", flush=True)
        text += f"\n**{title}**\n\n" + "\n".join(lines) + "\n"
    head, _, rest = PAGE.read_text().partition(MARKS[0])
    PAGE.write_text(head + text + "\n" + MARKS[1] + rest.partition(MARKS[1])[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
