"""Exclusive ownership of the connection under one response, for the call that reads it.

urllib3 returns a connection to its pool as soon as a response has been read to its end. It does so in three steps
(look, put, forget) that another thread, a signal or a finalizer can interrupt, after which two calls share a socket.
A lease therefore takes the connection away from urllib3's response (`_connection`, `_pool` and `_original_response` of
urllib3 2.x); only the lease returns or closes it. `tests/_http/test_lease.py` checks this.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import socket
import threading
from http.client import HTTPResponse
from typing import Any

from .._core.deadline import Deadline
from .connection import DeadlineReader, ResponseFile

_READ_SIZE = 64 * 1024


class Lease:
    """A connection while one response is read from it.

    A thread reads between `acquire` and `release`, and only there may it return the connection, with `finish`. `close`
    may be called at any time, from any thread, signal handler, finalizer or forked child: if no read is in progress, it
    closes the connection; otherwise it shuts down the socket, so that the reader wakes up and closes the connection.
    The lock is held for a few lines that never block. It is reentrant, since a signal handler may run between them;
    `close` is safe after each of these lines.
    """

    def __init__(self, raw: Any, deadline: Deadline | None) -> None:
        """Take over the connection of an unread urllib3 response; other responses have none."""
        self.closed = False
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._reading = False
        self._raw = raw
        self._connection: Any = None
        self._socket: Any = None
        self._holder: Any = None
        self._file: Any = None
        original = getattr(raw, "_original_response", None)
        self._original: HTTPResponse | None = original if isinstance(original, HTTPResponse) else None
        if self._original is not None and self._original.fp is not None:
            self._take_over(deadline)

    def _take_over(self, deadline: Deadline | None) -> None:
        original: Any = self._original
        raw = self._raw
        self._connection = raw._connection
        raw._connection = None
        self._socket = getattr(self._connection, "sock", None)
        if self._socket is None:
            # With `Connection: close` http.client has detached the socket; reading to the end closes it, and its
            # descriptor may belong to another call by the time we shut it down. A second file keeps it open until then.
            reader: Any = getattr(original.fp, "raw", None)
            self._socket = getattr(reader, "sock", None) or getattr(reader, "_sock", None)
            if self._socket is None:
                return
            self._holder = self._socket.makefile("rb", buffering=0)
        if not isinstance(original.fp, ResponseFile):
            original.fp = _wrap(original.fp, self._socket, deadline)
        self._file = original.fp

    @property
    def is_ours(self) -> bool:
        """Whether there was a connection to take over."""
        return self._file is not None

    def acquire(self) -> bool:
        """Begin to read; return `False` if the lease is closed, or was made before this process was forked."""
        if self._process != os.getpid():
            return False
        with self._lock:
            if self.closed:
                return False
            self._reading = True
            return True

    def release(self) -> None:
        """End reading, and close the connection if `close` was called meanwhile."""
        with self._lock:
            self._reading = False
        if self.closed:
            self._dispose()

    def finish(self) -> None:
        """Return the connection to its pool if the response was read completely and it is reusable; else close it.

        Called by the reader, before `release`.
        """
        reusable = self.is_reusable()
        with self._lock:
            connection, self._connection = self._connection, None
            reusable = reusable and connection is not None and not self.closed
            self.closed = True
        if reusable:
            self._raw._pool._put_conn(connection)
        else:
            self._connection = connection
            self._dispose()

    def is_reusable(self) -> bool:
        """Return whether the connection is reusable: the response is complete, and no unread bytes follow it."""
        original = self._original
        if original is None or self._file is None or self._holder is not None or original.will_close:
            return False
        if original.fp is not None or original.length not in (None, 0) or self._file.has_rest:
            return False
        return getattr(self._connection, "request_sent", True) and is_framing_certain(original)

    def drain(self, seconds: float) -> None:
        """Read the rest of the response, for at most this many seconds in total, and finish."""
        original = self._original
        if original is not None and self._file is not None and not original.will_close and is_framing_certain(original):
            reader: DeadlineReader = self._file.raw
            reader.deadline = Deadline(seconds if reader.deadline is None else reader.deadline.cap(seconds))
            while original.read1(_READ_SIZE):
                pass
            if original.length == 0:
                original.close()  # http.client does not, before Python 3.13 (cpython#113199)
        self.finish()

    def close(self) -> None:
        """End the response now. Returns at once and never raises; may be called repeatedly and from anywhere."""
        if self._process != os.getpid():
            self._close_descriptor()
            return
        self.closed = True
        with self._lock:
            if self._reading:
                if self._connection is not None or self._holder is not None:
                    _shut_down(self._socket)
                return
        self._dispose()

    def __del__(self) -> None:
        """Close the connection of a lease that is garbage-collected; no read can be in progress."""
        if getattr(self, "_connection", None) is None and getattr(self, "_holder", None) is None:
            return
        self._reading = False
        self.close()

    def _dispose(self) -> None:
        """Close the connection, once; the pool never sees it again."""
        with self._lock:
            connection, self._connection = self._connection, None
            holder, self._holder = self._holder, None
        if connection is None and holder is None:
            return
        for each in (self._raw, holder, connection):
            with contextlib.suppress(Exception):  # a failed close needs no handling
                if each is not None:
                    each.close()
        pool: Any = getattr(self._raw, "_pool", None)
        if getattr(pool, "block", False):
            # A blocking pool of the caller's counts its connections, this one included. Its queue has a lock, and this
            # may be a finalizer that interrupted the lock's holder, so another thread returns the slot.
            _thread.start_new_thread(pool._put_conn, (None,))

    def _close_descriptor(self) -> None:
        """Close a forked child's copy of the socket, without locks, which may never be released here."""
        with contextlib.suppress(Exception):
            os.close(self._socket.detach())


def is_framing_certain(response: HTTPResponse) -> bool:
    """Return whether both sides agree where a response ends (RFC 9112, 6.3); http.client is more lenient."""
    lengths = response.headers.get_all("Content-Length") or []
    codings = response.headers.get_all("Transfer-Encoding") or []
    if response.status < 200:
        return False
    if codings:
        return [coding.strip().lower() for coding in codings] == ["chunked"] and not lengths
    bodiless = response.status in (204, 304) or response._method == "HEAD"  # type: ignore[attr-defined]
    if len(lengths) != 1:
        return bodiless and not lengths
    length = lengths[0].strip()
    return length == "0" if bodiless else length.isascii() and length.isdigit()


def _wrap(file: Any, sock: Any, deadline: Deadline | None) -> ResponseFile:
    """Put our reader under a response of the caller's session, for its deadline and for detecting unread bytes."""
    limit = sock.gettimeout()
    head = b""
    sock.settimeout(0)  # else `peek` waits when nothing is buffered
    try:
        with contextlib.suppress(OSError):  # TLS raises when it would block
            head = file.peek(1)
    finally:
        sock.settimeout(limit)
    file.read(len(head))
    return ResponseFile(DeadlineReader(file.detach(), sock, deadline, head))


def _shut_down(sock: Any) -> None:
    """Wake the thread that reads from a socket. A TLS socket's own `shutdown` would drop the session in use."""
    plain = sock if isinstance(sock, socket.socket) else getattr(sock, "socket", None)  # urllib3's TLS within TLS
    with contextlib.suppress(OSError, TypeError):
        socket.socket.shutdown(plain, socket.SHUT_RDWR)  # type: ignore[arg-type]
