from __future__ import annotations

import math
from contextvars import ContextVar

from chassis.breaker._owner import Owner
from chassis.breaker._tickets import Ticket
from chassis.core.outcomes import Outcome
from chassis.core.permits import Permit


class BreakerPermit:
    """One admission.

    :param slow_at: the moment after which the call is slow; None if nobody asks.
    :param outer: the probe this context held before it, if this is one.
    """

    __slots__ = ("_breaker", "_slow_at", "outer", "ticket")

    def __init__(
        self,
        breaker: Owner,
        ticket: Ticket,
        slow_at: float | None,
        outer: BreakerPermit | None = None,
    ) -> None:
        self._breaker: Owner | None = breaker
        self.ticket = ticket
        self._slow_at = slow_at
        self.outer = outer

    def settle(self, outcome: Outcome, error: BaseException | None = None) -> None:
        breaker = self._breaker
        if breaker is not None:
            # Let go of the breaker: this permit may stay behind in a context variable.
            self._breaker = None
            breaker._settle(self.ticket, outcome, error, self._slow_at)

    def answered(self, now: float) -> None:
        """The callee has answered, by its first item: whether it was slow is decided."""
        if self._slow_at is not None:
            self._slow_at = math.inf if now <= self._slow_at else -math.inf

    @property
    def settled(self) -> bool:
        """Whether it has been given back."""
        return self._breaker is None

    def is_probe_of(self, breaker: Owner) -> bool:
        """Whether this permit, or one held around it, is a probe of ``breaker`` still in flight."""
        permit: BreakerPermit | None = self
        while permit is not None:
            if permit._breaker is breaker and permit.ticket in breaker._machine.probes:
                return True
            permit = permit.outer
        return False


class Lent:
    """A permit on its way to whoever awaits what a call returned; given back if nobody ever does."""

    __slots__ = ("_permit",)

    def __init__(self, permit: Permit) -> None:
        self._permit: Permit | None = permit

    def take(self) -> Permit:
        """The permit, for the only one who asks."""
        permit, self._permit = self._permit, None
        assert permit is not None  # noqa: S101 - a coroutine begins once
        return permit

    def __del__(self) -> None:
        # As of a task that was cancelled before it began: its coroutine never runs.
        if self._permit is not None:
            self._permit.settle(Outcome.IGNORED)


class _Uncounted:
    """Leave for a call of which nothing is to be known."""

    def settle(self, outcome: Outcome, error: BaseException | None = None) -> None:
        """It rides on a probe, whose own outcome counts; or the breaker is disabled."""


UNCOUNTED = _Uncounted()
held: ContextVar[BreakerPermit | None] = ContextVar("chassis_breaker_probe", default=None)
"""The innermost probe of this context, so that its own nested calls are not refused."""
