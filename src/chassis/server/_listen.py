"""Where this process listens, found out without the server's help.

At lifespan start-up no server has told its socket yet, and none tells it later. The process looks
at its own file descriptors instead, which works under every server, started by whatever means.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path

PROBE_PATH = "/.well-known/chassis"
"""Answered by the edge with the service's name and the process, before the application."""


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address this process accepts connections on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listening_addresses() -> list[Address]:
    """The TCP sockets of this process that accept connections, in the order they were opened."""
    found: list[Address] = []
    for name in sorted((each.name for each in Path("/dev/fd").iterdir()), key=int):
        try:
            with _duplicate(int(name)) as candidate:
                if not candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    continue
                if candidate.family in (socket.AF_INET, socket.AF_INET6):
                    host, port = candidate.getsockname()[:2]
                    found.append(Address(host, port))
        except OSError:
            # Not a socket, or closed since it was listed.
            continue
    return list(dict.fromkeys(found))


def _duplicate(descriptor: int) -> socket.socket:
    """A socket of its own, so that closing it leaves the server's descriptor alone.

    :raises OSError: it is no socket, or closed.
    """
    duplicate = os.dup(descriptor)
    try:
        return socket.socket(fileno=duplicate)
    except OSError:
        # Not closed by the constructor that failed.
        os.close(duplicate)
        raise


def reachable_host(host: str) -> str:
    """An address under which a socket bound to ``host`` is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


async def answers_as(service: str, address: Address, timeout: float = 1.0) -> bool:
    """Whether this very process serves ``service`` on ``address``, over plain HTTP.

    Workers that share a socket answer for one another, and so may the children of a process that
    only listens: the answer tells which process it came from.
    """
    host = reachable_host(address.host)
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, address.port)
            try:
                writer.write(
                    f"GET {PROBE_PATH} HTTP/1.1\r\nHost: {service}\r\nConnection: close\r\n\r\n".encode()
                )
                await writer.drain()
                answer = await reader.read(65_536)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        return False
    try:
        told = json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])
        return bool(told == {"service": service, "pid": os.getpid()})
    except ValueError:
        return False


async def find_own_address(service: str) -> Address:
    """Wait until this process serves ``service`` on one of its sockets, and say which.

    It looks often at first, as most processes serve at once, and then ever less.
    """
    pause = 0.01
    while True:
        for address in listening_addresses():
            if await answers_as(service, address):
                return address
        await asyncio.sleep(pause)
        pause = min(1.0, pause * 1.1)
