"""Recorded events, assertions and isolation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chassis import BreakerOptions, CircuitBreaker, ConfigError, Pipeline, events, fallback, policies, retry
from chassis.breaker import BreakerClosed, BreakerOpened, BreakerState
from chassis.core import Event, EventBus, PolicyRegistry
from chassis.testing import (
    ScriptedDependency,
    assert_order,
    assert_state,
    capture_events,
    isolated_policies,
)


def opened(name: str, bus: EventBus = events) -> CircuitBreaker:
    breaker = CircuitBreaker(name, consecutive_failures=1, register=False, bus=bus)
    with pytest.raises(ConnectionError):
        breaker.run_sync(ScriptedDependency(ConnectionError("down")).call)
    return breaker


# ── events ───────────────────────────────────────────────────────────────────────────────────


def test_events_of_the_block_are_recorded_and_no_others() -> None:
    """Neither what the bus kept for its first listener, nor what comes later."""
    bus = EventBus()
    opened("before", bus)
    with capture_events(bus) as seen:
        opened("payments", bus)
    opened("after", bus)
    assert [each.subject for each in seen] == ["payments"]
    assert seen.names == ["breaker.opened"]
    assert not bus.listening


def test_events_of_the_process_are_recorded_by_default() -> None:
    """Most policies tell the process's bus."""
    with capture_events() as seen:
        opened("payments")
    assert seen.one(BreakerOpened, subject="payments").failures == 1


def test_one_event_means_one() -> None:
    """None and two are failures that say what was asked for, and what was told."""
    bus = EventBus()
    with capture_events(bus) as seen:
        opened("payments", bus)
        opened("orders", bus)
    assert len(seen) == 2
    assert seen.one(BreakerOpened, subject="orders") is seen[1]
    with pytest.raises(
        AssertionError, match=r"2 events are BreakerOpened\(\), not 1; recorded: breaker.opened"
    ):
        seen.one(BreakerOpened)
    with pytest.raises(AssertionError, match=r"0 events are BreakerClosed\(subject='orders'\), not 1"):
        seen.one(BreakerClosed, subject="orders")
    assert seen.of(Event) == seen[:2]


def test_no_event_means_none() -> None:
    """What must not have happened is asserted by name and fields."""
    bus = EventBus()
    with capture_events(bus) as seen:
        opened("payments", bus)
        seen.assert_none(BreakerOpened, subject="orders")
        with pytest.raises(AssertionError, match="1 events are"):
            seen.assert_none(BreakerOpened)
        seen.clear()
        seen.assert_none(BreakerOpened)


def test_events_came_in_an_order() -> None:
    """Whatever came between; the message names what did not come."""
    bus = EventBus()
    with capture_events(bus) as seen:
        for kind in (BreakerOpened, BreakerClosed, BreakerOpened):
            seen.record(event(kind))
    seen.assert_order("breaker.opened", "breaker.opened")
    seen.assert_order("breaker.closed", "breaker.opened")
    with pytest.raises(AssertionError, match="no 'breaker.closed' came after 'breaker.closed'"):
        seen.assert_order("breaker.closed", "breaker.closed")
    with pytest.raises(AssertionError, match="no 'retry.scheduled' came; recorded: breaker.opened"):
        seen.assert_order("retry.scheduled")


def event(kind: type[BreakerOpened | BreakerClosed]) -> Event:
    if kind is BreakerClosed:
        return BreakerClosed(subject="payments", reason="told")
    with capture_events(bus := EventBus()) as seen:
        opened("payments", bus)
    return seen.one(BreakerOpened)


# ── assertions ───────────────────────────────────────────────────────────────────────────────


def pipeline() -> Pipeline:
    return Pipeline(
        fallback(0, on=ConnectionError), retry(), CircuitBreaker("payments", register=False), name="payments"
    )


@pytest.mark.parametrize(
    "names",
    [
        ("Fallback", "Retry", "CircuitBreaker"),
        ("Fallback", "Retry(retry)", "CircuitBreaker(payments)"),
    ],
)
def test_the_order_of_a_pipeline_is_as_expected(names: tuple[str, ...]) -> None:
    """By class, or by class and name."""
    assert_order(pipeline(), *names)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("Retry", "Fallback", "CircuitBreaker"), "Retry stands inside Fallback"),
        (("Fallback", "Retry"), "CircuitBreaker(payments) is not expected"),
        (("Fallback", "Retry", "CircuitBreaker", "Bulkhead"), "Bulkhead is missing"),
        (("Fallback", "Retry", "CircuitBreaker(orders)"), "CircuitBreaker(orders) is missing"),
        (("Fallback", "Retry", "Retry", "CircuitBreaker"), "it has 3 policies, not 4"),
        ((), "is not expected"),
    ],
)
def test_another_order_is_told_in_words(names: tuple[str, ...], told: str) -> None:
    """Which policy is missing, superfluous, or stands inside which: with the order as it is."""
    with pytest.raises(AssertionError) as raised:
        assert_order(pipeline(), *names)
    assert told in str(raised.value)
    assert "Fallback(fallback) > Retry(retry) > CircuitBreaker(payments)" in str(raised.value)


def test_the_state_of_a_breaker_is_as_expected() -> None:
    """By the state, or its value."""
    assert_state(opened("payments"), "open")
    assert_state(opened("payments"), BreakerState.OPEN)


def test_another_state_is_told_with_what_was_counted() -> None:
    """The message has what one would look for next."""
    with pytest.raises(
        AssertionError,
        match=r"'payments' is open, not closed: 1 of 1 calls in its window failed; the last failure was Conn",
    ):
        assert_state(opened("payments"), "closed")


def test_a_state_that_does_not_exist_is_no_failed_expectation() -> None:
    """A misspelt state must not pass for one that the breaker is not in."""
    with pytest.raises(ValueError, match="opened"):
        assert_state(opened("payments"), "opened")


# ── isolation ────────────────────────────────────────────────────────────────────────────────


def test_names_given_in_the_block_are_free_afterwards() -> None:
    """Two tests may decorate with the same name, though the first one's function lives on."""
    with isolated_policies():
        first = CircuitBreaker("decorated in a test")
    with isolated_policies():
        second = CircuitBreaker("decorated in a test")
        assert policies.get("breaker:decorated in a test") is second
        with pytest.raises(ConfigError):
            CircuitBreaker("decorated in a test")
    assert policies.get("breaker:decorated in a test") is None
    assert first is not second


def test_policies_from_before_are_known_inside_and_after() -> None:
    """A module's own breaker stays reachable."""
    registry = PolicyRegistry()
    before = CircuitBreaker("of a module", register=False)
    registry.register(before)
    with isolated_policies(registry):
        assert registry.get("breaker:of a module") is before
    assert registry.get("breaker:of a module") is before


def test_overrides_of_the_block_are_undone() -> None:
    """Live configuration set by one test does not reach the next; what was set before it stays."""
    registry = PolicyRegistry()
    kept, changed = (CircuitBreaker(name, register=False) for name in ("kept", "changed"))
    registry.register(kept)
    registry.register(changed)

    def lower(options: BreakerOptions) -> BreakerOptions:
        return replace(options, failure_rate=0.1)

    registry.override({"breaker:kept": lower})
    with isolated_policies(registry):
        registry.override({"breaker:changed": lower})
        assert (kept.options.failure_rate, changed.options.failure_rate) == (0.5, 0.1)
    assert (kept.options.failure_rate, changed.options.failure_rate) == (0.1, 0.5)


def test_breakers_of_a_module_are_closed_again() -> None:
    """What one test has opened must not refuse the next one's calls."""
    registry = PolicyRegistry()
    before = opened("of a module")
    registry.register(before)
    with isolated_policies(registry):
        assert_state(before, "open")
    assert_state(before, "closed")


def test_isolation_holds_when_the_block_fails() -> None:
    """A failing test is the one that needs it most."""
    with pytest.raises(RuntimeError), isolated_policies():
        breaker = CircuitBreaker("of a failing test")
        raise RuntimeError("the test fails")
    assert policies.get("breaker:of a failing test") is None
    assert breaker.name == "of a failing test"
