"""Counting over a sliding window: sums are kept, never added up when they are read.

:class:`SlidingCounts` covers the last seconds, :class:`RingCounts` the last calls. Neither is
thread-safe: the owner holds the lock. :class:`Tally` is what threads count in without one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

BUCKETS = 10

_NONE = ((0, 0, 0),) * BUCKETS
_MARKED, _SLOW = 1, 2


class SlidingCounts:
    """How many things happened within about the last ``span`` seconds, how many marked, how many slow.

    Ten buckets; recording and reading cost the same whatever the span. As the oldest bucket goes
    at once, between nine and ten tenths of the span are covered. A clock that steps back counts
    into the newest bucket. Not thread-safe: its owner holds the lock.

    :param span: seconds.
    """

    __slots__ = ("_buckets", "_older", "_slot", "_width", "edge", "marked", "slow", "total")

    def __init__(self, span: float) -> None:
        self.total = 0
        self.marked = 0
        self.slow = 0
        self.edge = 0.0
        """When the newest bucket ends: before it, counting is no more than adding to the sums."""
        self._width = span / BUCKETS
        self._slot = -1
        # The sums of each older bucket, and of all of them: the newest is what is beyond. As long as
        # there is none, all windows share the one tuple.
        self._buckets: Sequence[tuple[int, int, int]] = _NONE
        self._older = (0, 0, 0)

    def record(self, now: float, *, marked: bool = False, slow: bool = False) -> None:
        """Count one more."""
        if now >= self.edge:
            self.expire(now)
        self.total += 1
        if marked:
            self.marked += 1
        if slow:
            self.slow += 1

    def add(self, count: int) -> None:
        """Count ``count`` more, neither marked nor slow, that happened before ``edge``."""
        self.total += count

    def expire(self, now: float) -> None:
        """Let go of what is older than the span, so that the sums hold now."""
        slot = int(now / self._width)
        passed = slot - self._slot
        if passed <= 0:
            return
        if passed >= BUCKETS:
            self.clear()
        else:
            total, marked, slow = self._older
            buckets = list(self._buckets)
            buckets[self._slot % BUCKETS] = (self.total - total, self.marked - marked, self.slow - slow)
            for each in range(self._slot + 1, slot + 1):
                total, marked, slow = buckets[each % BUCKETS]
                buckets[each % BUCKETS] = (0, 0, 0)
                self.total -= total
                self.marked -= marked
                self.slow -= slow
            self._buckets = buckets
            self._older = (self.total, self.marked, self.slow)
        self._slot = slot
        self.edge = (slot + 1) * self._width

    def clear(self) -> None:
        """Forget everything."""
        self.total = self.marked = self.slow = 0
        self._buckets = _NONE
        self._older = (0, 0, 0)

    def resize(self, span: float, now: float) -> None:
        """Cover ``span`` seconds from now on; what is counted is kept as if it had just happened."""
        self.expire(now)
        self._buckets = _NONE
        self._older = (0, 0, 0)
        self._width = span / BUCKETS
        self._slot = int(now / self._width)
        self.edge = (self._slot + 1) * self._width


class RingCounts:
    """How many of the last ``size`` things were marked, and how many slow. Time plays no part in it.

    Not thread-safe: its owner holds the lock.

    :param size: how many are looked at.
    """

    __slots__ = ("_head", "_ring", "edge", "marked", "slow", "total")

    def __init__(self, size: int) -> None:
        self.total = 0
        """How many there are, ``size`` at most."""
        self.marked = 0
        self.slow = 0
        self.edge = math.inf
        """No moment changes anything; see :attr:`SlidingCounts.edge`."""
        self._ring = bytearray(size)
        self._head = 0

    def record(self, now: float, *, marked: bool = False, slow: bool = False) -> None:
        """Count one more in the place of the oldest. ``now`` is not looked at."""
        self._put(_MARKED * marked + _SLOW * slow)

    def add(self, count: int) -> None:
        """Count ``count`` more, neither marked nor slow."""
        ring = self._ring
        if not self.marked and not self.slow:
            # All places are blank already, and go on being so.
            self._head = (self._head + count) % len(ring)
            self.total = min(self.total + count, len(ring))
        else:
            for _ in range(min(count, len(ring))):
                self._put(0)

    def expire(self, now: float) -> None:
        """Nothing grows old here."""

    def clear(self) -> None:
        """Forget everything."""
        self.total = self.marked = self.slow = 0
        self._ring = bytearray(len(self._ring))

    def resize(self, size: int) -> None:
        """Look at ``size`` from now on; the newest of what is there are kept."""
        ring, head = self._ring, self._head
        oldest_first = [ring[(head - each) % len(ring)] for each in range(min(self.total, size), 0, -1)]
        self._ring = bytearray(size)
        self._head = self.total = self.marked = self.slow = 0
        for each in oldest_first:
            self._put(each)

    def _put(self, value: int) -> None:
        ring, head = self._ring, self._head
        gone = ring[head]  # a place not used yet is blank
        if gone or value:
            self.marked += (value & _MARKED) - (gone & _MARKED)
            self.slow += ((value & _SLOW) - (gone & _SLOW)) // _SLOW
            ring[head] = value
        self._head = (head + 1) % len(ring)
        if self.total < len(ring):
            self.total += 1


class Tally:
    """Counts exactly from any number of threads without a lock: ``tally.add()`` counts one.

    ``add`` is a step of ``itertools.count``, which no other thread can come in the middle of, and
    costs a fifth of a lock. Reading takes a step too, and knows so.
    """

    __slots__ = ("_taken", "add")

    def __init__(self) -> None:
        self.add = itertools.count().__next__
        self._taken = 0

    def take(self) -> int:
        """How many were counted since this was asked last. Not thread-safe among its askers."""
        step = self.add()
        count = step - self._taken
        self._taken = step + 1
        return count
