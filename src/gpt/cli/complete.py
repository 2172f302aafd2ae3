"""`gpt complete`: one request, its completion on stdout."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from .._core import codec
from ..models import shared
from ..sdk import Gpt
from ._client import (
    LOCAL_MODEL,
    Deadline,
    Header,
    Local,
    Model,
    Retries,
    ServerUrl,
    Timeout,
    Verbose,
    find_model,
    open_client,
)
from ._output import write
from .view import show

SEPARATOR = "---"
"""The line between several completions."""

_REQUEST = "The request"
_OUTPUT = "The output"

VIEW_LOGPROBS = 5
"""How many likely tokens --view requests: as many as OpenAI allows."""


def complete(
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="The text to complete; '-' or nothing reads stdin.")
    ] = None,
    model: Model = None,
    best_of: Annotated[
        int | None,
        typer.Option(
            metavar="INTEGER", help="Make this many completions and return the best n.", rich_help_panel=_REQUEST
        ),
    ] = None,
    echo: Annotated[
        bool | None,
        typer.Option("--echo", metavar="", help="Repeat the prompt before the completion.", rich_help_panel=_REQUEST),
    ] = None,
    frequency_penalty: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER", help="Penalise tokens by how often they occurred: -2 to 2.", rich_help_panel=_REQUEST
        ),
    ] = None,
    logit_bias: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=BIAS", help="Add to a token's logit; may be repeated.", rich_help_panel=_REQUEST),
    ] = None,
    logprobs: Annotated[
        int | None,
        typer.Option(
            metavar="INTEGER", help="Report this many likely tokens; see --view and --json.", rich_help_panel=_REQUEST
        ),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="INTEGER", help="Generate at most this many tokens.", rich_help_panel=_REQUEST)
    ] = None,
    n: Annotated[
        int | None,
        typer.Option("--n", "-n", metavar="INTEGER", help="Make this many completions.", rich_help_panel=_REQUEST),
    ] = None,
    presence_penalty: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER", help="Penalise tokens that already occurred: -2 to 2.", rich_help_panel=_REQUEST
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="INTEGER", help="Sample the same way every time.", rich_help_panel=_REQUEST)
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help=r"Stop before this text; may be repeated. \n is a newline, \t a tab, \r a return, \\ a backslash.",
            rich_help_panel=_REQUEST,
        ),
    ] = None,
    suffix: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="The text that comes after the completion.", rich_help_panel=_REQUEST),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(metavar="NUMBER", help="0 takes the likeliest token, 2 chooses freely.", rich_help_panel=_REQUEST),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="Sample from the smallest set of tokens with this total probability.",
            rich_help_panel=_REQUEST,
        ),
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="TEXT", help="An identifier of your end user.", rich_help_panel=_REQUEST)
    ] = None,
    extra: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=JSON", help="Send another field (top_k=40); may be repeated.", rich_help_panel=_REQUEST
        ),
    ] = None,
    stream: Annotated[
        bool | None,
        typer.Option(
            "--stream/--no-stream",
            metavar="",
            help="Print as tokens come.  (default: on a terminal)",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            metavar="",
            help="Print the server's JSON; with --stream, a line for each chunk.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    view: Annotated[
        bool,
        typer.Option(
            "--view",
            metavar="",
            help="Show how likely each token was, in colours, and the tokens it might have been.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    server_url: ServerUrl = None,
    local: Local = False,
    timeout: Timeout = None,
    deadline: Deadline = None,
    retries: Retries = None,
    header: Header = None,
    verbose: Verbose = False,
) -> None:
    """Complete a prompt.

    \b
    gpt complete --local "A class definition"
    gpt complete --local --view "A class definition"
    gpt complete --server-url http://localhost:8000/v1 --max-tokens 20 --temperature 0 "Say this is a test"
    cat poem.txt | gpt complete --server-url http://localhost:8000/v1 -m my-model

    Without --model, the only one that the server lists is taken. A prompt from
    stdin loses one newline at its end.
    """
    request = shared.CreateCompletionRequest(
        model=model or LOCAL_MODEL,
        prompt=_read_prompt(prompt),
        best_of=best_of,
        echo=echo,
        frequency_penalty=frequency_penalty,
        logit_bias=dict(_parse_bias(item) for item in logit_bias) if logit_bias else None,
        logprobs=VIEW_LOGPROBS if view and logprobs is None else logprobs,
        max_tokens=max_tokens,
        n=n,
        presence_penalty=presence_penalty,
        seed=seed,
        stop=[_unescape(text) for text in stop] if stop else None,
        suffix=suffix,
        temperature=temperature,
        top_p=top_p,
        user=user,
        additional_properties=dict(_parse_extra(item) for item in extra or ()),
    )
    if view and as_json:
        raise typer.BadParameter("--view shows a completion to people and --json to programs; give one of them")
    streamed = stream if stream is not None else sys.stdout.isatty() and not as_json
    with open_client(
        server_url=server_url,
        local=local,
        timeout=timeout,
        deadline=deadline,
        retries=retries,
        header=header,
        verbose=verbose,
    ) as s:
        request.model = find_model(s, model, local=local)
        if view:
            _print_view(s, request)
        else:
            (_print_stream if streamed else _print_completion)(s, request, as_json=as_json)


def _read_prompt(prompt: str | None) -> str:
    """Take the prompt from the argument, else from stdin without its last newline."""
    if prompt is not None and prompt != "-":
        return prompt
    if prompt is None and sys.stdin.isatty():
        raise typer.BadParameter("give the prompt as an argument or on stdin")
    data = sys.stdin.buffer.read()
    if not data:
        raise typer.BadParameter("stdin is empty; pass an empty prompt as an argument: gpt complete ''")
    try:
        return data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise typer.BadParameter(f"stdin is not utf-8: its byte {error.start + 1} is 0x{byte:02x}") from None


_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\r": "\r", r"\\": "\\"}


def _unescape(text: str) -> str:
    """Replace the four escapes that a shell does not; any other backslash stays."""
    return re.sub(r"\\[ntr\\]", lambda found: _ESCAPES[found[0]], text)


def _parse_bias(item: str) -> tuple[str, float]:
    token, _, bias = item.rpartition("=")
    try:
        return str(int(token)), float(bias)
    except ValueError:
        raise typer.BadParameter(f"--logit-bias: expected TOKEN_ID=BIAS such as 50256=-100, got {item!r}") from None


def _parse_extra(item: str) -> tuple[str, Any]:
    """Read `name=value`, the value as JSON or, failing that, as text."""
    name, equals, value = item.partition("=")
    if not (name and equals):
        raise typer.BadParameter(f"--extra: expected NAME=JSON such as top_k=40, got {item!r}")
    try:
        return name, codec.loads(value)
    except ValueError:
        return name, value


def _print_completion(s: Gpt, request: shared.CreateCompletionRequest, *, as_json: bool) -> None:
    result = s.completions.create_completion(request)
    assert result.create_completion_response is not None
    if as_json:
        write(_indented(result.raw_response.content.strip()) + b"\n")
    else:
        _print_choices(result.create_completion_response.choices)


def _indented(data: bytes) -> bytes:
    """Return JSON as received, but indented on a terminal."""
    if not sys.stdout.isatty():
        return data
    try:
        return json.dumps(json.loads(data), ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace")
    except (ValueError, RecursionError):
        return data


def _print_view(s: Gpt, request: shared.CreateCompletionRequest) -> None:
    completion = s.completions.create_completion(request).create_completion_response
    assert completion is not None
    show(completion)


def _print_stream(s: Gpt, request: shared.CreateCompletionRequest, *, as_json: bool) -> None:
    """Print the first choice as it comes, and the others, which come interleaved, after it."""
    last = ""
    with s.completions.stream_completion(request) as stream:
        try:
            for chunk in stream:
                if as_json:
                    write(chunk.to_json() + "\n")
                    continue
                for choice in chunk.choices:
                    if not choice.index and choice.text:
                        last = choice.text
                        write(last)
        finally:
            if last and not last.endswith("\n"):
                write("\n")
        if not as_json:
            others = [choice for choice in stream.collect().choices if choice.index]
            if others:
                write(f"{SEPARATOR}\n")
            _print_choices(others)


def _print_choices(choices: Iterable[shared.CreateCompletionResponseChoices]) -> None:
    for position, choice in enumerate(choices):
        if position:
            write(f"{SEPARATOR}\n")
        text = choice.text or ""
        write(text if text.endswith("\n") else f"{text}\n")
