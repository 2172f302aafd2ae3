"""`gpt serve`: the local server until Ctrl-C."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from ._output import note


def serve(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="A GGUF file; without it, the tiny model of the package.")
    ] = None,
    port: Annotated[int, typer.Option(metavar="INTEGER", help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    parallel: Annotated[int, typer.Option(metavar="INTEGER", help="How many requests are processed at a time.")] = 4,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="GPT_SERVE_API_KEY",
            metavar="TEXT",
            help="Refuse requests without this key. [env: GPT_SERVE_API_KEY]",
        ),
    ] = None,
) -> None:
    """Serve a model with llama.cpp until Ctrl-C.

    \b
    gpt serve
    gpt serve model.gguf --port 8080

    The URL goes to stdout. Ctrl-C is how this command is meant to end, so its
    exit code is 0 then.
    """
    from ..local import Server

    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    with Server(model, n_parallel=parallel, port=port, api_key=api_key) as server:
        signal.signal(signal.SIGINT, lambda *_: stopped.set())  # set before the URL is printed: it may come right after
        typer.echo(server.url)
        key = ", with OPENAI_API_KEY set to the key" if api_key else ""
        note(f"serving {model or 'the tiny model'}; Ctrl-C stops it. In another shell{key}:")
        note(f"export OPENAI_BASE_URL={server.url}")
        stopped.wait()
    note("stopped")
