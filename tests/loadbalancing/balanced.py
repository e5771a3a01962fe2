"""What the tests of balancing share: instances, endpoint sets on a clock set by hand, and counts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from chassis.core import Event, EventBus, Instance, Outcome, Snapshot, Status
from chassis.loadbalancing import BalancingOptions, Endpoint, EndpointSet, Pick


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Pool:
    """Stands for a connection pool: knows its instance and how often it was closed."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def instance(name: str, *, port: int = 80, status: Status = Status.PASSING, **more: Any) -> Instance:
    return Instance(id=name, service="catalog", host="10.0.0.1", port=port, status=status, **more)


def named(count: int, **more: Any) -> list[Instance]:
    """``count`` instances, in the order of their ids."""
    return [instance(f"{number:04}", **more) for number in range(count)]


def snapshot(*instances: Instance) -> Snapshot:
    return Snapshot(service="catalog", instances=instances)


def endpoint(name: str = "a", **more: Any) -> Endpoint[None]:
    return Endpoint(instance(name, **more), None)


class Balanced:
    """An endpoint set on a manual clock, with its own seeded luck and all its events."""

    def __init__(
        self, *instances: Instance, seed: int = 1, draw: Callable[[], float] | None = None, **options: Any
    ) -> None:
        self.clock = ManualClock()
        self.events: list[Event] = []
        bus = EventBus()
        bus.subscribe(self.events.append)
        self.set = EndpointSet(
            "catalog",
            BalancingOptions(**options),
            create=Pool,
            dispose=Pool.close,
            clock=self.clock,
            draw=draw or random.Random(seed).random,
            bus=bus,
        )
        self.update(*instances)

    def update(self, *instances: Instance) -> None:
        self.set.update(snapshot(*instances))

    def endpoint(self, name: str) -> Endpoint[Pool]:
        (found,) = [each for each in self.set.endpoints() if each.instance.id == name]
        return found

    def pick(self, **filters: Any) -> Pick[Pool]:
        pick = self.set.pick(**filters)
        assert pick is not None
        return pick

    def call(self, outcome: Outcome = Outcome.SUCCESS, **filters: Any) -> str:
        """Make one call at once; the id of the instance that took it."""
        pick = self.pick(**filters)
        pick.settle(outcome)
        return pick.instance.id

    def calls(self, count: int, **filters: Any) -> Counter[str]:
        """Make ``count`` calls, one after the other; how many each instance took."""
        return Counter(self.call(**filters) for _ in range(count))

    def call_at(self, name: str, outcome: Outcome, times: int = 1, **told: Any) -> None:
        """Make calls at one instance."""
        for _ in range(times):
            self.pick(exclude=[each for each in self.set.endpoints() if each.instance.id != name]).settle(
                outcome, **told
            )

    def names(self, kind: type[Event]) -> list[Any]:
        """The instances of all events of one kind, in order."""
        return [getattr(each, "instance", None) for each in self.events if isinstance(each, kind)]
