"""The bus: subscriptions end one by one."""

from __future__ import annotations

from chassis.core.events import Event, EventBus


def told(bus: EventBus) -> None:
    bus.emit(Event(subject="x"))


def test_a_subscription_that_ended_is_no_other_one() -> None:
    """Ending it again does nothing, also after the same listener has subscribed anew."""
    bus, seen = EventBus(), list[Event]()
    listener = seen.append
    end = bus.subscribe(listener)
    end()
    again = bus.subscribe(listener)
    end()
    told(bus)
    assert len(seen) == 1
    again()
    told(bus)
    assert len(seen) == 1
    assert not bus.listening


def test_of_two_subscriptions_of_one_listener_each_ends_alone() -> None:
    """Two services in one process may share a listener: the first that stops leaves the other its own."""
    bus, seen = EventBus(), list[Event]()
    listener = seen.append
    first, second = bus.subscribe(listener), bus.subscribe(listener)
    told(bus)
    assert len(seen) == 2
    first()
    told(bus)
    assert len(seen) == 3
    second()
    assert not bus.listening
