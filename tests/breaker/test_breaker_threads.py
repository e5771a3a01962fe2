"""The breaker among threads that are switched as often as can be: nothing is lost, nothing counted twice."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import replace
from typing import Any

import pytest

from chassis.breaker import BreakerState
from chassis.core.errors import CircuitOpen
from chassis.core.events import Event, EventBus
from chassis.core.outcomes import Outcome
from tests.breaker.breaking import Clock, in_threads

OPEN, CLOSED, HALF_OPEN = BreakerState.OPEN, BreakerState.CLOSED, BreakerState.HALF_OPEN


@pytest.mark.parametrize(
    "window",
    [{"window": 3_600.0}, {"window_calls": 100_000}, {"window": 3_600.0, "slow_after": 9.0}],
    ids=["time", "calls", "slow"],
)
def test_trap_31_counts_of_a_mixture_are_exact(make: Any, window: dict[str, Any]) -> None:
    """Successes without the lock beside failures with it, and somebody asking all the while."""
    breaker = make(consecutive_failures=None, failure_rate=1.0, minimum_calls=50, **window)
    numbers = itertools.count()

    @breaker
    def call(bad: bool) -> None:
        if bad:
            raise OSError

    def work() -> int:
        draw, failed = random.Random(next(numbers)), 0
        for _ in range(400):
            bad = draw.random() < 0.2
            failed += bad
            try:
                call(bad)
            except OSError:
                pass
            if draw.random() < 0.05:
                breaker.describe()
        return failed

    failed = in_threads(8, work)
    assert all(isinstance(each, int) for each in failed), failed
    described = breaker.describe()
    assert (described["calls"], described["failures"]) == (3_200, sum(failed))


def test_trap_31_refusals_are_counted_exactly(make: Any) -> None:
    """They take no lock, and none is lost."""
    breaker = make()
    breaker.acquire().settle(Outcome.FAILURE, OSError())
    call = breaker(lambda: None)

    def work() -> None:
        for _ in range(300):
            with pytest.raises(CircuitOpen):
                call()

    assert in_threads(8, work) == [None] * 8
    assert breaker.describe()["refused"] == 2_400


def test_success_that_makes_the_rate_speak_opens_among_threads(make: Any) -> None:
    """However a failure and successes fall together, with the last of them the breaker is open."""
    for _ in range(60):
        breaker = make(consecutive_failures=None, failure_rate=0.25, minimum_calls=4)
        outcomes = iter([True, False, False, False])
        call = breaker(lambda: None)

        @breaker
        def bad() -> None:
            raise OSError

        results = in_threads(4, lambda: bad() if next(outcomes) else call())  # noqa: B023 - called at once
        assert sum(isinstance(each, OSError) for each in results) == 1
        assert breaker.state is OPEN


@pytest.mark.parametrize("kind", ["sync", "async", "permit"])
def test_success_between_whose_look_and_count_a_failure_came_is_weighed(make: Any, kind: str) -> None:
    """It looked whether it may be counted without the lock, then another thread's failure was counted."""
    breaker = make(consecutive_failures=None, failure_rate=0.3, minimum_calls=3)
    call = breaker(lambda: None)

    @breaker
    async def acall() -> None:
        return None

    def by_permit() -> None:
        breaker.acquire().settle(Outcome.SUCCESS)

    call()
    generation = breaker._machine.closed
    add = generation.add

    def add_late() -> int:
        generation.add = add
        breaker.acquire().settle(Outcome.FAILURE, OSError())
        assert breaker.state is CLOSED
        return add()

    generation.add = add_late  # as if the thread were stopped right before it counts
    if kind == "async":
        asyncio.run(acall())
    else:
        {"sync": call, "permit": by_permit}[kind]()
    assert breaker.state is OPEN, "1 of 3"


def test_refusal_that_a_reset_overtook_tells_the_time_it_saw(make: Any, clock: Clock) -> None:
    """The opening ended right after the call had looked at it: no time below nothing comes of that."""
    breaker = make(open_for=5.0)
    breaker.acquire().settle(Outcome.FAILURE, OSError())
    until = breaker._machine.until
    breaker.reset()  # by another thread, when this one was stopped between looking and refusing
    assert 0 < breaker._refusal(clock.now, until).retry_after <= 5.5


def test_any_turmoil_leaves_a_sound_breaker(make: Any, clock: Clock, bus: EventBus) -> None:
    """Calls, cancellations, resets, orders, options and a racing clock in eight threads; then it works as ever.

    Never are more probes in flight than allowed, and the events of its transitions make a path.
    """
    breaker = make(probes=2, probe_concurrency=2, consecutive_failures=3, open_for=1.0, open_for_max=2.0)
    path: list[Event] = []
    bus.subscribe(path.append)
    numbers = itertools.count()
    outcomes = [Outcome.SUCCESS] * 3 + [Outcome.FAILURE] * 3 + [Outcome.IGNORED]
    too_many: list[int] = []
    waits: list[float | None] = []

    def work() -> None:
        draw = random.Random(next(numbers))
        held: list[Any] = []
        for _ in range(150):
            what = draw.random()
            if what < 0.55:
                try:
                    held.append(breaker.acquire())
                except CircuitOpen as refusal:
                    waits.append(refusal.retry_after)
            if held and what > 0.3:
                held.pop(draw.randrange(len(held))).settle(draw.choice(outcomes))
            if what > 0.9:
                clock.now += draw.random()
            if what > 0.99:
                draw.choice([breaker.force_open, breaker.disable, breaker.metrics_only, breaker.reset])()
            if what > 0.985:
                breaker.reset()
            if 0.96 < what < 0.97:
                breaker.reconfigure(replace(breaker.options, window_calls=draw.choice([None, 20, 30])))
            probes = len(breaker._machine.probes)
            if probes > 2:
                too_many.append(probes)
        for permit in held:
            permit.settle(Outcome.IGNORED)

    assert in_threads(8, work) == [None] * 8
    assert not too_many
    assert all(each is None or each >= 0 for each in waits)
    may_follow = {
        "breaker.opened": {"breaker.half_open"},
        "breaker.half_open": {"breaker.opened", "breaker.closed"},
    }
    orders = {"breaker.forced_open", "breaker.disabled", "breaker.metrics_only", "breaker.closed"}
    steps = [event.name for event in path if event.transition and event.name != "breaker.would_open"]
    for before, after in itertools.pairwise(steps):
        assert after in may_follow.get(before, {"breaker.opened"}) | orders, (before, after)
    breaker.reset()
    assert breaker(lambda: "ok")() == "ok"
    assert breaker.describe()["calls"] == 1
