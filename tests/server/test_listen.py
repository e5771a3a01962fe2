"""How a process finds out where it listens."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from chassis.server._listen import Address, listening_addresses


def test_looking_for_the_own_listener_leaves_no_descriptor_open() -> None:
    """It looks many times where there is none; a descriptor left each time doubles them each time."""
    read, write = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = listening_addresses()
        before = sorted(Path("/dev/fd").iterdir())
        for _ in range(3):
            assert listening_addresses() == found
        assert sorted(Path("/dev/fd").iterdir()) == before
        assert Address(*server.getsockname()) in found
        os.write(write, b"x")
        assert os.read(read, 1) == b"x"
    os.close(read)
    os.close(write)
