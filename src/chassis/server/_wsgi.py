"""The inbound edge for WSGI applications (PEP 3333): the ASGI edge's twin, in the same order."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any

from chassis.background import background
from chassis.core import ChassisError, Deadline, DeadlineExceeded, Outcome, Permit
from chassis.core.deadline import hold_deadline
from chassis.core.headers import REQUEST_ID
from chassis.core.request import request_id as current_request_id
from chassis.limits import LoadShedder
from chassis.logs import access, emit
from chassis.metrics import ServerMetrics
from chassis.server._arrival import Arrivals, outcome_of
from chassis.server._endpoints import PATHS, Endpoints
from chassis.server._options import ServerOptions
from chassis.server._problem import CONTENT_TYPE, answerable, problem_for
from chassis.server._wsgi_lifecycle import WSGILifecycle
from chassis.tracing import begin_server_span

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

ROUTE = "chassis.route"
"""The environ key under which a framework's door leaves the matched route's template."""


class WSGIEdge:
    """Wraps ``app``. Call, iteration and close of one answer run in one context."""

    def __init__(
        self,
        app: WSGIApplication,
        *,
        lifecycle: WSGILifecycle,
        endpoints: Endpoints,
        metrics: ServerMetrics,
        options: Callable[[], ServerOptions],
        shedder: LoadShedder | None = None,
    ) -> None:
        self.app = app
        self.lifecycle = lifecycle
        self.owner: object = None
        """Who put it around the application."""
        self._endpoints = endpoints
        self._metrics = metrics
        self._options = options
        self._arrivals = Arrivals(shedder)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.lifecycle.ensure_started()
        path = environ.get("PATH_INFO", "")
        headers = list(_headers(environ))
        if path in PATHS and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return self._answer_endpoint(environ, start_response, path, headers)
        context = contextvars.copy_context()
        answer = context.run(_Answer, self, environ, start_response, headers)
        return _InContext(context, answer)

    def _answer_endpoint(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        path: str,
        headers: list[tuple[bytes, bytes]],
    ) -> Iterable[bytes]:
        status, content_type, body = background.start(
            lambda: self._endpoints.respond(path, headers, environ.get("REMOTE_ADDR", "")), name="endpoint"
        ).result(10)
        start_response(
            _status_line(status),
            [
                ("Content-Type", content_type),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
            ],
        )
        return [body] if environ["REQUEST_METHOD"] == "GET" else [b""]


class _InContext:
    """Runs every step of an answer in the context the call was made in.

    A WSGI server may iterate elsewhere than it called; spans and deadlines must not tell.
    """

    def __init__(self, context: contextvars.Context, answer: _Answer) -> None:
        self._context = context
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._context.run(next, self._answer)

    def close(self) -> None:
        self._context.run(self._answer.close)


class _Answer:
    """One request from its call to the close of its body."""

    def __init__(
        self,
        edge: WSGIEdge,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        self._edge = edge
        self._environ = environ
        self._start_response = start_response
        self._method = environ["REQUEST_METHOD"]
        self._path = environ.get("PATH_INFO", "")
        options = edge._options()
        self._request_id, seconds = edge._arrivals.read(headers, options)
        self._permit: Permit | None = None
        self._status = 0
        self._started = False
        self._ended = False
        self._body: Any = ()
        current_request_id.set(self._request_id)
        scheme = environ.get("wsgi.url_scheme", "http")
        self._span = begin_server_span(self._method, self._path, scheme, headers)
        edge._metrics.begin()
        self._began = time.perf_counter()
        # It holds in this answer's own context only, which ends with the answer.
        hold_deadline(Deadline.after(seconds))
        try:
            if seconds <= 0:
                raise DeadlineExceeded("the caller no longer waits for this answer")
            # Before any work is done for the request, its authentication included.
            self._permit = edge._arrivals.admit(options.shedding)
            self._body = edge.app(environ, self._start)
        except BaseException as error:  # noqa: BLE001 - raised again, if it is no answer
            self._body = self._refused(error)
        self._chunks: Iterator[bytes] = iter(self._body)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except StopIteration:
            raise
        except BaseException as error:  # noqa: BLE001 - as above
            self._chunks = iter(self._refused(error))
            return next(self._chunks)

    def close(self) -> None:
        """The server has sent the body, or given it up."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._end(None)

    def _start(
        self,
        status: str,
        headers: list[tuple[str, str]],
        error: tuple[type[BaseException], BaseException, TracebackType]
        | tuple[None, None, None]
        | None = None,
    ) -> Any:
        self._status = int(status.split(" ", 1)[0])
        self._started = True
        if any(
            name.lower() == "content-type" and value.startswith("text/event-stream")
            for name, value in headers
        ):
            # Open for as long as its client likes, and idle most of the time: no load.
            self._settle(Outcome.SUCCESS)
        if not any(name.lower() == REQUEST_ID.lower() for name, _ in headers):
            headers = [*headers, (REQUEST_ID, self._request_id)]
        # No "Connection: close" while draining: hop-by-hop headers are the server's own (PEP 3333).
        return self._start_response(status, headers, error)

    def _refused(self, error: BaseException) -> list[bytes]:
        answer = answerable(error)
        if answer is None or self._started:
            # Where start_response was called, half an answer may be out: it is for the server to cut it.
            self._end(error)
            raise error
        status, more, body = problem_for(answer, self._request_id)
        headers = [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body))), *more.items()]
        self._start(_status_line(status), headers)
        return [body]

    def _settle(self, outcome: Outcome) -> None:
        if self._permit is not None:
            self._permit.settle(outcome)

    def _end(self, error: BaseException | None) -> None:
        if self._ended:
            return
        self._ended = True
        if isinstance(error, Exception):
            told = None if isinstance(error, ChassisError) else error
            what = f"{self._method} {self._path} raised {type(error).__name__}"
            emit("error", what, logger="chassis.server", exception=told)
        status = self._status or (500 if isinstance(error, Exception) else 499)
        self._settle(outcome_of(status, error))
        seconds = time.perf_counter() - self._began
        route = self._environ.get(ROUTE)
        if route is not None:
            self._span.route(route)
        self._edge._metrics.end(self._method, route or "", status, seconds)
        access(self._method, self._path, status, seconds, route=route)
        self._span.detach()
        self._span.end(status, error)


def _headers(environ: WSGIEnvironment) -> Iterator[tuple[bytes, bytes]]:
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            yield name[5:].replace("_", "-").lower().encode("latin-1"), str(value).encode("latin-1")


def _status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"
