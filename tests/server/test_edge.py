"""The inbound edge around an ASGI application, called as a server calls it."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest

from chassis.core import CircuitOpen, DeadlineExceeded, UpstreamError, current_deadline
from chassis.core.request import request_id
from chassis.health import Health, State
from chassis.logs import LogOptions, configure
from chassis.metrics import ServerMetrics, render
from chassis.server import Address, Endpoints, Lifecycle, ServerEdge, ServerOptions
from chassis.tracing import current_ids
from tests.server.exchange import Answer, ask
from tests.support.waiting import eventually


class Steps:
    """Hooks that note their order."""

    def __init__(self, drain: float = 0.0) -> None:
        self.done: list[str] = []

    async def start(self) -> None:
        self.done.append("start")

    async def listening(self, address: Address) -> None:
        self.done.append("listening")

    async def drain(self) -> None:
        self.done.append("drain")

    async def stop(self) -> None:
        self.done.append("stop")


def edge_of(
    app: Any, *, options: ServerOptions | None = None, health: Health | None = None, token: str | None = None
) -> ServerEdge:
    health = health or Health()
    return ServerEdge(
        app,
        lifecycle=Lifecycle("test", Steps(), drain=lambda: 0.0),
        endpoints=Endpoints("test", health, token=lambda: token, describe=lambda: {"policies": {}}),
        metrics=ServerMetrics(),
        options=lambda: options or ServerOptions(),
    )


async def respond(send: Any, body: bytes = b"ok", **headers: str) -> None:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.asyncio
async def test_a_request_id_is_taken_from_the_caller_and_echoed() -> None:
    seen: list[str | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(request_id.get())
        await respond(send)

    answer = await ask(edge_of(app), headers={"X-Request-Id": "abc-1"})
    assert (seen, answer.headers["x-request-id"]) == (["abc-1"], "abc-1")


@pytest.mark.asyncio
@pytest.mark.parametrize("given", [None, "bad\nline", "x" * 129, ""])
async def test_a_missing_or_unsafe_request_id_is_replaced(given: str | None) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send)

    answer = await ask(edge_of(app), headers={} if given is None else {"X-Request-Id": given})
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("told", "least", "most"), [("500", 0.4, 0.5), ("999999", 59, 60), (None, 59, 60), ("soon", 59, 60)]
)
async def test_trap_49_the_callers_deadline_holds_up_to_the_servers_maximum(
    told: str | None, least: float, most: float
) -> None:
    remaining: list[float] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        deadline = current_deadline()
        assert deadline is not None
        remaining.append(deadline.remaining())
        await respond(send)

    await ask(edge_of(app), headers={} if told is None else {"X-Chassis-Deadline-Ms": told})
    assert least < remaining[0] <= most


@pytest.mark.asyncio
async def test_a_deadline_that_has_passed_is_504_without_work() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("called")

    answer = await ask(edge_of(app), headers={"X-Chassis-Deadline-Ms": "0"})
    assert answer.status == 504
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.asyncio
async def test_a_rejection_is_503_with_retry_after_and_a_problem() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise CircuitOpen("payments", retry_after=2.2)

    answer = await ask(edge_of(app), headers={"X-Request-Id": "r1"})
    assert (answer.status, answer.headers["retry-after"]) == (503, "3")
    problem = json.loads(answer.body)
    assert problem["request_id"] == "r1"
    assert "payments" in problem["detail"]


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [DeadlineExceeded("x"), UpstreamError("x", service="a", failure="broken")])
async def test_an_answer_that_has_begun_is_cut_rather_than_ended(error: Exception) -> None:
    """And logged, as servers need not tell of it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise error

    answer, lines = Answer(), io.StringIO()
    logs = configure("test", LogOptions(format="json"), stream=lines)
    try:
        with pytest.raises(type(error)):
            await ask(edge_of(app), answer=answer)
    finally:
        logs.shutdown(1)
    assert not answer.ended
    assert f"GET / raised {type(error).__name__}" in lines.getvalue()


@pytest.mark.asyncio
async def test_health_endpoints_follow_the_lifecycle() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("called")

    health = Health()
    edge = edge_of(app, health=health)
    assert (await ask(edge, "/livez")).status == 200
    assert (await ask(edge, "/readyz")).status == 503
    health.state = State.READY
    assert (await ask(edge, "/readyz")).status == 200
    health.state = State.DRAINING
    assert (await ask(edge, "/readyz")).status == 503
    assert (await ask(edge, "/livez")).status == 200


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("client", "headers", "shown"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("10.0.0.1", {}, False),
        ("127.0.0.1", {"X-Forwarded-For": "1.2.3.4"}, False),
        ("10.0.0.1", {"Authorization": "Bearer right"}, True),
        ("10.0.0.1", {"Authorization": "Bearer wrong"}, False),
    ],
)
async def test_health_shows_details_on_loopback_or_with_the_token(
    client: str, headers: dict[str, str], shown: bool
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("called")

    health = Health()
    health.state = State.READY
    answer = await ask(edge_of(app, health=health, token="right"), "/health", client=client, headers=headers)
    assert ("policies" in json.loads(answer.body)) is shown


@pytest.mark.asyncio
async def test_the_route_template_labels_the_metrics_and_not_the_path() -> None:
    def labelled(page: str) -> str:
        return page if 'route="/edge-test/{id}"' in page else ""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["chassis.route"] = "/edge-test/{id}"
        await respond(send)

    await ask(edge_of(app), "/edge-test/7")
    # A page that another test had rendered is served again for a second.
    page = await eventually(lambda: labelled(render().body.decode()), what="a page with the route")
    assert "/edge-test/7" not in page
    assert b"http_server_request_duration_seconds" in (await ask(edge_of(app), "/metrics")).body


@pytest.mark.asyncio
async def test_the_application_runs_within_the_callers_trace() -> None:
    ids: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        ids.append(current_ids())
        await respond(send)

    trace = "0af7651916cd43dd8448eb211c80319c"
    await ask(edge_of(app), headers={"traceparent": f"00-{trace}-b7ad6b7169203331-00"})
    assert ids[0][0] == trace
    assert current_ids() is None


@pytest.mark.asyncio
async def test_an_error_of_the_application_is_logged_with_its_trace() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("of the application")

    lines = io.StringIO()
    logs = configure("test", LogOptions(format="json"), ids=current_ids, stream=lines)
    try:
        with pytest.raises(ValueError, match="of the application"):
            await ask(edge_of(app), "/broken")
    finally:
        logs.shutdown(1)
    error, line = (json.loads(each) for each in lines.getvalue().splitlines())
    assert error["message"] == "GET /broken raised ValueError"
    assert "of the application" in json.dumps(error["exception"])
    assert error["trace_id"] == line["trace_id"]
    assert line["fields"]["status"] == 500


@pytest.mark.asyncio
async def test_while_draining_answers_close_their_connections() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send)

    edge = edge_of(app)
    assert "connection" not in (await ask(edge)).headers
    edge.lifecycle.draining = True
    assert (await ask(edge)).headers["connection"] == "close"


@pytest.mark.asyncio
@pytest.mark.parametrize("content_type", ["text/event-stream", "text/event-stream; charset=utf-8"])
async def test_an_event_stream_ends_cleanly_when_the_process_stops(content_type: str) -> None:
    cancelled = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", content_type.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    edge = edge_of(app)
    answer = Answer()
    asking = asyncio.create_task(ask(edge, answer=answer))
    await eventually(lambda: edge.lifecycle.event_streams, what="the stream to begin")
    (stream,) = edge.lifecycle.event_streams
    await stream.end()
    await asyncio.wait_for(asking, 2)
    assert answer.ended
    assert answer.body == b"data: 1\n\n"
    assert cancelled.is_set()
    assert edge.lifecycle.event_streams == set()


class Server:
    """The server's side of the lifespan protocol."""

    def __init__(self, app: Any) -> None:
        self._to_app: asyncio.Queue[Any] = asyncio.Queue()
        self._from_app: asyncio.Queue[Any] = asyncio.Queue()
        self._task = asyncio.create_task(app({"type": "lifespan"}, self._to_app.get, self._from_app.put))

    async def tell(self, what: str) -> Any:
        await self._to_app.put({"type": f"lifespan.{what}"})
        return await asyncio.wait_for(self._from_app.get(), 5)

    async def end(self) -> None:
        await asyncio.wait_for(self._task, 5)


def lifecycle_of(app: Any, steps: Steps) -> ServerEdge:
    return ServerEdge(
        app,
        lifecycle=Lifecycle("test", steps, drain=lambda: 0.0),
        endpoints=Endpoints("test", Health(), token=lambda: None, describe=dict),
        metrics=ServerMetrics(),
        options=ServerOptions,
    )


@pytest.mark.asyncio
async def test_start_and_stop_stand_around_the_applications_own() -> None:
    steps = Steps()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        steps.done.append("app start")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        steps.done.append("app stop")
        await send({"type": "lifespan.shutdown.complete"})

    server = Server(lifecycle_of(app, steps))
    assert (await server.tell("startup"))["type"] == "lifespan.startup.complete"
    assert (await server.tell("shutdown"))["type"] == "lifespan.shutdown.complete"
    await server.end()
    assert steps.done == ["start", "app start", "drain", "app stop", "stop"]


@pytest.mark.asyncio
async def test_an_application_without_lifespan_is_served_all_the_same() -> None:
    steps = Steps()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("only http")

    server = Server(lifecycle_of(app, steps))
    assert (await server.tell("startup"))["type"] == "lifespan.startup.complete"
    assert (await server.tell("shutdown"))["type"] == "lifespan.shutdown.complete"
    await server.end()
    assert steps.done == ["start", "drain", "stop"]


@pytest.mark.asyncio
async def test_an_application_whose_start_fails_fails_the_start() -> None:
    steps = Steps()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    server = Server(lifecycle_of(app, steps))
    answer = await server.tell("startup")
    assert (answer["type"], answer["message"]) == ("lifespan.startup.failed", "no database")
    with pytest.raises(RuntimeError, match="no database"):
        await server.end()
    assert steps.done == ["start", "stop"]
