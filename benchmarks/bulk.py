"""Measure bulk runs: speed beside AsyncOpenAI, memory over file sizes, and what twenty kills leave of a batch.

    pip install -e '.[bench]'
    python benchmarks/bulk.py               # prints tables; writes the figures of docs/guides/bulk.md
    python benchmarks/bulk.py --only speed  # or packs, growth, memory, kills; prints only
    python benchmarks/bulk.py --check       # fails when a prompt in a pack costs more than it may

The server runs in a process of its own and answers after 50 ms; each figure is of a fresh client process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compare import child, serving

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "guides" / "bulk.md"
MARKS = "<!-- Figures: written by benchmarks/bulk.py -->\n", "<!-- End of figures -->"
LATENCY = 0.05
WORKERS = (1, 16, 64, 256)
ROUNDS = 3
SIZES = (1_000, 100_000)
KILLS, KILL_LINES = 20, 5_000
PACKS = (1, 4, 16, 32, 64, 256)
PACK_WORKERS = 16
CHECKED_PACK, MAX_SHARE, MIN_RATE = 32, 0.03, 10_000
GROWTH_SIZES = (1_000, 10_000, 100_000, 1_000_000)
FOUND: dict[str, float] = {}


def serve(latency: float) -> None:
    """Answer every request after `latency` seconds, on a free port, until standard input ends."""
    from server import _LENGTH, _whole, listed, small

    alone = _whole(small())
    lists: dict[int, bytes] = {}

    def answer_to(body: bytes) -> bytes:
        if b'"prompt":[' not in body:
            return alone
        count = len(json.loads(body)["prompt"])
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
                answer, self._buffer = answer_to(self._buffer[end + 4 :]), b""
                if latency:
                    asyncio.get_running_loop().call_later(latency, self._transport.write, answer)
                else:
                    self._transport.write(answer)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.read)

    asyncio.run(main())


def serving_after(latency: float) -> AbstractContextManager[str]:
    """Run the server in another process; give its base URL."""
    return serving(str(HERE / "bulk.py"), "--serve", str(latency))


BY_GPT = """
import json, sys, time
import gpt
from gpt import bulk
from gpt.models import shared
url, workers, n, batch_size = sys.argv[1], *map(int, sys.argv[2:])
with gpt.Gpt(server_url=url, security=shared.Security(api_key_auth="k")) as s:
    def go(n):
        requests = (shared.CreateCompletionRequest(model="m", prompt=f"prompt {i}") for i in range(n))
        run = bulk.run(s, requests, max_workers=workers, batch_size=batch_size)
        assert all(outcome.response for outcome in run)
    go(workers)
    wall, cpu = time.perf_counter(), time.process_time()
    go(n)
    print(json.dumps({"rate": n / (time.perf_counter() - wall), "cpu": (time.process_time() - cpu) / n * 1e6}))
"""

BY_ASYNC_OPENAI = """
import asyncio, json, sys, time
import openai
url, workers, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
async def main():
    async with openai.AsyncOpenAI(base_url=url, api_key="k") as s:
        async def go(n):
            places = asyncio.Semaphore(workers)
            async def one(i):
                async with places:
                    assert (await s.completions.create(model="m", prompt=f"prompt {i}")).choices
            await asyncio.gather(*(one(i) for i in range(n)))
        await go(workers)
        wall, cpu = time.perf_counter(), time.process_time()
        await go(n)
        print(json.dumps({"rate": n / (time.perf_counter() - wall), "cpu": (time.process_time() - cpu) / n * 1e6}))
asyncio.run(main())
"""

SPEED_HEAD = """\
| workers | possible | `gpt.bulk` | CPU a call | AsyncOpenAI | CPU a call | our CPU, as a share |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


def measure_speed() -> list[str]:
    """Send requests at several widths by both clients, in turn; give the lines of a table."""
    lines = [SPEED_HEAD]
    with serving_after(LATENCY) as url:
        for workers in WORKERS:
            n = min(40 * workers, 4_000)
            rounds = [
                (child(BY_GPT, url, workers, n, 1), child(BY_ASYNC_OPENAI, url, workers, n)) for _ in range(ROUNDS)
            ]
            ours, theirs = (
                {key: _median(one[key] for one in side) for key in side[0]} for side in zip(*rounds, strict=True)
            )
            share = _median(mine["cpu"] / other["cpu"] for mine, other in rounds)
            cells = [f"{workers}", f"{workers / LATENCY:,.0f}/s"]
            cells += [text for one in (ours, theirs) for text in (f"{one['rate']:,.0f}/s", f"{one['cpu']:,.0f} µs")]
            lines.append("| " + " | ".join([*cells, f"{share:.2f}"]) + " |")
            print(lines[-1], flush=True)
    return lines


PACKS_HEAD = """\
| batch_size | prompts/s | CPU a prompt | prompts a CPU second | as a share of AsyncOpenAI's call |
| ---: | ---: | ---: | ---: | ---: |"""


def measure_packs() -> list[str]:
    """Send prompts in packs of several sizes to a server that costs nothing; give the lines of a table."""
    lines = [PACKS_HEAD]
    with serving_after(0.0) as url:
        theirs = [child(BY_ASYNC_OPENAI, url, PACK_WORKERS, 1_000)["cpu"] for _ in range(ROUNDS)]
        for size in PACKS:
            rounds = [child(BY_GPT, url, PACK_WORKERS, 2_000 if size == 1 else 40_000, size) for _ in range(ROUNDS)]
            cpu, rate = (_median(one[key] for one in rounds) for key in ("cpu", "rate"))
            share = cpu / statistics.median(theirs)
            lines.append(f"| {size} | {rate:,.0f}/s | {cpu:,.0f} µs | {1e6 / cpu:,.0f} | {share:.3f} |")
            print(lines[-1], flush=True)
            if size == CHECKED_PACK:
                FOUND.update(share=share, rate=1e6 / cpu)
    return lines


def check() -> None:
    """Fail when a prompt in a pack costs more than it may."""
    measure_packs()
    assert FOUND["share"] <= MAX_SHARE, f"a prompt costs {FOUND['share']:.3f} of AsyncOpenAI's call, not {MAX_SHARE}"
    assert FOUND["rate"] >= MIN_RATE, f"{FOUND['rate']:,.0f} prompts a CPU second, not {MIN_RATE:,}"


GROWTH = """
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


def measure_growth() -> list[str]:
    """Run ever more prompts in packs of 32; give the lines of a table with time and peak memory."""
    lines = ["| prompts | wall | prompts/s | peak memory |", "| ---: | ---: | ---: | ---: |"]
    with serving_after(0.0) as url:
        for n in GROWTH_SIZES:
            found = child(GROWTH, url, n)
            lines.append(f"| {n:,} | {found['wall']:.1f} s | {n / found['wall']:,.0f}/s | {found['peak']:.0f} MB |")
            print(lines[-1], flush=True)
    return lines


def _median(values: Iterator[float]) -> float:
    return statistics.median(values)


BATCH = """
import json, sys
import gpt
from gpt import bulk
from gpt.models import shared
url, input, output = sys.argv[1:]
with gpt.Gpt(server_url=url, security=shared.Security(api_key_auth="")) as s:
    bulk.run_jsonl(s, input, output, max_workers=16)
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"peak": peak / 1024}))
"""


def write_input(path: Path, lines: int) -> Path:
    """Write a batch of so many lines of some 200 bytes."""
    with path.open("w") as file:
        for i in range(lines):
            body = {"model": "m", "prompt": f"prompt {i} " + "x" * 60, "max_tokens": 16}
            file.write(
                json.dumps({"custom_id": f"request-{i}", "method": "POST", "url": "/v1/completions", "body": body})
                + "\n"
            )
    return path


def measure_memory() -> list[str]:
    """Run batches of several sizes; give the lines of a table with the peak memory of each."""
    lines = ["| lines | first run, peak | resumed, peak |", "| ---: | ---: | ---: |"]
    with serving_after(0.0) as url, tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            given, output = write_input(Path(folder, "in"), size), Path(folder, f"out-{size}")
            peaks = [child(BATCH, url, given, output)["peak"] for _ in range(2)]
            lines.append(f"| {size:,} | {peaks[0]:.1f} MB | {peaks[1]:.1f} MB |")
            print(lines[-1], flush=True)
    return lines


def measure_kills() -> list[str]:
    """Kill a batch again and again at random instants; give what became of its lines."""
    rng = random.Random(0)
    with serving_after(0.0) as url, tempfile.TemporaryDirectory() as folder:
        given, output = write_input(Path(folder, "in"), KILL_LINES), Path(folder, "out")
        kills = 0
        while kills < KILLS:
            size = output.stat().st_size if output.exists() else 0
            command = [sys.executable, "-c", BATCH, url, str(given), str(output)]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
                while process.poll() is None and (not output.exists() or output.stat().st_size <= size):
                    time.sleep(0.001)
                time.sleep(rng.uniform(0, 0.1))
                process.send_signal(signal.SIGKILL)
            assert process.returncode == -signal.SIGKILL, "the run ended before it was killed"
            kills += 1
        child(BATCH, url, given, output)
        found = Counter(json.loads(line)["custom_id"] for line in output.open())
    lost = KILL_LINES - len(found)
    doubled = sum(count - 1 for count in found.values())
    line = f"{KILL_LINES:,} lines, {kills} kills with SIGKILL: {lost} lost, {doubled} doubled."
    print(line)
    assert not lost
    assert not doubled
    return [line]


def report(tables: dict[str, list[str]]) -> None:
    """Write the figures into the guide, between their marks."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("gpt-sdk", "openai", "requests"))
    machine = f"Python {platform.python_version()}, {platform.machine()}, {platform.system()}"
    texts = {name: "\n".join(lines) for name, lines in tables.items()}
    before, _, rest = PAGE.read_text().partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    figures = TEXT.format(machine=machine, packages=packages, rounds=ROUNDS, pack_workers=PACK_WORKERS, **texts)
    PAGE.write_text(before + MARKS[0] + figures + MARKS[1] + after)


TEXT = """
Measured by `benchmarks/bulk.py` with {machine}; {packages}.
The machine's two cores also ran the server and other processes: compare columns, not machines.

**Speed.** Requests a second, and CPU time of the client process for a call, against a server that answers after 50 ms;
*possible* is what that latency allows. AsyncOpenAI has a semaphore of the same width. Medians of {rounds} runs in turn,
each in a fresh process.

{speed}

**Packs.** Prompts that travel in packs over {pack_workers} workers, against a server that costs nothing.

{packs}

**Growth.** Ever more prompts in packs of 32, in a process of its own each.

{growth}

**Memory.** The peak of a process that runs `run_jsonl` over so many lines, and of one that runs it again over the
finished output. What grows are the ids: 21 to 43 bytes each.

{memory}

**Kills.** {kills}

"""

WORK: dict[str, Callable[[], list[str]]] = {
    "speed": measure_speed,
    "packs": measure_packs,
    "growth": measure_growth,
    "memory": measure_memory,
    "kills": measure_kills,
}


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=WORK)
    parser.add_argument("--check", action="store_true", help="measure packs and fail when they cost too much")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve)
    elif arguments.check:
        check()
    elif arguments.only:
        WORK[arguments.only]()
    else:
        report({name: work() for name, work in WORK.items()})


if __name__ == "__main__":
    main()
