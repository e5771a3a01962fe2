"""What an application answers while a service it calls fails, in every framework there is a door for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from chassis import Chassis
from tests.support.ports import free_port


def starlette(chassis: Chassis) -> Any:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def home(request: Any) -> PlainTextResponse:
        return PlainTextResponse((await chassis.client("catalog").get("/")).text)

    app = Starlette(routes=[Route("/", home)])
    chassis.install(app)
    return app


def fastapi(chassis: Chassis) -> Any:
    from fastapi import FastAPI

    app = FastAPI()
    chassis.install(app)

    @app.get("/")
    async def home() -> str:
        return (await chassis.client("catalog").get("/")).text

    return app


def litestar(chassis: Chassis) -> Any:
    from litestar import Litestar, get

    @get("/")
    async def home() -> str:
        return (await chassis.client("catalog").get("/")).text

    app = Litestar([home])
    chassis.install(app)
    return app


def plain(chassis: Chassis) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await chassis.client("catalog").get("/")

    return chassis.asgi(app)


def flask(chassis: Chassis) -> Any:
    from flask import Flask

    app = Flask("shop")
    chassis.install(app)

    @app.get("/")
    def home() -> str:
        return chassis.sync_client("catalog").get("/").text

    return app


def a_chassis() -> Chassis:
    """One whose service ``catalog`` refuses connections."""
    return Chassis("shop", environment={"CHASSIS_SERVICES__CATALOG": f"http://127.0.0.1:{free_port()}"})


def check(answers: list[tuple[int, Any, bytes]]) -> None:
    """The instance's breaker opens at the fifth failure; to the caller that changes nothing."""
    assert [status for status, _, _ in answers] == [503] * len(answers)
    assert all("catalog" in json.loads(body)["detail"] for _, _, body in answers)
    assert answers[0][1]["content-type"] == "application/problem+json"
    assert "retry-after" in {name.lower() for name in dict(answers[-1][1])}  # the breaker's


@pytest.mark.asyncio
@pytest.mark.parametrize("make", [starlette, fastapi, litestar, plain])
async def test_an_upstream_that_refuses_is_503_before_and_after_its_breaker_opens(
    make: Callable[[Chassis], Any],
) -> None:
    chassis = a_chassis()
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=make(chassis)), base_url="http://shop"
    ) as client:
        answers = [await client.get("/") for _ in range(4)]
    check([(each.status_code, each.headers, each.content) for each in answers])


def test_an_upstream_that_refuses_is_503_in_wsgi_too() -> None:
    chassis = a_chassis()
    app = flask(chassis)
    answers = [app.test_client().get("/") for _ in range(4)]
    app.wsgi_app.lifecycle.retire()
    asyncio.run(chassis.stop())
    check([(each.status_code, each.headers, each.data) for each in answers])
