"""An operator takes a breaker out of its own hands: by method, and by live configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest

from chassis.breaker import BreakerState, CircuitBreaker, KeyedBreakers
from chassis.core.errors import CircuitOpen
from chassis.core.events import Event, EventBus
from chassis.core.outcomes import Outcome
from chassis.core.registry import policies
from tests.breaker.breaking import Clock, fail

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
FORCED_OPEN, DISABLED = BreakerState.FORCED_OPEN, BreakerState.DISABLED
METRICS_ONLY = BreakerState.METRICS_ONLY


def names(events: list[Event]) -> list[str]:
    return [event.name for event in events]


@pytest.mark.asyncio
async def test_forced_open_refuses_every_kind_of_call_and_says_why(
    make: Any, clock: Clock, bus: EventBus
) -> None:
    """Nothing is called, nobody is told a time, and the refusals are counted and told."""
    breaker, seen = make(), []
    calls: list[int] = []
    breaker.force_open()
    bus.subscribe(seen.append)

    @breaker
    async def later() -> None:
        calls.append(1)

    @breaker
    def items() -> Generator[int, None, None]:
        calls.append(1)
        yield 1

    clock.now += 1e6
    for attempt in (lambda: breaker(calls.append)(1), breaker.acquire, lambda: next(items())):
        with pytest.raises(CircuitOpen) as caught:
            attempt()
        assert caught.value.retry_after is None
        assert caught.value.state == "forced_open"
        assert str(caught.value) == "circuit breaker 'payments' is held open by an operator"
    with pytest.raises(CircuitOpen):
        await later()
    assert not calls
    assert not breaker.ready
    assert breaker.retry_after is None
    assert breaker.describe()["state"] == "forced_open"
    assert breaker.describe()["ordered"] == "forced_open"
    assert breaker.describe()["refused"] == 4
    assert names(seen) == ["breaker.forced_open"] + ["breaker.rejected"] * 4
    assert seen[-1].details() == {"retry_after": None}
    breaker.reset()
    assert breaker(lambda: "ok")() == "ok"
    assert names(seen)[-1] == "breaker.closed"


@pytest.mark.asyncio
async def test_disabled_lets_all_through_and_counts_nothing(make: Any) -> None:
    """Every kind of call, and whatever comes of it."""
    breaker = make()
    breaker.disable()
    fail(breaker, 10)

    @breaker
    async def later() -> str:
        await asyncio.sleep(0)
        return "ok"

    @breaker
    def items() -> Generator[int, None, None]:
        yield 1

    assert await later() == "ok"
    assert await breaker(lambda: asyncio.sleep(0, "ok"))() == "ok"
    assert list(items()) == [1]
    with breaker.guarded():
        pass
    assert breaker.ready
    described = breaker.describe()
    assert (described["state"], described["calls"], described["refused"]) == ("disabled", 0, 0)


def test_trap_36_probe_that_succeeds_after_it_was_forced_open_changes_nothing(
    make: Any, clock: Clock
) -> None:
    """It stays as the operator ordered."""
    breaker = make(probes=1)
    fail(breaker)
    clock.now += 10
    probe = breaker.acquire()
    breaker.force_open()
    probe.settle(Outcome.SUCCESS)
    assert breaker.state is FORCED_OPEN


def test_trap_37_reset_after_disable_is_a_fresh_breaker(make: Any) -> None:
    """Closed, with an empty window; what was under way counts no more."""
    breaker = make(consecutive_failures=2)
    fail(breaker)
    late = breaker.acquire()
    breaker.disable()
    breaker.reset()
    assert breaker.state is CLOSED
    late.settle(Outcome.FAILURE, OSError())
    assert breaker.describe()["calls"] == 0
    fail(breaker)
    assert breaker.state is CLOSED


def test_shadow_rollout_tells_what_it_would_have_done(clock: Clock, bus: EventBus) -> None:
    """Begun in METRICS_ONLY it never refuses, and tells once for each time it came to have reason."""
    breaker = CircuitBreaker(
        "shadow", mode="metrics_only", consecutive_failures=3, clock=clock, bus=bus, register=False
    )
    seen: list[Event] = []
    bus.subscribe(seen.append)
    fail(breaker, 7)
    assert breaker(lambda: "ok")() == "ok"
    fail(breaker, 3)
    assert breaker.state is METRICS_ONLY
    assert breaker.ready
    assert (breaker.describe()["calls"], breaker.describe()["failures"]) == (11, 10)
    assert names(seen) == ["breaker.would_open", "breaker.would_open"]
    assert seen[0].level == "warning"
    assert seen[0].details() == {
        "reason": "3 consecutive failures",
        "calls": 3,
        "failures": 3,
        "slow": 0,
        "last_failure": "ConnectionError: refused",
    }
    breaker.reconfigure(replace(breaker.options, mode="automatic"))
    assert breaker.state is CLOSED
    fail(breaker, 3)
    assert breaker.state is OPEN


def test_every_order_is_told_once(make: Any, bus: EventBus) -> None:
    """An order that changes nothing is no event; `reset` always is one."""
    breaker, seen = make(), []
    bus.subscribe(seen.append)
    for order in (
        breaker.force_open,
        breaker.force_open,
        breaker.disable,
        breaker.metrics_only,
        breaker.reset,
    ):
        order()
    breaker.reset()
    assert names(seen) == [
        "breaker.forced_open",
        "breaker.disabled",
        "breaker.metrics_only",
        "breaker.closed",
        "breaker.closed",
    ]
    assert [event.details() for event in seen[:2]] == [{"reason": "it was ordered to"}] * 2
    assert seen[-1].details() == {"reason": "it was reset"}


def test_live_configuration_isolates_a_dependency(bus: EventBus) -> None:
    """As from a registry's key-value store: the mode is an option like any other, and goes as it came."""
    breaker = CircuitBreaker("isolated", bus=bus)
    seen: list[Event] = []
    bus.subscribe(seen.append)
    policies.override({"breaker:isolated": lambda defaults: replace(defaults, mode="forced_open")})
    try:
        with pytest.raises(CircuitOpen, match="held open by an operator"):
            breaker(lambda: None)()
        policies.override({"breaker:isolated": lambda defaults: replace(defaults, mode="disabled")})
        assert breaker.state is DISABLED
    finally:
        policies.override({})
    assert breaker.state is CLOSED
    assert [event.details().get("reason") for event in seen if event.transition] == ["its options say so"] * 3


@pytest.mark.parametrize("kind", [CircuitBreaker, KeyedBreakers])
def test_configuration_that_waited_for_it_is_told_under_its_registered_name(kind: Any, bus: EventBus) -> None:
    """What happens while it registers happens to `breaker:name`, as everything after."""
    seen: list[Event] = []
    bus.subscribe(seen.append)
    policies.override({"breaker:awaited": lambda defaults: replace(defaults, mode="forced_open")})
    try:
        made = kind("awaited", bus=bus)
        breaker = made if isinstance(made, CircuitBreaker) else made.of("a")
        assert not breaker.ready
    finally:
        policies.override({})
    subject = "breaker:awaited" if kind is CircuitBreaker else "breaker:awaited/a"
    assert {event.subject for event in seen} == {subject}


def test_order_by_hand_outlasts_a_reload_of_the_options(make: Any) -> None:
    """Somebody isolates it; a minute later some other option is changed, and it stays isolated."""
    breaker = make()
    breaker.force_open()
    breaker.reconfigure(replace(breaker.options, probes=5))
    assert breaker.state is FORCED_OPEN
    breaker.reset()
    assert breaker.state is CLOSED
    assert breaker.options.probes == 5
