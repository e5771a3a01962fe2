"""The inbound edge: one pure ASGI application around the service's own.

Its order, outermost first, with the reason at each step::

    lifecycle → context (request id, deadline) → span, metrics, access line
    → health and metrics endpoints → load shedding → authentication → the application
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from chassis.core import (
    ChassisError,
    Deadline,
    DeadlineExceeded,
    Outcome,
    Permit,
    deadline_scope,
)
from chassis.core.headers import REQUEST_ID
from chassis.core.request import request_id as current_request_id
from chassis.limits import LoadShedder
from chassis.logs import access, emit
from chassis.metrics import ServerMetrics
from chassis.server._arrival import Arrivals, outcome_of
from chassis.server._asgi_types import ASGIApp, Message, Receive, Scope, Send
from chassis.server._endpoints import Endpoints
from chassis.server._lifecycle import Lifecycle
from chassis.server._options import ServerOptions
from chassis.server._problem import CONTENT_TYPE, Answerable, answerable, problem_for
from chassis.tracing import begin_server_span

_REQUEST_ID_NAME = REQUEST_ID.lower().encode()


class ServerEdge:
    """Wraps ``app``.

    :param lifecycle: told of start and stop; says whether the process drains.
    :param endpoints: ``/livez``, ``/readyz``, ``/health``, ``/metrics`` and the self-probe.
    :param shedder: sheds load as the options say; None for one of its own.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        lifecycle: Lifecycle,
        endpoints: Endpoints,
        metrics: ServerMetrics,
        options: Callable[[], ServerOptions],
        shedder: LoadShedder | None = None,
    ) -> None:
        self._app = app
        self.lifecycle = lifecycle
        self.owner: object = None
        """Who put it around the application."""
        self._endpoints = endpoints
        self._metrics = metrics
        self._options = options
        self._arrivals = Arrivals(shedder)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self._handle_http(scope, receive, send)
        elif kind == "lifespan":
            # Outermost: it starts before the first request and ends after the last.
            await self.lifecycle.lifespan(self._app, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _handle_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Probes and scrapes come before everything else: they are no traffic, so they are neither
        # traced nor counted, and must be answered when all else is refused.
        if await self._endpoints.answer(scope, send):
            return
        options = self._options()
        request_id, seconds = self._arrivals.read(scope["headers"], options)
        token = current_request_id.set(request_id)
        exchange = _Exchange(send, request_id, self.lifecycle)
        method, path = scope["method"], scope["path"]
        root_path = scope.get("root_path", "")
        span = begin_server_span(method, path, scope.get("scheme", "http"), scope["headers"])
        self._metrics.begin()
        began = time.perf_counter()
        failure: BaseException | None = None
        try:
            with deadline_scope(Deadline.after(seconds)):
                if seconds <= 0:
                    raise DeadlineExceeded("the caller no longer waits for this answer")
                # Before any work is done for the request, its authentication included.
                exchange.permit = await self._arrivals.admit_async(options.shedding)
                await self._app(scope, receive, exchange.send)
        except asyncio.CancelledError as error:
            if not exchange.ended_by_stop:
                failure = error
                raise
            # We cancelled it ourselves to end an event stream; the task goes on.
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
        except BaseException as error:
            if exchange.ended_by_stop:
                # The stream has ended cleanly for its client; that the application then could not
                # send any more is no failure.
                return
            failure = error
            answer = answerable(error)
            if answer is None or exchange.started:
                # Where half an answer is out it must look cut, so the server has to see the error.
                _tell_of(error, method, path)
                raise
            await exchange.send_problem(answer)
        finally:
            self.lifecycle.event_streams.discard(exchange)
            # 499: the client left, or was left, before an answer began.
            status = exchange.status or (500 if isinstance(failure, Exception) else 499)
            exchange.settle(outcome_of(status, failure))
            seconds = time.perf_counter() - began
            route = route_template(scope, root_path)
            if route is not None:
                span.route(route)
            self._metrics.end(method, route or "", status, seconds)
            # Within the span, so that the line carries its ids.
            access(method, path, status, seconds, route=route)
            span.detach()
            span.end(status, failure)
            current_request_id.reset(token)


def _tell_of(error: BaseException, method: str, path: str) -> None:
    # Servers need not tell of it, and none of them knows the trace it belongs to. Our own errors say
    # all in their message.
    told = None if isinstance(error, ChassisError) else error
    what = f"{method} {path} raised {type(error).__name__}"
    emit("error", what, logger="chassis.server", exception=told)


def route_template(scope: Scope, root_path: str) -> str | None:
    """The matched route's template, or None where the framework does not tell.

    The gateway says it in ``chassis.route``; Starlette, FastAPI and Litestar leave it in the scope.
    """
    said = scope.get("chassis.route")
    if isinstance(said, str):
        return said
    template = getattr(scope.get("route"), "path", None)
    if isinstance(template, str):
        # Below a mount the route is relative to it, and the mount stands in root_path.
        mounted = scope.get("root_path", "")
        return mounted.removeprefix(root_path) + template if mounted != root_path else template
    template = scope.get("path_template")
    return template if isinstance(template, str) else None


class _Exchange:
    """One request's answer, as the edge sees it pass."""

    __slots__ = ("_lifecycle", "_send", "_task", "ended_by_stop", "permit", "request_id", "started", "status")

    def __init__(self, send: Send, request_id: str, lifecycle: Lifecycle) -> None:
        self._send = send
        self._lifecycle = lifecycle
        self._task = asyncio.current_task()
        self.request_id = request_id
        self.status = 0
        self.started = False
        self.ended_by_stop = False
        self.permit: Permit | None = None
        """Leave to serve it, where it had to be asked for."""

    def settle(self, outcome: Outcome) -> None:
        """Give the permit back, once."""
        if self.permit is not None:
            self.permit.settle(outcome)

    async def send(self, message: Message) -> None:
        """The application's ``send``."""
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            if not any(name.lower() == _REQUEST_ID_NAME for name, _ in headers):
                headers.append((_REQUEST_ID_NAME, self.request_id.encode("latin-1")))
            if self._lifecycle.draining:
                headers.append((b"connection", b"close"))
            if any(
                name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in headers
            ):
                self._lifecycle.event_streams.add(self)
                # Open for as long as its client likes, and idle most of the time: no load.
                self.settle(Outcome.SUCCESS)
            message = {**message, "headers": headers}
        elif self.ended_by_stop:
            raise OSError("the event stream was ended because the process stops")
        await self._send(message)

    async def send_problem(self, error: Answerable) -> None:
        """Answer with the status that ``error`` stands for."""
        status, more, body = problem_for(error, self.request_id)
        headers = [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        headers += [(name.lower().encode(), value.encode()) for name, value in more.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def end(self) -> None:
        """End an event stream cleanly, and the application that feeds it.

        Only event streams: their clients reconnect. A cut download must look cut.
        """
        self.ended_by_stop = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        if self._task is not None:
            self._task.cancel()
