"""llama.cpp's own HTTP server in a separate process: settings, address, shutdown. Does not depend on the client."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any

HOST = "127.0.0.1"
BUNDLED = Path(__file__).parent / "models" / "tiny.gguf"
BUNDLED_CONTEXT = 256
CUSTOM_MODEL_CONTEXT = 4096
MAX_PARALLEL = 256

HTTP_THREADS = 256
"""How many threads serve connections. llama.cpp's HTTP library (cpp-httplib) occupies one for as long as a connection
lives, and keeps an idle connection for 5 seconds. With its default (-1) one run in six of 64 or 200 clients was held up
for those 5 seconds (xllamacpp 2026.10), with 256 threads none. It depends on timing, so no test notices."""

_INSTALL = "gpt.local needs llama.cpp: run pip install '.[local]' in a clone of gpt-sdk"
_ENGINE = Path(__file__).with_name("engine.py")


class Server:
    """Serve a GGUF model on 127.0.0.1, from construction until `close`, in a process of its own.

    `model` is the file's path; without it, the bundled demonstration model is served. `n_parallel` requests are
    processed at a time, and more wait for their turn. Prompt and completion together may be 256 tokens long with the
    bundled model; with your own, 4,096 or what it was trained for, whichever is less. `port` 0 takes a free one.
    With an `api_key`, a request without it gets a 401.

    The server stops on `close`, at the end of the `with` block, when the object is garbage-collected, and when this
    process ends, however it ends. A forked child may use the server and does not stop it. Without an `api_key`, every
    program on this machine can send requests, and so can a web page in a browser here (it cannot read the responses,
    unless it comes from localhost).
    One request can keep llama.cpp busy for ever, for example by a grammar with a thousand optional parts: no other
    request is served then, and `close` still returns at once.

    Raises `ImportError` without the extra `local`, `OSError` for a file that cannot be read or a port that is taken,
    `ValueError` for a file that is not GGUF, `RuntimeError` for one that llama.cpp cannot load.
    """

    url: str
    """The `server_url` for a client: `http://127.0.0.1:<port>/v1`."""

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        n_parallel: int = 4,
        port: int = 0,
        api_key: str | None = None,
    ) -> None:
        self._model = BUNDLED if model is None else Path(model)
        _check_number("n_parallel", n_parallel, 1, MAX_PARALLEL)
        _check_number("port", port, 0, 65_535)
        keys = _checked_keys(api_key)
        _check_gguf(self._model)
        _check_installed()
        _check_free(port)

        settings = _settings(self._model, n_parallel, bundled=model is None)
        process = _start({**settings, "port": port, "api_keys": keys})
        self._close = weakref.finalize(self, _stop, process, os.getpid())
        try:
            self.url = f"{_read_address(process, self._model)}/v1"
        except BaseException:
            self._close()
            raise

    def close(self) -> None:
        """Stop serving at once: requests in flight are cut off, the port and the memory are free again.

        Calling it twice is harmless.
        """
        self._close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self._close.alive else ", closed"
        return f"<gpt.local.Server {self.url} {self._model.name}{state}>"


def _check_number(name: str, value: int, least: int, most: int) -> None:
    if not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be an integer from {least} to {most}, not {value!r}")


def _checked_keys(api_key: str | None) -> list[str]:
    if api_key is None:
        return []
    if not isinstance(api_key, str) or not api_key.strip():
        raise ValueError("api_key must be a string that is not blank, or None for a server without a key")
    return [api_key.strip()]


def _check_gguf(path: Path) -> None:
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ValueError(f"{path} is not a GGUF model: it should begin with b'GGUF', and begins with {magic!r}")


def _check_installed() -> None:
    """Raise `ImportError` without the engine, which this process finds but does not load."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise ImportError(_INSTALL)


def _check_free(port: int) -> None:
    """Raise `OSError` for a port that is taken, where llama.cpp would only say that it could not start."""
    if port:
        socket.create_server((HOST, port)).close()


def _settings(model: Path, n_parallel: int, *, bundled: bool) -> dict[str, Any]:
    """Return the settings that differ from llama.cpp's defaults, by its own names, which are flags of its server."""
    threads = 1 if bundled else max(1, (os.cpu_count() or 1) // 2)
    settings = {
        "model.path": str(model.absolute()),
        "model_alias": [model.stem],
        "hostnames": [HOST],
        "ui": False,
        "cors_origins": "localhost",
        "verbosity": -1,
        # Otherwise up to 8 GiB of old prompts' states would accumulate.
        "cache_ram_mib": 0,
        "n_parallel": n_parallel,
        # llama.cpp divides the context among the parallel requests.
        "n_ctx": n_parallel * (BUNDLED_CONTEXT if bundled else CUSTOM_MODEL_CONTEXT),
        "n_threads_http": HTTP_THREADS,
        "cpuparams.n_threads": threads,
        "cpuparams_batch.n_threads": threads,
    }
    if bundled:
        # A prompt computed whole gives the same numbers every time; one continued from a cached part may not.
        settings |= {"warmup": False, "fit_params": False, "cache_prompt": False}
    return settings


def _start(settings: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start the engine's process; settings go through its stdin, since others can list a process's arguments."""
    process = subprocess.Popen(
        [sys.executable, "-I", str(_ENGINE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # Ctrl-C in a terminal goes to its whole process group, and a batch finishes what is in flight after it.
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
    )
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps({**settings, "path": sys.path}).encode() + b"\n")
        process.stdin.flush()
    except OSError:
        pass  # it has ended; `_read_address` reports why
    return process


def _read_address(process: subprocess.Popen[bytes], model: Path) -> str:
    """Wait until the model is loaded; a big one takes minutes."""
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
    reply = json.loads(line) if line.endswith(b"\n") else {"error": f"it ended with code {process.wait()}"}
    if "url" in reply:
        return str(reply["url"])
    if reply.get("missing"):
        raise ImportError(f"{_INSTALL} ({reply['error']})")
    raise RuntimeError(
        f"llama.cpp could not load {model}: it is damaged, newer than the installed xllamacpp,"
        f" or too big for the memory ({reply['error']})"
    )


def _stop(process: subprocess.Popen[bytes], pid: int) -> None:
    """Kill the engine and wait for its end; it has nothing to save. A forked child leaves its parent's engine alone.

    The engine ends by itself when no process holds the other end of its stdin any more, which is what happens when
    this process is killed; a forked child that lives on keeps it open.
    """
    assert process.stdin is not None
    if os.getpid() != pid:
        process.returncode = 0  # else `Popen.__del__` warns that it still runs
        return
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:
                pass  # settings that were never read
