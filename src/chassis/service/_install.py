"""One door per framework: how the edge gets around an application that exists already."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

from chassis.core import ConfigError
from chassis.core.request import request_id


class Edges(Protocol):
    """What is put around applications: in fact a ``Chassis``, which the application keeps."""

    def asgi(self, app: Any) -> Any:
        """An ASGI application around ``app``."""

    def wsgi(self, app: Any) -> Any:
        """A WSGI application around ``app``."""


def install(app: Any, chassis: Edges) -> None:
    """Put ``chassis`` around ``app``, in place.

    :raises ConfigError: the framework has no door, or the application has begun to serve.
    """
    door = _doors().get(_framework(app))
    if door is None:
        raise ConfigError(
            f"{type(app).__module__}.{type(app).__qualname__} cannot be installed into",
            setting="install",
            remedy="wrap it: app = chassis.asgi(app), or chassis.wsgi(app) for a WSGI application",
        )
    door(app, chassis)


def _framework(app: Any) -> str:
    """The framework an application is made with, told by the classes it inherits from.

    By name and not by import: none of the frameworks is needed for the others.
    """
    for kind in type(app).__mro__:
        name = kind.__module__.partition(".")[0]
        if name in ("starlette", "fastapi", "flask", "litestar"):
            return "starlette" if name == "fastapi" else name
    return ""


def _doors() -> dict[str, Callable[[Any, Edges], None]]:
    return {"starlette": _into_starlette, "flask": _into_flask, "litestar": _into_litestar}


def _into_starlette(app: Any, chassis: Edges) -> None:
    if app.middleware_stack is not None:
        raise ConfigError(
            "the application has begun to serve",
            setting="install",
            remedy="install right after the application is made",
        )
    app.state.chassis = chassis
    build = app.build_middleware_stack

    @functools.wraps(build)
    def build_with_edge() -> Any:
        # Outermost: middleware added later stays inside and a 500 is seen as the client sees it.
        return chassis.asgi(build())

    app.build_middleware_stack = build_with_edge
    # FastAPI's own telemetry would trace every request a second time. It stands outside the
    # middleware, where nothing of ours can; there is no public switch once the application is made.
    telemetry = getattr(app, "_telemetry", None)
    if isinstance(telemetry, dict):
        telemetry.update(tracing=False, metrics=False)

    from starlette.responses import Response

    from chassis.server import ANSWERABLE

    def refused(request: Any, error: Exception) -> Response:
        return Response(*_problem_arguments(error))

    # A group is looked into by this framework alone: in the others, a handler that hands on what is not
    # its business would keep it from the application's own handlers.
    for kind in (*ANSWERABLE, ExceptionGroup):
        # What the application was made with stays.
        app.exception_handlers.setdefault(kind, refused)


def _problem_arguments(error: Exception) -> tuple[bytes, int, dict[str, str]]:
    from chassis.server import PROBLEM_TYPE, answerable, problem_for

    answer = answerable(error)
    if answer is None:
        # A group with a defect of the application among its members.
        raise error
    status, headers, body = problem_for(answer, request_id.get())
    return body, status, {"Content-Type": PROBLEM_TYPE, **headers}


def _into_flask(app: Any, chassis: Edges) -> None:
    from flask import Response, request

    from chassis.server import ANSWERABLE, ROUTE

    app.extensions["chassis"] = chassis
    app.wsgi_app = chassis.wsgi(app.wsgi_app)

    def tell_route() -> None:
        if request.url_rule is not None:
            request.environ[ROUTE] = request.url_rule.rule
            # Served through the ASGI edge (`chassis run`), the route is told in its scope instead.
            request.environ.get("asgi.scope", {})[ROUTE] = request.url_rule.rule

    app.before_request(tell_route)

    def refused(error: Exception) -> Response:
        return Response(*_problem_arguments(error))

    for kind in ANSWERABLE:
        if kind not in app.error_handler_spec[None][None]:
            app.register_error_handler(kind, refused)


def _into_litestar(app: Any, chassis: Edges) -> None:
    app.state.chassis = chassis
    # Litestar's handler never sees the lifespan, which it serves itself before it dispatches.
    edge = chassis.asgi(app.asgi_handler)
    app.asgi_handler = edge
    app.on_startup.append(edge.lifecycle.begin)
    app.on_shutdown.insert(0, edge.lifecycle.end)

    from litestar import Response

    from chassis.server import ANSWERABLE

    def refused(request: Any, error: Exception) -> Response[bytes]:
        body, status, headers = _problem_arguments(error)
        return Response(body, status_code=status, headers=headers)

    for kind in ANSWERABLE:
        app.exception_handlers.setdefault(kind, refused)
