from __future__ import annotations

import math
from array import array

SLICES = 5
_PARTS = 16  # of each doubling: a bucket is at most a sixteenth wider than the one before it
_LEAST_EXPONENT = -10  # bucket 0 holds everything below about half a millisecond ...
_MOST_EXPONENT = 12  # ... and the last one everything above an hour
_BUCKETS = (_MOST_EXPONENT - _LEAST_EXPONENT + 1) * _PARTS


class RecentPercentile:
    """What a share of the recent durations stayed below, to about 6 %.

    A histogram with buckets that grow with the duration, over a window that moves on in slices; so
    between four and five fifths of the window are covered. The answer is a place in it that is
    moved by each duration, not searched for when asked: both cost the same whatever the traffic.
    Not thread-safe: its owner holds the lock.

    :param window: seconds.
    """

    __slots__ = ("_above", "_all", "_at", "_slices", "_slot", "_width", "count")

    def __init__(self, window: float) -> None:
        self.count = 0
        """How many durations the window holds."""
        self._width = window / SLICES
        self._slot = -1
        self._slices = [_no_counts() for _ in range(SLICES)]
        self._all = _no_counts()
        # The bucket of the last answer, and how many durations lie in the ones above it.
        self._at = 0
        self._above = 0

    def add(self, seconds: float, now: float) -> None:
        """Take note of one duration."""
        self.expire(now)
        bucket = _bucket(seconds)
        self._slices[self._slot % SLICES][bucket] += 1
        self._all[bucket] += 1
        self.count += 1
        if bucket > self._at:
            self._above += 1

    def value(self, share: float) -> float:
        """Seconds that at least ``share`` of the durations did not exceed."""
        allowed = self.count - share * self.count
        while self._above > allowed:
            self._at += 1
            self._above -= self._all[self._at]
        while self._at > 0 and self._above + self._all[self._at] <= allowed:
            self._above += self._all[self._at]
            self._at -= 1
        return _upper_edge(self._at)

    def expire(self, now: float) -> None:
        """Let go of what is older than the window."""
        slot = int(now / self._width)
        for each in range(max(self._slot, slot - SLICES) + 1, slot + 1):
            old = self._slices[each % SLICES]
            for bucket, count in enumerate(old):
                if count:
                    self._all[bucket] -= count
                    self.count -= count
                    if bucket > self._at:
                        self._above -= count
            self._slices[each % SLICES] = _no_counts()
            self._slot = each

    def resize(self, window: float, now: float) -> None:
        """Cover ``window`` seconds from now on; what is counted is kept as if it had just happened."""
        self.expire(now)
        self._width = window / SLICES
        self._slot = int(now / self._width)
        self._slices = [_no_counts() for _ in range(SLICES)]
        self._slices[self._slot % SLICES] = array("Q", self._all)


def _no_counts() -> array[int]:
    return array("Q", bytes(8 * _BUCKETS))


def _bucket(seconds: float) -> int:
    fraction, exponent = math.frexp(seconds)
    if exponent < _LEAST_EXPONENT or seconds <= 0:
        return 0
    if exponent > _MOST_EXPONENT:
        return _BUCKETS - 1
    return (exponent - _LEAST_EXPONENT) * _PARTS + int((fraction - 0.5) * 2 * _PARTS)


def _upper_edge(bucket: int) -> float:
    exponent, part = divmod(bucket, _PARTS)
    return math.ldexp(0.5 + (part + 1) / (2 * _PARTS), exponent + _LEAST_EXPONENT)
