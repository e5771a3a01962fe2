"""The bulkhead as a pure machine: places and a queue, no lock, no waiting."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from chassis.core.clock import Clock

_SMOOTHED_OVER = 8
"""The time between two free places is a running mean that gives the newest this part."""


class Waiter:
    """One caller in the queue.

    :param wake: makes the caller look again; must not block, may be called from any thread.
    """

    __slots__ = ("granted", "wake")

    def __init__(self, wake: Callable[[], object]) -> None:
        self.wake = wake
        self.granted = False
        """Whether it has been given a place."""


class BulkheadMachine:
    """Hands out ``limit`` places. Its owner holds a lock around each method.

    A place that is given back goes straight to a waiter, so nobody who comes later can take it in
    between. The methods return whom to wake; the owner does so after its lock. Somebody waits only
    while all places are taken. The clock is read only then, to know how fast places come free.

    :param lifo: whether who came last is served first, and a full queue gives up who came first.
    """

    __slots__ = ("_gap", "_since", "_waiting", "in_flight", "lifo", "limit", "queue", "refused")

    def __init__(self, limit: int, queue: int, *, lifo: bool = False) -> None:
        self.limit = limit
        self.queue = queue
        self.lifo = lifo
        self.in_flight = 0
        self.refused = 0
        self._waiting: OrderedDict[Waiter, None] = OrderedDict()
        # Since when all places are taken, and the usual time until one of them comes free.
        self._since = 0.0
        self._gap: float | None = None

    @property
    def waiting(self) -> int:
        """Callers in the queue."""
        return len(self._waiting)

    def retry_after(self, now: float) -> float:
        """Seconds until one who comes now may hope for a place, behind those who wait.

        Measured while all places were taken; where it never was, as long again as it has lasted.
        """
        if self.in_flight < self.limit:
            return 0.0
        gap = now - self._since if self._gap is None else self._gap
        return max(0.0, gap) * (1 + len(self._waiting))

    def enter(self, clock: Clock) -> bool:
        """Take a place, if one is free."""
        if self.in_flight < self.limit:
            self.in_flight += 1
            if self.in_flight == self.limit:
                self._since = clock()
            return True
        return False

    def line_up(self, waiter: Waiter) -> Waiter | None:
        """Join the queue.

        :returns: who must go for it: nobody, the caller itself, or the one that has waited longest.
        """
        gone: Waiter | None = None
        if len(self._waiting) >= self.queue:
            if not (self.lifo and self._waiting):
                return waiter
            gone, _ = self._waiting.popitem(last=False)
        self._waiting[waiter] = None
        return gone

    def leave(self, clock: Clock) -> list[Waiter]:
        """Give a place back."""
        if self.in_flight == self.limit:
            now = clock()
            gap = now - self._since
            self._gap = gap if self._gap is None else self._gap + (gap - self._gap) / _SMOOTHED_OVER
            self._since = now
        self.in_flight -= 1
        return self._fill()

    def abandon(self, waiter: Waiter, clock: Clock) -> list[Waiter]:
        """The caller waits no more; had it been given a place meanwhile, that goes on to the next."""
        if waiter.granted:
            waiter.granted = False
            return self.leave(clock)
        self._waiting.pop(waiter, None)
        return []

    def resize(self, limit: int, queue: int, *, lifo: bool, clock: Clock) -> list[Waiter]:
        """Follow new limits; who is in, or in the queue, stays."""
        self.limit = limit
        self.queue = queue
        self.lifo = lifo
        self._gap, self._since = None, clock()
        return self._fill()

    def _fill(self) -> list[Waiter]:
        lucky = []
        while self._waiting and self.in_flight < self.limit:
            waiter, _ = self._waiting.popitem(last=self.lifo)
            waiter.granted = True
            self.in_flight += 1
            lucky.append(waiter)
        return lucky
