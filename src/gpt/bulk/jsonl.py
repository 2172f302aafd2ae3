"""From a file of requests to a file of answers, over as many runs as it takes."""

from __future__ import annotations

import gzip
import logging
import os
import signal
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import closing, contextmanager
from types import FrameType
from typing import IO

from ..models.shared import CreateCompletionRequest
from ..sdk import Gpt
from .batch_format import Line, duplicate, name_of, name_of_line, read_line, write_answer, write_bad_line
from .output_file import Output
from .runner import Run
from .summary import Summary

logger = logging.getLogger("gpt.bulk")


def run_jsonl(
    s: Gpt,
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: str | None = None,
    executor: Executor | None = None,
    max_workers: int = 16,
    retry_errors: bool = False,
    progress: Callable[[Summary], None] | None = None,
) -> Summary:
    """Answer every request of a JSONL file; run it again to go on where an earlier run ended, however it ended.

    The input has lines of OpenAI's Batch format (`custom_id`, `method`, `url`, `body`) or bodies of requests alone,
    whose `custom_id` is the line's number; blank lines are skipped. The output gets one line of the Batch output format
    (`id`, `custom_id`, `response`, `error`) for each, in the order of their completion; a line that cannot be asked
    becomes one with an `error` that has its `line`. `response.body` is the server's own JSON.

    Each output line is written at once and forced to the disk every 5 seconds and at the end. What is in the output is
    not asked again. Memory does not grow with the files, but for 21 to 43 bytes for each `custom_id`.

    Args:
        s: the client.
        input: a path; `.gz` is unpacked, and `-` is stdin.
        output: a path; created, or continued when it exists.
        model: the model for bodies that name none.
        executor: as for `run`.
        max_workers: how many requests run at a time; with an executor, half of what is in flight at most.
        retry_errors: take failed lines out of the output first, atomically, so that they are asked again.
        progress: called with the state of the output at the start and after every line.

    Raises:
        BlockingIOError: another run is writing to the output.
        OSError: a file cannot be read or written, or the disk is full; run again when it is mended.
        TypeError, ValueError: an option cannot be used as it is, or the output is some other file.
        KeyboardInterrupt: after Ctrl-C, and after the answers in flight have been written; see `run`.
    """
    _check_paths(input, output)
    with _open_input(input) as lines, Output(output, retry_errors=retry_errors) as out:
        batch = _Batch(out, progress)
        requests = batch.requests(lines, model)
        run = Run(s, requests, executor=executor, max_workers=max_workers, bodies=True)
        with _stopped_by_ctrl_c(run), closing(iter(run)) as replies:
            for task, reply in replies:
                batch.write(write_answer(task.tag, reply), problem=reply.error, tokens=reply.tokens)
        return batch.summary()


class _Batch:
    """The state of one run: which lines are dealt with, and the count."""

    def __init__(self, out: Output, progress: Callable[[Summary], None] | None) -> None:
        self._out = out
        self._progress = progress
        self._resumed = out.answered + out.failed
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._last_error: str | None = None
        self._report()

    def requests(self, lines: Iterable[bytes], model: str | None) -> Iterator[tuple[Line, CreateCompletionRequest]]:
        """Give the lines that are to be asked; write those that cannot be."""
        finished = self._out.finished
        for number, data in enumerate(lines, 1):
            if not data.strip() or name_of_line(number) in finished:
                continue
            line = read_line(data, number, model)
            if isinstance(line, Line):
                state = finished.see(name_of(line.custom_id))
                if state == "new":
                    yield line, line.request
                if state != "seen":
                    continue
                line = duplicate(line)
            self.write(write_bad_line(line), problem=f"line {number}: {line.message}")

    def write(self, line: bytes, *, problem: object, tokens: tuple[int, int] = (0, 0)) -> None:
        """Append a line to the output and count it; with a problem, as a failed one."""
        self._out.append(line)
        if problem is None:
            self._out.answered += 1
        else:
            self._out.failed += 1
            self._last_error = str(problem)
        self._prompt_tokens += tokens[0]
        self._completion_tokens += tokens[1]
        self._report()

    def summary(self) -> Summary:
        """Give the count as it is now."""
        return Summary(
            answered=self._out.answered,
            failed=self._out.failed,
            resumed=self._resumed,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            last_error=self._last_error,
        )

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self.summary())


def _check_paths(input: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    if os.fspath(output).endswith(".gz"):
        raise ValueError(f"output: it is written as plain text, appended to line by line; leave .gz out of {output}")
    if os.fspath(input) != "-" and os.path.exists(output) and os.path.samefile(input, output):
        raise ValueError("output: it is the input; name another file")


@contextmanager
def _stopped_by_ctrl_c(run: Run[Line]) -> Iterator[None]:
    """Let Ctrl-C stop a run between two lines, not in the middle of one; the second time it is itself again."""
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        logger.info("waiting for the answers in flight; Ctrl-C again leaves at once")
        run.interrupt()

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _open_input(path: str | os.PathLike[str]) -> Iterator[Iterable[bytes]]:
    name = os.fspath(path)
    if name == "-":
        yield _without_mark(sys.stdin.buffer)
        return
    file: IO[bytes]
    with gzip.open(name) if name.endswith(".gz") else open(name, "rb") as file:  # type: ignore[assignment]
        yield _without_mark(_unpacked(file, name) if name.endswith(".gz") else file)


def _unpacked(file: Iterable[bytes], name: str) -> Iterator[bytes]:
    try:
        yield from file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{name}: the gzip file is damaged or was cut off: {error}") from None


def _without_mark(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Leave out the byte-order mark that some editors put first."""
    for number, line in enumerate(lines):
        yield line if number else line.removeprefix(b"\xef\xbb\xbf")
