"""This process in the registry: one registration per listening address, however many workers serve it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from chassis.core import Event, Level, Registered, Registrar, Registration, Status, events
from chassis.server import Address
from chassis.service._options import RegistrationOptions

if TYPE_CHECKING:
    from chassis.service._addresses import MachineAddress

_LOOK_AGAIN = 1.0
_ANY = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not bound to
_ANYWHERE = (("192.0.2.1", 80), ("2001:db8::1", 80))
"""Addresses that only stand for the rest of the world (RFC 5737, RFC 3849): the way to them is the way out."""


@dataclass(frozen=True, kw_only=True)
class AddressMissing(Event):
    """No address of this machine is in the networks that ``subject`` is to be registered in.

    It serves, but is not registered before there is one, which is looked for each second.

    :param networks: those that were set.
    :param addresses: what there is, with the interfaces.
    """

    name: ClassVar[str] = "registration.address_missing"
    level: ClassVar[Level] = "error"

    networks: tuple[str, ...]
    addresses: tuple[str, ...]


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


async def _held(service: str, port: int) -> int | None:
    """The shared lock, taken in a thread: that takes as long as the registry lets the other wait."""
    executor = ThreadPoolExecutor(1, "chassis-lock")
    holding = executor.submit(_hold, service, port)
    executor.shutdown(wait=False)
    try:
        return await asyncio.wrap_future(holding)
    except asyncio.CancelledError:
        # The thread waits on, and what it gets would be nobody's, and held until the process ends.
        holding.add_done_callback(_let_go)
        raise


def _let_go(holding: Future[int | None]) -> None:
    lock = None if holding.cancelled() else holding.result()
    if lock is not None:
        os.close(lock)


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
        if options.networks:
            host = await host_in(options.networks, service, host)
        else:
            # In a thread: a name server may take its time.
            host = await asyncio.to_thread(_local_address, registry_url, host)
    port = options.port or address.port
    # Before it is registered, or a worker that leaves would remove what has just been announced.
    lock = await _held(service, address.port)
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


async def host_in(
    networks: tuple[str, ...],
    service: str,
    listening: str,
    addresses: Callable[[], list[MachineAddress]] | None = None,
) -> str:
    """This machine's address in ``networks``, once it has one: an interface may come up after the process.

    :param listening: the wildcard address listened on.
    :param addresses: in place of asking the system.
    """
    from chassis.service._addresses import address_in, machine_addresses

    told = False
    while True:
        known = (addresses or machine_addresses)()
        found = address_in(networks, known, listening)
        if found is not None:
            return found
        if not told:
            events.emit(AddressMissing(subject=service, networks=networks, addresses=tuple(map(str, known))))
            told = True
        await asyncio.sleep(_LOOK_AGAIN)


def _local_address(url: str, listening: str) -> str:
    """The address of this machine on the way to ``url``, or else on the way to anywhere.

    A registry whose name is not known at the start must not keep the process from being announced when it
    comes.

    :param listening: the wildcard address listened on. Who listens on ``0.0.0.0`` is not reached by IPv6.
    """
    parts = urlsplit(url)
    kind = socket.AF_INET if listening == "0.0.0.0" else socket.AF_UNSPEC  # noqa: S104 - compared with
    for target in ((parts.hostname or "127.0.0.1", parts.port or 80), *_ANYWHERE):
        try:
            family = socket.getaddrinfo(*target, family=kind, type=socket.SOCK_DGRAM)[0][0]
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                # Connecting a datagram socket sends nothing; it only chooses the route.
                probe.connect(target)
                return str(probe.getsockname()[0])
        except (OSError, UnicodeError):
            continue
    return "127.0.0.1"
