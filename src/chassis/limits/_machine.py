"""The bulkhead as a pure machine: places and a queue, no lock, no clock, no waiting."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable


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

    A place that is given back goes straight to the first waiter, so nobody who comes later can
    take it in between. The methods return whom to wake; the owner does so after its lock.
    """

    __slots__ = ("_waiting", "in_flight", "limit", "queue", "refused")

    def __init__(self, limit: int, queue: int) -> None:
        self.limit = limit
        self.queue = queue
        self.in_flight = 0
        self.refused = 0
        self._waiting: OrderedDict[Waiter, None] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Callers in the queue."""
        return len(self._waiting)

    def enter(self) -> bool:
        """Take a place, if one is free."""
        if self.in_flight < self.limit:
            self.in_flight += 1
            return True
        return False

    def line_up(self, waiter: Waiter) -> bool:
        """Join the queue, if there is room in it."""
        if len(self._waiting) < self.queue:
            self._waiting[waiter] = None
            return True
        return False

    def leave(self) -> list[Waiter]:
        """Give a place back."""
        self.in_flight -= 1
        return self._fill()

    def abandon(self, waiter: Waiter) -> list[Waiter]:
        """The caller waits no more; had it been given a place meanwhile, that goes on to the next."""
        if waiter.granted:
            waiter.granted = False
            return self.leave()
        self._waiting.pop(waiter, None)
        return []

    def resize(self, limit: int, queue: int) -> list[Waiter]:
        """Follow new limits; who is in, or in the queue, stays."""
        self.limit = limit
        self.queue = queue
        return self._fill()

    def _fill(self) -> list[Waiter]:
        lucky = []
        while self._waiting and self.in_flight < self.limit:
            waiter, _ = self._waiting.popitem(last=False)
            waiter.granted = True
            self.in_flight += 1
            lucky.append(waiter)
        return lucky
