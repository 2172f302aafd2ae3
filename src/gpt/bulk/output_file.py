"""The output file of a batch: locked, repaired, only ever appended to or replaced as a whole.

Each line is written at once and in one call, so killing the process loses none; every few seconds and at the
end the file is forced to the disk, so that a power cut loses no more than those seconds.

On Windows there is no lock: `msvcrt.locking` would keep others from reading the file, too.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import stat
import sys
import tempfile
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from types import TracebackType

from .batch_format import FIRST_BYTES, parse_output_line
from .finished import FinishedLines

SYNC_SECONDS = 5.0
COPY_SUFFIX = ".gpt-rewriting"
"""The suffix of the copies that `retry_errors` makes in the output's folder: `.NAME.12345678.gpt-rewriting`."""

_LOCKING_UNSUPPORTED = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)
_CLOSED = -1


class OutputFile:
    """An output file, open for appending by this run alone."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        retry_errors: bool,
        clock: Callable[[], float] = time.monotonic,
        sync: Callable[[int], None] = os.fsync,
    ) -> None:
        """Open or create it; repair an incomplete last line; with `retry_errors`, remove the failed lines.

        Args:
            path: a regular file, or nothing yet.
            retry_errors: whether failed lines are taken out.
            clock: seconds since any moment.
            sync: forces the file of a descriptor to the disk.

        Raises:
            BlockingIOError: another run is writing to it.
            ValueError: it is not the output of a batch.
            OSError: it cannot be read or written.
        """
        self.finished = FinishedLines()
        """All lines in it."""
        self.answered = 0
        self.errors: Counter[str] = Counter()
        """How many lines failed, by the code of their error."""
        self.path = os.path.realpath(path)
        self._clock = clock
        self._sync_fd = sync
        self._synced = clock()
        self._fd = _CLOSED
        _open_files.add(self)
        try:
            self._fd, is_new = _open_locked(self.path)
            if is_new:
                self._sync_folder()
            self._read(retry_errors)
            if retry_errors and self.errors:
                self._remove_failed()
        except BaseException:
            self.close_descriptor()
            raise

    @property
    def failed(self) -> int:
        """How many lines failed."""
        return self.errors.total()

    def append(self, line: bytes, *, error_code: str | None) -> None:
        """Write a line and count it; `error_code` is `None` for one with a completion.

        Raises:
            OSError: it could not be written completely; the file then ends with the previous line.
        """
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - (len(line) - len(rest)))
            advice = f"{error.strerror}; {self.answered + self.failed} lines are safe: make room and run this again"
            raise OSError(error.errno, advice, self.path) from None
        self._count(error_code)
        if self._clock() - self._synced >= SYNC_SECONDS:
            self._sync()

    def _count(self, error_code: str | None) -> None:
        if error_code is None:
            self.answered += 1
        else:
            self.errors[error_code] += 1

    def _sync(self) -> None:
        self._sync_fd(self._fd)
        self._synced = self._clock()

    def _sync_folder(self) -> None:
        """Make sure that a new or replaced file is still there after a power cut."""
        if sys.platform == "win32":
            return
        fd = os.open(os.path.dirname(self.path), os.O_RDONLY | _CLOEXEC)
        try:
            with contextlib.suppress(OSError):  # not every file system can
                self._sync_fd(fd)
        finally:
            os.close(fd)

    def _read(self, retry_errors: bool) -> None:
        """Record the lines in the file, and repair its end."""
        end = 0
        add_id = self.finished.add_id
        for number, line in enumerate(self._lines(), 1):
            try:
                custom_id, known_by, code = parse_output_line(line)
            except ValueError as error:
                if line.endswith(b"\n") or (number == 1 and not _may_be_truncated(line)):
                    raise _not_a_batch_output(self.path, number, str(error)) from None
                os.ftruncate(self._fd, end)
                return
            self._count(code)
            is_sent_again = retry_errors and code is not None
            if custom_id is not None and not is_sent_again:
                add_id(custom_id)
            elif known_by is not None and not is_sent_again:
                self.finished.add_line(*known_by)
            end += len(line)
            if not line.endswith(b"\n"):
                os.write(self._fd, b"\n")
                return

    def _lines(self) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            yield from file

    def _remove_failed(self) -> None:
        """Atomically replace the file with a copy without its failed lines."""
        folder, name = os.path.split(self.path)
        for left_over in glob.glob(f".{glob.escape(name)}.*{COPY_SUFFIX}", root_dir=folder):
            with contextlib.suppress(OSError):  # left by a run that was killed here
                os.unlink(os.path.join(folder, left_over))
        fd, copy = tempfile.mkstemp(prefix=f".{name}.", suffix=COPY_SUFFIX, dir=folder)
        try:
            # mkstemp makes it readable only by the user; it gets the output's mode before its first line.
            with open(fd, "wb") as file:
                os.chmod(copy, stat.S_IMODE(os.fstat(self._fd).st_mode))
                file.writelines(line for line in self._lines() if parse_output_line(line).error_code is None)
                file.flush()
                self._sync_fd(fd)
            self._replace_by(copy)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.unlink(copy)
            if isinstance(error, OSError):
                raise OSError(error.errno, f"{error.strerror}; the output is as it was", copy) from None
            raise
        self._sync_folder()
        self.errors.clear()

    def _replace_by(self, copy: str) -> None:
        """Replace the output with the copy, and continue writing there."""
        if sys.platform == "win32":  # where a file that is open cannot be replaced
            self.close_descriptor()
            os.replace(copy, self.path)
            self._fd = os.open(self.path, _FLAGS)
            _open_files.add(self)
            return
        # Lock it before it is visible under the output's name.
        fd = os.open(copy, _FLAGS & ~os.O_CREAT)
        try:
            _lock(fd, copy)
            os.replace(copy, self.path)
        except BaseException:
            os.close(fd)
            raise
        old, self._fd = self._fd, fd
        os.close(old)

    def close(self) -> None:
        """Force the file to the disk and close it."""
        try:
            self._sync()
        finally:
            _unlock(self._fd)
            self.close_descriptor()

    def close_descriptor(self) -> None:
        """Close it without syncing; also called in a forked child, which would otherwise keep the parent's lock."""
        _open_files.discard(self)
        # Cleared before it is closed: a fork in between must not close what another thread opens under this number.
        fd, self._fd = self._fd, _CLOSED
        if fd != _CLOSED:
            with contextlib.suppress(OSError):
                os.close(fd)

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
# O_BINARY is Windows', which otherwise writes \r\n, and then lengths of lines are not lengths in the file.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | _CLOEXEC | getattr(os, "O_BINARY", 0)
_open_files: weakref.WeakSet[OutputFile] = weakref.WeakSet()


def _close_in_child() -> None:
    for file in list(_open_files):
        file.close_descriptor()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def _open_locked(path: str) -> tuple[int, bool]:
    """Open and lock a file, again if it was replaced in between; also return whether it is new."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path}: expected a regular file for the output")
    while True:
        is_new = not os.path.exists(path)
        fd = os.open(path, _FLAGS, 0o666)
        try:
            _lock(fd, path)
            if os.path.exists(path) and os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd, is_new
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
        if error.errno not in _LOCKING_UNSUPPORTED:
            raise


def _unlock(fd: int) -> None:
    """Release the lock for all copies of a descriptor: a child that was forked just now may not have closed its own."""
    if sys.platform == "win32":
        return
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)


def _may_be_truncated(line: bytes) -> bool:
    """Return whether a file's only line may be a truncated one of ours, or NULs that a power cut left."""
    return line.startswith((FIRST_BYTES[: len(line)], b"\0"))


def _not_a_batch_output(path: str, number: int, reason: str) -> ValueError:
    return ValueError(
        f"{path}: line {number} is not from a batch's output ({reason}), and the file was left as it is;"
        " name another output, or fix the line"
    )
