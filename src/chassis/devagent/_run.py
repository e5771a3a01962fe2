"""``chassis dev``: the agent as a process of its own."""

from __future__ import annotations

import asyncio
import errno
import json
import signal
import socket
from collections.abc import Callable

from chassis.core.errors import ConfigError
from chassis.devagent._agent import DevAgent
from chassis.devagent._app import DevAgentApp


def create_app(agent: DevAgent | None = None) -> DevAgentApp:
    """The agent as an ASGI application, for any server that runs it in one process.

    :param agent: the state to serve; a new, empty one by default.
    """
    return DevAgentApp(agent or DevAgent())


async def serve(
    host: str = "127.0.0.1",
    port: int = 8500,
    *,
    agent: DevAgent | None = None,
    ready: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
    origin: str = "the arguments",
) -> None:
    """Serve an agent until ``stop`` is set or the task is cancelled, then stop within a second.

    :param port: 0 takes any free one.
    :param agent: the state to serve; a new, empty one by default.
    :param ready: called with the address, e.g. ``http://127.0.0.1:8500``, once it listens; prints
        the ready line (see :func:`print_ready`) by default.
    :param origin: where host and port came from, for the message when they cannot be used.
    :raises ConfigError: nothing can listen there.
    """
    from chassis.devagent._server import Server

    server = Server(create_app(agent))
    try:
        await server.start(host, port)
    except (OSError, OverflowError) as error:
        raise _cannot_listen(host, port, origin, error) from None
    try:
        shown = f"[{server.host}]" if ":" in server.host else server.host
        (ready or print_ready)(f"http://{shown}:{server.port}")
        await (stop or asyncio.Event()).wait()
    finally:
        await server.stop()


def run(
    host: str = "127.0.0.1",
    port: int = 8500,
    *,
    agent: DevAgent | None = None,
    ready: Callable[[str], None] | None = None,
    origin: str = "the arguments",
) -> None:
    """:func:`serve` in a loop of its own until SIGINT or SIGTERM. For the main thread."""

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        await serve(host, port, agent=agent, ready=ready, stop=stop, origin=origin)

    asyncio.run(main())


def print_ready(address: str) -> None:
    """Print the one line that tells a parent process where the agent listens."""
    print(json.dumps({"service": "chassis-dev", "address": address}), flush=True)  # noqa: T201 - the ready line


def _cannot_listen(host: str, port: int, origin: str, error: OSError | OverflowError) -> ConfigError:
    if isinstance(error, OverflowError):
        return ConfigError(
            f"{port} is no port",
            setting="port",
            origin=origin,
            remedy="give one from 0 (any free one) to 65535",
        )
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"{host}:{port} is in use by another process",
            setting="port",
            origin=origin,
            remedy="end that process, or choose another port (0 takes any free one)",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return ConfigError(
            f"this process may not listen on port {port}",
            setting="port",
            origin=origin,
            remedy="choose one above 1023",
        )
    # From Python 3.13 on asyncio tells without a number that no address of the host could be bound.
    if error.errno in (errno.EADDRNOTAVAIL, None) or isinstance(error, socket.gaierror):
        return ConfigError(
            f"{host!r} is no address of this machine", setting="host", origin=origin, remedy="give 127.0.0.1"
        )
    return ConfigError(f"cannot listen on {host}:{port}: {error}", setting="port", origin=origin)
