"""Our own requests session: a wide pool, TCP keep-alive, no cookies, and deadlines that hold against slow servers.

It is only used when the caller gives no session. It must not override `Session.send` or `HTTPAdapter.send`, where
tracing and mocking libraries take hold.
"""

from __future__ import annotations

import io
import os
import queue
import socket
import sys
import threading
import weakref
from collections.abc import Iterator
from functools import cache, partial
from http.client import HTTPResponse
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import Timeout

from .._core.deadline import Deadline

_POOL_WIDTH = 512
_HOSTS = 64
_CACHED_POOLS = 32
_SHORTEST = 0.001
_JOINED = 64 * 1024
_PLAIN_CONNECTIONS = (HTTPConnection, HTTPSConnection)

_calling = threading.local()


class DefaultSession(requests.Session):
    """A session that is shared by threads and does nothing that was not asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.cookies = _NoCookies()
        self._mount()
        _sessions.add(self)

    def _mount(self) -> None:
        adapter = _Adapter()
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def resolve_redirects(self, *_: Any, **__: Any) -> Iterator[Any]:  # type: ignore[override]
        """Follow no redirect: a followed POST becomes a GET without its body, and the key travels."""
        return iter(())


class _NoCookies(RequestsCookieJar):
    """A jar that stays empty, so that threads and tenants share nothing."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        pass


class DeadlineTimeout(Timeout):
    """A urllib3 timeout that also carries a deadline to the sockets of our own pools."""

    def __init__(self, deadline: Deadline, connect: float | None, read: float | None) -> None:
        super().__init__(connect=connect, read=read)
        self.deadline = deadline

    def clone(self) -> DeadlineTimeout:
        return DeadlineTimeout(self.deadline, self._connect, self._read)  # type: ignore[arg-type]

    @property
    def connect_timeout(self) -> float:
        return max(_SHORTEST, self.deadline.cap(self._connect))  # type: ignore[arg-type]

    @property
    def read_timeout(self) -> float:
        return self.deadline.cap(self._read)  # type: ignore[arg-type]


class _Adapter(HTTPAdapter):
    """An adapter that finds its pool by URL and keeps connections alive through NAT and idle servers."""

    def __init__(self) -> None:
        self._pools: dict[str | None, Any] = {}
        self._paths: dict[str | None, str] = {}
        super().__init__(pool_connections=_HOSTS, pool_maxsize=_POOL_WIDTH)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, socket_options=_socket_options(), **kwargs)
        _use_our_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not known:
            _use_our_pools(manager)
        return manager

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        """Look the pool up by URL: verification, certificate and proxy of a URL never change in our session."""
        pool = self._pools.get(request.url)
        if pool is None:
            pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
            super().cert_verify(pool, request.url, verify, cert)
            if len(self._pools) >= _CACHED_POOLS:
                self._forget()
            self._pools[request.url] = pool
        return pool

    def request_url(self, request: Any, proxies: Any) -> str:
        """Look up what the request line says of a URL: its path, or all of it for a proxy."""
        path = self._paths.get(request.url)
        if path is None:
            path = self._paths[request.url] = super().request_url(request, proxies)
        return path

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Do nothing: it is done once, when the pool is found."""

    def close(self) -> None:
        for pool in list(self._pools.values()):
            _hang_up(pool)
        self._forget()
        super().close()

    def _forget(self) -> None:
        self._pools.clear()
        self._paths.clear()


def _hang_up(pool: Any) -> None:
    """Close a pool's idle connections now; urllib3 waits until nobody holds one of its answers any more."""
    waiting = pool.pool
    try:
        while waiting is not None:
            if connection := waiting.get(block=False):
                connection.close()
    except queue.Empty:
        pass


class _OurPool:
    """Mixed into urllib3's pools: a request goes out in one piece, and a deadline is kept by `_DeadlineReader`."""

    def urlopen(self, *args: Any, **kwargs: Any) -> Any:
        timeout = kwargs.get("timeout")
        _calling.deadline = timeout.deadline if isinstance(timeout, DeadlineTimeout) else None
        return super().urlopen(*args, **kwargs)  # type: ignore[misc]

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection = super()._get_conn(timeout)  # type: ignore[misc]
        if type(connection) in _PLAIN_CONNECTIONS and "send" not in vars(connection):
            connection.send = _Sender(connection)
        deadline = _calling.deadline
        if deadline is not None:
            connection.response_class = partial(_deadline_response, deadline)
        elif connection.response_class is not HTTPConnection.response_class:
            connection.response_class = HTTPConnection.response_class
        return connection


class _Sender:
    """Send the head of a request together with its body: one system call and one packet instead of two.

    http.client sends them apart, and urllib3 turns off the delay by which TCP would join them.
    """

    def __init__(self, connection: Any) -> None:
        self._send = weakref.WeakMethod(connection.send)
        self._head = b""

    def __call__(self, data: Any) -> None:
        send: Any = self._send()
        if isinstance(data, bytes):
            if data.startswith(b"POST ") and data.endswith(b"\r\n\r\n"):
                self._head = data
                return
            if self._head and len(data) <= _JOINED:
                data, self._head = self._head + data, b""
        if self._head:
            send(self._head)
            self._head = b""
        send(data)


def _deadline_response(deadline: Deadline, sock: socket.socket, *args: Any, **kwargs: Any) -> HTTPResponse:
    response = HTTPResponse(sock, *args, **kwargs)
    response.fp = io.BufferedReader(_DeadlineReader(response.fp.detach(), sock, deadline))
    return response


class _DeadlineReader(io.RawIOBase):
    """Read from a socket and give each read only the time that is left."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: Deadline) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = deadline
        self._limit = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._deadline.expired:
            raise TimeoutError("the deadline has passed")
        self._sock.settimeout(max(_SHORTEST, self._deadline.cap(self._limit)))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        try:
            self._raw.close()
        finally:
            super().close()


@cache
def _our_pool_class(pool_class: type[Any]) -> type[Any]:
    return type(pool_class.__name__, (_OurPool, pool_class), {})


def _use_our_pools(manager: Any) -> None:
    classes = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: _our_pool_class(cls) for scheme, cls in classes.items()}


def _socket_options() -> list[tuple[int, int, int]]:
    """Notice within minutes that the other side is gone; urllib3's own options do not."""
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    idle = "TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE"
    for name, value in ((idle, 60), ("TCP_KEEPINTVL", 30), ("TCP_KEEPCNT", 5)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


_sessions: weakref.WeakSet[DefaultSession] = weakref.WeakSet()


def _renew_after_fork() -> None:
    """Open connections of our own in a child process: the parent's must not be shared."""
    for session in list(_sessions):
        session._mount()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)
