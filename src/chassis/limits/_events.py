from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chassis.core.events import Event, Level


@dataclass(frozen=True, kw_only=True)
class BulkheadRejected(Event):
    """The bulkhead refused one call; told only while somebody listens.

    :param limit: calls that may be in flight.
    :param waiting: callers in its queue at that moment.
    """

    name: ClassVar[str] = "bulkhead.rejected"
    level: ClassVar[Level] = "debug"
    transition: ClassVar[bool] = False

    limit: int
    waiting: int
