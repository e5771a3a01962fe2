"""The addresses of this machine, and which of them others are told."""

from __future__ import annotations

import ctypes
import os
import re
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

_INTERFACE = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,14}")
"""What begins with a digit is a mistyped network."""
_UP = 0x1
"""IFF_UP, which is the same everywhere."""
_FAMILY = (ctypes.c_ushort, 0) if sys.platform.startswith("linux") else (ctypes.c_ubyte, 1)
"""Type and place of an address's family: BSD, and so macOS, has a byte of length before a byte of family."""


class _Entry(ctypes.Structure):
    """What C's ``struct ifaddrs`` begins with, on Linux (glibc and musl) as on BSD."""


_Entry._fields_ = [
    ("next", ctypes.POINTER(_Entry)),
    ("interface", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
]


class MachineAddress(NamedTuple):
    """One address of this machine, and the interface that has it."""

    interface: str
    address: IPv4Address | IPv6Address

    def __str__(self) -> str:
        return f"{self.address} ({self.interface})"


def machine_addresses() -> list[MachineAddress]:
    """Those of all interfaces that are up, in the system's order.

    Without IPv6's link-local ones, which nobody can call who does not name an interface of their own. They
    are read by getifaddrs(3), which the standard library does not offer: the name of the machine leads to
    those that somebody wrote down, and a route only to the one that the kernel prefers.

    :raises OSError: the system does not tell.
    """
    library = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(_Entry)()
    if library.getifaddrs(ctypes.byref(first)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"getifaddrs: {os.strerror(number)}")
    try:
        return list(_read(first))
    finally:
        library.freeifaddrs(first)


def _read(entry: ctypes._Pointer[_Entry]) -> Iterator[MachineAddress]:
    kind, place = _FAMILY
    while bool(entry):  # a null pointer is the list's end
        each = entry.contents
        entry = each.next
        if not each.address or not each.flags & _UP:
            continue
        family = kind.from_address(each.address + place).value
        # After family and port (RFC 3493); in IPv6 a flow label stands between.
        if family == socket.AF_INET:
            address = ip_address(ctypes.string_at(each.address + 4, 4))
        elif family == socket.AF_INET6:
            address = ip_address(ctypes.string_at(each.address + 8, 16))
            if address.is_link_local:
                continue
        else:
            continue
        yield MachineAddress(os.fsdecode(each.interface), address)


def address_in(networks: Iterable[str], addresses: Sequence[MachineAddress], listening: str) -> str | None:
    """The first of ``addresses`` in the first of ``networks`` that has any; None if none has.

    :param networks: each a network (``10.0.0.0/8``), an address or the name of an interface.
    :param listening: the wildcard address listened on. ``0.0.0.0`` takes no connections over IPv6;
        whether ``::`` takes any over IPv4 is the server's choice, so that IPv6 comes first there.
    """
    usable = list(addresses)
    if listening == "::":
        usable.sort(key=lambda each: -each.address.version)
    else:
        usable = [each for each in usable if each.address.version == 4]
    for text in networks:
        network = parse_network(text)
        for each in usable:
            if each.interface == text if network is None else each.address in network:
                return str(each.address)
    return None


def parse_network(text: str) -> IPv4Network | IPv6Network | None:
    """The network, or the one address, that ``text`` is; None if it is the name of an interface.

    :raises ValueError: it is neither.
    """
    try:
        return ip_network(text, strict=False)
    except ValueError:
        if not _INTERFACE.fullmatch(text):
            raise
        return None
