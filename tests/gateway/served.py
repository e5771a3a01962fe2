"""A gateway as a server process: its one service is at the address in ``UPSTREAM``."""

from __future__ import annotations

import os
from typing import Any

import httpx2

from chassis.gateway import Gateway


class OneAddress:
    """Sends everything to one address over the stock transport."""

    def __init__(self) -> None:
        self.transport: Any = None

    async def send(self, service: str, request: httpx2.Request) -> httpx2.Response:
        if self.transport is None:
            self.transport = httpx2.AsyncHTTPTransport(verify=False, trust_env=False)
        host, _, port = os.environ["UPSTREAM"].partition(":")
        request.url = request.url.copy_with(host=host, port=int(port))
        return await self.transport.handle_async_request(request)


app = Gateway(
    {
        "routes": [{"path": "/{rest:path}", "service": "raw"}],
        "max_body": 1000_000,
    },
    OneAddress(),
)
