"""`gpt doctor`: what a server really honours, as a table or as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ..doctor import Report, probe
from ..view.glyphs import printable
from ._client import LOCAL_MODEL, Deadline, Header, Local, Model, ServerUrl, Timeout, Verbose, open_client
from ._errors import for_the_shell
from ._output import note, write

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"yes": "green", "no": "yellow", "ignored": "yellow", "wrong": "bold red", "unknown": "dim"}


def doctor(
    model: Model = None,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print the report as JSON.")] = False,
    server_url: ServerUrl = None,
    local: Local = False,
    timeout: Timeout = None,
    deadline: Deadline = None,
    header: Header = None,
    verbose: Verbose = False,
) -> None:
    """Find out what a server really honours.

    \b
    gpt doctor --local
    gpt doctor --server-url http://localhost:8000/v1
    gpt doctor --server-url http://localhost:8000/v1 --json

    It sends at most 12 requests, which generate at most 64 tokens. The exit
    code is 1 when plain or streamed completions do not work, or when a response
    contradicts its request.
    """
    with open_client(
        server_url=server_url, local=local, timeout=timeout, deadline=deadline, header=header, verbose=verbose
    ) as s:
        report = probe(s, model=LOCAL_MODEL if local else model)
    if as_json:
        write(json.dumps(report.to_dict(), ensure_ascii=False, indent=2) + "\n")
    else:
        _print_table(report)
    if not report.ok:
        raise typer.Exit(1)


def _print_table(report: Report) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    print_report(report, console)
    note(f"{report.requests} requests, at most {report.tokens} tokens")


def print_report(report: Report, console: Console) -> None:
    """Print a report as a table."""
    from rich.table import Table
    from rich.text import Text

    # Text and not str: rich reads markup in strings, and these quote a server.
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("check", "result", "what was seen"):
        table.add_column(title, overflow="fold", no_wrap=title != "what was seen")
    for check in report.checks:
        detail = Text(printable(for_the_shell(check.detail)))
        table.add_row(Text(check.name), Text(check.result, _STYLES[check.result]), detail)
    console.print(Text(printable(f"{report.model} at {report.server}"), "bold"), "", table, "", sep="\n")
    console.print(Text(f"batch_size={report.batch_size}    scoring: {report.scoring or 'not possible'}"))
