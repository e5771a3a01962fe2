from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeAlias, TypeVar

from chassis.core.instances import Instance, Status
from chassis.core.windows import SlidingCounts
from chassis.loadbalancing._ejection import NEVER_EJECTED, Ejection
from chassis.loadbalancing._latency import Latency
from chassis.loadbalancing._options import BalancingOptions

S = TypeVar("S")

TierKey: TypeAlias = tuple[int, bool]
"""The instance's priority, and whether it is in another zone than this process: called in this order."""

LEAST_SHARE = 0.1
"""What an instance gets that has just come, of its full traffic: none at all would never warm it."""


class Endpoint(Generic[S]):
    """One instance as this process calls it.

    :ivar instance: its newest data; its ``key`` never changes.
    :ivar state: what the set's owner keeps for it.
    :ivar in_flight: picks not settled yet.
    :ivar successes: picks settled as SUCCESS so far.
    :ivar failures: picks settled as FAILURE so far.
    :ivar share: how much of its full traffic it gets now; below 1 while it warms up.
    :ivar weight: its instance's weight, times its share.
    :ivar departed: whether the instance has left the service, so that it is picked no more.
    """

    __slots__ = (
        "departed",
        "ejection",
        "failures",
        "in_flight",
        "instance",
        "latency",
        "rank",
        "recent",
        "share",
        "state",
        "successes",
        "told_until",
        "warm_since",
        "weight",
    )

    # What has no word in the docstring is the endpoint set's own business, and guarded by its lock.

    def __init__(self, instance: Instance, state: S, options: BalancingOptions | None = None) -> None:
        options = options or BalancingOptions()
        self.instance = instance
        self.state = state
        self.in_flight = 0
        self.successes = 0
        self.failures = 0
        self.departed = False
        self.share = 1.0
        self.weight = float(instance.weight)
        self.latency = Latency(options.latency_decay)
        self.recent = SlidingCounts(options.ejection_window)
        self.ejection: Ejection = NEVER_EJECTED
        self.told_until = 0.0
        self.warm_since: float | None = None
        self.rank = -1

    def __repr__(self) -> str:
        return f"Endpoint({self.instance.id!r}, {self.instance.address!r}, in_flight={self.in_flight})"

    @property
    def ejected(self) -> bool:
        """Whether it is passed over for failing where its peers do not, until a call that succeeds."""
        return self.ejection.active

    def probe_due(self, now: float) -> bool:
        """Whether it is ejected and its time is up, so that the next call to it finds out how it is."""
        return self.ejection.due(now)

    def latency_at(self, now: float) -> float:
        """What its latency is estimated at, in seconds; 0 while nothing is known."""
        return self.latency.at(now)

    def warm(self, now: float, window: float) -> bool:
        """Give it the share it should have ``now``; whether it still warms up."""
        if self.warm_since is None:
            return False
        elapsed = now - self.warm_since
        if elapsed >= window:
            self.warm_since = None
            self.share = 1.0
        else:
            self.share = max(LEAST_SHARE, elapsed / window)
        self.weight = self.instance.weight * self.share
        return self.warm_since is not None


def by_name(endpoints: Iterable[Endpoint[S]]) -> dict[str, Endpoint[S]]:
    """Each endpoint under its instance's id, with the address where another one has that id.

    Two datacenters may use one id, and a restart shows both for a while.
    """
    named: dict[str, Endpoint[S]] = {}
    for each in endpoints:
        name = each.instance.id
        named[f"{name} at {each.instance.address}" if name in named else name] = each
    return named


def may_be_called(instance: Instance) -> bool:
    """Whether its registry calls it passing or warning."""
    return instance.status in (Status.PASSING, Status.WARNING)
