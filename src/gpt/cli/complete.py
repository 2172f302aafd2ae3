"""`gpt complete`: one request, its answer on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from .._core import codec
from ..models import shared
from ..sdk import Gpt
from ._client import Local, Model, ServerUrl, open_client, pick_model
from .view import show

SEPARATOR = "---"
"""The line between several completions."""

VIEWED_LOGPROBS = 5
"""How many likely tokens --view asks for: as many as OpenAI allows."""


def complete(
    prompt: Annotated[str | None, typer.Argument(help="The text to complete; '-' or nothing reads stdin.")] = None,
    model: Model = None,
    best_of: Annotated[int | None, typer.Option(help="Make this many completions and return the best n.")] = None,
    echo: Annotated[bool | None, typer.Option("--echo", help="Repeat the prompt before the completion.")] = None,
    frequency_penalty: Annotated[float | None, typer.Option(help="Make repeated tokens rarer: -2 to 2.")] = None,
    logit_bias: Annotated[
        list[str] | None, typer.Option(metavar="ID=BIAS", help="Add to a token's logit; may be repeated.")
    ] = None,
    logprobs: Annotated[int | None, typer.Option(help="Report this many likely tokens; see --view and --json.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Generate at most this many tokens.")] = None,
    n: Annotated[int | None, typer.Option("--n", "-n", help="Make this many completions.")] = None,
    presence_penalty: Annotated[float | None, typer.Option(help="Make tokens rarer that occurred: -2 to 2.")] = None,
    seed: Annotated[int | None, typer.Option(help="Sample the same way every time.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Stop before this text; may be repeated.")] = None,
    suffix: Annotated[str | None, typer.Option(help="The text that comes after the completion.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the likeliest token, 2 chooses freely.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample from the likeliest tokens of this total: 0 to 1.")] = None,
    user: Annotated[str | None, typer.Option(help="An identifier of your end user.")] = None,
    extra: Annotated[
        list[str] | None, typer.Option(metavar="NAME=JSON", help="Send another field (top_k=40); may be repeated.")
    ] = None,
    stream: Annotated[
        bool | None, typer.Option("--stream/--no-stream", help="Print as tokens come.  (default: on a terminal)")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the server's JSON; with --stream, a line for each chunk.")
    ] = False,
    view: Annotated[
        bool,
        typer.Option("--view", help="Show how likely each token was, in colours, and the tokens it might have been."),
    ] = False,
    server_url: ServerUrl = None,
    local: Local = False,
) -> None:
    """Complete a prompt.

    \b
    gpt complete --local "A class definition"
    gpt complete --local --view "A class definition"
    gpt complete -m my-model --max-tokens 20 --temperature 0 "Say this is a test"
    cat poem.txt | gpt complete --server-url http://localhost:8000/v1 -m my-model
    """
    request = shared.CreateCompletionRequest(
        model=pick_model(model, local=local),
        prompt=_read_prompt(prompt),
        best_of=best_of,
        echo=echo,
        frequency_penalty=frequency_penalty,
        logit_bias=dict(_parse_bias(item) for item in logit_bias) if logit_bias else None,
        logprobs=VIEWED_LOGPROBS if view and logprobs is None else logprobs,
        max_tokens=max_tokens,
        n=n,
        presence_penalty=presence_penalty,
        seed=seed,
        stop=stop or None,
        suffix=suffix,
        temperature=temperature,
        top_p=top_p,
        user=user,
        additional_properties=dict(_parse_extra(item) for item in extra or ()),
    )
    if view and as_json:
        raise typer.BadParameter("--view shows an answer to people and --json to programs; give one of them")
    streamed = stream if stream is not None else sys.stdout.isatty() and not as_json
    with open_client(server_url=server_url, local=local) as s:
        if view:
            _print_view(s, request)
        else:
            (_print_stream if streamed else _print_answer)(s, request, as_json=as_json)


def _read_prompt(prompt: str | None) -> str:
    """Take the prompt from the argument, else from stdin without its last newline."""
    if prompt is not None and prompt != "-":
        return prompt
    if prompt is None and sys.stdin.isatty():
        raise typer.BadParameter("give the prompt as an argument or on stdin")
    return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n").removesuffix("\r")


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


def _print_answer(s: Gpt, request: shared.CreateCompletionRequest, *, as_json: bool) -> None:
    result = s.completions.create_completion(request)
    assert result.create_completion_response is not None
    if as_json:
        typer.echo(result.raw_response.content.decode("utf-8", "replace").strip())
    else:
        _print_choices(result.create_completion_response.choices)


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
                    typer.echo(chunk.to_json())
                    continue
                for choice in chunk.choices:
                    if not choice.index and choice.text:
                        last = choice.text
                        typer.echo(last, nl=False)
        finally:
            if last and not last.endswith("\n"):
                typer.echo()
        if not as_json:
            others = [choice for choice in stream.collect().choices if choice.index]
            if others:
                typer.echo(SEPARATOR)
            _print_choices(others)


def _print_choices(choices: Iterable[shared.CreateCompletionResponseChoices]) -> None:
    for position, choice in enumerate(choices):
        if position:
            typer.echo(SEPARATOR)
        text = choice.text or ""
        typer.echo(text, nl=not text.endswith("\n"))
