"""What both edges do before the application sees a request: deadlines from headers, load shedding."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chassis.core import (
    ConfigError,
    Deadline,
    DeadlineExceeded,
    Event,
    RateLimited,
    Rejected,
    UpstreamError,
    UpstreamFailure,
    current_deadline,
    deadline_scope,
    detach_deadline,
    events,
    remaining,
)
from chassis.health import Health, State
from chassis.limits import LoadShed, LoadShedder, LoadShedderOptions, RateLimit
from chassis.metrics import ServerMetrics, render
from chassis.server import (
    DeadlineMalformed,
    Endpoints,
    Lifecycle,
    ServerEdge,
    ServerOptions,
    WSGIEdge,
    WSGILifecycle,
)
from tests.server.exchange import Answer, ask


class Silent:
    """Hooks that do nothing."""

    async def start(self) -> None: ...
    async def listening(self, address: Any) -> None: ...
    async def drain(self) -> None: ...
    async def stop(self) -> None: ...


def endpoints() -> Endpoints:
    health = Health()
    health.state = State.READY
    return Endpoints("test", health, token=lambda: None, describe=dict)


def asgi(app: Any, **options: Any) -> ServerEdge:
    made = ServerOptions(**options)
    return ServerEdge(
        app,
        lifecycle=Lifecycle("test", Silent(), drain=lambda: 0.0),
        endpoints=endpoints(),
        metrics=ServerMetrics(),
        options=lambda: made,
    )


@pytest.fixture
def wsgi() -> Iterator[Callable[..., WSGIEdge]]:
    lifecycles: list[WSGILifecycle] = []

    def make(app: Any, **options: Any) -> WSGIEdge:
        made = ServerOptions(**options)
        lifecycles.append(WSGILifecycle("test", Silent(), drain=lambda: 0.0))
        return WSGIEdge(
            app,
            lifecycle=lifecycles[-1],
            endpoints=endpoints(),
            metrics=ServerMetrics(),
            options=lambda: made,
        )

    yield make
    for each in lifecycles:
        each.retire()


@pytest.fixture
def seen() -> Iterator[list[Event]]:
    told: list[Event] = []
    unsubscribe = events.subscribe(told.append)
    told.clear()
    yield told
    unsubscribe()


def call_wsgi(app: Any, path: str = "/", **headers: str) -> tuple[int, dict[str, str], Any]:
    """One request; the body is unread."""
    begun: list[Any] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "wsgi.url_scheme": "http"}
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    body = app(environ, lambda status, pairs, error=None: begun.append((status, pairs)))
    status, pairs = begun[-1]
    return int(status.split()[0]), {name.lower(): value for name, value in pairs}, body


async def respond(send: Any, status: int = 200, **headers: str) -> None:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": b"ok"})


# ── deadlines ────────────────────────────────────────────────────────────────────────────────────

FOREIGN = ("grpc-timeout", "X-Envoy-Expected-Rq-Timeout-Ms", "Request-Timeout-Ms")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("header", "value", "seconds"),
    [
        ("grpc-timeout", "99999999H", 60.0),
        ("grpc-timeout", "2S", 2.0),
        ("grpc-timeout", "1M", 60.0),
        ("grpc-timeout", "500m", 0.5),
        ("grpc-timeout", "500000u", 0.5),
        ("grpc-timeout", "99999999n", 0.1),
        ("grpc-timeout", "123456789S", None),
        ("grpc-timeout", "5", None),
        ("grpc-timeout", "-1S", None),
        ("grpc-timeout", "1 S", None),
        ("grpc-timeout", "1s", None),
        ("grpc-timeout", "", None),
        ("X-Envoy-Expected-Rq-Timeout-Ms", "2000", 2.0),
        ("Request-Timeout-Ms", "2500.5", 2.5005),
        ("Request-Timeout-Ms", "2s", None),
        ("X-Chassis-Deadline-Ms", "2000", 2.0),
        ("X-Chassis-Deadline-Ms", "999999999", 60.0),
        ("X-Chassis-Deadline-Ms", "nan", None),
        ("X-Chassis-Deadline-Ms", "inf", None),
        ("X-Chassis-Deadline-Ms", "1e3", None),
        ("X-Chassis-Deadline-Ms", "1_000", None),
        ("X-Chassis-Deadline-Ms", " 5", None),
        ("X-Chassis-Deadline-Ms", "0x10", None),
    ],
)
async def test_trap_49_deadlines_of_callers_are_clamped_and_malformed_ones_counted(
    header: str, value: str, seconds: float | None, seen: list[Event]
) -> None:
    """A caller shortens and never extends; what cannot be read is counted, and the default holds."""
    left: list[float] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        deadline = remaining()
        assert deadline is not None
        left.append(deadline)
        await respond(send)

    edge = asgi(app, deadline_headers=FOREIGN, default_deadline=7.0)
    answer = await ask(edge, headers={header: value})
    assert answer.status == 200
    expected = 7.0 if seconds is None else seconds
    assert expected - 0.09 < left[0] <= expected
    malformed = [each.header for each in seen if isinstance(each, DeadlineMalformed)]
    assert malformed == ([header.lower()] if seconds is None else [])


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("header", "value"),
    [("X-Chassis-Deadline-Ms", "0"), ("X-Chassis-Deadline-Ms", "-5"), ("grpc-timeout", "0S")],
)
async def test_trap_49_spent_deadlines_are_504_without_work(header: str, value: str, wsgi: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("called")

    answer = await ask(asgi(app, deadline_headers=FOREIGN), headers={header: value})
    assert answer.status == 504

    def application(environ: Any, start: Any) -> Any:
        raise AssertionError("called")

    edge = wsgi(application, deadline_headers=FOREIGN)
    status, headers, body = call_wsgi(edge, **{header.replace("-", "_"): value})
    assert (status, headers["content-type"]) == (504, "application/problem+json")
    body.close()


@pytest.mark.asyncio
async def test_headers_not_listed_are_nobody_elses_word() -> None:
    """Anybody may send them; they count where the operator says so. Of several the earliest holds."""
    left: list[float | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        left.append(remaining())
        await respond(send)

    several = {"grpc-timeout": "3S", "Request-Timeout-Ms": "2000", "X-Chassis-Deadline-Ms": "4000"}
    await ask(asgi(app), headers=several)
    await ask(asgi(app, deadline_headers=FOREIGN), headers=several)
    await ask(asgi(app, deadline_headers=FOREIGN), headers={**several, "grpc-timeout": "soon"})
    await ask(asgi(app, default_deadline=100.0))
    await ask(asgi(app))
    assert [round(each or 0) for each in left] == [4, 2, 2, 60, 60]


@pytest.mark.asyncio
async def test_new_deadline_headers_are_read_from_then_on() -> None:
    """The options may change while the server runs."""
    options = [ServerOptions(), ServerOptions(deadline_headers=("grpc-timeout",))]
    left: list[float | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        left.append(remaining())
        await respond(send)

    edge = asgi(app)
    edge._options = lambda: options[0]
    for _ in range(2):
        await ask(edge, headers={"grpc-timeout": "5S"})
        options.pop(0) if len(options) > 1 else None
    assert [round(each or 0) for each in left] == [60, 5]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("deadline_headers", ("X-Request-Timeout",)),
        ("max_deadline", 0),
        ("max_deadline", float("nan")),
        ("default_deadline", -1),
    ],
)
def test_trap_60_impossible_server_options_are_refused(field: str, value: Any) -> None:
    """Also a header whose unit nobody can know."""
    with pytest.raises(ConfigError) as caught:
        ServerOptions(**{field: value})
    assert caught.value.setting == field


@pytest.mark.asyncio
async def test_trap_51_background_work_of_a_request_keeps_its_deadline_unless_detached() -> None:
    """A task begun in a request inherits its deadline; detached, it lives on after the answer."""
    tasks: list[asyncio.Task[float | None]] = []
    answered = asyncio.Event()

    async def later() -> float | None:
        await answered.wait()
        return remaining()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        tasks.append(asyncio.create_task(later()))
        with detach_deadline():
            assert current_deadline() is None
            tasks.append(asyncio.create_task(later()))
        assert current_deadline() is not None
        await respond(send)

    await ask(asgi(app), headers={"X-Chassis-Deadline-Ms": "5000"})
    answered.set()
    inherited, detached = await asyncio.gather(*tasks)
    assert inherited is not None
    assert 0 < inherited <= 5
    assert detached is None


# ── load shedding ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.asyncio
async def test_requests_beyond_the_limit_are_503_before_any_work(seen: list[Event]) -> None:
    """With Retry-After, as problem+json; counted as answers and as an event; probes are always answered."""
    release = asyncio.Event()
    calls: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope["path"])
        await release.wait()
        await respond(send)

    edge = asgi(app, shedding=LoadShedderOptions(max_in_flight=2))
    held = [asyncio.create_task(ask(edge, f"/{number}")) for number in range(2)]
    while len(calls) < 2:
        await asyncio.sleep(0)
    refused = await ask(edge, "/3", headers={"X-Request-Id": "r3"})
    assert refused.status == 503
    assert refused.headers["content-type"] == "application/problem+json"
    assert int(refused.headers["retry-after"]) >= 1
    assert json.loads(refused.body)["request_id"] == "r3"
    assert calls == ["/0", "/1"]
    for path in ("/livez", "/health", "/metrics"):
        assert (await ask(edge, path)).status == 200
    [event] = [each for each in seen if isinstance(each, LoadShed)]
    assert (event.subject, event.reason, event.in_flight) == ("server", "in_flight", 2)
    assert 'status="503"' in render().body.decode()
    release.set()
    assert [answer.status for answer in await asyncio.gather(*held)] == [200, 200]
    assert (await ask(edge, "/4")).status == 200


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [200, 404, 500])
async def test_every_way_an_answer_ends_gives_its_place_back(status: int) -> None:
    """Answers, errors, clients that leave; an event stream gives it back with its headers."""
    ending: list[Any] = [status]
    hold = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        how = ending[-1]
        if isinstance(how, BaseException):
            raise how
        if how == "stream":
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
                }
            )
            await hold.wait()
        elif how == "leave":
            await hold.wait()
        else:
            await respond(send, how)

    edge = asgi(app, shedding=LoadShedderOptions(max_in_flight=1))
    in_flight = lambda: edge._arrivals.shedder.describe()["in_flight"]  # noqa: E731
    assert (await ask(edge)).status == status
    ending.append(LookupError())
    with pytest.raises(LookupError):
        await ask(edge)
    ending.append(DeadlineExceeded("too late"))
    assert (await ask(edge)).status == 504
    ending.append("leave")
    left = asyncio.create_task(ask(edge))
    while not in_flight():
        await asyncio.sleep(0)
    assert (await ask(edge)).status == 503
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    ending.append("stream")
    answer = Answer()
    stream = asyncio.create_task(ask(edge, answer=answer))
    while not answer.messages:
        await asyncio.sleep(0)
    assert in_flight() == 0
    ending.append(status)
    assert (await ask(edge)).status == status
    hold.set()
    await stream
    assert in_flight() == 0


@pytest.mark.asyncio
async def test_requests_that_cannot_be_answered_in_time_are_refused_at_once() -> None:
    """Measured by answers that did what was asked: a quick 404 tells nothing of the work."""
    calls: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope["path"])
        if scope["path"] == "/work":
            await asyncio.sleep(0.05)
        await respond(send, 200 if scope["path"] == "/work" else 404)

    edge = asgi(app, shedding=LoadShedderOptions(hopeless=True, hopeless_share=1.0))
    await ask(edge, "/work")
    await ask(edge, "/nothing")
    impatient = {"X-Chassis-Deadline-Ms": "20"}
    assert (await ask(edge, "/work", headers=impatient)).status == 503
    assert len(calls) == 2
    assert (await ask(edge, "/work", headers={"X-Chassis-Deadline-Ms": "5000"})).status == 200


@pytest.mark.asyncio
async def test_shedding_follows_the_options_of_the_moment() -> None:
    """Off by default: nothing is counted and nothing refused; on from the request after the change."""
    options = [ServerOptions()]
    hold = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hold.wait()
        await respond(send)

    edge = asgi(app)
    edge._options = lambda: options[0]
    tasks = [asyncio.create_task(ask(edge))]
    await asyncio.sleep(0)
    assert edge._arrivals.shedder.describe()["in_flight"] == 0
    options[0] = ServerOptions(shedding=LoadShedderOptions(max_in_flight=1))
    tasks.append(asyncio.create_task(ask(edge)))
    await asyncio.sleep(0)
    assert (await ask(edge)).status == 503
    options[0] = ServerOptions()
    tasks.append(asyncio.create_task(ask(edge)))
    await asyncio.sleep(0)
    hold.set()
    assert [answer.status for answer in await asyncio.gather(*tasks)] == [200, 200, 200]


def test_wsgi_sheds_the_same(wsgi: Any) -> None:
    """A place is held until the body is closed; an event stream gives it back with its headers."""
    kinds = ["text/plain"]

    def application(environ: Any, start: Any) -> Any:
        start("200 OK", [("Content-Type", kinds[-1])])
        return iter([b"a", b"b"])

    edge = wsgi(application, shedding=LoadShedderOptions(max_in_flight=1))
    status, _, body = call_wsgi(edge)
    assert status == 200
    refused, headers, none = call_wsgi(edge)
    assert (refused, int(headers["retry-after"]) >= 1) == (503, True)
    none.close()
    assert list(body) == [b"a", b"b"]
    body.close()
    kinds.append("text/event-stream")
    status, _, stream = call_wsgi(edge)
    kinds.append("text/plain")
    again, _, body = call_wsgi(edge)
    assert (status, again) == (200, 200)
    body.close()
    stream.close()
    assert edge._arrivals.shedder.describe()["in_flight"] == 0


@pytest.mark.asyncio
async def test_a_rate_limit_is_429_with_retry_after(wsgi: Any) -> None:
    """RFC 6585; every other refusal is 503."""
    error: list[Rejected] = [RateLimited("search", retry_after=1.2)]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error[0]

    answer = await ask(asgi(app))
    assert (answer.status, answer.headers["retry-after"]) == (429, "2")
    assert json.loads(answer.body)["title"] == "Too Many Requests"

    def application(environ: Any, start: Any) -> Any:
        raise error[0]

    status, headers, body = call_wsgi(wsgi(application))
    assert (status, headers["retry-after"]) == (429, "2")
    body.close()
    error[0] = Rejected("no", retry_after=0.1)
    assert (await ask(asgi(app))).status == 503


@pytest.mark.asyncio
async def test_a_rate_limits_refusal_tells_its_quota_and_never_its_key(wsgi: Any) -> None:
    """RateLimit-Policy and RateLimit, which name the same moment as Retry-After; nothing of the caller."""
    limit = RateLimit("search", rate=2, per=60, key=lambda token: token, clock=lambda: 1000.0, register=False)
    search = limit(lambda token: None)
    for _ in range(2):
        search("secret-token")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        search("secret-token")

    def application(environ: Any, start: Any) -> Any:
        search("secret-token")

    answer = await ask(asgi(app))
    status, headers, body = call_wsgi(wsgi(application))
    assert (answer.status, status) == (429, 429)
    for told in (answer.headers, headers):
        assert told["ratelimit-policy"] == '"search";q=2;w=60'
        assert told["ratelimit"] == '"search";r=0;t=30'
        assert told["retry-after"] == "30"
    assert "secret" not in f"{answer.headers}{answer.body!r}{headers}{b''.join(body)!r}"
    body.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("failure", "status", "detail"),
    [
        ("unreachable", 503, "payments cannot be reached"),
        ("broken", 502, "payments gave no whole answer"),
        ("late", 504, "payments did not answer in time"),
    ],
)
async def test_a_failure_of_a_service_that_was_called_is_no_defect_of_this_one(
    wsgi: Any, failure: UpstreamFailure, status: int, detail: str
) -> None:
    """Said in the same words at both edges, with nothing of the inside, and asking for no further retry."""
    error = UpstreamError("refused at 10.0.0.7:80", service="payments", failure=failure)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    def application(environ: Any, start: Any) -> Any:
        raise error

    def streaming(environ: Any, start: Any) -> Any:
        raise error
        yield b""

    answer = await ask(asgi(app))
    answers = [(answer.status, answer.headers, answer.body)]
    answers += [(*call_wsgi(wsgi(application))[:2], b"".join(call_wsgi(wsgi(application))[2]))]
    for told, headers, body in answers:
        assert (told, json.loads(body)["detail"]) == (status, detail)
        assert headers["x-chassis-no-retry"] == "1"
        assert headers["content-type"] == "application/problem+json"
        assert b"10.0.0.7" not in body
    begun: list[str] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http"}
    b"".join(wsgi(streaming)(environ, lambda status, *_: begun.append(status)))
    assert begun[0].startswith(str(status))


@pytest.mark.asyncio
async def test_a_shedder_of_the_applications_own_is_answered_the_same() -> None:
    """A policy around one route sheds that route alone."""
    shedder = LoadShedder("reports", max_in_flight=1, register=False)
    permit = shedder.acquire()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await shedder.run(lambda: respond(send))

    answer = await ask(asgi(app))
    assert answer.status == 503
    assert "reports" in json.loads(answer.body)["detail"]
    with deadline_scope(Deadline.after(-1)), pytest.raises(DeadlineExceeded):
        shedder.acquire()
    del permit
