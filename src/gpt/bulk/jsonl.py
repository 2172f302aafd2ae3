"""Read a file of requests and write a file of completions, over as many runs as needed."""

from __future__ import annotations

import gzip
import logging
import os
import signal
import stat
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import IO, Any

from ..models import errors
from ..models.shared import CreateCompletionRequest
from ..sdk import Gpt
from .batch_format import (
    InvalidLine,
    InvalidLineError,
    MissingModelError,
    RequestLine,
    format_invalid,
    format_response,
    id_bytes,
    invalid_line,
    leading_id,
    own_id,
    parse_object,
    parse_request,
    parse_text,
)
from .finished import digest
from .output_file import OutputFile
from .runner import Run
from .worker import Reply, server_works

logger = logging.getLogger("gpt.bulk")

_MAX_WAITING = 1_000
_MAX_TOKENS = 2**63
"""The limit for token sums: larger counts from a server are invalid, and expensive to add up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The lines of an output file and what this run has used."""

    answered: int
    """Lines with a completion."""

    failed: int
    """Lines with an error."""

    resumed: int
    """How many of both were there before this run."""

    prompt_tokens: int
    """Tokens of the prompts of this run, as far as the server counted them."""

    completion_tokens: int
    """Tokens that this run generated, as far as the server counted them."""

    last_error: str | None = None
    """The error of the line that failed last in this run."""

    errors: Mapping[str, int] = field(default_factory=dict)
    """The number of failed lines for each `error.code`, those of earlier runs included."""

    bytes_read: int = 0
    """How far the input has been read; of a `.gz`, of the compressed file."""

    bytes_total: int | None = None
    """The size of the input; `None` for stdin and for whatever is not a regular file."""


def run_jsonl(
    s: Gpt | Sequence[Gpt],
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: str | None = None,
    defaults: Mapping[str, Any] | None = None,
    text: bool = False,
    executor: Executor | None = None,
    max_workers: int = 16,
    batch_size: int = 1,
    chunksize: int | None = None,
    window: int | None = None,
    max_failures: int | None = None,
    retry_errors: bool = False,
    progress: Callable[[Summary], None] | None = None,
    **call_options: Any,
) -> Summary:
    """Send every request of a JSONL file; run it again to continue where an earlier run ended, for whatever reason.

    The input has lines of OpenAI's Batch format (`custom_id`, `method`, `url`, `body`) or bodies of requests alone,
    whose `custom_id` is the line's number; blank lines are skipped. The output gets one line of the Batch output format
    (`id`, `custom_id`, `response`, `error`) for each, in the order of their completion; a line that cannot be sent
    becomes one with an `error`. `response.body` is the server's own JSON, byte for byte, except that line ends in it
    become spaces and NaN and Infinity become null; of a pack, it is the prompt's own completion, written anew.

    Each output line is written at once; the file is synced to disk every 5 seconds and at the end. What is in the
    output is not sent again: lines with a `custom_id` are identified by it, others by number and content. Memory grows
    by some 70 bytes plus the id's length for each `custom_id`, and by 8 bytes for each other line.

    Args:
        s: the client, or a list of clients, one per server; as for `run`.
        input: a path; `.gz` is unpacked, and `-` is stdin.
        output: a path; created, or continued when it exists.
        model: the model for bodies that name none. (One with `"model": null` names one wrongly.)
        defaults: other fields for bodies that lack them, such as `{"max_tokens": 64}`.
        text: whether each line of the input, without its line end, is a prompt instead of JSON.
        executor, max_workers, batch_size, chunksize, window: as for `run`.
        max_failures: after this many consecutive failures caused by the server and not by the request, stop and raise
            the last one; also if there was nothing but refused connections, 401, 403 and 404 until the end. These lines
            are not in the output, so the next run sends them.
        retry_errors: take failed lines out of the output first, atomically, so that they are sent again.
        progress: called with the state of the output at the start and after every line.
        **call_options: options of `create_completion` for each request.

    Raises:
        BlockingIOError: another run is writing to the output.
        OSError: a file cannot be read or written, or the disk is full; fix it and run again.
        TypeError, ValueError: an option cannot be used as it is; the output is not that of a batch; the input's lines
            name no model, or a line without `custom_id` has changed since its completion was written.
        SDKError: with `max_failures`, the last of so many failures.
        KeyboardInterrupt: after Ctrl-C, once the requests in flight have been written; see `run`.
    """
    _check_paths(input, output)
    with _open_input(input) as lines, OutputFile(output, retry_errors=retry_errors) as out:
        batch = _Batch(out, lines, progress, max_failures, text=text)
        run = Run(
            s,
            batch.requests(model, defaults or {}),
            executor=executor,
            max_workers=max_workers,
            batch_size=batch_size,
            chunksize=chunksize,
            window=window,
            max_failures=max_failures,
            bodies=True,
            options=call_options,
        )
        with _graceful_sigint(run), closing(iter(run)) as replies:
            for task, reply in replies:
                batch.add(task.tag, reply)
        batch.finish()
        return batch.summary()


class _Batch:
    """The state of one run: which lines are done, and the counts."""

    def __init__(
        self,
        out: OutputFile,
        lines: _Lines,
        progress: Callable[[Summary], None] | None,
        max_failures: int | None,
        *,
        text: bool,
    ) -> None:
        self._out = out
        self._is_text = text
        self._lines = lines
        self._progress = progress
        self._max_failures = max_failures
        self._held_back: list[tuple[RequestLine, Reply]] = []
        """Consecutive failures of the server, which are written only when it is known that the run continues."""
        self._any_written = False
        self._resumed = out.answered + out.failed
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._last_error: str | None = None
        self._report()

    def requests(
        self, model: str | None, defaults: Mapping[str, Any]
    ) -> Iterator[tuple[RequestLine, CreateCompletionRequest]]:
        """Yield the lines that are to be sent; write those that cannot be."""
        invalid = _InvalidLines(self._write_invalid)
        for number, text in self._new_lines():
            try:
                found = self._parse(number, text, model, defaults)
            except InvalidLineError as error:
                invalid.add(invalid_line(number, text, self._id_of(text), error), error)
                continue
            if found is not None:
                invalid.release()
                yield found
        invalid.end()

    def _new_lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number and text of each line, except those known to be finished without parsing them."""
        finished = self._out.finished
        line_state = finished.line_state if finished.has_lines else None
        for number, data in enumerate(self._lines, 1):
            text = data.rstrip(b"\r\n") if self._is_text else data.strip()
            if not text or text.isspace():
                continue
            state = line_state(number, text) if line_state is not None else "new"
            if state == "changed" and self._id_of(text) is None:
                raise ValueError(
                    f"line {number} of the input is not the line {number} that {self._out.path} was written for: name"
                    " another output, give lines a custom_id, or take failed lines out first (retry_errors)"
                )
            custom_id = None if self._is_text else leading_id(text)
            if state == "finished" or (custom_id is not None and finished.is_finished_id(custom_id)):
                continue
            yield number, text

    def _id_of(self, text: bytes) -> str | None:
        """Return the `custom_id` of an input line, `None` also if the line is not JSON."""
        try:
            return None if self._is_text else own_id(parse_object(text))
        except InvalidLineError:
            return None

    def _parse(
        self, number: int, text: bytes, model: str | None, defaults: Mapping[str, Any]
    ) -> tuple[RequestLine, CreateCompletionRequest] | None:
        """Return a line and its request; `None` if its `custom_id` is already finished."""
        finished = self._out.finished
        value = parse_text(text) if self._is_text else parse_object(text)
        custom_id = own_id(value)
        if custom_id is not None and finished.is_finished_id(id_bytes(custom_id)):
            return None
        request = parse_request(value, model, defaults)
        if custom_id is None:
            return RequestLine(number, str(number), digest(text)), request
        if not finished.is_first(id_bytes(custom_id)):
            problem = f"custom_id: {custom_id!r} was used by an earlier line"
            raise InvalidLineError("duplicate_custom_id", problem)
        return RequestLine(number, custom_id), request

    def _write_invalid(self, line: InvalidLine) -> None:
        self._write(format_invalid(line), code=line.code, problem=f"line {line.number}: {line.message}")

    def add(self, line: RequestLine, reply: Reply) -> None:
        """Write the result of a request; with `max_failures`, hold a server's failure back until the run continues."""
        if self._max_failures is not None and reply.server_failure:
            self._held_back.append((line, reply))
            return
        # A reply that was in flight when the limit was reached does not release the failures.
        if server_works(reply.error) and len(self._held_back) < (self._max_failures or 0):
            self._write_held_back()
        self._write_reply(line, reply)

    def finish(self) -> None:
        """Write the failures that are still held back, unless there were only failures that any line would have."""
        if self._held_back and not self._any_written:
            last = self._held_back[-1][1].error
            if isinstance(last, _ANY_LINE_FAILS):
                raise last
        self._write_held_back()

    def _write_held_back(self) -> None:
        held_back, self._held_back = self._held_back, []
        for line, reply in held_back:
            self._write_reply(line, reply)

    def _write_reply(self, line: RequestLine, reply: Reply) -> None:
        self._any_written = True
        self._prompt_tokens = min(self._prompt_tokens + reply.tokens[0], _MAX_TOKENS)
        self._completion_tokens = min(self._completion_tokens + reply.tokens[1], _MAX_TOKENS)
        code = None if reply.error is None else type(reply.error).__name__
        self._write(format_response(line, reply), code=code, problem=reply.error)

    def _write(self, line: bytes, *, code: str | None, problem: object) -> None:
        self._out.append(line, error_code=code)
        if code is not None:
            self._last_error = str(problem)
        self._report()

    def summary(self) -> Summary:
        """Return the counts as they are now."""
        return Summary(
            answered=self._out.answered,
            failed=self._out.failed,
            resumed=self._resumed,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            last_error=self._last_error,
            errors=dict(self._out.errors),
            bytes_read=self._lines.bytes_read,
            bytes_total=self._lines.bytes_total,
        )

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self.summary())


class _InvalidLines:
    """Invalid lines, held back until a valid line comes: an input without any model is a usage error."""

    def __init__(self, write: Callable[[InvalidLine], None]) -> None:
        self._write = write
        self._waiting: list[InvalidLine] | None = []
        self._without_model = 0

    def add(self, line: InvalidLine, problem: InvalidLineError) -> None:
        """Write a line, or hold it back."""
        if self._waiting is None:
            self._write(line)
            return
        self._waiting.append(line)
        self._without_model += isinstance(problem, MissingModelError)
        if len(self._waiting) == _MAX_WAITING:
            self.end()

    def end(self) -> None:
        """Write the lines held back.

        Raises:
            ValueError: one of them lacks a model.
        """
        if self._waiting and self._without_model:
            raise ValueError(
                f"model: {self._without_model} new lines name none, and no line before them could be sent;"
                " name a model for all lines that name none"
            ) from None
        self.release()

    def release(self) -> None:
        """Write the lines held back, and all later ones at once."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            for line in waiting:
                self._write(line)


_ANY_LINE_FAILS = (
    errors.AuthenticationError,
    errors.PermissionDeniedError,
    errors.NotFoundError,
    errors.APIConnectionError,
)


def _check_paths(input: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    if os.fspath(output) == "-":
        raise ValueError("output: stdout cannot be continued; name a file (one whose name is '-' is './-')")
    if os.fspath(output).endswith(".gz"):
        raise ValueError(f"output: it is written as plain text, appended to line by line; leave .gz out of {output}")
    if os.fspath(input) != "-" and os.path.exists(output) and os.path.samefile(input, output):
        raise ValueError("output: it is the input; name another file")


@contextmanager
def _graceful_sigint(run: Run[RequestLine]) -> Iterator[None]:
    """Make Ctrl-C stop a run between two lines, not in the middle of one; a second Ctrl-C acts as usual."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        logger.info("waiting for the requests in flight; Ctrl-C again leaves at once")
        run.interrupt()

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _Lines:
    """The lines of an input, without the byte-order mark that some editors put first; counts what has been read."""

    def __init__(self, file: Any, *, raw: IO[bytes] | None = None, name: str = "") -> None:
        """Take a file of lines; `raw` is the compressed one below it, if there is one."""
        self._file = file
        self._raw = raw
        self._name = name
        self._read = 0
        self.bytes_total = _size_of(raw or file)

    @property
    def bytes_read(self) -> int:
        """How many bytes of the file have been read; of a compressed one, up to a buffer more."""
        return self._read if self._raw is None else self._raw.tell()

    def __iter__(self) -> Iterator[bytes]:
        try:
            lines = iter(self._file)
            first = next(lines, b"")
            self._read = len(first)
            yield first.removeprefix(b"\xef\xbb\xbf")
            for line in lines:
                self._read += len(line)
                yield line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{self._name}: the gzip file is damaged or was cut off: {error}") from None


def _size_of(file: IO[bytes]) -> int | None:
    try:
        status = os.fstat(file.fileno())
    except OSError:  # no descriptor: stdin was replaced
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


@contextmanager
def _open_input(path: str | os.PathLike[str]) -> Iterator[_Lines]:
    name = os.fspath(path)
    if name == "-":
        yield _Lines(sys.stdin.buffer)
        return
    with open(name, "rb") as file:
        if not name.endswith(".gz"):
            yield _Lines(file)
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield _Lines(unpacked, raw=file, name=name)
