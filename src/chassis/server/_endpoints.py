from __future__ import annotations

import hmac
import json
import os
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any

from chassis.health import CONTENT_TYPE as HEALTH_TYPE
from chassis.health import Health
from chassis.metrics import exposition
from chassis.server._asgi_types import Scope, Send
from chassis.server._listen import PROBE_PATH

PATHS = frozenset({"/livez", "/readyz", "/health", "/metrics", PROBE_PATH})
"""What the edge answers itself, before the application."""

_BEHIND_A_PROXY = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip"})


class Endpoints:
    """What the edge answers itself: ``/livez``, ``/readyz``, ``/health``, ``/metrics``, the self-probe.

    :param token: returns the token that shows ``/health`` in full from anywhere; None for none.
    :param describe: what ``/health`` tells beyond its checks to who may see details.
    """

    def __init__(
        self,
        service: str,
        health: Health,
        *,
        token: Callable[[], str | None],
        describe: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._service = service
        self._health = health
        self._token = token
        self._describe = describe

    def has(self, path: str) -> bool:
        """Whether ``path`` is one of them."""
        return path in PATHS

    async def answer(self, scope: Scope, send: Send) -> bool:
        """Answer the request if it is for one of them; says whether it was."""
        path = scope["path"]
        if path not in PATHS or scope["method"] not in ("GET", "HEAD"):
            return False
        status, content_type, body = await self.respond(
            path, list(scope["headers"]), (scope.get("client") or ("", 0))[0]
        )
        headers = [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body if scope["method"] == "GET" else b""})
        return True

    async def respond(
        self, path: str, headers: list[tuple[bytes, bytes]], client: str
    ) -> tuple[int, str, bytes]:
        """Status, content type and body for one of the paths."""
        if path == "/metrics":
            accept = b",".join(value for name, value in headers if name == b"accept").decode("latin-1")
            page = await exposition(accept)
            return 200, page.content_type, page.body
        if path == PROBE_PATH:
            return (
                200,
                "application/json",
                json.dumps({"service": self._service, "pid": os.getpid()}).encode(),
            )
        if path == "/livez":
            answer = self._health.live()
        elif path == "/readyz":
            answer = self._health.ready()
        else:
            details = self._may_see_details(headers, client)
            answer = self._health.report(details=details, more=self._describe() if details else None)
        return answer.status, HEALTH_TYPE, answer.body

    def _may_see_details(self, headers: list[tuple[bytes, bytes]], client: str) -> bool:
        """Whether the caller is this machine itself, or has the token.

        A proxy on this machine speaks for others, so what it forwards is no loopback call.
        """
        token = self._token()
        if token is not None:
            for name, value in headers:
                if name == b"authorization" and hmac.compare_digest(value, f"Bearer {token}".encode()):
                    return True
        if any(name in _BEHIND_A_PROXY for name, _ in headers):
            return False
        try:
            return ip_address(client).is_loopback
        except ValueError:
            return False
