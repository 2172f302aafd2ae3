"""`gpt score`: log-probabilities of the texts of a file."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, NamedTuple

import typer

from .._core import codec
from ..models import errors
from ..scoring import ScoreOutcome, score_iter
from ..scoring.result import Score
from ..scoring.scores_file import ScoresFile, to_json_line
from ._client import (
    Deadline,
    Header,
    Local,
    Model,
    Retries,
    ServerUrls,
    Timeout,
    Verbose,
    find_model,
    open_clients,
)
from ._errors import for_the_shell
from ._executors import Dask, MaxFailures, Processes, open_executor
from ._output import note, write

_ROW = "{:>12} {:>10} {:>12} {:>7}  {}"
_NUMBERS = 47
"""How many columns a row has before its text."""

_SHOWN_FAILURES = 10


class Method(str, Enum):
    """The ways to score, for --method."""

    auto = "auto"
    echo = "echo"
    forced = "forced"


class _Text(NamedTuple):
    line: int
    text: str
    context: str


def score_file(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help='A text on each line; "-" is stdin. In .jsonl: {"text", "context"}.'),
    ],
    model: Model = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the scores here; an existing file is continued."),
    ] = None,
    context: Annotated[str, typer.Option(metavar="TEXT", help="What comes before each text and is not scored.")] = "",
    as_json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print a line of JSON for each text, with its tokens.")
    ] = False,
    jsonl: Annotated[
        bool | None,
        typer.Option("--jsonl/--text", metavar="", help="What FILE has, whatever its name. (default: by its name)"),
    ] = None,
    max_workers: Annotated[
        int, typer.Option("--max-workers", "-w", metavar="INTEGER", min=1, help="Requests at a time, in each process.")
    ] = 16,
    batch_size: Annotated[
        int, typer.Option(metavar="INTEGER", min=1, help="How many texts may go into one request.")
    ] = 16,
    max_length: Annotated[
        int | None,
        typer.Option(metavar="INTEGER", min=2, help="Score longer texts by windows of so many tokens."),
    ] = None,
    method: Annotated[
        Method, typer.Option(help="How: by echo or by forced decoding (llama.cpp). (default: as the server can)")
    ] = Method.auto,
    processes: Processes = None,
    dask: Dask = None,
    max_failures: MaxFailures = 100,
    server_url: ServerUrls = None,
    local: Local = False,
    timeout: Timeout = None,
    deadline: Deadline = None,
    retries: Retries = None,
    header: Header = None,
    verbose: Verbose = False,
) -> None:
    """Print how likely each text of a file is under a model.

    \b
    gpt score texts.txt --local
    gpt score questions.jsonl -o scores.jsonl --server-url http://localhost:8000/v1 -m my-model -w 64
    gpt score million.txt -o scores.jsonl --server-url http://a:8000/v1 --server-url http://b:8000/v1 --processes 0

    With -o the run can be repeated after any interruption: texts whose scores
    are in the file are skipped. A text that fails is named on stderr, the
    others go on, and the exit code is 1.
    """
    with (
        open_clients(
            server_url, local=local, timeout=timeout, deadline=deadline, retries=retries, header=header, verbose=verbose
        ) as clients,
        open_executor(processes, dask) as executor,
        ScoresFile(output) if output else nullcontext() as scores,
        _bar(quiet=scores is None and sys.stdout.isatty()) as advance,
    ):
        name = find_model(clients[0], model, local=local)
        run = _Run(scores, as_json, advance, resumed=scores.count if scores else 0)
        texts = run.texts(_lines(file), context, jsonl=file.endswith(".jsonl") if jsonl is None else jsonl, named=jsonl)
        outcomes = score_iter(
            clients,
            (each.text for each in texts),
            context=run.contexts(),
            model=name,
            batch_size=batch_size,
            max_workers=max_workers,
            max_length=max_length,
            method=method.value,
            executor=executor,
            max_failures=max_failures or None,
        )
        try:
            for outcome in outcomes:
                run.take(outcome)
        except (KeyboardInterrupt, errors.SDKError, OSError):
            run.conclude(output)
            if output:
                note("stopped; run it again to go on")
            raise
    run.conclude(output)
    if run.failed:
        raise typer.Exit(1)


@dataclass
class _Run:
    """Reads the texts of a file, and writes or prints their scores."""

    scores: ScoresFile | None
    as_json: bool
    advance: Callable[[int], None]
    resumed: int
    failed: int = 0
    scored: int = 0

    def __post_init__(self) -> None:
        self._waiting: dict[int, _Text] = {}
        self._early: dict[int, ScoreOutcome] = {}
        self._next = 0
        self._pulled: _Text | None = None

    def texts(self, lines: Iterable[bytes], context: str, *, jsonl: bool, named: bool | None) -> Iterator[_Text]:
        """Yield the texts as they are needed; blank lines are skipped, and invalid ones are reported."""
        index = 0
        for number, data in enumerate(lines, 1):
            try:
                text = _read(data, number, context, jsonl=jsonl)
                if number == 1 and not jsonl and named is None and text and _is_object(text.text):
                    raise typer.BadParameter("the lines are JSON objects: say --jsonl, or --text to score them as text")
            except ValueError as error:
                self._fail(number, error)
                continue
            if text is None or (self.scores and self.scores.has(number, text.text, text.context)):
                continue
            self._waiting[index] = text
            self._pulled = text
            index += 1
            yield text
        self._pulled = None

    def contexts(self) -> Iterator[str]:
        """Yield the context of each text, after it was pulled."""
        while self._pulled is not None:
            yield self._pulled.context

    def take(self, outcome: ScoreOutcome) -> None:
        """Write a score to the output, or print it in its turn."""
        if self.scores is not None:
            self._put(outcome)
            return
        self._early[outcome.index] = outcome
        while self._next in self._early:
            self._put(self._early.pop(self._next))
            self._next += 1

    def _put(self, outcome: ScoreOutcome) -> None:
        text = self._waiting.pop(outcome.index)
        self.advance(1)
        if outcome.score is None:
            self._fail(text.line, outcome.error)
        elif self.scores is not None:
            self.scores.append(text.line, text.context, outcome.score)
        elif self.as_json:
            write(to_json_line(text.line, text.context, outcome.score))
        else:
            if not self.scored:
                write(_ROW.format("perplexity", "mean", "sum", "tokens", "text") + "\n")
            write(_row(outcome.score) + "\n")
        self.scored += outcome.score is not None

    def _fail(self, line: int, error: object) -> None:
        self.failed += 1
        if self.failed <= _SHOWN_FAILURES:
            note(f"line {line}: {for_the_shell(str(error))}")

    def conclude(self, output: str | None) -> None:
        """Summarise on stderr what stdout does not show."""
        if self.failed > _SHOWN_FAILURES:
            note(f"… and {self.failed - _SHOWN_FAILURES:,} more failed")
        if output:
            earlier = f" ({self.resumed:,} by earlier runs)" if self.resumed else ""
            note(f"{self.scored + self.resumed:,} scored{earlier}, {self.failed:,} failed: {output}")


def _lines(file: str) -> Iterator[bytes]:
    """Read a file's lines as bytes, whatever the locale says, without a byte-order mark."""
    with nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb") as lines:
        for number, line in enumerate(lines):
            yield line if number else line.removeprefix(b"\xef\xbb\xbf")


def _read(data: bytes, number: int, context: str, *, jsonl: bool) -> _Text | None:
    try:
        line = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("expected UTF-8") from None
    if not line.strip():
        return None
    return _read_json(line, number, context) if jsonl else _Text(number, line, context)


def _read_json(line: str, number: int, context: str) -> _Text:
    try:
        value: Any = codec.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    fields = value if isinstance(value, dict) else {"text": value}
    text, before = fields.get("text"), fields.get("context", context)
    if not isinstance(text, str) or not isinstance(before, str):
        raise ValueError(f'expected a string or {{"text": "…", "context": "…"}}, got {line[:60]}')
    return _Text(number, text, before)


def _is_object(line: str) -> bool:
    try:
        return isinstance(codec.loads(line), dict)
    except ValueError:
        return False


@contextmanager
def _bar(*, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show a counter on stderr if the scores do not go to the terminal."""
    if quiet or not sys.stderr.isatty():
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
    if sys.stdout.isatty():
        width = max(20, shutil.get_terminal_size().columns - _NUMBERS)
        text = text if len(text) <= width else f"{text[: width - 1]}…"
    numbers = (f"{result.perplexity:.4g}", f"{result.logprob_mean:.4f}", f"{result.logprob_sum:.4f}")
    return _ROW.format(*numbers, len(result.tokens), text)
