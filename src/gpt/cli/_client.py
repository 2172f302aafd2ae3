"""Options that several commands share, and the client they describe."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Annotated

import typer

from .. import doctor
from ..sdk import Gpt
from ..sdkconfiguration import DEFAULT_TIMEOUT
from ..utils.retries import RetryConfig
from ._output import note

LOCAL_MODEL = "tiny"
"""The model's name on our own server; llama.cpp accepts any name."""

SERVER_PANEL = "Server and connection"
"""The heading of these options in a command's help."""

ServerUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Base URL, such as http://localhost:8000/v1. (default: OPENAI_BASE_URL, or OpenAI's)",
        rich_help_panel=SERVER_PANEL,
    ),
]
ServerUrls = Annotated[
    list[str] | None,
    typer.Option(
        "--server-url",
        metavar="URL",
        help="Base URL, such as http://localhost:8000/v1; may be repeated, for several servers."
        " (default: OPENAI_BASE_URL, or OpenAI's)",
        rich_help_panel=SERVER_PANEL,
    ),
]
Local = Annotated[
    bool,
    typer.Option(
        "--local",
        metavar="",
        help="Use the tiny model inside the package: no key, no network.",
        rich_help_panel=SERVER_PANEL,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="NAME", help="Name of the model, as the server knows it.", rich_help_panel=SERVER_PANEL
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="The longest wait for the next bytes. (default: 600)", rich_help_panel=SERVER_PANEL
    ),
]
Deadline = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="The longest time of a whole request. (default: no limit)", rich_help_panel=SERVER_PANEL
    ),
]
Retries = Annotated[
    int | None,
    typer.Option(
        metavar="INTEGER", help="The most attempts after the first. (default: 2)", rich_help_panel=SERVER_PANEL
    ),
]
Header = Annotated[
    list[str] | None,
    typer.Option(
        "--header", metavar="NAME:VALUE", help="Send another header; may be repeated.", rich_help_panel=SERVER_PANEL
    ),
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", metavar="", help="Log requests and retries to stderr.", rich_help_panel=SERVER_PANEL),
]


@contextmanager
def open_client(
    *,
    server_url: str | None,
    local: bool,
    timeout: float | None = None,
    deadline: float | None = None,
    retries: int | None = None,
    header: Sequence[str] | None = None,
    verbose: bool = False,
) -> Iterator[Gpt]:
    """Yield a client of the server that the options name; with `local`, start one and stop it afterwards."""
    from ..models.shared import Security

    if local and server_url:
        raise typer.BadParameter("--local brings its own server; leave --server-url out")
    headers = dict(_parse_header(item) for item in header or ())
    if not local:
        _check_named(server_url, headers)
    connect, read = DEFAULT_TIMEOUT
    settings = {
        "timeout": (connect, read) if timeout is None else (min(connect, timeout), timeout),
        "deadline": deadline,
        "retry_config": None if retries is None else RetryConfig(max_retries=retries),
        "http_headers": headers,
    }
    with _logging_to_stderr(verbose):
        if not local:
            with Gpt(server_url=server_url, **settings) as s:  # type: ignore[arg-type]
                yield s
            return
        from ..local import Server

        with Server() as server, Gpt(Security(api_key_auth=""), server_url=server.url, **settings) as s:  # type: ignore[arg-type]
            yield s


@contextmanager
def open_clients(
    server_urls: Sequence[str] | None,
    *,
    local: bool,
    timeout: float | None,
    deadline: float | None,
    retries: int | None,
    header: Sequence[str] | None,
    verbose: bool,
) -> Iterator[list[Gpt]]:
    """Yield a client of each server that the options name."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                open_client(
                    server_url=url,
                    local=local,
                    timeout=timeout,
                    deadline=deadline,
                    retries=retries,
                    header=header,
                    verbose=verbose and number == 0,
                )
            )
            for number, url in enumerate(server_urls or [None])
        ]


def _check_named(server_url: str | None, headers: dict[str, str]) -> None:
    """Raise a usage error if neither a server nor a key is given: the default, OpenAI's server, needs a key."""
    named = server_url or os.environ.get("OPENAI_BASE_URL", "").strip()
    key = os.environ.get("OPENAI_API_KEY", "").strip() or any(name.lower() == "authorization" for name in headers)
    if not named and not key:
        raise typer.BadParameter(
            "no server and no key: give --server-url (or set OPENAI_BASE_URL), or set OPENAI_API_KEY for OpenAI's;"
            " --local needs neither"
        )


def _parse_header(item: str) -> tuple[str, str]:
    name, colon, value = item.partition(":")
    if not (colon and name.strip()):
        raise typer.BadParameter("--header: expected NAME:VALUE such as 'X-Team: search'")
    return name.strip(), value.strip()


@contextmanager
def _logging_to_stderr(verbose: bool) -> Iterator[None]:
    """Show what the client logs: each attempt, and each retry with its wait."""
    if not verbose:
        yield
        return
    logger = logging.getLogger("gpt")
    handler, level = _NoteHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _NoteHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


def require_model(model: str | None, *, local: bool) -> str:
    """Return the model's name, which only our own server can do without."""
    if model is None and not local:
        raise typer.BadParameter("name the model with --model (or try --local)")
    if model is not None and local:
        note(f"--local has one model; --model {model} makes no difference")
    return model or LOCAL_MODEL


def find_model(s: Gpt, model: str | None, *, local: bool) -> str:
    """Return the model's name; unnamed, it is the only one that the server lists."""
    if model is not None or local:
        return require_model(model, local=local)
    names = doctor.models(s)
    if len(names) == 1:
        note(f"model: {names[0]}")
        return names[0]
    if not names:
        raise typer.BadParameter("name the model with --model: the server lists none at /models (or try --local)")
    listed = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    raise typer.BadParameter(f"name the model with --model; the server has {listed}")
