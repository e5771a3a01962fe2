from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chassis.core import Event, Level


@dataclass(frozen=True, kw_only=True)
class RetryBudgetExhausted(Event):
    """A retry was not made because the service's retry budget was spent."""

    name: ClassVar[str] = "client.retry_budget_exhausted"
    level: ClassVar[Level] = "warning"
    transition: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class OwnLag(Event):
    """An attempt timed out while this process was too slow to see an answer: no word about the instance.

    Told once a second at most.

    :param late: seconds after its due time at which the timeout was noticed.
    :param lost: seconds of the attempt in which the event loop did not run what was due.
    """

    name: ClassVar[str] = "client.own_lag"
    level: ClassVar[Level] = "warning"
    transition: ClassVar[bool] = False
    late: float
    lost: float


@dataclass(frozen=True, kw_only=True)
class NotHedged(Event):
    """A call from a thread was not hedged, as threads cannot be cancelled. Told once a minute at most."""

    name: ClassVar[str] = "client.not_hedged"
    level: ClassVar[Level] = "warning"
    transition: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class NoInstanceReachable(Event):
    """Every instance known refused its last connection: discovery is told. Once a second at most."""

    name: ClassVar[str] = "client.no_instance_reachable"
    level: ClassVar[Level] = "error"
    transition: ClassVar[bool] = False
    instances: int


class Occasion:
    """Something that is told of at most every so many seconds.

    Any thread; two at the same instant may both tell, which does no harm.
    """

    __slots__ = ("_again", "_every")

    def __init__(self, every: float) -> None:
        self._every = every
        self._again = float("-inf")

    def come(self, now: float) -> bool:
        """Whether it is time to tell again; if so, the time begins anew."""
        if now < self._again:
            return False
        self._again = now + self._every
        return True
