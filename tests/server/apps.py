"""Applications that the process tests serve, one per framework."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from chassis import Chassis

_made: dict[str, Any] = {}


def fastapi_app() -> Any:
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse

    app = FastAPI()
    Chassis("served").install(app)

    @app.get("/work")
    async def work() -> dict[str, bool]:
        await asyncio.sleep(0.02)
        return {"done": True}

    @app.get("/slow")
    async def slow() -> dict[str, bool]:
        print("slow: begun", flush=True)
        await asyncio.sleep(1.5)
        return {"done": True}

    @app.get("/block")
    async def block(until: str) -> dict[str, bool]:
        """Until the file is there; as code does that was not written for an event loop."""
        end = time.monotonic() + 30
        while not Path(until).exists() and time.monotonic() < end:
            time.sleep(0.01)
        return {"done": True}

    @app.get("/events")
    async def events() -> StreamingResponse:
        async def stream() -> AsyncIterator[bytes]:
            for number in range(10_000):
                yield f"data: {number}\n\n".encode()
                await asyncio.sleep(0.05)

        return StreamingResponse(stream(), media_type="text/event-stream")

    return app


def litestar_app() -> Any:
    from litestar import Litestar, get

    @get("/work")
    async def work() -> dict[str, bool]:
        return {"done": True}

    app = Litestar([work])
    Chassis("served").install(app)
    return app


def plain_app() -> Any:
    async def work(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError("only http")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"done": true}'})

    return Chassis("served").asgi(work)


def django_app() -> Any:
    import django
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import JsonResponse
    from django.urls import path

    urls = type("urls", (), {"urlpatterns": [path("work", lambda request: JsonResponse({"done": True}))]})
    settings.configure(ROOT_URLCONF=urls, ALLOWED_HOSTS=["*"], SECRET_KEY="test")
    django.setup()
    return Chassis("served").asgi(get_asgi_application())


def flask_app() -> Any:
    from flask import Flask

    app = Flask(__name__)
    Chassis("served").install(app)

    @app.get("/work")
    def work() -> dict[str, bool]:
        return {"done": True}

    return app


def wsgi_app() -> Any:
    def work(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b'{"done": true}']

    return Chassis("served").wsgi(work)


def __getattr__(name: str) -> Any:
    """``apps:fastapi`` makes the application when a server asks for it."""
    make = globals().get(f"{name}_app")
    if make is None:
        raise AttributeError(name)
    if name not in _made:  # some servers ask twice
        _made[name] = make()
    return _made[name]
