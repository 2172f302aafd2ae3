"""Shorthand for tests of batch files: writing inputs, reading outputs, and a server that responds with the prompt."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support.client import COMPLETION
from tests.support.http_server import Received, ScriptedResponse, ScriptedServer, json_response


def batch_line(custom_id: str, **body: Any) -> dict[str, Any]:
    """Make an input line in the Batch format."""
    whole = {"model": "m", "prompt": custom_id, **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": whole}


def write_lines(path: Path, lines: Iterable[Any]) -> Path:
    """Write a JSONL file; bytes go as they are."""
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"".join(text + b"\n" for text in texts))
    return path


def write_batch(path: Path, n: int) -> Path:
    """Write an input of `n` lines with the ids r0, r1 and so on."""
    return write_lines(path, (batch_line(f"r{i}") for i in range(n)))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read an output, every line of which must be whole."""
    text = path.read_bytes()
    assert text.endswith(b"\n") or not text
    return [json.loads(line) for line in text.split(b"\n")[:-1]]


def ids(path: Path) -> Counter[str]:
    """Count the ids in an output."""
    return Counter(line["custom_id"] for line in read_lines(path))


def each_once(n: int) -> Counter[str]:
    """Return what `ids` must be when nothing is lost and nothing doubled."""
    return Counter(f"r{i}" for i in range(n))


def echo_prompt(received: Received) -> ScriptedResponse:
    """Respond with the prompt."""
    return json_response({**COMPLETION, "choices": [{"text": received.json()["prompt"], "index": 0}]})


def wait_for_requests(server: ScriptedServer, n: int) -> None:
    """Wait until `n` requests have come from a process that may take long to start."""
    for _ in range(12):
        try:
            server.wait_requests(n)
            return
        except AssertionError:
            pass
    raise AssertionError(f"{len(server.requests)} of {n} requests came within a minute")
