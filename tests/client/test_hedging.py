"""A slow attempt gets another one beside it: the first good answer wins, the other leaves no trace."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from contextvars import copy_context
from typing import Any

import pytest

from chassis.breaker import BreakerOptions, BreakerState
from chassis.client import ClientOptions, NotHedged, ServiceUpstreams, async_client, sync_client
from chassis.client._effects import Race
from chassis.core import ConfigError, Deadline, EventBus, Outcome, PolicyRegistry, deadline_scope
from chassis.discovery import MemoryDiscovery
from chassis.loadbalancing import BalancingOptions
from chassis.retries import BudgetOptions, HedgeOptions
from tests.client.calling import Caller, catalog
from tests.client.scripted import Received, ScriptedServer, answer, hang_up
from tests.support.waiting import wait_until

Serve = Callable[..., ScriptedServer]
Hedging = Callable[..., Caller]

SOON = HedgeOptions(delay=0.05, extra_load=1.0)
SLOW = 0.35


@pytest.fixture
def hedging() -> Iterator[Hedging]:
    """Makes async callers that hedge after 50 ms, under httpx2 unless they are told otherwise."""
    with ExitStack() as stack:

        def call(
            *servers: Any,
            hedge: HedgeOptions = SOON,
            breaker: Any = None,
            module: Any = "httpx2",
            **options: Any,
        ) -> Caller:
            given = ClientOptions(hedge=hedge, **options)
            caller = stack.enter_context(Caller("async", module, catalog(*servers), given, breaker))
            caller.upstream.open()
            return caller

        yield call


def first_at(caller: Caller, number: int) -> None:
    """Make the next call's first attempt go to this instance."""
    endpoints = caller.upstream.endpoints
    for _ in range(20):
        pick = endpoints.pick()
        assert pick is not None
        pick.settle(Outcome.IGNORED)
        if pick.endpoint is endpoints.endpoints()[number - 1]:
            return
    raise AssertionError("it is not round robin")


def test_a_slow_attempt_is_overtaken_by_one_at_another_instance(serve: Serve, hedging: Hedging) -> None:
    slow, quick = serve(answer(body=b"slow", delay=30)), serve(answer(body=b"quick"))
    caller = hedging(slow, quick, timeout=20, deadline=60)
    first_at(caller, 0)
    began = time.monotonic()
    response = caller.get()
    assert time.monotonic() - began < 5
    assert response.text == "quick"
    info = response.extensions["chassis"]
    assert (info.hedged, info.attempts, info.instance.port) == (True, 2, quick.port)
    traces = [server.received[-1].headers["traceparent"].split("-") for server in (slow, quick)]
    assert traces[0][1] == traces[1][1]  # one trace
    assert [server.received[-1].headers["x-chassis-attempt"] for server in (slow, quick)] == ["1", "2"]


def test_the_one_that_is_overtaken_says_nothing_of_its_instance(serve: Serve, hedging: Hedging) -> None:
    slow, quick = serve(answer(delay=30)), serve()
    caller = hedging(slow, quick, breaker=BreakerOptions(consecutive_failures=1))
    endpoint = caller.upstream.endpoints.endpoints()[0]
    before = caller.breaker(0).describe()["calls"], endpoint.successes, endpoint.failures
    first_at(caller, 0)
    assert caller.get().extensions["chassis"].hedged
    assert caller.in_flight() == 0
    assert (caller.breaker(0).describe()["calls"], endpoint.successes, endpoint.failures) == before
    assert caller.breaker(0).state is BreakerState.CLOSED
    caller.wait(caller.settle())
    wait_until(lambda: slow.open_connections == 0, what="the overtaken one's connection to close")


class Stubborn:
    """An attempt that ignores its cancellation for a while, or until it is released."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.release = asyncio.Event()
        self.ended = False

    async def perform(self) -> Any:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.release.wait(), self.seconds)
            self.ended = True
            raise RuntimeError("nobody takes this error") from None


class Quick:
    """An attempt that is answered at once."""

    async def perform(self) -> Any:
        return "good"


@pytest.mark.asyncio
async def test_trap_55_the_caller_does_not_wait_for_one_that_will_not_be_cancelled() -> None:
    """No longer than the grace; it ends on its own, and its error is taken."""
    stubborn = Stubborn(5)
    race: Race[Any] = Race(
        stubborn,
        copy_context(),
        delay=0.01,
        another=lambda: (Quick(), copy_context()),
        good=lambda response: True,
        grace=0.05,
    )
    ended = await race.perform()
    assert not stubborn.ended
    assert [each.response for each in ended] == ["good"]
    stubborn.release.set()
    while others := asyncio.all_tasks() - {asyncio.current_task()}:  # type: ignore[arg-type]  # set of tasks
        await asyncio.wait(others, timeout=5)
    assert stubborn.ended
    gc.collect()  # a task whose error nobody took would tell the loop's handler, and fail this test


@pytest.mark.asyncio
async def test_the_grace_waits_for_one_that_ends_soon() -> None:
    stubborn = Stubborn(0.05)
    await Race(
        stubborn,
        copy_context(),
        delay=0.01,
        another=lambda: (Quick(), copy_context()),
        good=lambda response: True,
        grace=5.0,
    ).perform()
    assert stubborn.ended


def test_an_attempt_that_is_overtaken_under_httpx_ends_on_its_own(serve: Serve, hedging: Hedging) -> None:
    """Its connections do not survive a cancellation, so its answer is waited for and closed."""
    released = threading.Event()

    def when_released(connection: Any, request: Received) -> bool:
        return released.wait(20) and answer()(connection, request)

    slow, quick = serve(when_released), serve()
    caller = hedging(slow, quick, module="httpx")
    first_at(caller, 0)
    assert caller.get().extensions["chassis"].hedged
    assert not released.is_set()
    assert slow.open_connections == 1
    released.set()
    slow.behaviour = answer()
    caller.wait(caller.settle())
    assert caller.get().status_code == 200


def test_a_quick_attempt_is_left_alone(serve: Serve, hedging: Hedging) -> None:
    servers = [serve(), serve()]
    caller = hedging(*servers)
    infos = [caller.get().extensions["chassis"] for _ in range(10)]
    assert [(info.attempts, info.hedged) for info in infos] == [(1, False)] * 10


def test_there_is_no_hedge_before_enough_was_seen_and_then_after_what_is_usual(
    serve: Serve, hedging: Hedging
) -> None:
    """The delay is what 95 % of the recent answers stayed below."""
    quick = answer(delay=0.01)
    servers = [serve(quick), serve(quick)]
    caller = hedging(*servers, hedge=HedgeOptions(minimum_calls=20, extra_load=1.0))
    servers[0].script.append(answer(delay=0.2))
    first_at(caller, 0)
    assert not caller.get().extensions["chassis"].hedged
    for _ in range(30):
        caller.get()
    servers[0].script.append(answer(delay=30))
    first_at(caller, 0)
    assert caller.get().extensions["chassis"].hedged


@pytest.mark.parametrize(
    ("method", "options", "hedged"),
    [
        ("POST", {"content": b"one"}, False),
        ("PUT", {"content": b"one"}, False),
        ("POST", {"content": b"one", "headers": {"Idempotency-Key": "7"}}, True),
    ],
)
def test_only_what_may_be_under_way_twice_is_hedged(
    serve: Serve, hedging: Hedging, method: str, options: dict[str, Any], hedged: bool
) -> None:
    slow, quick = serve(answer(delay=30 if hedged else 0.15)), serve()
    caller = hedging(slow, quick)
    first_at(caller, 0)
    assert caller.request(method, "/", **options).extensions["chassis"].hedged is hedged


def test_a_streamed_body_is_never_hedged(serve: Serve, hedging: Hedging) -> None:
    slow, quick = serve(answer(delay=0.15)), serve()
    caller = hedging(slow, quick)
    first_at(caller, 0)

    async def parts():  # type: ignore[no-untyped-def]  # an async generator of bytes
        yield b"one"

    response = caller.request("GET", "/", content=parts(), headers={"Idempotency-Key": "7"})
    assert not response.extensions["chassis"].hedged


def test_one_instance_alone_is_not_asked_twice_at_once(serve: Serve, hedging: Hedging) -> None:
    server = serve(answer(delay=0.15))
    assert not hedging(server).get().extensions["chassis"].hedged
    assert len(server.received) == 1


def test_an_instance_whose_breaker_is_not_closed_gets_no_hedge(serve: Serve, hedging: Hedging) -> None:
    slow, broken = serve(answer(delay=0.2)), serve(answer(500))
    caller = hedging(slow, broken, breaker=BreakerOptions(consecutive_failures=1, open_for=0.05, probes=1))
    while caller.breaker(1).state is BreakerState.CLOSED:
        caller.get()
    wait_until(lambda: caller.breaker(1).ready, what="a probe to be admitted")
    asked = len(broken.received)
    first_at(caller, 0)
    assert not caller.get().extensions["chassis"].hedged
    assert len(broken.received) == asked


def test_what_probes_an_ejected_instance_gets_no_hedge(serve: Serve, hedging: Hedging) -> None:
    """Were it overtaken, it would have found out nothing."""
    slow, quick = serve(answer(delay=0.15)), serve()
    caller = hedging(slow, quick)
    caller.policy("/balancing").reconfigure(BalancingOptions(ejection_time=0.02))
    ejected, other = caller.upstream.endpoints.endpoints()
    for passed_over, outcome in ((ejected, Outcome.SUCCESS), (other, Outcome.FAILURE)):
        for _ in range(20):
            pick = caller.upstream.endpoints.pick(exclude=[passed_over])
            assert pick is not None
            pick.settle(outcome)
    assert ejected.ejected
    wait_until(lambda: ejected.probe_due(time.monotonic()), what="its time to be up")
    assert [caller.get().extensions["chassis"].hedged for _ in range(2)] == [False, False]
    assert not ejected.ejected


def test_trap_56_without_budget_the_first_attempt_goes_on(serve: Serve, hedging: Hedging) -> None:
    slow, quick = serve(answer(body=b"slow", delay=0.2)), serve()
    caller = hedging(slow, quick)
    caller.policy("/budget").reconfigure(BudgetOptions(ratio=1e-6, per_second=0))
    first_at(caller, 0)
    response = caller.get()
    assert (response.text, response.extensions["chassis"].attempts) == ("slow", 1)


def test_a_failure_of_one_lets_the_other_go_on(serve: Serve, hedging: Hedging) -> None:
    def hang_up_beside_another(connection: Any, request: Received) -> bool:
        wait_until(lambda: slow.received, what="the hedge")
        return hang_up(connection, request)

    failing, slow = serve(hang_up_beside_another), serve(answer(body=b"slow", delay=0.3))
    caller = hedging(failing, slow, retries=0)
    first_at(caller, 0)
    response = caller.get()
    assert response.text == "slow"
    assert response.extensions["chassis"].attempts == 2
    assert caller.upstream.endpoints.endpoints()[0].failures == 1


def test_where_both_fail_the_call_is_retried_elsewhere(serve: Serve, hedging: Hedging) -> None:
    failing = [serve(answer(503, delay=0.15)), serve(answer(503, delay=0.1))]
    good = serve(answer(body=b"good"))
    caller = hedging(*failing, good)
    for number in (0, 1):
        first_at(caller, number)
        response = caller.get()
        assert response.text == "good"
    assert caller.in_flight() == 0


def test_case_38_a_caller_that_leaves_takes_both_attempts_along(
    serve: Serve, hedging: Hedging, module: Any
) -> None:
    """No hedge is left, and the counters are back to zero."""
    # Under httpx an attempt ends on its own, as cancelling it would poison its pool.
    slow = answer(delay=30 if module == "httpx2" else SLOW)
    caller = hedging(serve(slow), serve(slow), module=module, timeout=20, deadline=60)

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await caller.client.get("/")

    caller.wait(leave())
    assert caller.in_flight() == 0
    began = time.monotonic()
    caller.wait(caller.settle())
    assert time.monotonic() - began < 5  # without an answer or their timeout
    assert caller.breaker(0).describe()["calls"] == caller.breaker(1).describe()["calls"] == 0


def test_a_deadline_leaves_no_hedge_behind(serve: Serve, hedging: Hedging) -> None:
    caller = hedging(serve(answer(delay=SLOW)), serve(answer(delay=SLOW)))

    async def call() -> None:
        with deadline_scope(Deadline.after(0.2)):
            await caller.client.get("/")

    with pytest.raises(caller.http.module.TimeoutException):
        caller.wait(call())
    assert caller.in_flight() == 0
    caller.wait(caller.settle())


def test_a_sync_client_cannot_be_made_for_a_service_that_is_hedged(module: Any) -> None:
    """A thread cannot be cancelled; said at once, never ignored."""
    upstreams = ServiceUpstreams(MemoryDiscovery, registry=PolicyRegistry())
    upstreams.upstream("catalog", ClientOptions(hedge=SOON))
    with pytest.raises(ConfigError, match="a thread cannot be cancelled"):
        sync_client(upstreams, "catalog", http=module)
    async_client(upstreams, "catalog", http=module)
    upstreams.upstream("orders", ClientOptions(hedge=HedgeOptions(extra=0)))
    sync_client(upstreams, "orders", http=module).close()


def test_hedging_configured_after_a_sync_client_was_made_is_told_of(serve: Serve) -> None:
    bus = EventBus()
    told: list[Any] = []
    bus.subscribe(told.append)
    server = serve()
    upstreams = ServiceUpstreams(lambda: catalog(server), registry=PolicyRegistry(), bus=bus)
    upstream = upstreams.upstream("catalog")
    with sync_client(upstreams, "catalog") as client:
        upstream.reconfigure(ClientOptions(hedge=SOON))
        assert [client.get("/").status_code for _ in range(3)] == [200] * 3
    upstreams.close()
    assert [type(event) for event in told] == [NotHedged]


@pytest.mark.parametrize("off", [None, HedgeOptions(extra=0)], ids=["none", "no-extra-call"])
def test_hedging_can_be_switched_on_and_off_while_the_client_is_in_use(
    serve: Serve, hedging: Hedging, off: HedgeOptions | None
) -> None:
    slow, quick = serve(answer(delay=0.2)), serve()
    caller = hedging(slow, quick)
    caller.get()
    assert caller.policy().describe()["hedging"]["sent"] <= 1
    caller.policy().reconfigure(ClientOptions(hedge=off))
    first_at(caller, 0)
    assert not caller.get().extensions["chassis"].hedged
    assert caller.policy().describe()["hedging"] is None
