"""A file of scores that a run continues: a line of JSON for each text, written at once, never twice.

Its own format and not a batch's, since a score is no completion. Failed texts are not in it, so that running again
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
        """Open or create it, note what it has, and take off a line that was cut short by a crash.

        Raises:
            BlockingIOError: another run is writing to it.
            ValueError: it is something else than a file of scores.
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
            ValueError: it is there for another text, as happens when the input was edited.
        """
        known = self._known[line] if line < len(self._known) else 0
        if known and known != _mark(text, context):
            raise ValueError(
                f"{self.path}: its score of line {line} is that of another text: the input was changed;"
                " name another output"
            )
        return bool(known)

    def append(self, line: int, context: str, score: Score) -> None:
        """Write a score. A line that was begun and cannot be finished is taken off again.

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
                        f"{self.path}: line {number} is no score ({error}), and the file was left as it is;"
                        " name another output"
                    ) from None
                end += len(data)
            else:
                return
        if not data.startswith(b'{"line":'[: len(data)]):
            raise ValueError(f"{self.path}: it is no file of scores, and was left as it is; name another output")
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
    """Return a score as a line of JSON; what is no number there (NaN, infinity) is null."""
    named = {each.name: getattr(score, each.name) for each in fields(score)}
    values = {"line": line, "context": context, **named, "is_greedy": score.is_greedy}
    try:
        return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # half of a surrogate pair, which a server may send as an escape; so it is written
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
    """Return a number that two texts with their contexts hardly ever share, and that is never 0."""
    data = f"{len(context)}:{context}{text}".encode("utf-8", "surrogatepass")
    return 1 << 63 | zlib.crc32(data) << 31 | len(data) % (1 << 31)


def _lock(fd: int, path: str) -> None:
    """Keep other runs out; where there are no such locks (Windows, some network disks), do without."""
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BlockingIOError(error.errno, "another run is writing to this file", path) from None
    except OSError:
        pass
