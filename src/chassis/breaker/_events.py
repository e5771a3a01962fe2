from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chassis.core.events import Event, Level


@dataclass(frozen=True, kw_only=True)
class BreakerOpened(Event):
    """The breaker refuses calls from now on.

    :param reason: why, as a phrase.
    :param open_for: seconds until it admits a probe.
    :param calls: calls in its window at that moment.
    :param failures: how many of them had failed.
    :param last_failure: type and message of the failure that counted last.
    """

    name: ClassVar[str] = "breaker.opened"
    level: ClassVar[Level] = "warning"

    reason: str
    open_for: float
    calls: int
    failures: int
    last_failure: str | None


@dataclass(frozen=True, kw_only=True)
class BreakerHalfOpen(Event):
    """The breaker admits probes from now on."""

    name: ClassVar[str] = "breaker.half_open"


@dataclass(frozen=True, kw_only=True)
class BreakerClosed(Event):
    """The breaker admits all calls again."""

    name: ClassVar[str] = "breaker.closed"

    reason: str


@dataclass(frozen=True, kw_only=True)
class BreakerRejected(Event):
    """The breaker refused one call; told only while somebody listens.

    :param retry_after: seconds until a call has a chance.
    """

    name: ClassVar[str] = "breaker.rejected"
    level: ClassVar[Level] = "debug"
    transition: ClassVar[bool] = False

    retry_after: float
