from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chassis.core.events import Event, Level


@dataclass(frozen=True, kw_only=True)
class CheckFailed(Event):
    """A check's verdict went from healthy, or unknown, to failed.

    :param critical: whether readiness depends on it.
    :param reason: the text of an :class:`~chassis.health.Unhealthy`, or the error's type.
    """

    name: ClassVar[str] = "health.check_failed"
    level: ClassVar[Level] = "warning"

    critical: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class CheckRecovered(Event):
    """A check that had failed is healthy again."""

    name: ClassVar[str] = "health.check_recovered"
