"""Many requests at once: over threads, processes or a cluster, in constant memory.

    for outcome in bulk.run(s, requests, max_workers=64):
        print(outcome.index, outcome.response or outcome.error)

    summary = bulk.run_jsonl(s, "requests.jsonl", "completions.jsonl")

`run` takes any iterable and yields outcomes as they complete; `run_jsonl` reads one file and writes another, and
continues where an earlier run ended.
"""

from .jsonl import Summary, run_jsonl
from .outcome import Outcome
from .runner import run

__all__ = ["Outcome", "Summary", "run", "run_jsonl"]
