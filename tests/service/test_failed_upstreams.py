"""What an application answers while a service it calls fails, in every framework there is a door for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from chassis import Chassis, UpstreamError
from chassis.server import answerable
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


@pytest.fixture
def chassis() -> Iterator[Chassis]:
    """One whose service ``catalog`` refuses connections; what its calls have started ends with the test."""
    made = Chassis("shop", environment={"CHASSIS_SERVICES__CATALOG": f"http://127.0.0.1:{free_port()}"})
    yield made
    asyncio.run(made.stop())


def check(answers: list[tuple[int, Any, bytes]]) -> None:
    """The instance's breaker opens at the fifth failure; to the caller that changes nothing."""
    assert [status for status, _, _ in answers] == [503] * len(answers)
    assert all("catalog" in json.loads(body)["detail"] for _, _, body in answers)
    assert answers[0][1]["content-type"] == "application/problem+json"
    assert "retry-after" in {name.lower() for name in dict(answers[-1][1])}  # the breaker's


@pytest.mark.asyncio
@pytest.mark.parametrize("make", [starlette, fastapi, litestar, plain])
async def test_an_upstream_that_refuses_is_503_before_and_after_its_breaker_opens(
    chassis: Chassis, make: Callable[[Chassis], Any]
) -> None:
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=make(chassis)), base_url="http://shop"
    ) as client:
        answers = [await client.get("/") for _ in range(4)]
    check([(each.status_code, each.headers, each.content) for each in answers])


def test_an_upstream_that_refuses_is_503_in_wsgi_too(chassis: Chassis) -> None:
    app = flask(chassis)
    answers = [app.test_client().get("/") for _ in range(4)]
    app.wsgi_app.lifecycle.retire()
    check([(each.status_code, each.headers, each.data) for each in answers])


def starlette_side_by_side(chassis: Chassis, beside: Callable[[], Any]) -> Any:
    from starlette.applications import Starlette
    from starlette.routing import Route

    async def home(request: Any) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(chassis.client("catalog").get("/"))
            group.create_task(beside())

    app = Starlette(routes=[Route("/", home)])
    chassis.install(app)
    return app


def fastapi_side_by_side(chassis: Chassis, beside: Callable[[], Any]) -> Any:
    from fastapi import FastAPI

    app = FastAPI()
    chassis.install(app)

    @app.get("/")
    async def home() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(chassis.client("catalog").get("/"))
            group.create_task(beside())

    return app


def plain_side_by_side(chassis: Chassis, beside: Callable[[], Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(chassis.client("catalog").get("/"))
            group.create_task(beside())

    return chassis.asgi(app)


SIDE_BY_SIDE = [starlette_side_by_side, fastapi_side_by_side, plain_side_by_side]


@pytest.mark.asyncio
@pytest.mark.parametrize("make", SIDE_BY_SIDE)
async def test_a_task_groups_calls_that_fail_are_answered_as_one_that_fails(
    chassis: Chassis, make: Callable[..., Any]
) -> None:
    """Calls made side by side end in an ExceptionGroup: as long as nothing else is in it, it is no defect."""
    app = make(chassis, lambda: asyncio.sleep(30))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://shop") as client:
        answer = await client.get("/")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-chassis-no-retry"] == "1"


@pytest.mark.asyncio
@pytest.mark.parametrize("make", SIDE_BY_SIDE)
async def test_a_task_group_with_a_defect_in_it_is_a_defect(
    chassis: Chassis, make: Callable[..., Any]
) -> None:
    async def defect() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            raise KeyError("mistyped") from None

    app = make(chassis, defect)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://shop") as client:
        with pytest.raises(ExceptionGroup) as raised:
            await client.get("/")
    kinds = [type(each) for each in raised.value.exceptions]
    assert len(kinds) == 2
    assert KeyError in kinds


def test_what_answers_a_group_is_its_first_member_however_deep() -> None:
    late = UpstreamError("no answer", service="catalog", failure="late")
    unreachable = UpstreamError("refused", service="prices", failure="unreachable")
    assert answerable(ExceptionGroup("", [ExceptionGroup("", [late]), unreachable])) is late
    assert answerable(ExceptionGroup("", [late, ExceptionGroup("", [ValueError()])])) is None
    assert answerable(BaseExceptionGroup("", [late, KeyboardInterrupt()])) is None


def test_a_wsgi_applications_group_of_failures_is_answered_too(chassis: Chassis) -> None:
    from werkzeug.test import Client

    def app(environ: Any, start_response: Any) -> Any:
        raise ExceptionGroup("calls", [UpstreamError("refused", service="catalog", failure="unreachable")])

    edge = chassis.wsgi(app)
    answer = Client(edge).get("/")
    edge.lifecycle.retire()
    assert answer.status_code == 503
    assert answer.headers["X-Chassis-No-Retry"] == "1"


def starlette_with_handler() -> Any:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    def home(request: Any) -> None:
        raise UpstreamError("refused", service="catalog", failure="unreachable")

    def answer(request: Any, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("sold out", 418)

    return Starlette(routes=[Route("/", home)], exception_handlers={UpstreamError: answer})


def litestar_with_handler() -> Any:
    from litestar import Litestar, Response, get

    @get("/")
    async def home() -> None:
        raise UpstreamError("refused", service="catalog", failure="unreachable")

    def answer(request: Any, error: Exception) -> Response[str]:
        return Response("sold out", status_code=418)

    return Litestar([home], exception_handlers={UpstreamError: answer})


def flask_with_handler() -> Any:
    from flask import Flask

    app = Flask("shop")

    @app.get("/")
    def home() -> str:
        raise UpstreamError("refused", service="catalog", failure="unreachable")

    @app.errorhandler(UpstreamError)
    def answer(error: Exception) -> tuple[str, int]:
        return "sold out", 418

    return app


@pytest.mark.asyncio
@pytest.mark.parametrize("make", [starlette_with_handler, litestar_with_handler, flask_with_handler])
async def test_a_handler_that_an_application_has_before_chassis_comes_stays(
    chassis: Chassis, make: Callable[[], Any]
) -> None:
    app = make()
    chassis.install(app)
    if hasattr(app, "test_client"):
        status = app.test_client().get("/").status_code
        app.wsgi_app.lifecycle.retire()
    else:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://shop") as client:
            status = (await client.get("/")).status_code
    assert status == 418
