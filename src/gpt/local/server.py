"""llama.cpp's own HTTP server in this process: what it is told, its address, its end. It knows no client."""

from __future__ import annotations

import ctypes
import importlib
import os
import socket
import warnings
import weakref
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from .hang_up import hang_up

HOST = "127.0.0.1"
BUNDLED = Path(__file__).parent / "models" / "tiny.gguf"
BUNDLED_CONTEXT = 256
OWN_CONTEXT = 4096
MAX_PARALLEL = 256


class Server:
    """Serve a GGUF model on 127.0.0.1, from construction until `close`.

    `model` is the file's path; without it, the bundled demonstration model is served. `n_parallel` requests are
    answered at a time, and more wait for their turn. Prompt and completion together may be 256 tokens long with the
    bundled model; with your own, 4,096 or what it was trained for, whichever is less. `port` 0 takes a free one.
    With an `api_key`, a request without it is answered 401.

    Raises `ImportError` without the extra `local`, `OSError` for a file that cannot be read or a port that is taken,
    `ValueError` for a file that is not GGUF, `RuntimeError` for one that llama.cpp cannot load.
    """

    url: str
    """What a client takes as its server's URL: `http://127.0.0.1:<port>/v1`."""

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
        llama = _import_llama()
        _check_free(port)

        params = _params(llama, None if model is None else self._model, n_parallel)
        params.port = port
        params.api_keys = keys
        try:
            engine = llama.Server(params)
        except RuntimeError as error:
            raise RuntimeError(
                f"llama.cpp could not load {self._model}: it is damaged, newer than the installed xllamacpp,"
                " or too big for the memory"
            ) from error
        self.url = f"{engine.listening_address}/v1"
        bound = int(engine.listening_address.rpartition(":")[2])
        self._close = weakref.finalize(self, _stop, engine, (HOST, bound), os.getpid())

    def close(self) -> None:
        """Stop serving: open requests are cut off, the port and the memory are free again. Twice does no harm."""
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


def _check_free(port: int) -> None:
    """Raise `OSError` for a port that is taken, where llama.cpp would only say that it could not start."""
    if port:
        socket.create_server((HOST, port)).close()


def _import_llama() -> ModuleType:
    try:
        return importlib.import_module("xllamacpp")
    except ImportError as error:
        raise ImportError("gpt.local needs llama.cpp: pip install 'gpt-sdk[local]'") from error


def _params(llama: ModuleType, own: Path | None, n_parallel: int) -> Any:
    """Set what differs from llama.cpp's defaults, by its own names: its server's README has a flag of each name."""
    params = llama.CommonParams()
    path = own or BUNDLED
    params.model.path = str(path)
    params.model_alias = {path.stem}
    params.hostnames = [HOST]
    params.ui = False
    params.cors_origins = "localhost"
    params.verbosity = -1
    # Up to 8 GiB of old prompts' states would else pile up in this process.
    params.cache_ram_mib = 0
    params.n_parallel = n_parallel
    # llama.cpp divides the context among the parallel requests.
    params.n_ctx = n_parallel * (OWN_CONTEXT if own else BUNDLED_CONTEXT)
    threads = max(1, (os.cpu_count() or 1) // 2) if own else 1
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    if own is None:
        params.warmup = False
        params.fit_params = False
        # A prompt computed whole gives the same numbers every time; one continued from a cached part may not.
        params.cache_prompt = False
    return params


def _stop(engine: object, address: tuple[str, int], pid: int) -> None:
    """Make it safe to drop the engine, which stops it; where that cannot be, keep it until the process ends.

    While xllamacpp stops it holds the interpreter's lock and waits for open requests: a client in this process could
    never give up, and the two would wait for each other. A forked child has none of the threads it would wait for.
    """
    if os.getpid() == pid:
        if hang_up(address):
            return
        warnings.warn(f"http://{address[0]}:{address[1]} still has clients and is left running", stacklevel=3)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
