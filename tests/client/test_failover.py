"""What goes wrong at one instance is another one's turn, within budget, deadline and reason."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from chassis.breaker import BreakerOptions, BreakerState
from chassis.client import ClientOptions, NoInstanceReachable, RetryBudgetExhausted
from chassis.core import CircuitOpen, Deadline, Instance, Snapshot, deadline_scope
from chassis.discovery import MemoryDiscovery
from chassis.retries import BudgetOptions
from tests.client.calling import Caller, catalog
from tests.client.scripted import Received, ScriptedServer, answer, pause
from tests.support.ports import free_port
from tests.support.waiting import wait_until

Serve = Callable[..., ScriptedServer]
Calling = Callable[..., Caller]

NEVER_OPENS = BreakerOptions(consecutive_failures=None, minimum_calls=100_000)


@pytest.fixture
def module() -> str:
    """One HTTP module for what it has no part in; the rest says so itself."""
    return "httpx2"


def asked(*servers: ScriptedServer) -> int:
    return sum(len(server.received) for server in servers)


def test_case_24_a_killed_instance_is_asked_no_more_than_it_takes_to_know(
    serve: Serve, calling: Calling
) -> None:
    """No error for a GET, at most 1.1 attempts a request once that is known: after three refusals."""
    servers = [serve() for _ in range(4)]
    caller = calling(catalog(*servers))
    for _ in range(4):
        caller.get()
    servers[0].close()
    attempts = [caller.get().extensions["chassis"].attempts for _ in range(60)]
    assert sum(attempts) == 60 + 3
    assert attempts[-30:] == [1] * 30
    assert caller.breaker(0).state is BreakerState.OPEN


def test_case_25_a_frozen_instance_costs_a_few_timeouts_and_is_then_left_alone(
    serve: Serve, calling: Calling
) -> None:
    """It accepts and stays silent; nobody waits longer than one attempt's timeout and the next answer."""
    silent, good = serve(answer(delay=30)), serve()
    caller = calling(
        catalog(silent, good), ClientOptions(timeout=0.15), BreakerOptions(consecutive_failures=2)
    )
    for _ in range(20):
        began = time.monotonic()
        response = caller.get()
        assert time.monotonic() - began < 5  # the silent one answers after thirty seconds
        assert response.status_code == 200
        assert response.extensions["chassis"].attempts <= 2
    assert asked(silent) <= 2 + 2  # as a timeout in a moment of this process's own lag does not count
    assert caller.breaker(0).state is BreakerState.OPEN


def test_case_28_when_all_fail_the_load_stays_within_budget_and_the_answer_is_theirs(
    serve: Serve, calling: Calling
) -> None:
    servers = [serve(answer(503, b"all of us are busy")) for _ in range(3)]
    caller = calling(catalog(*servers), None, NEVER_OPENS)
    caller.policy("/budget").reconfigure(BudgetOptions(per_second=0))
    told: list[Any] = []
    caller.bus.subscribe(told.append)
    for _ in range(100):
        response = caller.get()
        assert (response.status_code, response.text) == (503, "all of us are busy")
    assert 110 < asked(*servers) <= 120
    assert {type(event) for event in told} >= {RetryBudgetExhausted}


def test_case_28_when_all_fail_there_is_always_one_that_is_asked(serve: Serve, calling: Calling) -> None:
    """Comparison with peers ejects no last one, and when none is healthy it ejects none at all."""
    servers = [serve(answer(503)) for _ in range(4)]
    caller = calling(catalog(*servers), ClientOptions(retries=0), NEVER_OPENS)
    for _ in range(200):
        assert caller.get().status_code == 503
    before = asked(*servers)
    assert caller.get().status_code == 503
    assert asked(*servers) == before + 1


def test_case_29_one_failing_instance_is_never_unreachable_for_ever(serve: Serve, calling: Calling) -> None:
    server = serve(script=[answer(500)] * 3)
    breaker = BreakerOptions(consecutive_failures=3, open_for=0.1, probes=1)
    caller = calling(catalog(server), None, breaker)
    assert [caller.get().status_code for _ in range(3)] == [500] * 3
    with pytest.raises(CircuitOpen) as refused:
        caller.get()
    assert refused.value.retry_after is not None
    wait_until(lambda: caller.breaker().ready, what="a probe to be admitted")
    assert [caller.get().status_code for _ in range(5)] == [200] * 5
    assert caller.breaker().state is BreakerState.CLOSED


@pytest.mark.parametrize("told", ["3600", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_case_30_a_wait_beyond_the_deadline_is_not_obeyed(serve: Serve, calling: Calling, told: str) -> None:
    """The answer is the caller's at once, and says itself when to come back."""
    server = serve(answer(503, headers={"Retry-After": told}))
    caller = calling(catalog(server), None, NEVER_OPENS)
    began = time.monotonic()
    response = caller.get()
    assert time.monotonic() - began < 5  # the deadline is ten seconds away
    assert (response.status_code, response.headers["Retry-After"]) == (503, told)
    assert asked(server) == 1


def test_trap_41_a_told_wait_that_does_not_fit_fails_at_once(serve: Serve, calling: Calling) -> None:
    server = serve(answer(503, headers={"Retry-After": "10"}))
    caller = calling(catalog(server), None, NEVER_OPENS)

    async def call() -> Any:
        with deadline_scope(Deadline.after(8)):
            return await caller.client.get("/")

    began = time.monotonic()
    if caller.asynchronous:
        response = caller.wait(call())
    else:
        with deadline_scope(Deadline.after(8)):
            response = caller.get()
    assert time.monotonic() - began < 5  # neither the eight seconds that are left nor the ten it was told
    assert response.headers["Retry-After"] == "10"
    assert asked(server) == 1


def test_a_told_wait_above_the_limit_is_not_obeyed_either(serve: Serve, calling: Calling) -> None:
    server = serve(answer(503, headers={"Retry-After": "8"}))
    caller = calling(catalog(server), ClientOptions(retry_after_max=7.0), NEVER_OPENS)
    began = time.monotonic()
    assert caller.get().status_code == 503
    assert time.monotonic() - began < 5  # neither the limit nor what it was told
    assert asked(server) == 1


def test_a_told_wait_that_fits_is_obeyed_where_nobody_else_is_left(serve: Serve, calling: Calling) -> None:
    caller = calling(catalog())
    status = 429 if caller.asynchronous else 503
    server = serve(script=[answer(status, headers={"Retry-After": "1"})])
    caller.discovery.put(Instance(id="one", service="catalog", host="127.0.0.1", port=server.port))
    began = time.monotonic()
    response = caller.get()
    assert time.monotonic() - began >= 1.0
    assert (response.status_code, response.extensions["chassis"].attempts) == (200, 2)


def test_nobody_waits_while_another_instance_is_untried(serve: Serve, calling: Calling) -> None:
    busy, good = serve(answer(503, headers={"Retry-After": "9"})), serve()
    caller = calling(catalog(busy, good))
    began = time.monotonic()
    assert [caller.get().status_code for _ in range(4)] == [200] * 4
    assert time.monotonic() - began < 5  # one wait alone were nine seconds


def test_what_an_answer_told_reaches_breaker_and_balancer(serve: Serve, calling: Calling) -> None:
    """The breaker knows what its last failure was, and an instance that asked for time is given it."""
    busy, good = serve(answer(503, headers={"Retry-After": "20"})), serve()
    breaker = BreakerOptions(consecutive_failures=1, open_for=1)
    caller = calling(catalog(busy, good), None, breaker)
    for _ in range(6):
        assert caller.get().status_code == 200
    assert asked(busy) == 1
    described = caller.breaker(0).describe()
    assert described["last_failure"] == "BadAnswer: 503 Service Unavailable"
    assert described["retry_after"] > 15


def test_a_429_is_no_failure_but_the_instance_is_given_its_time(serve: Serve, calling: Calling) -> None:
    busy, good = serve(answer(429, headers={"Retry-After": "20"})), serve()
    caller = calling(catalog(busy, good), None, BreakerOptions(consecutive_failures=1))
    for _ in range(8):
        assert caller.get().status_code == 200
    assert asked(busy) == 1
    assert caller.breaker(0).state is BreakerState.CLOSED


@pytest.mark.parametrize("value", ["abc", "-1", "1e9", "8.5", "0"])
def test_trap_42_a_retry_after_that_means_nothing_is_no_wait(
    serve: Serve, calling: Calling, value: str
) -> None:
    server = serve(script=[answer(503, headers={"Retry-After": value})])
    began = time.monotonic()
    assert calling(catalog(server)).get().status_code == 200
    assert time.monotonic() - began < 5  # the longest that a wait here could be is eight seconds and a half


def test_trap_40_a_post_without_a_key_is_retried_when_refused_and_not_when_answered(
    serve: Serve, calling: Calling
) -> None:
    busy = serve(answer(503))
    caller = calling(catalog(free_port(), busy), None, NEVER_OPENS)
    for _ in range(4):
        assert caller.post("/orders", content=b"one").status_code == 503
    assert asked(busy) == 4


def test_trap_44_with_no_budget_left_callers_get_one_attempt_each(serve: Serve, calling: Calling) -> None:
    servers = [serve(answer(503)) for _ in range(2)]
    caller = calling(catalog(*servers), None, NEVER_OPENS)
    caller.policy("/budget").reconfigure(BudgetOptions(ratio=0.1, per_second=0))
    attempts = [caller.get().extensions["chassis"].attempts for _ in range(50)]
    assert sum(attempts) <= 55
    assert asked(*servers) == sum(attempts)


def test_a_retry_that_cannot_be_is_not_paid_for(serve: Serve, calling: Calling) -> None:
    """Neither one for which no time is left, nor one for which every breaker is open."""
    server = serve(answer(503, headers={"Retry-After": "3600"}))
    caller = calling(catalog(server), None, NEVER_OPENS)
    before = caller.policy("/budget").describe()["available"]
    caller.get()
    assert caller.policy("/budget").describe()["available"] >= before


def test_a_caller_that_leaves_during_a_pause_gives_its_reservation_back(serve: Serve) -> None:
    server = serve(answer(503, headers={"Retry-After": "5"}))
    with Caller("async", "httpx2", catalog(server), None, NEVER_OPENS) as caller:

        async def leave() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await caller.client.get("/")

        caller.wait(leave())
        described = caller.policy("/budget").describe()
        assert (described["waiting"], described["refused"]) == (0, 0)
        assert caller.in_flight() == 0


def test_trap_46_an_open_breaker_costs_no_pause_while_another_instance_is_there(
    serve: Serve, calling: Calling
) -> None:
    broken, good = serve(answer(500)), serve()
    caller = calling(catalog(broken, good), None, BreakerOptions(consecutive_failures=1, open_for=30))
    while caller.upstream.endpoints.endpoints() == () or caller.breaker(0).state is BreakerState.CLOSED:
        caller.get()
    paused = 0
    for _ in range(10):
        began = time.monotonic()
        response = caller.get()
        paused += time.monotonic() - began > 0.15
        assert (response.status_code, response.extensions["chassis"].attempts) == (200, 1)
    assert paused <= 2  # a busy machine may hold up some; with a pause every other one had it
    assert asked(broken) == 1


def test_nobody_pauses_for_instances_that_admit_nobody(serve: Serve, calling: Calling) -> None:
    """Where all breakers stay open for longer than the pause, the error comes at once."""
    server = serve(answer(503, headers={"Retry-After": "8"}))
    caller = calling(catalog(server), None, BreakerOptions(consecutive_failures=1, open_for=30))
    began = time.monotonic()
    assert caller.get().status_code == 503
    assert time.monotonic() - began < 5  # the pause were eight seconds
    assert asked(server) == 1


def test_trap_47_a_stream_that_was_begun_is_not_sent_again_as_an_empty_one(
    serve: Serve, calling: Calling
) -> None:
    servers = [serve(answer(503)), serve(answer(503))]
    caller = calling(catalog(*servers))

    async def parts_async():  # type: ignore[no-untyped-def]  # an async generator of bytes
        yield b"one"

    content = parts_async() if caller.asynchronous else iter([b"one"])
    assert caller.request("PUT", "/", content=content).status_code == 503
    (request,) = [*servers[0].received, *servers[1].received]
    assert request.body == b"one"


@pytest.mark.parametrize("module", ["httpx2", "httpx"])
def test_case_26_a_stream_that_was_not_begun_goes_to_another_instance_too(
    serve: Serve, calling: Calling
) -> None:
    """A refused connection has read nothing of it."""
    server = serve()
    caller = calling(catalog(free_port(), server))

    async def parts_async():  # type: ignore[no-untyped-def]  # an async generator of bytes
        yield b"one"
        yield b"two"

    for _ in range(2):
        content = parts_async() if caller.asynchronous else iter([b"one", b"two"])
        assert caller.post("/uploads", content=content).status_code == 200
    assert [request.body for request in server.received] == [b"onetwo"] * 2


def test_case_36_a_restart_on_another_port_drops_what_belonged_to_the_old_one(
    serve: Serve, calling: Calling
) -> None:
    old, new = serve(answer(500)), serve()
    discovery = catalog(old)
    caller = calling(discovery, None, BreakerOptions(consecutive_failures=1))
    assert caller.get().status_code == 500
    assert caller.breaker().state is BreakerState.OPEN
    # Held, or collecting them would close the connections too.
    pools = list(caller.upstream.endpoints.endpoints()[0].state._pools.values())
    try:
        discovery.put(Instance(id="catalog-0", service="catalog", host="127.0.0.1", port=new.port))
        assert caller.get().status_code == 200
        assert caller.breaker().state is BreakerState.CLOSED
        wait_until(lambda: old.open_connections == 0, 2, "the old address's connections to close")
    finally:
        for pool in pools:
            pool.close()


class Doubted:
    """A discovery that counts how often it is doubted."""

    def __init__(self, inner: MemoryDiscovery) -> None:
        self.inner = inner
        self.doubts = 0

    def subscribe(self, service: str, listener: Callable[[Snapshot], None]) -> Doubted:
        self.subscription = self.inner.subscribe(service, listener)
        return self

    def doubt(self) -> None:
        self.doubts += 1

    def close(self) -> None:
        self.subscription.close()

    def describe(self) -> Any:
        return self.inner.describe()


def test_discovery_is_doubted_when_no_instance_takes_connections_any_more(
    serve: Serve, calling: Calling
) -> None:
    """Once a second at most, however many calls find out."""
    good = serve()
    discovery = Doubted(catalog(free_port(), free_port(), good))
    caller = calling(discovery, ClientOptions(retries=0))
    told: list[Any] = []
    caller.bus.subscribe(told.append)
    for _ in range(3):
        assert caller.get().status_code == 200
    assert discovery.doubts == 0
    good.close()
    for _ in range(3):
        with pytest.raises(caller.http.module.HTTPError):
            caller.get()
    assert discovery.doubts == 1
    (event,) = [each for each in told if isinstance(each, NoInstanceReachable)]
    assert event.instances == 3


def test_an_answer_however_bad_is_no_reason_to_doubt_discovery(serve: Serve, calling: Calling) -> None:
    discovery = Doubted(catalog(serve(answer(500)), serve(answer(503))))
    caller = calling(discovery)
    for _ in range(4):
        assert caller.get().status_code >= 500
    assert discovery.doubts == 0


@pytest.mark.parametrize("module", ["httpx2", "httpx"])
def test_the_callers_own_mistake_is_not_the_instances_failure(serve: Serve, calling: Calling) -> None:
    """A body that raises while it is sent, say."""
    caller = calling(catalog(serve()), None, BreakerOptions(consecutive_failures=1))

    def broken():  # type: ignore[no-untyped-def]  # a generator of bytes
        yield b"one"
        raise ValueError("the caller's own")

    async def broken_async():  # type: ignore[no-untyped-def]  # an async generator of bytes
        yield b"one"
        raise ValueError("the caller's own")

    with pytest.raises(ValueError, match="own"):
        caller.post("/", content=broken_async() if caller.asynchronous else broken())
    assert caller.breaker().state is BreakerState.CLOSED
    assert caller.in_flight() == 0


def test_a_deadline_that_passes_in_a_queue_sends_nothing_and_spares_the_breaker(serve: Serve) -> None:
    """Trap 50's other half: 0 ms left, not sent, DeadlineExceeded here."""
    from chassis.client._attempt import Try
    from chassis.client._instance import admit
    from chassis.core import DeadlineExceeded

    server = serve()
    with Caller("sync", "httpx2", catalog(server), None, BreakerOptions(consecutive_failures=1)) as caller:
        caller.upstream.open()
        admitted = admit(caller.upstream.endpoints, [])
        assert admitted is not None
        request = caller.client.build_request("GET", "http://catalog/")
        with pytest.raises(DeadlineExceeded, match="about to be called"):
            Try(
                caller.upstream,
                request,
                request.stream,
                caller.http,
                admitted,
                timeout=1,
                deadline=Deadline.after(-0.001),
                number=1,
            )
        assert caller.in_flight() == 0
        assert caller.breaker().state is BreakerState.CLOSED
    assert asked(server) == 0


@pytest.mark.parametrize("module", ["httpx2", "httpx"])
def test_trap_45_an_error_that_was_dealt_with_leaves_nothing_for_the_collector(
    serve: Serve, calling: Calling
) -> None:
    """Neither the error nor what its frames hold waits for a collection.

    It is the body's own error: of one that the HTTP module translates, Python 3.12 keeps a cycle itself.
    """
    caller = calling(catalog(serve()), ClientOptions(retries=0))
    client = caller.client

    class Marked(str):
        __slots__ = ("__weakref__",)

    kept: list[weakref.ref[Any]] = []

    async def abody() -> AsyncIterator[bytes]:
        yield b"part"
        raise OSError("the disk is gone")

    def body() -> Iterator[bytes]:
        yield b"part"
        raise OSError("the disk is gone")

    async def call() -> None:
        url = Marked("/")
        kept.append(weakref.ref(url))
        with contextlib.suppress(OSError):
            await client.post(url, content=abody())

    def call_sync() -> None:
        url = Marked("/")
        kept.append(weakref.ref(url))
        with contextlib.suppress(OSError):
            client.post(url, content=body())

    gc.collect()
    gc.disable()
    try:
        if caller.asynchronous:
            caller.wait(call())
            wait_until(lambda: kept[0]() is None, 2, "the caller's own object to go")
        else:
            call_sync()
            assert kept[0]() is None
    finally:
        gc.enable()


def test_a_slow_headed_answer_is_bounded_by_the_attempts_timeout(serve: Serve) -> None:
    """Every byte that comes in time does not make the whole come in time."""

    def dripping(connection: Any, request: Received) -> bool:
        for _ in range(600):
            connection.sendall(b"H")
            pause(connection, 0.05)
        return False

    options = ClientOptions(timeout=0.3, retries=0)
    with Caller("async", "httpx2", catalog(serve(dripping)), options) as caller:
        began = time.monotonic()
        with pytest.raises(caller.http.module.TimeoutException):
            caller.get()
        assert time.monotonic() - began < 5  # the drops come for thirty seconds
