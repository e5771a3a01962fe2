"""The rate limit as a pure machine: the generic cell rate algorithm (GCRA, ITU-T I.371) and a queue.

It keeps one number per key: the moment until which what was taken would last if it had been taken
evenly. A key whose moment has passed is as good as new. Time is counted in intervals, of which one
call uses one, so that additions are exact and a burst has exactly as many calls as it says.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable

SLACK = 1e-4
"""Part of an interval a call may come early: who comes back after ``retry_after`` must not be
refused for a rounding. The rate holds all the same, as a call always takes its whole interval."""


class Waiter:
    """One caller waiting for its turn.

    :param limit: when it gives up, in seconds of the machine's clock.
    """

    __slots__ = ("granted", "key", "limit", "until", "wake")

    def __init__(self, key: Hashable, limit: float) -> None:
        self.key = key
        self.limit = limit
        self.until = -math.inf
        """When it looks again without being woken."""
        self.wake: Callable[[], object] = lambda: None
        """Makes the caller look again; must not block, may be called from any thread."""
        self.granted = False


class RateLimitMachine:
    """Admits ``rate`` calls per second and key, ``burst`` of them at once; others may wait in line.

    Its owner holds a lock around each method. Methods that return waiters say whom to wake: those
    whose turn has come, and a first in line who would sleep beyond its turn. Nobody has to keep
    time for anybody else, as each waiter looks again by itself when its own turn was to come.

    :param rate: calls per second.
    :param max_keys: keys that are remembered; beyond them the one that was not used for longest
        is forgotten, which gives it a fresh start.
    """

    __slots__ = ("_burst", "_lines", "_max_keys", "_rate", "_spent", "refused")

    def __init__(self, rate: float, burst: int, max_keys: int) -> None:
        self._rate = rate
        self._burst = burst
        self._max_keys = max_keys
        # By key, least recently used first, in intervals: what it has taken lasts until then.
        self._spent: OrderedDict[Hashable, float] = OrderedDict()
        self._lines: dict[Hashable, OrderedDict[Waiter, None]] = {}
        self.refused = 0

    # ── asking ───────────────────────────────────────────────────────────────────────────────

    @property
    def keys(self) -> int:
        """Keys that are remembered."""
        return len(self._spent)

    @property
    def waiting(self) -> int:
        """Callers in line."""
        return sum(len(line) for line in self._lines.values())

    def available(self, key: Hashable, now: float) -> int:
        """Calls that would be admitted at once."""
        taken = max(0.0, self._spent.get(key, 0.0) - now * self._rate)
        return max(0, math.floor(self._burst - taken + SLACK) - len(self._lines.get(key, ())))

    def retry_after(self, key: Hashable, now: float) -> float:
        """Seconds until one who comes now would be admitted, behind all who wait already."""
        turn = self._turn(key) + len(self._lines.get(key, ()))
        return max(0.0, turn / self._rate - now)

    def _turn(self, key: Hashable) -> float:
        """When the next call of ``key`` is admitted, in intervals."""
        return self._spent.get(key, -math.inf) - (self._burst - 1)

    # ── taking ───────────────────────────────────────────────────────────────────────────────

    def take(self, key: Hashable, now: float) -> bool:
        """Take leave for one call, unless it must wait or others do already."""
        if self._lines and key in self._lines:
            return False
        moment = now * self._rate
        spent = self._spent.get(key)
        if spent is None:
            self._make_room(moment)
        elif spent > moment:
            if spent - moment > self._burst - 1 + SLACK:
                if spent - moment > self._burst:
                    # More than can have been taken: the clock was set back.
                    self._spent[key] = moment + self._burst
                return False
            moment = spent
        self._spent[key] = moment + 1.0
        self._spent.move_to_end(key)
        return True

    def _make_room(self, moment: float) -> None:
        """Forget keys that are as good as new, two for one; beyond the limit also one that is not."""
        for _ in range(min(2, len(self._spent))):
            oldest, spent = next(iter(self._spent.items()))
            if oldest in self._lines:
                self._spent.move_to_end(oldest)
            elif spent <= moment or len(self._spent) >= self._max_keys:
                del self._spent[oldest]

    # ── waiting ──────────────────────────────────────────────────────────────────────────────

    def line_up(self, waiter: Waiter) -> None:
        """Join the line of its key. Its owner then asks :meth:`serve` and :meth:`sleep`."""
        self._lines.setdefault(waiter.key, OrderedDict())[waiter] = None

    def serve(self, key: Hashable, now: float) -> list[Waiter]:
        """Give leave to those in line whose turn has come."""
        line = self._lines.pop(key, None)
        woken = []
        # Out of the way, so that they take as anybody would.
        while line and self.take(key, now):
            waiter, _ = line.popitem(last=False)
            waiter.granted = True
            woken.append(waiter)
        if line:
            self._lines[key] = line
            first = next(iter(line))
            if first.until > self._turn(key) / self._rate:
                first.until = -math.inf
                woken.append(first)
        return woken

    def sleep(self, waiter: Waiter, now: float) -> float:
        """Seconds until the waiter should look again; 0 if it has leave or gives up."""
        if waiter.granted:
            return 0.0
        line = self._lines[waiter.key]
        # Exact for the first in line; the others are woken when they become the first.
        ahead = 0 if next(iter(line)) is waiter else len(line) - 1
        waiter.until = min((self._turn(waiter.key) + ahead) / self._rate, waiter.limit)
        return max(0.0, waiter.until - now)

    def abandon(self, waiter: Waiter, now: float) -> list[Waiter]:
        """The waiter has gone: those behind it move up, and leave it was given and did not use is refunded."""
        if waiter.granted:
            waiter.granted = False
            if waiter.key in self._spent:
                self._spent[waiter.key] -= 1.0
        else:
            line = self._lines.get(waiter.key)
            if line is None or line.pop(waiter, waiter) is waiter:
                return []
            if not line:
                del self._lines[waiter.key]
        return self.serve(waiter.key, now)

    # ── changing ─────────────────────────────────────────────────────────────────────────────

    def reconfigure(self, rate: float, burst: int, max_keys: int, now: float) -> list[Waiter]:
        """Follow new limits. What was taken stays taken, up to the whole of the new burst."""
        for key, spent in list(self._spent.items()):
            taken = spent - now * self._rate
            if taken > 0:
                self._spent[key] = now * rate + min(taken, float(burst))
            else:
                del self._spent[key]
        self._rate, self._burst, self._max_keys = rate, burst, max_keys
        while len(self._spent) > max_keys:
            self._spent.popitem(last=False)
        woken = []
        for line in self._lines.values():
            for waiter in line:
                waiter.until = math.inf  # or a first in line might sleep as long as the old rate said
        for key in list(self._lines):
            woken += self.serve(key, now)
        return woken

    def forget_waiters(self) -> None:
        """Nobody waits any more: after a fork, what did exists in the parent alone."""
        self._lines = {}
