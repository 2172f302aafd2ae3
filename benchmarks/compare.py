"""Compare gpt with its peers, side by side in one run: CPU time of the client process, medians, ratios.

    pip install -e '.[bench]'
    python benchmarks/compare.py            # prints a table; writes docs/benchmarks.md, .json and .svg
    python benchmarks/compare.py --check    # exits 1 and names the rows that miss their targets
    python benchmarks/compare.py --rows stream,threads --rounds 3

The server and each contender run in processes of their own, and only one contender works at a time. They take turns,
short ones where the work is short, so that a machine whose speed drifts slows everybody.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
KEY = "sk-benchmark"
PROMPT = "Say this is a test"
THREADS, THREADED_CALLS = 64, 3000
FEW, MANY = 1_000, 100_000


@dataclass
class Row:
    """One kind of work and who does it."""

    name: str
    unit: str
    """What a figure counts, for one piece of the work."""

    targets: dict[str, float]
    """The most that gpt may take, as a share of what a peer takes."""

    measure: Callable[[int], dict[str, float]]
    """Do the work once by everyone, in an order that depends on the round; give the figures."""

    rounds: int = sys.maxsize
    """The most rounds that are worth it."""

    figures: list[dict[str, float]] = field(default_factory=list)

    def median(self, who: str) -> float:
        """Give the middle one of a contender's figures."""
        return statistics.median(round_[who] for round_ in self.figures)

    def ratios(self, peer: str) -> list[float]:
        """Compare gpt with a peer, round by round."""
        return [round_["gpt"] / round_[peer] for round_ in self.figures]

    def misses(self) -> list[str]:
        """Name the targets that the medians miss."""
        return [
            f"{self.name}: {statistics.median(self.ratios(peer)):.3f} × {peer}, target {target}"
            for peer, target in self.targets.items()
            if statistics.median(self.ratios(peer)) > target
        ]


Ask = Callable[[str, str, int], float]
"""Let a contender do a piece of work so many times; gives the CPU seconds that one took."""


def by_cpu(
    ask: Ask, work: str, contenders: list[str], scale: float, *, times: int, turns: int
) -> Callable[[int], dict[str, float]]:
    """Measure work by CPU time: by turns, in each of which every contender does it so many times."""

    def measure(round_: int) -> dict[str, float]:
        spent = dict.fromkeys(contenders, 0.0)
        for turn in range(round_, round_ + turns):
            start = turn % len(contenders)
            for name in contenders[start:] + contenders[:start]:
                spent[name] += ask(name, work, times)
        return {name: seconds / turns * scale for name, seconds in spent.items()}

    return measure


@contextmanager
def contending(url: str) -> Iterator[Ask]:
    """Give each contender a process, at its first piece of work, so that nobody pays for another's objects."""
    with ExitStack() as stack:
        processes: dict[str, subprocess.Popen[str]] = {}

        def ask(who: str, work: str, times: int) -> float:
            if who not in processes:
                processes[who] = stack.enter_context(piped(str(HERE / "compare.py"), "--contender", who, url))
            process = processes[who]
            assert process.stdin is not None
            assert process.stdout is not None
            print(json.dumps([work, times]), file=process.stdin, flush=True)
            if not (answer := process.stdout.readline()):
                raise RuntimeError(f"{who} ended during {work}")
            return float(answer)

        yield ask


def contend(who: str, url: str) -> None:
    """Do what standard input asks for; print the CPU seconds that one piece of it took."""
    works = CONTENDERS[who](url)
    for line in sys.stdin:
        name, times = json.loads(line)
        work = works[name]
        begun = time.process_time()
        for _ in range(times):
            work()
        print((time.process_time() - begun) / times, flush=True)


@contextmanager
def piped(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script of ours in another process until the block ends, with pipes to its input and from its output."""
    with subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


@contextmanager
def serving(*command: str) -> Iterator[str]:
    """Run a server, which prints its port, in another process; give its base URL."""
    with piped(*command) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"


def child(code: str, *arguments: object) -> dict[str, float]:
    """Run code in a fresh interpreter, with compiled modules as an installed package has them; it prints JSON."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    figures: dict[str, float] = json.loads(output.stdout)
    return figures


IMPORT_OURS = """
import json, time
start = time.process_time()
import requests, dataclasses_json
base = time.process_time()
import gpt
print(json.dumps({"requests + dataclasses_json": (base - start) * 1000, "gpt": (time.process_time() - start) * 1000}))
"""
IMPORT_OPENAI = """
import json, time
start = time.process_time()
import openai
print(json.dumps({"openai": (time.process_time() - start) * 1000}))
"""


def import_row() -> Row:
    """Import each package in fresh interpreters, the middle one of three; ours in one process with what it needs."""

    def middle(code: str) -> dict[str, float]:
        return sorted((child(code) for _ in range(3)), key=lambda figures: max(figures.values()))[1]

    def measure(round_: int) -> dict[str, float]:
        codes = [IMPORT_OURS, IMPORT_OPENAI]
        return {who: value for code in codes[:: -1 if round_ % 2 else 1] for who, value in middle(code).items()}

    return Row("import", "ms", {"requests + dataclasses_json": 1.15, "openai": 0.36}, measure)


MEMORY = """
import json, sys
who, url = sys.argv[1:]
if who == "gpt":
    import gpt
    from gpt.models import shared
    s = gpt.Gpt(server_url=url, security=shared.Security(api_key_auth="k"))
    for model in ("small", "scored"):
        s.completions.create_completion(shared.CreateCompletionRequest(model=model, prompt="x"))
    for _ in s.completions.stream_completion(shared.CreateCompletionRequest(model="stream", prompt="x")):
        pass
elif who == "openai":
    import openai
    s = openai.OpenAI(base_url=url, api_key="k")
    for model in ("small", "scored"):
        s.completions.create(model=model, prompt="x")
    for _ in s.completions.create(model="stream", prompt="x", stream=True):
        pass
else:
    import json, requests
    s = requests.Session()
    for model in ("small", "scored"):
        s.post(url + "/completions", json={"model": model, "prompt": "x"}).json()
    with s.post(url + "/completions", json={"model": "stream", "prompt": "x"}, stream=True) as answer:
        for line in answer.iter_lines():
            if line.startswith(b"data: {"):
                json.loads(line[6:])
# Not ru_maxrss: that starts at the parent's size.
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({who: peak / 1024}))
"""


def memory_row(url: str) -> Row:
    """Peak memory of a fresh process that imports, makes a small call, reads 1 MB and a stream of 10,000 events."""

    def measure(_: int) -> dict[str, float]:
        return {key: value for who in ("gpt", "openai", "requests") for key, value in child(MEMORY, who, url).items()}

    return Row("peak memory", "MB", {"openai": 0.8}, measure)


BULK_MEMORY = """
import json, sys
import gpt
from gpt import bulk
from gpt.models import shared
url, few, many = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with gpt.Gpt(server_url=url, security=shared.Security(api_key_auth="k")) as s:
    def peak(n):
        requests = (shared.CreateCompletionRequest(model="small", prompt=f"prompt {i}") for i in range(n))
        assert sum(outcome.response is not None for outcome in bulk.run(s, requests)) == n
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    print(json.dumps({f"gpt, {few:,} requests": peak(few), "gpt": peak(many)}))
"""


def bulk_memory_row(url: str) -> Row:
    """Peak memory of a process after a short bulk run, and after a long one that follows it."""
    return Row(
        f"memory of {MANY:,} requests by `bulk.run`",
        "MB",
        {f"gpt, {FEW:,} requests": 1.02},
        lambda _: child(BULK_MEMORY, url, FEW, MANY),
        rounds=1,
    )


Works = dict[str, Callable[[], object]]
"""What a contender can do, by name."""

CLIENT, SMALL, SCORED, STREAM, THREADED = "client", "small", "scored", "stream", "threaded"
SMALL_BODY = {"model": "small", "prompt": PROMPT, "max_tokens": 2}
HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


def by_gpt(url: str) -> Works:
    """Work with gpt."""
    import gpt
    from gpt.models import shared

    security = shared.Security(api_key_auth=KEY)
    s = gpt.Gpt(server_url=url, security=security)
    small = shared.CreateCompletionRequest(**SMALL_BODY)  # type: ignore[arg-type]
    scored = shared.CreateCompletionRequest(model="scored", prompt=PROMPT)
    stream = shared.CreateCompletionRequest(model="stream", prompt=PROMPT)
    return {
        CLIENT: lambda: gpt.Gpt(server_url=url, security=security),
        SMALL: lambda: s.completions.create_completion(small),
        SCORED: lambda: s.completions.create_completion(scored),
        STREAM: lambda: _drain(s.completions.stream_completion(stream)),
        THREADED: lambda: _in_threads(lambda: s.completions.create_completion(small)),
    }


def by_openai(url: str) -> Works:
    """Work with openai-python."""
    import openai

    s = openai.OpenAI(base_url=url, api_key=KEY)
    small: Any = SMALL_BODY
    return {
        CLIENT: lambda: openai.OpenAI(base_url=url, api_key=KEY),
        SMALL: lambda: s.completions.create(**small),
        SCORED: lambda: s.completions.create(model="scored", prompt=PROMPT),
        STREAM: lambda: _drain(s.completions.create(model="stream", prompt=PROMPT, stream=True)),
        THREADED: lambda: _in_threads(lambda: s.completions.create(**small)),
    }


def by_async_openai(url: str) -> Works:
    """Work with openai-python's asynchronous client."""
    import asyncio

    import openai

    small: Any = SMALL_BODY

    async def main() -> None:
        places = asyncio.Semaphore(THREADS)
        async with openai.AsyncOpenAI(base_url=url, api_key=KEY) as s:

            async def one() -> None:
                async with places:
                    await s.completions.create(**small)

            await asyncio.gather(*(one() for _ in range(THREADED_CALLS)))

    return {THREADED: lambda: asyncio.run(main())}


def by_requests(url: str) -> Works:
    """Work with requests, and the standard library's JSON."""
    import requests

    session, address = requests.Session(), f"{url}/completions"

    def post(body: dict[str, Any]) -> Any:
        return session.post(address, json=body, headers=HEADERS).json()

    def stream() -> None:
        with session.post(address, json={"model": "stream"}, headers=HEADERS, stream=True) as answer:
            for line in answer.iter_lines():
                if line.startswith(b"data: {"):
                    json.loads(line[6:])

    return {
        CLIENT: requests.Session,
        SMALL: lambda: post(SMALL_BODY),
        SCORED: lambda: post({"model": "scored"}),
        STREAM: stream,
        THREADED: lambda: _in_threads(lambda: post(SMALL_BODY)),
    }


def by_urllib3(url: str) -> Works:
    """Work with urllib3."""
    import urllib3

    pool = urllib3.connection_from_url(url)
    address = f"{url}/completions"
    return {SMALL: lambda: pool.request("POST", address, json=SMALL_BODY, headers=HEADERS).json()}


def by_http_client(url: str) -> Works:
    """Work with http.client, which is below all others."""
    import http.client
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)

    def small() -> object:
        connection.request("POST", f"{parts.path}/completions", json.dumps(SMALL_BODY), HEADERS)
        return json.loads(connection.getresponse().read())

    return {SMALL: small}


def by_json(_: str) -> Works:
    """Only parse, with the standard library."""
    from server import scored

    body = scored()
    return {SCORED: lambda: json.loads(body)}


def by_orjson(_: str) -> Works:
    """Only parse, with orjson."""
    import orjson
    from server import scored

    body = scored()
    return {SCORED: lambda: orjson.loads(body)}


CONTENDERS: dict[str, Callable[[str], Works]] = {
    "gpt": by_gpt,
    "openai": by_openai,
    "AsyncOpenAI": by_async_openai,
    "requests": by_requests,
    "urllib3": by_urllib3,
    "http.client": by_http_client,
    "json.loads": by_json,
    "orjson.loads": by_orjson,
}


def rows(url: str, ask: Ask) -> list[Row]:
    """List the work, with the peers that do the same."""
    return [
        import_row(),
        Row(
            "make a client",
            "µs",
            {"openai": 0.1},
            by_cpu(ask, CLIENT, ["gpt", "openai", "requests"], 1e6, times=3, turns=10),
        ),
        Row(
            "one small call",
            "µs",
            {"openai": 0.40, "requests": 0.55},
            by_cpu(
                ask,
                SMALL,
                ["gpt", "openai", "requests", "urllib3", "http.client"],
                1e6,
                times=30,
                turns=10,
            ),
        ),
        Row(
            "1 MB of log-probabilities",
            "ms",
            {"openai": 0.25, "orjson.loads": 1.5},
            by_cpu(
                ask,
                SCORED,
                ["gpt", "openai", "requests", "json.loads", "orjson.loads"],
                1e3,
                times=5,
                turns=6,
            ),
        ),
        Row(
            "10,000 streamed events",
            "ms",
            {"openai": 0.12},
            by_cpu(ask, STREAM, ["gpt", "openai", "requests"], 1e3, times=1, turns=2),
        ),
        Row(
            f"{THREADED_CALLS} calls over {THREADS} threads",
            "µs a call",
            {"AsyncOpenAI": 0.33, "requests": 0.7},
            by_cpu(
                ask,
                THREADED,
                ["gpt", "AsyncOpenAI", "openai", "requests"],
                1e6 / THREADED_CALLS,
                times=1,
                turns=1,
            ),
        ),
        memory_row(url),
        bulk_memory_row(url),
    ]


def _drain(events: Any) -> None:
    for _ in events:
        pass


def _in_threads(work: Callable[[], object]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(THREADS) as executor:
        for future in [executor.submit(work) for _ in range(THREADED_CALLS)]:
            future.result()


def run(wanted: list[str], rounds: int) -> list[Row]:
    """Measure the wanted rows, each but the longest after a round that does not count."""
    with serving(str(HERE / "server.py")) as url, contending(url) as ask:
        chosen = [row for row in rows(url, ask) if not wanted or any(word in row.name for word in wanted)]
        for row in chosen:
            if row.rounds > 1:
                row.measure(0)
            for round_ in range(min(rounds, row.rounds)):
                row.figures.append(row.measure(round_))
            print(*table([row]), sep="\n", flush=True)
    return chosen


def table(measured: list[Row]) -> list[str]:
    """Write rows as lines of a table: figures, and gpt's share of each peer's with its spread and target."""
    lines = []
    for row in measured:
        for who in row.figures[0]:
            middle = row.median(who)
            cells = [row.name, who, f"{middle:,.{0 if middle >= 1000 else 1}f} {row.unit}"]
            if who != "gpt":
                ratios = sorted(row.ratios(who))
                cells += [f"{statistics.median(ratios):.3f} ({ratios[0]:.3f}–{ratios[-1]:.3f})"]
                cells += [f"≤ {row.targets[who]}" if who in row.targets else ""]
            else:
                cells += ["", ""]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def report(measured: list[Row], rounds: int) -> None:
    """Write `docs/benchmarks.md`, `.json` and `.svg`."""
    from server import scored

    packages = {name: version(name) for name in ("gpt-sdk", "openai", "requests", "urllib3", "orjson")}
    machine = f"Python {platform.python_version()}, {platform.machine()}, {platform.system()}"
    data = {
        "machine": machine,
        "packages": packages,
        "rounds": rounds,
        "rows": [{"name": r.name, "unit": r.unit, "targets": r.targets, "figures": r.figures} for r in measured],
    }
    (DOCS / "benchmarks.json").write_text(json.dumps(data, indent=1) + "\n")
    (DOCS / "benchmarks.md").write_text(
        PAGE.format(
            table="\n".join(table(measured)),
            rounds=rounds,
            machine=machine,
            scored=len(scored()) / 1e6,
            packages=", ".join(f"{name} {number}" for name, number in packages.items()),
        )
    )
    plot(measured)


PAGE = """# Benchmarks

CPU time of the client process, not wall-clock time: what the client costs while the server thinks. Everything ran
side by side in one run of the command below, each client in its own process and one at a time, interleaved in short
rounds where the work is short, against a small keep-alive server in another. Figures are medians of {rounds} rounds;
*share* is what gpt takes of what the peer takes, round by round: median (lowest–highest).

![gpt's share of its peers' cost](benchmarks.svg)

| work | who | median | gpt's share | target |
| --- | --- | ---: | ---: | ---: |
{table}

- *import*: fresh interpreters, in each round the middle one of three; gpt's figure includes requests and
  dataclasses-json, imported first.
- *one small call*: one keep-alive connection, a request of three fields, a response of 200 bytes, decoded.
- *1 MB of log-probabilities*: 16 choices of 512 tokens with their top 5, {scored:.1f} MB to be exact: tokens follow
  Zipf's law, numbers have single precision, as from a model. `json.loads` and `orjson.loads` only parse it.
- *10,000 streamed events*: one event a chunk; `requests` is `iter_lines` with `json.loads`.
- *threads*: all at once on one client; AsyncOpenAI has a semaphore of the same width.
- *peak memory*: a fresh process that imports, makes a small call, reads the 1 MB and the stream.
- *memory by `bulk.run`*: one process, after a short run and after a long one that follows it; once.

What the one owner of each connection (`gpt._http.lease`) costs, as measured when it came: about 4 % of a small call,
8 % of a call among 64 threads, and a fifth of a stream's event; nothing was given up elsewhere. The targets for import
and memory beside openai are looser than they were (0.33 and 0.75): openai's own import became faster, and what gpt
shares with `requests` is 0.31 and 0.68 of openai by itself.

Measured with {machine}; {packages}.
On a shared machine single rounds, and the shares in them, move by a third and more: read the medians.

```bash
pip install -e '.[bench]'
python benchmarks/compare.py
```
"""


def plot(measured: list[Row]) -> None:
    """Draw gpt's share of each peer's cost as bars."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "gpt"  # the same drawing from the same figures
    from matplotlib import pyplot

    bars = [
        (f"{row.name}\nvs {peer}", statistics.median(row.ratios(peer)), row.targets[peer])
        for row in measured
        for peer in row.targets
        if row.targets[peer] <= 1
    ]
    labels, shares, targets = zip(*reversed(bars), strict=True)
    figure, axes = pyplot.subplots(figsize=(8, 0.55 * len(bars) + 1), layout="constrained")
    axes.barh(labels, [1] * len(bars), color="#e3e6ea", label="the peer")
    axes.barh(labels, shares, color="#2f6db5", label="gpt")
    axes.plot(targets, range(len(bars)), "|", color="#111", markersize=16, label="target")
    for place, (share, target) in enumerate(zip(shares, targets, strict=True)):
        axes.text(1.01, place, f"{share:.2f}, target {target:.2f}", va="center", fontsize=9)
    axes.set_xlim(0, 1)
    axes.set_xlabel("cost, as a share of the peer's (CPU time; for memory, peak size)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(DOCS / "benchmarks.svg", metadata={"Date": None})


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Compare gpt with its peers.")
    parser.add_argument("--check", action="store_true", help="exit 1 when a row misses its target; write nothing")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds (default 7)")
    parser.add_argument("--rows", default="", help="only rows whose names contain one of these words")
    parser.add_argument("--contender", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        contend(*options.contender)
        return 0
    measured = run([word for word in options.rows.split(",") if word], options.rounds)
    misses = [miss for row in measured for miss in row.misses()]
    for miss in misses:
        print(f"missed: {miss}", file=sys.stderr)
    if not options.check and not options.rows:
        report(measured, options.rounds)
    return 1 if options.check and misses else 0


if __name__ == "__main__":
    sys.exit(main())
