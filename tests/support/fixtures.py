"""Typed loaders of the responses in `tests/fixtures`, whose README.md files say what each one is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .http_server import Framing, ScriptedResponse

FIXTURES = Path(__file__).parent.parent / "fixtures"


@dataclass(frozen=True)
class Recorded:
    """One exchange with a real server."""

    request: dict[str, Any]
    status: int
    content_type: str
    transfer_encoding: str | None
    body: str

    def response(self) -> ScriptedResponse:
        """Return it as a response for a ScriptedServer, in the framing in which it came."""
        framing: Framing = "chunked" if self.transfer_encoding == "chunked" else "length"
        return ScriptedResponse(self.status, [("content-type", self.content_type)], self.body.encode(), framing)


@dataclass(frozen=True)
class ErrorSample:
    """One response that is an error, or that cannot be read, and who sends it."""

    status: int
    content_type: str | None
    headers: tuple[tuple[str, str], ...]
    body: str
    note: str

    def response(self) -> ScriptedResponse:
        """Return it as a response for a ScriptedServer."""
        content_type = [("content-type", self.content_type)] if self.content_type else []
        return ScriptedResponse(self.status, [*content_type, *self.headers], self.body.encode())


def wire(name: str) -> bytes:
    """Read one sample, `w01.json` or `w21.sse`, as the bytes a server sends."""
    return (FIXTURES / "wire" / name).read_bytes()


def wire_names(suffix: str = "") -> list[str]:
    """List the samples, or those that end so: ".sse"."""
    return sorted(path.name for path in (FIXTURES / "wire").glob(f"w*{suffix}"))


def vllm(name: str) -> Recorded:
    """Load one recorded exchange with vLLM, by its name with or without `.json`."""
    text = (FIXTURES / "vllm" / f"{name.removesuffix('.json')}.json").read_text(encoding="utf-8")
    return Recorded(**json.loads(text))


def vllm_names() -> list[str]:
    """List the recorded exchanges with vLLM."""
    return sorted(path.stem for path in (FIXTURES / "vllm").glob("*.json"))


def error_samples(name: str = "w40.json") -> list[ErrorSample]:
    """Load a list: errors by status (w40), unreadable responses (w20), JSON for a stream (w38)."""
    return [
        ErrorSample(**{**sample, "headers": tuple((key, value) for key, value in sample["headers"])})
        for sample in json.loads(wire(name))
    ]
