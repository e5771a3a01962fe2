"""A process without HTTP of its own: signals, a port for its health and metrics, drain, flush."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from chassis.server import Address, Endpoints

_HEAD_LIMIT = 16_384
_HEAD_SECONDS = 5.0


async def run_worker(
    service: str,
    *,
    start: Callable[[], Any],
    drain: Callable[[], Any],
    stop: Callable[[], Any],
    endpoints: Endpoints,
    host: Callable[[], str],
    port: Callable[[], int],
) -> None:
    """Start, serve health until SIGTERM or SIGINT, then stop.

    Prints one JSON line with the service and the address of its health port once it runs.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        await start()
        server = await asyncio.start_server(_Probes(endpoints), host(), port(), limit=_HEAD_LIMIT)
        async with server:
            address = Address(*server.sockets[0].getsockname()[:2])
            sys.stdout.write(json.dumps({"service": service, "address": f"http://{address}"}) + "\n")
            sys.stdout.flush()
            await stopping.wait()
            await drain()
    finally:
        await stop()


class _Probes:
    """Answers the health and metrics paths, and nothing else; one request per connection."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(
            ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(_HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")
                method, _, rest = lines[0].partition(" ")
                path = rest.partition(" ")[0].partition("?")[0]
                headers = [
                    (name.strip().lower().encode("latin-1"), value.strip().encode("latin-1"))
                    for name, colon, value in (line.partition(":") for line in lines[1:])
                    if colon
                ]
                client = (writer.get_extra_info("peername") or ("",))[0]
                status, kind, body = await self._respond(method, path, headers, client)
                writer.write(
                    f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode("latin-1")
                )
                writer.write(b"" if method == "HEAD" else body)
                await writer.drain()
        writer.close()

    async def _respond(
        self, method: str, path: str, headers: list[tuple[bytes, bytes]], client: str
    ) -> tuple[int, str, bytes]:
        if method not in ("GET", "HEAD"):
            return 405, "text/plain", b"only GET and HEAD\n"
        if not self._endpoints.has(path):
            return 404, "text/plain", b"this port serves /livez, /readyz, /health and /metrics\n"
        return await self._endpoints.respond(path, headers, client)
