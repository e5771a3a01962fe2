"""While discovery is silent nobody takes a dead instance off the list: breakers open sooner."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from chassis.breaker import BreakerDisabled, BreakerOptions, BreakerState
from chassis.client import ServiceUpstreams
from chassis.core import ConfigError, Event, EventBus, Freshness, Instance, Outcome, PolicyRegistry, Snapshot


class Discovery:
    """Says what it is told to, at once."""

    def subscribe(self, service: str, listener: Callable[[Snapshot], None]) -> Any:
        self.tell = listener
        listener(snapshot(Freshness.FRESH))
        return self

    def describe(self) -> dict[str, Any]:
        return {}

    def close(self) -> None: ...

    def doubt(self) -> None: ...


def snapshot(freshness: Freshness, *more: Instance) -> Snapshot:
    first = Instance(id="a", service="catalog", host="10.0.0.1", port=80)
    return Snapshot(service="catalog", instances=(first, *more), freshness=freshness)


LATER = Instance(id="b", service="catalog", host="10.0.0.2", port=80)


def failures_until_open(upstream: Any, instance: int = 0) -> int:
    breaker = upstream.endpoints.endpoints()[instance].state.breaker
    breaker.reset()
    for number in range(1, 20):
        breaker.acquire().settle(Outcome.FAILURE, None)
        if breaker.state is BreakerState.OPEN:
            return number
    return 0


def followed(breaker: BreakerOptions | None = None) -> tuple[Any, Discovery]:
    discovery = Discovery()
    upstreams = ServiceUpstreams(lambda: discovery, registry=PolicyRegistry(), bus=EventBus())
    upstream = upstreams.upstream("catalog", breaker=breaker)
    upstream.open()
    return upstream, discovery


@pytest.mark.parametrize("freshness", [Freshness.STALE, Freshness.EXPIRED])
def test_two_failures_open_a_breaker_while_discovery_is_silent(freshness: Freshness) -> None:
    """Those of instances that come meanwhile too; and as configured once discovery answers again."""
    upstream, discovery = followed()
    assert failures_until_open(upstream) == 5
    discovery.tell(snapshot(freshness, LATER))
    assert [failures_until_open(upstream, each) for each in (0, 1)] == [2, 2]
    described = upstream.breakers.describe()
    assert described["options"]["consecutive_failures"] == 5
    assert described["effective"]["consecutive_failures"] == 2
    discovery.tell(snapshot(Freshness.FRESH, LATER))
    assert [failures_until_open(upstream, each) for each in (0, 1)] == [5, 5]


@pytest.mark.parametrize(("configured", "expected"), [(1, 1), (None, 0)])
def test_a_breaker_that_opens_sooner_or_never_by_a_row_stays_as_it_is(
    configured: int | None, expected: int
) -> None:
    upstream, discovery = followed(BreakerOptions(consecutive_failures=configured))
    discovery.tell(snapshot(Freshness.STALE))
    assert failures_until_open(upstream) == expected


def test_options_that_come_while_discovery_is_silent_hold_when_it_answers_again() -> None:
    upstream, discovery = followed()
    discovery.tell(snapshot(Freshness.STALE))
    upstream.breakers.reconfigure(BreakerOptions(consecutive_failures=7))
    assert failures_until_open(upstream) == 2
    discovery.tell(snapshot(Freshness.FRESH))
    assert failures_until_open(upstream) == 7


def test_an_instance_that_comes_while_options_change_follows_the_new_ones() -> None:
    upstream, discovery = followed()

    class Late(str):
        """An id that is asked for when its breaker is made; others are made already."""

        __slots__ = ()

        def __format__(self, how: str) -> str:
            upstream.breakers.reconfigure(BreakerOptions(open_for=9.0))
            return str(self)

    later = Instance(id=Late("c"), service="catalog", host="10.0.0.3", port=80)
    discovery.tell(snapshot(Freshness.FRESH, LATER, later))
    breakers = [each.state.breaker for each in upstream.endpoints.endpoints()]
    assert [each.options.open_for for each in breakers] == [9.0, 9.0, 9.0]


def test_options_that_come_while_others_are_given_out_hold_for_all() -> None:
    """In another thread, say; here a listener gives them between two breakers."""
    upstream, discovery = followed()
    discovery.tell(snapshot(Freshness.FRESH, LATER))

    def listener(event: Event) -> None:
        if isinstance(event, BreakerDisabled):
            unsubscribe()
            upstream.breakers.reconfigure(BreakerOptions(open_for=9.0))

    unsubscribe = upstream._bus.subscribe(listener)
    upstream.breakers.reconfigure(BreakerOptions(mode="disabled"))
    breakers = [each.state.breaker for each in upstream.endpoints.endpoints()]
    assert [(each.options.open_for, each.state) for each in breakers] == [(9.0, BreakerState.CLOSED)] * 2


def test_a_listener_may_call_the_service_that_is_being_opened() -> None:
    """Discovery tells of events while it is asked for the service, and once is enough to ask."""
    asked = []

    class Telling(Discovery):
        def subscribe(self, service: str, listener: Callable[[Snapshot], None]) -> Any:
            asked.append(service)
            if len(asked) < 3:  # else without end
                upstream.open()
            return super().subscribe(service, listener)

    upstream = ServiceUpstreams(Telling, registry=PolicyRegistry(), bus=EventBus()).upstream("catalog")
    opening = threading.Thread(target=upstream.open, daemon=True)
    opening.start()
    opening.join(10)
    assert not opening.is_alive()
    assert asked == ["catalog"]
    assert upstream.known
    upstream.close()
    upstream.open()
    assert asked == ["catalog"] * 2


def test_what_could_not_be_opened_is_opened_by_the_next_call() -> None:
    tries = []

    def discovery() -> Discovery:
        tries.append(1)
        if len(tries) == 1:
            raise ConfigError("it is not there", setting="consul", remedy="start it")
        return Discovery()

    upstream = ServiceUpstreams(discovery, registry=PolicyRegistry(), bus=EventBus()).upstream("catalog")
    with pytest.raises(ConfigError):
        upstream.open()
    upstream.open()
    assert upstream.known
