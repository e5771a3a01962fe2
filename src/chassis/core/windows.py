"""Counting over a sliding window of time: sums are kept, never added up when they are read."""

from __future__ import annotations

BUCKETS = 10


class SlidingCounts:
    """How many things happened within about the last ``span`` seconds, and how many were marked.

    Ten buckets; recording and reading cost the same whatever the span. As the oldest bucket goes
    at once, between nine and ten tenths of the span are covered. A clock that steps back counts
    into the newest bucket. Not thread-safe: its owner holds the lock.

    :param span: seconds.
    """

    __slots__ = ("_buckets", "_older", "_slot", "_width", "edge", "marked", "total")

    def __init__(self, span: float) -> None:
        self.total = 0
        self.marked = 0
        self.edge = 0.0
        """When the newest bucket ends: before it, counting is no more than adding to the sums."""
        self._width = span / BUCKETS
        self._slot = -1
        # Total and marked of each older bucket, and of all of them: the newest is what is beyond.
        self._buckets = [(0, 0)] * BUCKETS
        self._older = (0, 0)

    def record(self, now: float, *, marked: bool = False) -> None:
        """Count one more."""
        if now >= self.edge:
            self.expire(now)
        self.total += 1
        if marked:
            self.marked += 1

    def expire(self, now: float) -> None:
        """Let go of what is older than the span, so that ``total`` and ``marked`` hold now."""
        slot = int(now / self._width)
        passed = slot - self._slot
        if passed <= 0:
            return
        if passed >= BUCKETS:
            self.clear()
        else:
            total, marked = self._older
            self._buckets[self._slot % BUCKETS] = (self.total - total, self.marked - marked)
            for each in range(self._slot + 1, slot + 1):
                total, marked = self._buckets[each % BUCKETS]
                self._buckets[each % BUCKETS] = (0, 0)
                self.total -= total
                self.marked -= marked
            self._older = (self.total, self.marked)
        self._slot = slot
        self.edge = (slot + 1) * self._width

    def clear(self) -> None:
        """Forget everything."""
        self.total = self.marked = 0
        self._buckets = [(0, 0)] * BUCKETS
        self._older = (0, 0)

    def resize(self, span: float, now: float) -> None:
        """Cover ``span`` seconds from now on; what is counted is kept as if it had just happened."""
        self.expire(now)
        self._buckets = [(0, 0)] * BUCKETS
        self._older = (0, 0)
        self._width = span / BUCKETS
        self._slot = int(now / self._width)
        self.edge = (self._slot + 1) * self._width
