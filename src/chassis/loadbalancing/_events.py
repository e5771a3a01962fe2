from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chassis.core.events import Event, Level


@dataclass(frozen=True, kw_only=True)
class EndpointEjected(Event):
    """An instance of the service ``subject`` is passed over, as it fails where its peers do not.

    :param instance: its id.
    :param reason: why, as a phrase.
    :param ejected_for: seconds until a call probes it.
    :param times: how often in a row.
    """

    name: ClassVar[str] = "balancer.ejected"
    level: ClassVar[Level] = "warning"

    instance: str
    address: str
    reason: str
    ejected_for: float
    times: int


@dataclass(frozen=True, kw_only=True)
class EndpointReturned(Event):
    """An ejected instance of the service ``subject`` is called again.

    :param reason: why, as a phrase.
    """

    name: ClassVar[str] = "balancer.returned"

    instance: str
    address: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class PanicEntered(Event):
    """So few instances of the service ``subject`` are healthy that unhealthy ones are called as well.

    :param healthy: how many are passing or warning and not ejected.
    :param total: how many there are, without those in maintenance.
    """

    name: ClassVar[str] = "balancer.panic_entered"
    level: ClassVar[Level] = "error"

    healthy: int
    total: int


@dataclass(frozen=True, kw_only=True)
class PanicLeft(Event):
    """Enough instances of the service ``subject`` are healthy again."""

    name: ClassVar[str] = "balancer.panic_left"

    healthy: int
    total: int
