"""The output file of a batch: locked, repaired, only ever appended to or replaced as a whole.

Each line is handed to the system in one piece as soon as it is there, so killing the process loses none; every few
seconds and at the end the file is forced to the disk, so that a power cut loses no more than those seconds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType

from .batch_format import FIRST_BYTES, Written, read_written
from .ids import Ids

SYNC_SECONDS = 5.0
_NO_LOCKS_HERE = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)


class Output:
    """An output file, open for appending by this run alone."""

    def __init__(
        self, path: str | os.PathLike[str], *, retry_errors: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Open or create it; repair a torn last line; with `retry_errors`, take the failed lines out.

        Raises:
            BlockingIOError: another run is writing to it.
            ValueError: it is something else than the output of a batch.
            OSError: it cannot be read or written.
        """
        self.finished = Ids()
        """The names of all lines in it."""
        self.answered = 0
        self.failed = 0
        self._path = os.path.realpath(path)
        self._copy = f"{self._path}.rewriting"
        self._clock = clock
        self._synced = clock()
        self._fd = _open_locked(self._path)
        _open_outputs.add(self)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._copy)  # of a run that was killed while it rewrote the file
            self._read(retry_errors)
            if retry_errors and self.failed:
                self._drop_failed()
        except BaseException:
            os.close(self._fd)
            raise

    def append(self, line: bytes) -> None:
        """Write a line.

        Raises:
            OSError: it could not be written whole; the file then ends with the line before it.
        """
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - (len(line) - len(rest)))
            advice = f"{error.strerror}; {self.answered + self.failed} lines are safe: make room and run this again"
            raise OSError(error.errno, advice, self._path) from None
        if self._clock() - self._synced >= SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._fd)
        self._synced = self._clock()

    def _read(self, retry_errors: bool) -> None:
        """Note what is in the file, and repair its end."""
        end = 0
        for number, line in enumerate(self._lines(), 1):
            try:
                written = read_written(line)
            except ValueError as error:
                if line.endswith(b"\n") or (number == 1 and not _may_be_torn(line)):
                    raise _foreign(self._path, number, str(error)) from None
                os.ftruncate(self._fd, end)
                return
            self._note(written, forget=written.failed and retry_errors)
            end += len(line)
            if not line.endswith(b"\n"):
                os.write(self._fd, b"\n")
                return

    def _note(self, written: Written, *, forget: bool) -> None:
        if written.failed:
            self.failed += 1
        else:
            self.answered += 1
        if not forget:
            self.finished.finish(written.name)

    def _lines(self) -> Iterator[bytes]:
        with open(self._path, "rb") as file:
            yield from file

    def _drop_failed(self) -> None:
        """Replace the file by one without its failed lines: at any instant there is the old one or the new one."""
        fd = os.open(self._copy, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | _CLOEXEC, 0o666)
        try:
            _lock(fd, self._copy)
            self._copy_answers(fd)
            os.chmod(self._copy, os.stat(self._path).st_mode)
            os.fsync(fd)
            os.replace(self._copy, self._path)
        except BaseException as error:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(self._copy)
            if isinstance(error, OSError):
                raise OSError(error.errno, f"{error.strerror}; the output is as it was", self._copy) from None
            raise
        _sync_folder(self._path)
        os.close(self._fd)
        self._fd, self.failed = fd, 0

    def _copy_answers(self, fd: int) -> None:
        with open(fd, "wb", closefd=False) as copy:
            copy.writelines(line for line in self._lines() if not read_written(line).failed)

    def close(self) -> None:
        """Force the file to the disk and let go of it."""
        _open_outputs.discard(self)
        try:
            self._sync()
        finally:
            os.close(self._fd)

    def let_go(self) -> None:
        """Close it in a forked child, which would otherwise keep the lock when the parent is gone."""
        with contextlib.suppress(OSError):
            os.close(self._fd)

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_open_outputs: weakref.WeakSet[Output] = weakref.WeakSet()


def _let_go_in_child() -> None:
    for output in list(_open_outputs):
        output.let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


def _open_locked(path: str) -> int:
    """Open a file and lock it; once more if it was replaced in between."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path}: expected a regular file for the output")
    while True:
        new = not os.path.exists(path)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _CLOEXEC, 0o666)
        try:
            _lock(fd, path)
            if os.path.exists(path) and os.path.samestat(os.fstat(fd), os.stat(path)):
                if new:
                    _sync_folder(path)
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _lock(fd: int, path: str) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(errno.EWOULDBLOCK, "another run is writing to this file", path) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise


def _sync_folder(path: str) -> None:
    """Make sure that a new or replaced file is still there after a power cut."""
    if sys.platform == "win32":
        return
    fd = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every file system can
            os.fsync(fd)
    finally:
        os.close(fd)


def _may_be_torn(line: bytes) -> bool:
    """Tell whether a file's only line can be the beginning of one of ours, or what a power cut made of it."""
    return line.startswith((FIRST_BYTES[: len(line)], b"\0"))


def _foreign(path: str, number: int, reason: str) -> ValueError:
    return ValueError(
        f"{path}: line {number} is no output of a batch ({reason}), and the file was left as it is;"
        " name another output, or mend the line"
    )
