from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from chassis.core.errors import ConfigError
from chassis.core.options import Seconds, check_count, check_fraction, check_seconds

Order: TypeAlias = Literal["fifo", "lifo"]

_MOST_PLACES = 1_000_000  # each takes eight bytes
_MOST_CALLS = 10**12
_MOST_PER_SECOND = 10**9  # beyond it, calls made over months could not be told apart


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkheadOptions:
    """How many calls may be in flight at once, and how many more may wait for that.

    :param limit: calls in flight, a million at most.
    :param queue: callers that may wait for a place; 0 refuses at once.
    :param wait: seconds a caller waits at most, less if its deadline comes sooner.
    :param order: who of those that wait is next. ``fifo``: who came first; a full queue refuses who
        comes. ``lifo``: who came last, and a full queue refuses who came first: under lasting
        overload some are answered at once, where in turn all would be answered late.
    :raises ConfigError: a value is impossible.
    """

    limit: int = 64
    queue: int = 0
    wait: Seconds = 1.0
    order: Order = "fifo"

    def __post_init__(self) -> None:
        check_count("limit", self.limit)
        if self.limit > _MOST_PLACES:
            raise ConfigError(
                f"{self.limit!r} places limit nothing",
                setting="limit",
                remedy=f"give as many as may run at once, at most {_MOST_PLACES}",
            )
        check_count("queue", self.queue, least=0)
        check_seconds("wait", self.wait)
        if self.order not in ("fifo", "lifo"):
            raise ConfigError(f"{self.order!r} is no order", setting="order", remedy="give 'fifo' or 'lifo'")


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitOptions:
    """How many calls may be made in how much time.

    :param rate: calls; a thousand million a second at most.
    :param per: in so many seconds. Below one call a second is written by it: 1 per 10.
    :param burst: calls that may come at once after a rest; None for ``rate``. In any ``per``
        seconds at most ``burst`` + ``rate`` calls are admitted, and in the long run ``rate``.
    :param wait: seconds a caller may wait for its turn, less if its deadline comes sooner. Who
        could not be admitted in that time is refused at once; 0 lets nobody wait.
    :param max_keys: keys that are counted apart, where there is a key; beyond them the one that was
        not used for longest is forgotten.
    :raises ConfigError: a value is impossible.
    """

    rate: int
    per: Seconds = 1.0
    burst: int | None = None
    wait: Seconds = 0.0
    max_keys: int = 10_000

    def __post_init__(self) -> None:
        check_count("rate", self.rate)
        check_seconds("per", self.per)
        if self.burst is not None:
            check_count("burst", self.burst)
        for field, calls in (("rate", self.rate), ("burst", self.calls_at_once)):
            if calls > _MOST_CALLS:
                raise ConfigError(
                    f"{calls!r} calls limit nothing", setting=field, remedy=f"give at most {_MOST_CALLS}"
                )
        if self.rate > self.per * _MOST_PER_SECOND:
            raise ConfigError(
                f"{self.rate!r} calls in {self.per!r} s limit nothing",
                setting="rate",
                remedy=f"give at most {_MOST_PER_SECOND} a second",
            )
        check_seconds("wait", self.wait, zero=True)
        check_count("max_keys", self.max_keys)

    @property
    def calls_at_once(self) -> int:
        """``burst``, or what stands for it."""
        return self.rate if self.burst is None else self.burst


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadShedderOptions:
    """When work is refused so that the rest is done in time. By default nothing is.

    :param max_in_flight: calls at once; None for no limit.
    :param max_lag: the event loop is overloaded when it runs what is due later than this, in
        seconds, for all of ``interval``; None for no such limit. Of no effect where no event loop
        runs.
    :param interval: seconds the lag must last, so that one long step sheds nothing.
    :param hopeless: whether a call is refused whose deadline leaves it less time than the quickest
        one of the last 10 seconds took.
    :param hopeless_share: the part of all calls of the last 10 seconds that may be refused as
        hopeless: a clock or a collector that stood still must not refuse all.
    :raises ConfigError: a value is impossible.
    """

    max_in_flight: int | None = None
    max_lag: Seconds | None = None
    interval: Seconds = 0.5
    hopeless: bool = False
    hopeless_share: float = 0.2

    def __post_init__(self) -> None:
        if self.max_in_flight is not None:
            check_count("max_in_flight", self.max_in_flight)
        if self.max_lag is not None:
            check_seconds("max_lag", self.max_lag)
        check_seconds("interval", self.interval)
        if not isinstance(self.hopeless, bool):
            raise ConfigError(
                f"{self.hopeless!r} is not a bool", setting="hopeless", remedy="give true or false"
            )
        check_fraction("hopeless_share", self.hopeless_share)
