"""`gpt serve`: the local server until Ctrl-C."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated, Any

import typer


def serve(
    model: Annotated[
        Path | None, typer.Argument(help="A GGUF file; without it, the tiny model of the package.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    parallel: Annotated[int, typer.Option(help="How many requests are answered at a time.")] = 4,
    api_key: Annotated[
        str | None, typer.Option(envvar="GPT_SERVE_API_KEY", help="Refuse requests without this key.")
    ] = None,
) -> None:
    """Serve a model with llama.cpp on this machine, print the URL, and run until Ctrl-C."""
    from ..local import Server

    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    with Server(model, n_parallel=parallel, port=port, api_key=api_key) as server:
        typer.echo(server.url)
        typer.echo(f"serving {model or 'the tiny model'}; Ctrl-C stops it", err=True)
        _wait(stopped)
    typer.echo("stopped", err=True)


def _wait(stopped: Any) -> None:
    """Wait for Ctrl-C, which is how this command is meant to end, or for a polite kill."""
    try:
        stopped.wait()
    except KeyboardInterrupt:
        pass
