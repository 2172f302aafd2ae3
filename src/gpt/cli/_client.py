"""Options that several commands share, and the client they describe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from ..sdk import Gpt

LOCAL_MODEL = "tiny"
"""What the model is called where the server is our own; llama.cpp takes any name."""

ServerUrl = Annotated[
    str | None,
    typer.Option(help="Base URL, such as http://localhost:8000/v1. (default: OPENAI_BASE_URL, or OpenAI's)"),
]
Local = Annotated[bool, typer.Option("--local", help="Use the tiny model inside the package: no key, no network.")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="Name of the model, as the server knows it.")]


@contextmanager
def open_client(*, server_url: str | None, local: bool) -> Iterator[Gpt]:
    """Give a client of the server that the options name; with `local`, start one and stop it afterwards."""
    if local and server_url:
        raise typer.BadParameter("--local brings its own server; leave --server-url out")
    if not local:
        with Gpt(server_url=server_url) as s:
            yield s
        return
    from ..local import Server
    from ..models.shared import Security

    with Server() as server, Gpt(Security(api_key_auth=""), server_url=server.url) as s:
        yield s


def pick_model(model: str | None, *, local: bool) -> str:
    """Give the model's name, which only our own server can do without."""
    if model is None and not local:
        raise typer.BadParameter("name the model with --model (or try --local)")
    return model or LOCAL_MODEL
