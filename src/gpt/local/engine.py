"""The engine's process: run llama.cpp's HTTP server until the parent closes our stdin or ends.

A script of its own, started by `gpt.local.server`, because llama.cpp cannot be stopped safely inside the process that
uses it. xllamacpp (seen in 2026.10) stops its server in a destructor that holds the interpreter's lock and joins the
worker threads; a request that keeps a worker busy, such as one with a pathological grammar, then freezes the whole
process, and SIGINT does nothing. A process can be killed. It also protects the user's
program from a crash of llama.cpp, and a forked child of that program from an engine whose threads it does not have.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any, BinaryIO


def main() -> None:
    """Read the settings from stdin, serve, write one line of JSON to stdout, and end when stdin does."""
    output = _take_stdout()
    settings = json.loads(sys.stdin.buffer.readline())
    # `multiprocessing` does the same: what the parent can import, we can.
    sys.path[:] = settings.pop("path")
    try:
        llama = importlib.import_module("xllamacpp")
        server = llama.Server(_params(llama, settings))
        reply: dict[str, Any] = {"url": server.listening_address}
    except Exception as error:
        reply = {"error": f"{type(error).__name__}: {error}", "missing": isinstance(error, ImportError)}
    with output:
        output.write(json.dumps(reply).encode() + b"\n")
    if "url" in reply:
        sys.stdin.buffer.read()
    # Neither destructors nor `atexit` run: stopping the server may hang, as said above.
    os._exit(0)


def _take_stdout() -> BinaryIO:
    """Return the stream to the parent, and point descriptor 1 elsewhere: llama.cpp writes there too."""
    output = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    return output


def _params(llama: Any, settings: dict[str, Any]) -> Any:
    """Return `CommonParams` with the settings; a dotted name is one of a nested struct."""
    params = llama.CommonParams()
    for name, value in settings.items():
        *path, last = name.split(".")
        holder = params
        for part in path:
            holder = getattr(holder, part)
        setattr(holder, last, set(value) if last == "model_alias" else value)
    return params


if __name__ == "__main__":
    main()
