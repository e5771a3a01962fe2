from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chassis.core import Event, Level


@dataclass(frozen=True, kw_only=True)
class AnnouncementFailed(Event):
    """The process serves, but could not be registered.

    :param error: what was wrong.
    """

    name: ClassVar[str] = "service.announcement_failed"
    level: ClassVar[Level] = "error"

    error: str
