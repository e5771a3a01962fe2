"""What an admission bears, so that a result that comes too late is known as such.

All calls between two transitions share one :class:`Generation`, each probe has a :class:`Probe` of its
own, and no ticket comes back: so a result that comes after a transition is known as stale by its ticket
alone, and can neither trip, close nor confuse a later round.
"""

from __future__ import annotations

import math
from typing import TypeAlias

from chassis.core.windows import Tally

NEVER = -math.inf


class Generation(Tally):
    """The ticket of all calls that are let through and counted between two transitions.

    A success that changes nothing but a sum is counted by ``add()`` alone, without a lock. When that
    is so, the machine tells by ``edge``: whoever counts so reads it after it too, as another thread may
    have counted a failure meanwhile, by which the success has become one that may open the breaker.
    """

    __slots__ = ("edge", "slow_after", "timed")

    def __init__(self) -> None:
        super().__init__()
        self.edge = NEVER
        """Before this moment a success that is not slow changes nothing but a sum."""
        self.slow_after: float | None = None
        self.timed = True
        """Whether the moment of a success matters at all."""


class Probe:
    """The ticket of one probe."""

    __slots__ = ("began",)

    def __init__(self, began: float) -> None:
        self.began = began


Ticket: TypeAlias = Generation | Probe
