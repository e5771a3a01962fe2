"""Who finds out whether an instance works again: a call that may be sent again, if there are such calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chassis.breaker import BreakerOptions, BreakerState
from chassis.client import ClientOptions
from chassis.client._instance import SPARED_FOR
from chassis.core import Outcome, Status
from chassis.loadbalancing import BalancingOptions
from tests.client.calling import Caller, catalog
from tests.client.scripted import ScriptedServer, answer
from tests.support.waiting import wait_until

Serve = Callable[..., ScriptedServer]
Calling = Callable[..., Caller]

SOON = BreakerOptions(consecutive_failures=1, open_for=0.02, probes=2)
NEVER_OPENS = BreakerOptions(consecutive_failures=None, minimum_calls=100_000)
AGAIN: list[dict[str, Any]] = [
    {"headers": {"Idempotency-Key": "7"}},
    {"extensions": {"chassis": {"idempotent": True}}},
]


@pytest.fixture
def module() -> str:
    """One HTTP module for what it has no part in."""
    return "httpx2"


def half_open(caller: Caller, number: int = 0) -> None:
    """Have an instance's breaker opened, and wait until it takes a probe."""
    breaker = caller.breaker(number)
    breaker.trip("for the test")
    wait_until(lambda: breaker.ready, what="a probe to be admitted")


def ejected(caller: Caller) -> Any:
    """Have the first of two instances ejected, and wait until its time is up."""
    endpoints = caller.upstream.endpoints
    endpoint, other = endpoints.endpoints()
    for passed_over, outcome in ((endpoint, Outcome.SUCCESS), (other, Outcome.FAILURE)):
        for _ in range(20):
            pick = endpoints.pick(exclude=[passed_over])
            assert pick is not None
            pick.settle(outcome)
    assert endpoint.ejected
    wait_until(lambda: endpoint.probe_due(time.monotonic()), what="its time to be up")
    return endpoint


def in_pairs(serve: Serve, calling: Calling, breaker: BreakerOptions = SOON) -> tuple[Caller, Any, Any]:
    sick, well = serve(), serve()
    caller = calling(catalog(sick, well), None, breaker, balancing=BalancingOptions(ejection_time=0.02))
    assert [caller.get().status_code for _ in range(2)] == [200] * 2
    sick.received.clear()
    well.received.clear()
    return caller, sick, well


def test_a_post_leaves_a_half_open_breakers_probe_to_a_call_that_may_be_sent_again(
    serve: Serve, calling: Calling
) -> None:
    caller, sick, well = in_pairs(serve, calling)
    half_open(caller)
    for _ in range(6):
        assert caller.post("/orders", content=b"one").status_code == 200
    assert (len(sick.received), len(well.received)) == (0, 6)
    assert caller.breaker().state is BreakerState.HALF_OPEN
    for _ in range(4):
        assert caller.get().status_code == 200
    assert [request.method for request in sick.received] == ["GET"] * 2
    assert caller.breaker().state is BreakerState.CLOSED
    for _ in range(4):
        caller.post("/orders", content=b"one")
    assert [request.method for request in sick.received] == ["GET"] * 2 + ["POST"] * 2


def test_a_post_leaves_an_ejected_instances_probe_to_a_call_that_may_be_sent_again(
    serve: Serve, calling: Calling
) -> None:
    """It is neither sent there nor taken for the probe, so that the next GET is."""
    caller, sick, well = in_pairs(serve, calling, NEVER_OPENS)
    endpoint = ejected(caller)
    for _ in range(6):
        assert caller.post("/orders", content=b"one").status_code == 200
    assert (len(sick.received), len(well.received)) == (0, 6)
    assert endpoint.ejected
    for _ in range(2):
        assert caller.get().status_code == 200
    assert not endpoint.ejected
    assert [request.method for request in sick.received] == ["GET"]


@pytest.mark.parametrize("options", AGAIN, ids=["key", "said"])
def test_a_post_that_may_be_sent_again_probes_as_any_get(
    serve: Serve, calling: Calling, options: dict[str, Any]
) -> None:
    caller, sick, _ = in_pairs(serve, calling)
    half_open(caller)
    for _ in range(4):
        assert caller.post("/orders", content=b"one", **options).status_code == 200
    assert len(sick.received) == 2
    assert caller.breaker().state is BreakerState.CLOSED


def test_a_get_whose_body_can_be_read_once_leaves_probes_too(serve: Serve, calling: Calling) -> None:
    caller, sick, _ = in_pairs(serve, calling)
    half_open(caller)

    async def parts_async():  # type: ignore[no-untyped-def]  # an async generator of bytes
        yield b"one"

    for _ in range(4):
        content = parts_async() if caller.asynchronous else iter([b"one"])
        assert caller.get("/search", content=content).status_code == 200
    assert not sick.received


def test_a_post_probes_where_no_other_instance_takes_it(serve: Serve, calling: Calling) -> None:
    caller, sick, _ = in_pairs(serve, calling)
    caller.breaker(1).force_open()
    half_open(caller)
    for _ in range(3):
        assert caller.post("/orders", content=b"one").status_code == 200
    assert len(sick.received) == 3
    assert caller.breaker().state is BreakerState.CLOSED


def test_where_calls_that_may_be_sent_again_never_come_posts_probe_after_a_while(
    serve: Serve, calling: Calling
) -> None:
    """Such a service's instances stay out no longer for it, but for the first time."""
    caller, sick, _ = in_pairs(serve, calling)
    half_open(caller)
    caller.post("/orders", content=b"one")
    caller.post("/orders", content=b"one")
    state = caller.upstream.endpoints.endpoints()[0].state
    assert state.spared_since is not None
    state.spared_since -= SPARED_FOR
    for _ in range(4):
        assert caller.post("/orders", content=b"one").status_code == 200
    assert caller.breaker().state is BreakerState.CLOSED
    sick.received.clear()
    half_open(caller)
    for _ in range(4):
        caller.post("/orders", content=b"one")
    assert len(sick.received) == 2
    for _ in range(2):
        caller.get()  # one comes, so from now on they are waited for again
    sick.received.clear()
    half_open(caller)
    for _ in range(4):
        caller.post("/orders", content=b"one")
    assert not sick.received


def test_a_failing_probe_costs_no_post_an_error_while_gets_come(serve: Serve, calling: Calling) -> None:
    sick, well = serve(answer(503)), serve()
    caller = calling(catalog(sick, well), ClientOptions(), SOON)
    for _ in range(3):
        assert [caller.get().status_code for _ in range(2)] == [200] * 2
        half_open(caller)
        assert [caller.post("/orders", content=b"one").status_code for _ in range(4)] == [200] * 4
    assert {request.method for request in sick.received} == {"GET"}


def test_an_instance_whose_check_passes_again_is_probed_at_once(serve: Serve, calling: Calling) -> None:
    """Its breaker may be open for a minute yet, for what its registry says is over."""
    server = serve()
    caller = calling(catalog(server), None, BreakerOptions(open_for=60.0))
    assert caller.get().status_code == 200
    caller.breaker().trip("for the test")
    (instance,) = [each.instance for each in caller.upstream.endpoints.endpoints()]
    for status in (Status.PASSING, Status.CRITICAL):
        caller.discovery.put(replace(instance, status=status, meta={"was": status.value}))
        assert caller.breaker().state is BreakerState.OPEN
    caller.discovery.put(instance)
    assert caller.breaker().state is BreakerState.HALF_OPEN
    assert [caller.get().status_code for _ in range(3)] == [200] * 3
    assert caller.breaker().state is BreakerState.CLOSED
