"""This process in the registry: one registration per listening address, however many workers serve it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from chassis.core import Registered, Registrar, Registration, Status
from chassis.server import Address
from chassis.service._options import RegistrationOptions

_ANY = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not bound to
_ANYWHERE = (("192.0.2.1", 80), ("2001:db8::1", 80))
"""Addresses that only stand for the rest of the world (RFC 5737, RFC 3849): the way to them is the way out."""


class SharedRegistration:
    """The registration of one address, shared by all worker processes that serve it.

    Each registers the same id, which is one registration to the registry, and holds a shared lock
    on a file named for the address. Who leaves last removes the registration; who leaves before
    that only stops its heartbeat.

    :param lock: the file's descriptor; None where there can be no such file. Then the first to leave
        removes the registration, and those that stay find it gone and register again.
    """

    def __init__(self, registered: Registered, lock: int | None) -> None:
        self.registered = registered
        self._lock = lock

    async def leave(self) -> None:
        """Leave the registry, or leave it to the workers that stay. Never raises; at most 3 s."""
        try:
            if self._lock is not None and _others_hold(self._lock):
                await self.registered.abandon()
            else:
                await self.registered.deregister()
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None


def _hold(service: str, port: int) -> int | None:
    """Take the shared lock, once nobody is about to remove the registration. Blocks until then."""
    try:
        # Many containers have no folder that can be written to; then this raises, too.
        path = Path(tempfile.gettempdir(), f"chassis-{os.getuid()}-{service}-{port}.lock")
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
    except OSError:  # a file system without locks
        os.close(lock)
        return None
    return lock


def _others_hold(lock: int) -> bool:
    """Whether other workers hold the lock; if not, nobody can take it until it is closed."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


async def register(
    registrar: Registrar,
    service: str,
    address: Address,
    options: RegistrationOptions,
    readiness: Callable[[], tuple[Status, str]],
    registry_url: str,
) -> SharedRegistration:
    """Announce ``service`` at ``address``.

    :param registry_url: where the registry is; the way to it tells this machine's address when the
        process listens on all of them.
    """
    host = options.host or address.host
    if host in _ANY:
        # In a thread: a name server may take its time.
        host = await asyncio.to_thread(_local_address, registry_url)
    port = options.port or address.port
    # Before it is registered, or a worker that leaves would remove what has just been announced; in a
    # thread, since that takes as long as the registry lets the other wait.
    lock = await asyncio.to_thread(_hold, service, address.port)
    try:
        registered = await registrar.register(
            Registration(
                service=service,
                # The same after a restart, so that a process takes the place of its own ghost.
                id=f"{service}:{host}:{port}",
                host=host,
                port=port,
                tags=options.tags,
                zone=options.zone,
                meta=options.meta,
                weight=options.weight,
                readiness=readiness,
            )
        )
    except BaseException:
        if lock is not None:
            os.close(lock)
        raise
    return SharedRegistration(registered, lock)


def _local_address(url: str) -> str:
    """The address of this machine on the way to ``url``, or else on the way to anywhere.

    A registry whose name is not known at the start must not keep the process from being announced when it
    comes.
    """
    parts = urlsplit(url)
    for target in ((parts.hostname or "127.0.0.1", parts.port or 80), *_ANYWHERE):
        try:
            family = socket.getaddrinfo(*target, type=socket.SOCK_DGRAM)[0][0]
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                # Connecting a datagram socket sends nothing; it only chooses the route.
                probe.connect(target)
                return str(probe.getsockname()[0])
        except (OSError, UnicodeError):
            continue
    return "127.0.0.1"
