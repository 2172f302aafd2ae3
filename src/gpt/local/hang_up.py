"""End the connections of an HTTP server that runs in this process and offers no way to end them."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from collections.abc import Iterator

PATIENCE_SECONDS = 10.0
POLL_SECONDS = 0.01
QUIET_POLLS = 5


def hang_up(address: tuple[str, int]) -> bool:
    """Shut the sockets bound to an IPv4 address until no connection is left; return whether that came true in time.

    The listening socket goes too, so that no new connection takes an old one's place. Where the system does not list
    a process's descriptors (Windows), nothing is found and the answer is True.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    quiet_polls = 0
    while quiet_polls < QUIET_POLLS and time.monotonic() < end:
        connections = sum(_shut(ours) for ours in _sockets(address))
        quiet_polls = 0 if connections else quiet_polls + 1
        time.sleep(POLL_SECONDS)
    return quiet_polls == QUIET_POLLS


def _sockets(address: tuple[str, int]) -> Iterator[socket.socket]:
    """Yield a duplicate of each socket of this process that is bound to the address."""
    for name in os.listdir("/dev/fd") if os.path.isdir("/dev/fd") else ():
        with contextlib.suppress(OSError):  # closed since it was listed
            # Only a socket is duplicated: closing a duplicate of a file would release the process's locks on it.
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as ours:
                    if ours.family == socket.AF_INET and ours.getsockname() == address:
                        yield ours


def _shut(ours: socket.socket) -> bool:
    """Shut a socket in both directions; return whether it was a connection, not the listener."""
    listening = ours.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    with contextlib.suppress(OSError):  # the other side was first
        ours.shutdown(socket.SHUT_RDWR)
    return not listening
