"""A breaker opened for a reason of its owner's, in the ordinary way that heals itself."""

from __future__ import annotations

from typing import Any

import pytest

from chassis.breaker import BreakerOpened, BreakerState, BreakerWouldOpen
from chassis.core.events import Event, EventBus
from chassis.core.outcomes import Outcome
from tests.breaker.breaking import Clock, fail, in_threads

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
NEVER: dict[str, Any] = {"consecutive_failures": None, "minimum_calls": 100_000}


@pytest.fixture
def told(bus: EventBus) -> list[Event]:
    told: list[Event] = []
    bus.subscribe(told.append)
    return told


def succeed(breaker: Any, times: int = 1) -> None:
    for _ in range(times):
        breaker.acquire().settle(Outcome.SUCCESS)


def opened(told: list[Event]) -> list[BreakerOpened]:
    return [each for each in told if isinstance(each, BreakerOpened)]


def test_a_tripped_breaker_opens_at_once_and_finds_back_by_probes(
    make: Any, clock: Clock, told: list[Event]
) -> None:
    breaker = make(**NEVER, open_for=5.0, probes=2)
    fail(breaker)
    breaker.trip("nobody listens there")
    assert breaker.state is OPEN
    (event,) = opened(told)
    assert (event.reason, event.failures) == ("nobody listens there", 1)
    assert 4.5 <= event.open_for <= 5.5
    clock.now += 5.5
    succeed(breaker, 2)
    assert breaker.state is CLOSED


def test_an_opening_by_trip_counts_for_how_long_the_next_one_is(
    make: Any, clock: Clock, told: list[Event]
) -> None:
    breaker = make(**NEVER, open_for=10.0, open_for_max=1000.0)
    for _ in range(3):
        breaker.trip("nobody listens there")
        clock.now += 44.0
        assert breaker.state is HALF_OPEN
    first, second, third = [event.open_for for event in opened(told)]
    assert 9 <= first <= 11
    assert 18 <= second <= 22
    assert 36 <= third <= 44


@pytest.mark.parametrize("order", ["disable", "force_open"])
def test_what_an_operator_ordered_stands_against_a_trip(make: Any, told: list[Event], order: str) -> None:
    breaker = make(**NEVER)
    getattr(breaker, order)()
    before = breaker.state
    told.clear()
    breaker.trip("nobody listens there")
    assert (breaker.state, told) == (before, [])
    breaker.reset()
    assert breaker.state is CLOSED


def test_one_that_is_open_stays_so_for_no_longer(make: Any, clock: Clock, told: list[Event]) -> None:
    breaker = make(**NEVER, open_for=10.0)
    breaker.trip("nobody listens there")
    until = clock.now + breaker.retry_after
    clock.now += 3
    breaker.trip("still nobody")
    assert clock.now + breaker.retry_after == pytest.approx(until)
    assert len(opened(told)) == 1


def test_under_metrics_only_it_is_told_once_until_a_call_succeeds(make: Any, told: list[Event]) -> None:
    """Also where one more failure comes between, which alone would be no reason."""
    breaker = make(**NEVER, mode="metrics_only")
    for _ in range(3):
        fail(breaker)
        breaker.trip("nobody listens there")
    succeed(breaker, 2)
    assert breaker.state is BreakerState.METRICS_ONLY
    assert [type(event) for event in told] == [BreakerWouldOpen]
    breaker.trip("nobody listens there")
    assert [type(event) for event in told] == [BreakerWouldOpen] * 2


def test_a_call_of_another_time_trips_nothing(make: Any, clock: Clock) -> None:
    """Let in before the breaker opened, it ends when the breaker has closed again."""
    breaker = make(**NEVER, open_for=5.0, probes=1)
    late = breaker.acquire()
    breaker.trip("nobody listens there")
    clock.now += 5.5
    probe = breaker.acquire()
    late.settle(Outcome.FAILURE)
    breaker.trip("nobody listens there", permit=late)
    assert breaker.state is HALF_OPEN
    probe.settle(Outcome.SUCCESS)
    for permit in (late, probe):
        breaker.trip("nobody listens there", permit=permit)
        assert breaker.state is CLOSED
    now = breaker.acquire()
    now.settle(Outcome.FAILURE)
    breaker.trip("nobody listens there", permit=now)
    assert breaker.state is OPEN


def test_a_call_that_is_not_counted_trips_nothing(make: Any) -> None:
    breaker = make(**NEVER)
    breaker.disable()
    uncounted = breaker.acquire()
    breaker.reset()
    breaker.trip("nobody listens there", permit=uncounted)
    assert breaker.state is CLOSED


def test_threads_that_trip_it_at_once_open_it_once(make: Any, told: list[Event]) -> None:
    breaker = make(**NEVER, open_for=10.0)
    in_threads(8, lambda: breaker.trip("nobody listens there"))
    assert len(opened(told)) == 1


def test_one_that_is_told_to_retry_takes_a_probe_at_once_and_forgets_nothing(
    make: Any, clock: Clock, told: list[Event]
) -> None:
    """Its next opening is as long as it would have been, and what is closed or ordered stays as it is."""
    breaker = make(**NEVER, open_for=10.0)
    breaker.retry_now()
    assert breaker.state is CLOSED
    breaker.trip("nobody listens there")
    assert not breaker.ready
    breaker.retry_now()
    assert (breaker.ready, breaker.state) == (True, HALF_OPEN)
    breaker.acquire().settle(Outcome.FAILURE)
    assert 18 <= opened(told)[-1].open_for <= 22
    breaker.force_open()
    breaker.retry_now()
    assert not breaker.ready
