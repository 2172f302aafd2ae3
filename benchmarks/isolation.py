"""No call touches another: plain calls and streams of one client, closed from everywhere, each looking at its own id.

    python benchmarks/isolation.py [--calls 200000] [--write]

The server runs in a process of its own and repeats each request's prompt, which is the request's id. Streams are read
to their end, closed by other threads at random moments, dropped, and dropped inside a reference cycle; plain calls run
beside them. A response with another call's id, a failed call, or an exception that is not one of ours is counted as
wrong, and makes the exit code 1. The runs differ in the session and in the interpreter's switch interval.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import threading
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import requests

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.echo_server import Stress, echo, wrong  # noqa: E402
from tests.support.raw_server import RawServer  # noqa: E402

DOC = ROOT / "docs" / "isolation.md"
THREADS = 6
RUNS = {
    "our session, switch interval 10 µs": (True, 1e-5),
    "our session, the interpreter's own switch interval": (True, sys.getswitchinterval()),
    "a caller's session, switch interval 10 µs": (False, 1e-5),
}


def serve(pipe: Connection) -> None:
    """Serve until the other end is closed."""
    with RawServer(echo) as server:
        pipe.send(server.url)
        pipe.poll(None)


def run(url: str, calls: int, own: bool, interval: float) -> Counter[str]:
    """Return how so many calls ended."""
    sys.setswitchinterval(interval)
    session = None if own else requests.Session()
    return Stress(url, session).run(calls // (2 * THREADS), threads=THREADS)


def page(results: dict[str, Counter[str]]) -> str:
    """Return the results as a page."""
    lines = ["# Does a call ever touch another?", "", *(__doc__ or "").split("\n\n")[2].splitlines(), ""]
    lines += ["Written by `python benchmarks/isolation.py --write`.", ""]
    lines += ["| run | plain calls | streams read to the end | closed by another thread | dropped | wrong |"]
    lines += ["| --- | --: | --: | --: | --: | --: |"]
    for name, found in results.items():
        dropped = found["dropped"] + found["dropped in a cycle"]
        figures = (found["plain"], found["streamed"], found["closed"], dropped, sum(wrong(found).values()))
        lines.append(f"| {name} | {' | '.join(f'{figure:,}' for figure in figures)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make the runs and print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200_000, help="calls of all runs together")
    parser.add_argument("--write", action="store_true", help=f"write the page to {DOC.relative_to(ROOT)}")
    options = parser.parse_args()
    for name in list(os.environ):
        if name.upper().endswith("_PROXY"):
            del os.environ[name]
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url = ours.recv()
    results = {name: run(url, options.calls // len(RUNS), *how) for name, how in RUNS.items()}
    text = page(results)
    print(text)
    for found in results.values():
        print(*sorted(wrong(found).items())[:5], sep="\n", end="")
    if options.write:
        DOC.write_text(text, encoding="utf-8")
    ours.close()
    server.terminate()
    sys.exit(1 if any(wrong(found) for found in results.values()) or threading.active_count() > 1 else 0)


if __name__ == "__main__":
    main()
