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


class Pace:
    """How fast places come free, measured while all of them are taken."""

    __slots__ = ("_gap", "_since")

    def __init__(self) -> None:
        self._since = 0.0
        self._gap: float | None = None

    def filled(self, now: float) -> None:
        """The last free place has been taken."""
        self._since = now

    def freed(self, now: float) -> None:
        """All places were taken, and one comes free."""
        gap = now - self._since
        self._gap = gap if self._gap is None else self._gap + (gap - self._gap) / _SMOOTHED_OVER
        self._since = now

    def next_free(self, now: float, waiting: int = 0) -> float:
        """Seconds until there may be one for who comes now, behind ``waiting`` others.

        Where none has come free yet: as long again as all have been taken.
        """
        gap = now - self._since if self._gap is None else self._gap
        return max(0.0, gap) * (1 + waiting)


class BulkheadMachine:
    """Hands out ``limit`` places. Its owner holds a lock around each method.

    A place that is given back goes straight to a waiter, so nobody who comes later can take it in
    between. The methods return whom to wake; the owner does so after its lock. Somebody waits only
    while all places are taken. The clock is read only then, to know how fast places come free.

    ``free`` holds one item for each free place. Taking from it and adding to it is one step for all
    threads, so a call needs no lock for that: it tells ``pace`` when it took the last one, gives back
    by :meth:`leave` where none is free, and asks ``attention`` after it gave one back.

    :param lifo: whether who came last is served first, and a full queue gives up who came first.
    """

    __slots__ = ("_leaving", "_waiting", "attention", "free", "lifo", "limit", "pace", "queue", "refused")

    def __init__(self, limit: int, queue: int, *, lifo: bool = False) -> None:
        self.limit = limit
        self.queue = queue
        self.lifo = lifo
        self.refused = 0
        self.free: list[None] = [None] * limit
        self.attention = False
        """Whether somebody waits, or places must go: what is given back is not simply free."""
        self._leaving = 0  # places above the limit, still taken
        self._waiting: OrderedDict[Waiter, None] = OrderedDict()
        self.pace = Pace()

    @property
    def in_flight(self) -> int:
        """Places that are taken."""
        return self.limit + self._leaving - len(self.free)

    @property
    def waiting(self) -> int:
        """Callers in the queue."""
        return len(self._waiting)

    def retry_after(self, now: float) -> float:
        """Seconds until one who comes now may hope for a place, behind those who wait."""
        return 0.0 if self.free else self.pace.next_free(now, len(self._waiting))

    def enter(self, clock: Clock) -> bool:
        """Take a place, if one is free."""
        try:
            self.free.pop()
        except IndexError:
            return False
        if not self.free:
            self.pace.filled(clock())
        return True

    def line_up(self, waiter: Waiter) -> Waiter | None:
        """Join the queue. Its owner then asks :meth:`settled`, as a place may have come free meanwhile.

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
        if not self.free:
            self.pace.freed(clock())
        self.free.append(None)
        return self.settled()

    def abandon(self, waiter: Waiter, clock: Clock) -> list[Waiter]:
        """The caller waits no more; had it been given a place meanwhile, that goes on to the next."""
        if waiter.granted:
            waiter.granted = False
            return self.leave(clock)
        self._waiting.pop(waiter, None)
        return self.settled()

    def resize(self, limit: int, queue: int, *, lifo: bool, clock: Clock) -> list[Waiter]:
        """Follow new limits; who is in, or in the queue, stays."""
        self._leaving += self.limit - limit
        self.limit = limit
        self.queue = queue
        self.lifo = lifo
        self.pace = Pace()
        self.pace.filled(clock())
        return self.settled()

    def settled(self) -> list[Waiter]:
        """Take free places above the limit away, and give the others to those who wait."""
        lucky = []
        self.attention = True  # until seen otherwise, so that nothing comes free behind our back
        try:
            while self._leaving > 0:
                self.free.pop()
                self._leaving -= 1
            if self._leaving < 0:
                self.free += [None] * -self._leaving
                self._leaving = 0
            while self._waiting:
                self.free.pop()
                waiter, _ = self._waiting.popitem(last=self.lifo)
                waiter.granted = True
                lucky.append(waiter)
        except IndexError:
            return lucky  # there are no more
        self.attention = False
        return lucky
