"""Many requests at once: over threads, processes or a cluster, in constant memory.

for outcome in bulk.run(s, requests, max_workers=64):
    print(outcome.index, outcome.response or outcome.error)

summary = bulk.run_jsonl(s, "requests.jsonl", "answers.jsonl")
"""

from .outcome import Outcome
from .running import run

__all__ = ["Outcome", "run"]
