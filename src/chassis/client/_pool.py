"""Connections to one instance over the stock transport of the HTTP module.

One pool per instance: stock pools scan all their connections on every request, so many small ones
cost a fraction of one large one, and a departed instance's connections can be closed at once.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import weakref
from typing import Any

from chassis.client._module import HTTPModule
from chassis.core.forks import tell_after_fork


class InstancePool:
    """The pools to one instance: one for each event loop, one for threads.

    An async connection belongs to the loop that opened it and is let go when another loop comes after
    that one was closed. No connection survives a fork: in a child the same file descriptors lead to
    the parent's conversations.

    :param keepalive: seconds an idle connection is kept.
    :param verify: the TLS context; False where all connections are plain.
    """

    def __init__(
        self, http: HTTPModule, *, max_connections: int, keepalive: float, verify: ssl.SSLContext | bool
    ) -> None:
        self.http = http
        self._max_connections = max_connections
        self._keepalive = keepalive
        self._verify = verify
        self._lock = threading.Lock()
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()
        self._slots: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            weakref.WeakKeyDictionary()
        )
        self._sync: Any = None
        self._inherited: list[Any] = []
        tell_after_fork(self)

    def async_transport(self) -> Any:
        """The pool of the running loop."""
        loop = asyncio.get_running_loop()
        transport = self._by_loop.get(loop)
        if transport is None:
            with self._lock:
                self._forget_closed_loops()
                transport = self._by_loop[loop] = self.http.module.AsyncHTTPTransport(**self._settings())
        return transport

    def slots(self) -> asyncio.Semaphore:
        """As many as connections, for the running loop: who holds one need not wait in the pool."""
        loop = asyncio.get_running_loop()
        slots = self._slots.get(loop)
        if slots is None:
            with self._lock:
                slots = self._slots[loop] = asyncio.Semaphore(self._max_connections)
        return slots

    def sync_transport(self) -> Any:
        """The pool shared by all threads of this process."""
        sync = self._sync
        if sync is None:
            with self._lock:
                sync = self._sync
                if sync is None:
                    sync = self._sync = self.http.module.HTTPTransport(**self._settings())
        return sync

    def after_fork_in_child(self) -> None:
        """Begin with no connections.

        The parent's are neither used nor closed here: closing takes locks that a thread of the
        parent may have held, and tells TLS peers something.
        """
        self._inherited += [*self._by_loop.values(), self._sync]
        self._lock = threading.Lock()
        self._by_loop = weakref.WeakKeyDictionary()
        self._slots = weakref.WeakKeyDictionary()
        self._sync = None

    def _forget_closed_loops(self) -> None:
        # The weak keys do not do that: a connection holds its loop.
        for by_loop in (self._by_loop, self._slots):
            for loop in [each for each in by_loop if each.is_closed()]:
                del by_loop[loop]

    def _settings(self) -> dict[str, Any]:
        return {
            "verify": self._verify,
            "trust_env": False,
            "limits": self.http.module.Limits(
                max_connections=self._max_connections,
                max_keepalive_connections=self._max_connections,
                keepalive_expiry=self._keepalive,
            ),
        }

    def close(self) -> None:
        """Close all connections, each in its own loop. Safe from any thread."""
        with self._lock:
            transports = list(self._by_loop.items())
            self._by_loop.clear()
        for loop, transport in transports:
            if not loop.is_closed():
                try:
                    loop.call_soon_threadsafe(_close_in_loop, transport)
                except RuntimeError:
                    # The loop closed in between, and its sockets with it.
                    continue
        sync, self._sync = self._sync, None
        if sync is not None:
            sync.close()


_closing: set[asyncio.Task[None]] = set()


def _close_in_loop(transport: Any) -> None:
    task = asyncio.get_running_loop().create_task(transport.aclose())
    _closing.add(task)
    task.add_done_callback(_closing.discard)
