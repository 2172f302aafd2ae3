"""Compare gpt with its peers, side by side in one run: CPU time of the client process, medians, ratios.

    pip install -e '.[bench]'
    python benchmarks/compare.py            # prints a table; writes docs/benchmarks.md, .json and .svg
    python benchmarks/compare.py --check    # exits 1 and names the rows that miss their targets
    python benchmarks/compare.py --rows stream,threads --rounds 3

The server runs in a process of its own. Rounds are interleaved, so that a machine whose speed drifts slows everybody.
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
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
KEY = "sk-benchmark"
PROMPT = "Say this is a test"
THREADS, THREADED_CALLS = 64, 3000


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


def by_cpu(contenders: dict[str, tuple[Callable[[], object], int]], scale: float) -> Callable[[int], dict[str, float]]:
    """Measure functions by CPU time a call; each is called as often as its number says."""

    def measure(round_: int) -> dict[str, float]:
        names = list(contenders)
        start = round_ % len(names)
        return {name: _cpu(*contenders[name]) * scale for name in names[start:] + names[:start]}

    return measure


def _cpu(work: Callable[[], object], times: int) -> float:
    begun = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begun) / times


@contextmanager
def serving() -> Iterator[str]:
    """Run the canned server in another process; give its base URL."""
    command = [sys.executable, str(HERE / "server.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        server.stdin.close()


def child(code: str, *arguments: str) -> dict[str, float]:
    """Run code in a fresh interpreter, with compiled modules as an installed package has them; it prints JSON."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code, *arguments]
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
    """Import each package in fresh interpreters; ours on top of what it needs, in one process."""

    def measure(round_: int) -> dict[str, float]:
        codes = [IMPORT_OURS, IMPORT_OPENAI]
        return {key: value for code in (codes if round_ % 2 else codes[::-1]) for key, value in child(code).items()}

    return Row("import", "ms", {"requests + dataclasses_json": 1.15, "openai": 0.33}, measure)


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

    return Row("peak memory", "MB", {"openai": 0.75}, measure)


def rows(url: str) -> list[Row]:
    """List the work, with the peers that do the same; importing this module imports none of them."""
    import http.client
    from urllib.parse import urlsplit

    import openai
    import orjson
    import requests
    import urllib3

    import gpt
    from gpt.models import shared

    security = shared.Security(api_key_auth=KEY)
    ours = gpt.Gpt(server_url=url, security=security)
    theirs = openai.OpenAI(base_url=url, api_key=KEY)
    session, address = requests.Session(), f"{url}/completions"
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    host = urlsplit(url)
    pool, bare = (make(host.hostname, host.port) for make in (urllib3.HTTPConnectionPool, http.client.HTTPConnection))
    request = shared.CreateCompletionRequest(model="small", prompt=PROMPT, max_tokens=2)
    body = {"model": "small", "prompt": PROMPT, "max_tokens": 2}
    scored_request = shared.CreateCompletionRequest(model="scored", prompt=PROMPT)
    stream_request = shared.CreateCompletionRequest(model="stream", prompt=PROMPT)
    scored = ours.completions.create_completion(scored_request).raw_response.content

    def by_http_client() -> object:
        bare.request("POST", "/v1/completions", json.dumps(body), headers)
        return json.loads(bare.getresponse().read())

    def by_iter_lines() -> None:
        with session.post(address, json={"model": "stream"}, headers=headers, stream=True) as answer:
            for line in answer.iter_lines():
                if line.startswith(b"data: {"):
                    json.loads(line[6:])

    def small_by_openai() -> object:
        return theirs.completions.create(model="small", prompt=PROMPT, max_tokens=2)

    def small_by_requests() -> object:
        return session.post(address, json=body, headers=headers).json()

    def small_by_gpt() -> object:
        return ours.completions.create_completion(request)

    return [
        import_row(),
        Row(
            "make a client",
            "µs",
            {"openai": 0.1},
            by_cpu(
                {
                    "gpt": (lambda: gpt.Gpt(server_url=url, security=security), 100),
                    "openai": (lambda: openai.OpenAI(base_url=url, api_key=KEY), 10),
                    "requests": (requests.Session, 100),
                },
                1e6,
            ),
        ),
        Row(
            "one small call",
            "µs",
            {"openai": 0.40, "requests": 0.55},
            by_cpu(
                {
                    "gpt": (small_by_gpt, 300),
                    "openai": (small_by_openai, 300),
                    "requests": (small_by_requests, 300),
                    "urllib3": (lambda: pool.request("POST", address, json=body, headers=headers).json(), 300),
                    "http.client": (by_http_client, 300),
                },
                1e6,
            ),
        ),
        Row(
            "1 MB of log-probabilities",
            "ms",
            {"openai": 0.25, "orjson.loads": 1.5},
            by_cpu(
                {
                    "gpt": (lambda: ours.completions.create_completion(scored_request), 20),
                    "openai": (lambda: theirs.completions.create(model="scored", prompt=PROMPT), 20),
                    "requests": (lambda: session.post(address, json={"model": "scored"}, headers=headers).json(), 20),
                    "json.loads": (lambda: json.loads(scored), 20),
                    "orjson.loads": (lambda: orjson.loads(scored), 20),
                },
                1e3,
            ),
        ),
        Row(
            "10,000 streamed events",
            "ms",
            {"openai": 0.12},
            by_cpu(
                {
                    "gpt": (lambda: _drain(ours.completions.stream_completion(stream_request)), 2),
                    "openai": (
                        lambda: _drain(theirs.completions.create(model="stream", prompt=PROMPT, stream=True)),
                        1,
                    ),
                    "requests": (by_iter_lines, 2),
                },
                1e3,
            ),
        ),
        Row(
            f"{THREADED_CALLS} calls over {THREADS} threads",
            "µs a call",
            {"AsyncOpenAI": 0.33, "requests": 0.65},
            by_cpu(
                {
                    "gpt": (lambda: _in_threads(small_by_gpt), 1),
                    "AsyncOpenAI": (lambda: _by_async_openai(url), 1),
                    "openai": (lambda: _in_threads(small_by_openai), 1),
                    "requests": (lambda: _in_threads(small_by_requests), 1),
                },
                1e6 / THREADED_CALLS,
            ),
        ),
        memory_row(url),
    ]


def _drain(events: Any) -> None:
    for _ in events:
        pass


def _in_threads(work: Callable[[], object]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(THREADS) as executor:
        for future in [executor.submit(work) for _ in range(THREADED_CALLS)]:
            future.result()


def _by_async_openai(url: str) -> None:
    import asyncio

    import openai

    async def main() -> None:
        places = asyncio.Semaphore(THREADS)
        async with openai.AsyncOpenAI(base_url=url, api_key=KEY) as client:

            async def one() -> None:
                async with places:
                    await client.completions.create(model="small", prompt=PROMPT, max_tokens=2)

            await asyncio.gather(*(one() for _ in range(THREADED_CALLS)))

    asyncio.run(main())


def run(wanted: list[str], rounds: int) -> list[Row]:
    """Measure the wanted rows, each after a round that does not count."""
    with serving() as url:
        chosen = [row for row in rows(url) if not wanted or any(word in row.name for word in wanted)]
        for row in chosen:
            row.measure(0)
            for round_ in range(rounds):
                row.figures.append(row.measure(round_))
            print(*table([row]), sep="\n", flush=True)
    return chosen


def table(measured: list[Row]) -> list[str]:
    """Write rows as lines of a table: figures, and gpt's share of each peer's with its spread and target."""
    lines = []
    for row in measured:
        for who in row.figures[0]:
            cells = [row.name, who, f"{row.median(who):,.4g} {row.unit}"]
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
            packages=", ".join(f"{name} {number}" for name, number in packages.items()),
        )
    )
    plot(measured)


PAGE = """# Benchmarks

CPU time of the client process, not wall-clock time: what the client costs while the server thinks. Everything ran
side by side in one run of the command below, against a small keep-alive server in another process. Figures are
medians of {rounds} interleaved rounds; *share* is what gpt takes of what the peer takes, round by round: median
(lowest–highest).

![gpt's share of its peers' cost](benchmarks.svg)

| work | who | median | gpt's share | target |
| --- | --- | ---: | ---: | ---: |
{table}

- *import*: fresh interpreters; gpt's figure includes requests and dataclasses-json, imported first.
- *one small call*: one keep-alive connection, a request of three fields, an answer of 200 bytes, decoded.
- *1 MB of log-probabilities*: 16 choices of 512 tokens with their top 5, 1.4 MB to be exact; `json.loads` and
  `orjson.loads` only parse it.
- *10,000 streamed events*: one event a chunk; `requests` is `iter_lines` with `json.loads`.
- *threads*: all at once on one client; AsyncOpenAI has a semaphore of the same width.
- *peak memory*: a fresh process that imports, makes a small call, reads the 1 MB and the stream.

Measured with {machine}; {packages}.
On a shared machine single figures move by a third from run to run; the shares move far less.

```bash
pip install -e '.[bench]'
python benchmarks/compare.py
```
"""


def plot(measured: list[Row]) -> None:
    """Draw gpt's share of each peer's cost as bars."""
    import matplotlib

    matplotlib.use("svg")
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
    options = parser.parse_args()
    measured = run([word for word in options.rows.split(",") if word], options.rounds)
    misses = [miss for row in measured for miss in row.misses()]
    for miss in misses:
        print(f"missed: {miss}", file=sys.stderr)
    if not options.check and not options.rows:
        report(measured, options.rounds)
    return 1 if options.check and misses else 0


if __name__ == "__main__":
    sys.exit(main())
