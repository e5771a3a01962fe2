from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chassis.core.events import Event, Level


@dataclass(frozen=True, kw_only=True)
class BulkheadRejected(Event):
    """The bulkhead refused one call; told only while somebody listens.

    :param limit: calls that may be in flight.
    :param waiting: callers in its queue at that moment.
    :param retry_after: seconds until a place may be hoped for.
    """

    name: ClassVar[str] = "bulkhead.rejected"
    level: ClassVar[Level] = "debug"
    transition: ClassVar[bool] = False

    limit: int
    waiting: int
    retry_after: float


@dataclass(frozen=True, kw_only=True)
class RateLimitRejected(Event):
    """The rate limit refused one call; told only while somebody listens.

    The key is left out: it may be a secret, and there may be any number of them.

    :param retry_after: seconds until one is admitted.
    """

    name: ClassVar[str] = "rate_limit.rejected"
    level: ClassVar[Level] = "debug"
    transition: ClassVar[bool] = False

    retry_after: float


@dataclass(frozen=True, kw_only=True)
class LoadShed(Event):
    """One call was refused so that others are done in time; told only while somebody listens.

    :param reason: ``in_flight``, ``lag`` or ``hopeless``.
    :param in_flight: calls in flight at that moment.
    :param retry_after: seconds after which a new try makes sense.
    """

    name: ClassVar[str] = "load.shed"
    level: ClassVar[Level] = "debug"
    transition: ClassVar[bool] = False

    reason: str
    in_flight: int
    retry_after: float
