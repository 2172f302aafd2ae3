"""`gpt score`: log-probabilities of the texts of a file."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any, NamedTuple

import typer

from .._core import codec
from ..scoring import Score, score
from ._client import Model, ServerUrl, open_client, pick_model

_ROW = "{:>12} {:>10} {:>12} {:>7}  {}"
_SHOWN = 60


class _Text(NamedTuple):
    text: str
    context: str


def score_file(
    file: Annotated[
        typer.FileText, typer.Argument(help='A text on each line; \'-\' is stdin. In .jsonl: {"text", "context"}.')
    ],
    model: Model = None,
    context: Annotated[str, typer.Option(help="What comes before each text and is not scored.")] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each text, with its tokens.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="How many texts go into one request.")] = 16,
    server_url: ServerUrl = None,
) -> None:
    """Print how likely each text of a file is under a model: its perplexity and its log-probabilities.

    The server must repeat prompts with their log-probabilities (echo), as vLLM, SGLang and OpenAI's base models do.

    \b
    gpt score texts.txt -m my-model
    gpt score questions.jsonl --json --server-url http://localhost:8000/v1 -m my-model > scores.jsonl
    """
    name = pick_model(model, local=False)
    texts = _read(file, context, jsonl=file.name.endswith(".jsonl"))
    if not as_json:
        typer.echo(_ROW.format("perplexity", "mean", "sum", "tokens", "text"))
    with open_client(server_url=server_url, local=False) as s, _bar() as advance:
        while batch := list(islice(texts, batch_size)):
            scores = score(
                s,
                [each.text for each in batch],
                model=name,
                context=[each.context for each in batch],
                batch_size=batch_size,
            )
            for result in scores:
                typer.echo(_line(result) if as_json else _row(result))
            advance(len(batch))


def _read(lines: Iterable[str], context: str, *, jsonl: bool) -> Iterator[_Text]:
    """Read the texts as they are needed; blank lines are none."""
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r\n")
        if line.strip():
            yield _read_json(line, context, number) if jsonl else _Text(line, context)


def _read_json(line: str, context: str, number: int) -> _Text:
    try:
        value: Any = codec.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number}: not JSON: {error}") from None
    fields = value if isinstance(value, dict) else {"text": value}
    text, before = fields.get("text"), fields.get("context", context)
    if not isinstance(text, str) or not isinstance(before, str):
        raise ValueError(f'line {number}: expected a string or {{"text": "…", "context": "…"}}, got {line[:60]}')
    return _Text(text, before)


@contextmanager
def _bar() -> Iterator[Callable[[int], None]]:
    """Count on stderr where the scores go elsewhere than to the terminal."""
    if sys.stdout.isatty() or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn

    columns = SpinnerColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda count: progress.advance(task, count)


def _row(result: Score) -> str:
    text = json.dumps(result.text, ensure_ascii=False)[1:-1]
    cut = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    numbers = (f"{result.perplexity:.4g}", f"{result.logprob_mean:.4f}", f"{result.logprob_sum:.4f}")
    return _ROW.format(*numbers, len(result.tokens), cut)


def _line(result: Score) -> str:
    """Write a score as JSON; what is no number there (NaN, infinity) is null."""
    return json.dumps({name: _finite(value) for name, value in asdict(result).items()}, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return value
