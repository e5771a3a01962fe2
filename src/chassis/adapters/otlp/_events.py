from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chassis.core.events import Event, Level


@dataclass(frozen=True, kw_only=True)
class ShippingFailed(Event):
    """A receiver that was in order does not take telemetry; it is tried again. Once per outage."""

    name: ClassVar[str] = "telemetry.shipping_failed"
    level: ClassVar[Level] = "warning"

    receiver: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ShippingRecovered(Event):
    """The receiver takes telemetry again."""

    name: ClassVar[str] = "telemetry.shipping_recovered"

    receiver: str


@dataclass(frozen=True, kw_only=True)
class RecordsDropped(Event):
    """Telemetry was given up; told at most every 30 s for each reason, and once more at the end.

    :param reason: as in the shipper's counts.
    :param count: how many so far, of this reason.
    """

    name: ClassVar[str] = "telemetry.dropped"
    level: ClassVar[Level] = "error"

    receiver: str
    reason: str
    count: int
