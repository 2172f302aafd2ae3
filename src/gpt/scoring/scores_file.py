"""A file of scores that a later run can continue: a line of JSON for each text, written at once, never twice.

The format is not that of a batch, since a score is not a completion. Failed texts are not in the file, so the next run
scores them again.
"""

from __future__ import annotations

import json
import math
import os
import sys
import zlib
from array import array
from dataclasses import fields
from types import TracebackType
from typing import Any

import orjson

from .._core import codec
from .result import Score

_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would write two bytes for a line end


class ScoresFile:
    """A file of scores, open for appending by this run alone. Not shared by threads."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open or create it, read what it has, and remove a line that was cut short by a crash.

        Raises:
            BlockingIOError: another run is writing to it.
            ValueError: it is not a file of scores.
            OSError: it cannot be read or written.
        """
        self.path = os.fspath(path)
        self.count = 0
        """How many scores are in it."""
        self._known = array("Q")
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _CLOEXEC | _BINARY, 0o666)
        try:
            _lock(self._fd, self.path)
            self._read()
        except BaseException:
            os.close(self._fd)
            raise

    def has(self, line: int, text: str, context: str) -> bool:
        """Return whether a line's score is in the file.

        Raises:
            ValueError: the file has a score for another text, because the input was edited.
        """
        known = self._known[line] if line < len(self._known) else 0
        if known and known != _mark(text, context):
            raise ValueError(
                f"{self.path}: its score of line {line} is that of another text: the input was changed;"
                " name another output"
            )
        return bool(known)

    def append(self, line: int, context: str, score: Score) -> None:
        """Write a score. An incomplete line is removed again.

        Raises:
            OSError: the disk is full, or the like.
        """
        data = to_json_line(line, context, score)
        size = os.fstat(self._fd).st_size
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            os.ftruncate(self._fd, size)
            raise OSError(error.errno, f"{error.strerror}; {self.count} scores are safe", self.path) from None
        self._note(line, score.text, context)

    def _note(self, line: int, text: str, context: str) -> None:
        if line >= len(self._known):
            self._known.extend(bytes(max(1024, line + 1 - len(self._known))))
        self._known[line] = _mark(text, context)
        self.count += 1

    def _read(self) -> None:
        end = 0
        with open(self._fd, "rb", closefd=False) as file:
            for number, data in enumerate(file, 1):
                if not data.endswith(b"\n"):
                    break
                try:
                    value = codec.loads(data)
                    self._note(value["line"], value["text"], value["context"])
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise ValueError(
                        f"{self.path}: line {number} is not a score ({error}), and the file was left as it is;"
                        " name another output"
                    ) from None
                end += len(data)
            else:
                return
        if not data.startswith((b'{"line":'[: len(data)], b"\0")):  # NULs are what a power cut may leave
            raise ValueError(f"{self.path}: this is not a file of scores, and was left as it is; name another output")
        os.ftruncate(self._fd, end)

    def close(self) -> None:
        """Force the file to the disk and close it."""
        try:
            os.fsync(self._fd)
        finally:
            os.close(self._fd)

    def __enter__(self) -> ScoresFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def to_json_line(line: int, context: str, score: Score) -> bytes:
    """Return a score as a line of JSON; NaN and infinities become null."""
    named = {each.name: getattr(score, each.name) for each in fields(score)}
    values = {"line": line, "context": context, **named, "is_greedy": score.is_greedy}
    try:
        return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a lone surrogate, which a server may send as an escape, is written as one
        return json.dumps(_finite(values), separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _finite(value: Any) -> Any:
    """Replace what orjson writes as null by itself, for the standard library's `json`."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return value


def _mark(text: str, context: str) -> int:
    """Return a hash of a text and its context; never 0."""
    data = f"{len(context)}:{context}{text}".encode("utf-8", "surrogatepass")
    return 1 << 63 | zlib.crc32(data) << 31 | len(data) % (1 << 31)


def _lock(fd: int, path: str) -> None:
    """Keep other runs out; do nothing where such locks do not exist (Windows, some network disks)."""
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BlockingIOError(error.errno, "another run is writing to this file", path) from None
    except OSError:
        pass
