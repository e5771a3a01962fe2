"""The demo's switches: how the story makes a service fail or hang. The services know nothing of them.

``chassis run examples.shop.switches:payments`` serves ``examples.shop.payments:app`` with a switch
inside: ``POST /switch?mode=fail`` makes it answer 503 after 0.2 s, ``hang`` not at all, ``ok`` as it
should. ``GET /switch`` tells how many requests have arrived while it was not ``ok``.

With ``SHOP_WITHOUT_DRAIN`` set, services and gateway stop as they would without a chassis.
"""

import asyncio
import importlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from chassis import Chassis, Gateway

SLOW = {"orders": 0.25}
"""Seconds a POST takes longer: a warehouse that confirms, so that orders are under way when a process stops."""

TROUBLED = b'{"error": "switched to fail"}'


class Switch:
    """What the story has asked of one service."""

    def __init__(self) -> None:
        self.mode = "ok"
        self.arrived = 0
        self.answering = asyncio.Event()
        self.answering.set()

    def turn(self, query: str) -> None:
        self.mode = parse_qs(query)["mode"][0]
        if self.mode == "hang":
            self.answering.clear()
        else:
            self.answering.set()

    def describe(self) -> bytes:
        return json.dumps({"mode": self.mode, "arrived": self.arrived}).encode()


def switch_asgi(app: Any, switch: Switch, slow: float) -> Any:
    """``app``, an ASGI application, with the switch before it."""

    async def switched(scope: Any, receive: Any, send: Any) -> None:
        async def answer(status: int, body: bytes) -> None:
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        if scope["type"] != "http":
            await app(scope, receive, send)
        elif scope["path"] == "/switch":
            if scope["method"] == "POST":
                switch.turn(scope["query_string"].decode())
            await answer(200, switch.describe())
        elif switch.mode == "fail":
            switch.arrived += 1
            await asyncio.sleep(0.2)
            await answer(503, TROUBLED)
        else:
            switch.arrived += switch.mode == "hang"
            await switch.answering.wait()
            if scope["method"] == "POST":
                await asyncio.sleep(slow)
            await app(scope, receive, send)

    return switched


def switch_flask(app: Any, switch: Switch) -> None:
    """The same inside a Flask application."""
    from flask import Response, request

    @app.before_request
    def before() -> Any:
        if request.path == "/switch":
            if request.method == "POST":
                switch.turn(request.query_string.decode())
            return Response(switch.describe(), content_type="application/json")
        if switch.mode == "fail":
            switch.arrived += 1
            time.sleep(0.2)
            return Response(TROUBLED, 503, content_type="application/json")
        return None


def undrain(chassis: Chassis) -> None:
    """Give SIGTERM back to the server, which then stops at once, as it does by itself."""

    def give_back(service: str, address: object) -> None:
        # What granian does on SIGTERM it does on SIGINT too.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)

    chassis.on_ready(give_back)


def switched(service: str) -> tuple[Any, Chassis]:
    """The application of ``examples.shop.<service>`` with a switch inside its chassis, and the chassis."""
    module = importlib.import_module(f"examples.shop.{service}")
    if hasattr(module.app, "add_middleware"):
        module.app.add_middleware(switch_asgi, switch=Switch(), slow=SLOW.get(service, 0.0))
    else:
        switch_flask(module.app, Switch())
    return module.app, module.chassis


def plain_gateway() -> tuple[Any, Chassis]:
    """The gateway as ``chassis gateway`` serves it, and its chassis."""
    chassis = Chassis("gateway")
    return chassis.asgi(Gateway(Path(__file__).with_name("gateway.toml"), chassis.upstreams)), chassis


def __getattr__(service: str) -> Any:
    """The application to serve for a service."""
    if service.startswith("_"):
        raise AttributeError(service)
    app, chassis = plain_gateway() if service == "gateway" else switched(service)
    if os.environ.get("SHOP_WITHOUT_DRAIN"):
        undrain(chassis)
    return app
