from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from chassis.breaker._states import BreakerState, Transition
from chassis.core.events import Event, Level


@dataclass(frozen=True, kw_only=True)
class BreakerOpened(Event):
    """The breaker refuses calls from now on.

    :param reason: why, as a phrase.
    :param open_for: seconds until it admits a probe.
    :param calls: calls in its window at that moment.
    :param failures: how many of them had failed.
    :param slow: how many of them were slow.
    :param last_failure: type and message of the failure that counted last.
    """

    name: ClassVar[str] = "breaker.opened"
    level: ClassVar[Level] = "warning"

    reason: str
    open_for: float
    calls: int
    failures: int
    slow: int
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
class BreakerForcedOpen(Event):
    """An operator has the breaker refuse every call."""

    name: ClassVar[str] = "breaker.forced_open"
    level: ClassVar[Level] = "warning"

    reason: str


@dataclass(frozen=True, kw_only=True)
class BreakerDisabled(Event):
    """An operator has the breaker let every call through and count nothing."""

    name: ClassVar[str] = "breaker.disabled"
    level: ClassVar[Level] = "warning"

    reason: str


@dataclass(frozen=True, kw_only=True)
class BreakerMetricsOnly(Event):
    """An operator has the breaker let every call through and only count."""

    name: ClassVar[str] = "breaker.metrics_only"

    reason: str


@dataclass(frozen=True, kw_only=True)
class BreakerWouldOpen(Event):
    """A breaker in METRICS_ONLY has come to have reason to open; told once until that has passed.

    :param reason: why, as a phrase.
    :param calls: calls in its window at that moment.
    :param failures: how many of them had failed.
    :param slow: how many of them were slow.
    :param last_failure: type and message of the failure that counted last.
    """

    name: ClassVar[str] = "breaker.would_open"
    level: ClassVar[Level] = "warning"

    reason: str
    calls: int
    failures: int
    slow: int
    last_failure: str | None


@dataclass(frozen=True, kw_only=True)
class BreakerRejected(Event):
    """The breaker refused one call; told only while somebody listens.

    :param retry_after: seconds until a call has a chance; None if an operator holds it open.
    """

    name: ClassVar[str] = "breaker.rejected"
    level: ClassVar[Level] = "debug"
    transition: ClassVar[bool] = False

    retry_after: float | None


@dataclass(frozen=True, kw_only=True)
class BreakerKeysExhausted(Event):
    """So many keys are in trouble at once that further ones go unguarded; told once until that has passed.

    :param keys: how many breakers are kept, none of which may be dropped.
    """

    name: ClassVar[str] = "breaker.keys_exhausted"
    level: ClassVar[Level] = "error"

    keys: int


def event_of(subject: str, transition: Transition) -> Event:
    """The event that tells of ``transition``."""
    at, reason = transition.at, transition.reason
    window: dict[str, Any] = {
        "calls": transition.calls,
        "failures": transition.failures,
        "slow": transition.slow,
        "last_failure": transition.last_failure,
    }
    if transition.would_open:
        return BreakerWouldOpen(subject=subject, at=at, reason=reason, **window)
    match transition.state:
        case BreakerState.OPEN:
            return BreakerOpened(
                subject=subject, at=at, reason=reason, open_for=transition.open_for, **window
            )
        case BreakerState.HALF_OPEN:
            return BreakerHalfOpen(subject=subject, at=at)
        case BreakerState.FORCED_OPEN:
            return BreakerForcedOpen(subject=subject, at=at, reason=reason)
        case BreakerState.DISABLED:
            return BreakerDisabled(subject=subject, at=at, reason=reason)
        case BreakerState.METRICS_ONLY:
            return BreakerMetricsOnly(subject=subject, at=at, reason=reason)
        case BreakerState.CLOSED:
            return BreakerClosed(subject=subject, at=at, reason=reason)
