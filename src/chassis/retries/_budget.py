from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from chassis.core.clock import Clock, monotonic
from chassis.core.forks import tell_after_fork
from chassis.core.options import AS_IN_OPTIONS, check_options, given_fields
from chassis.core.registry import policies
from chassis.core.windows import SlidingCounts
from chassis.retries._options import BudgetOptions
from chassis.retries._ticks import Ticks


class RetryBudget:
    """Bounds the extra load of further attempts, by retries and by anything else that shares it.

    Each first attempt puts a share in, each further attempt takes one out. One that has to wait
    first is *reserved* when it is decided on, so that no more callers wait than may go on, and asks
    once more when it is *launched*, as by then others may have been launched and what was put in
    may have gone stale: so the bound holds for the attempts that are made, whenever they are made::

        if budget.reserve(now):
            ...                      # the pause; a caller that leaves meanwhile calls release()
            if budget.launch(now):
                ...                  # the further attempt

    One that follows at once asks :meth:`withdraw` alone. May be used from any thread.

    :param name: given one, it is known to :data:`chassis.core.registry.policies` as ``budget:name``.
    :param options: all options at once; the other keywords change single fields of it. Their
        meaning and defaults are those of :class:`BudgetOptions`.
    :param clock: a monotonic clock, for what is not told the time.
    :raises ConfigError: an option is impossible, or a live budget has this name.
    """

    kind = "budget"

    def __init__(
        self,
        name: str | None = None,
        *,
        ratio: float = AS_IN_OPTIONS,
        per_second: float = AS_IN_OPTIONS,
        window: float = AS_IN_OPTIONS,
        options: BudgetOptions | None = None,
        clock: Clock = monotonic,
    ) -> None:
        given = given_fields(ratio=ratio, per_second=per_second, window=window)
        self.name = name or "budget"
        self._first_attempts = Ticks()
        self.deposits = self._first_attempts.ring
        """Counts a first attempt by ``next`` alone, where a lock and a clock would be too dear.

        Whoever gets a 0, one in 64, calls :meth:`fold`. So up to 63 first attempts may be counted
        later than they were made, until something is decided or the next one comes.
        """
        self._defaults = self._options = replace(options or BudgetOptions(), **given)
        # Re-entrant: a collection that starts inside may end another call of this thread.
        self._lock = threading.RLock()
        self._counts = SlidingCounts(self._options.window)
        self._clock = clock
        self._waiting = 0
        self._refused = 0
        tell_after_fork(self)
        if name is not None:
            policies.register(self)

    @property
    def options(self) -> BudgetOptions:
        """The options it follows now."""
        return self._options

    @property
    def defaults(self) -> BudgetOptions:
        """The options given in code."""
        return self._defaults

    @property
    def refused(self) -> int:
        """How many further attempts it has refused."""
        return self._refused

    @property
    def waiting(self) -> int:
        """How many further attempts are reserved and not yet launched."""
        return self._waiting

    def deposit(self, now: float) -> None:
        """Count a first attempt. ``now`` is in monotonic seconds."""
        with self._lock:
            self._counts.record(now)

    def fold(self, now: float) -> None:
        """Take the first attempts that were counted by :attr:`deposits` into the window."""
        with self._lock:
            self._fold(now)

    def withdraw(self, now: float) -> bool:
        """Take leave for a further attempt that follows at once; False if the budget is spent."""
        with self._lock:
            if self._left(now) < self._waiting + 1:
                self._refused += 1
                return False
            self._counts.record(now, marked=True)
            return True

    def reserve(self, now: float) -> bool:
        """Take leave to wait for a further attempt; False if the budget is spent.

        After True, exactly one of :meth:`launch` and :meth:`release` must follow.
        """
        with self._lock:
            if self._left(now) < self._waiting + 1:
                self._refused += 1
                return False
            self._waiting += 1
            return True

    def launch(self, now: float) -> bool:
        """Make the reserved attempt now; False if the budget has run dry meanwhile."""
        with self._lock:
            self.release()
            if self._left(now) < 1:
                self._refused += 1
                return False
            self._counts.record(now, marked=True)
            return True

    def release(self) -> None:
        """Give a reservation back: its attempt is not made."""
        with self._lock:
            self._waiting = max(0, self._waiting - 1)

    def available(self, now: float) -> int:
        """How many further attempts would be granted now."""
        with self._lock:
            return max(0, int(self._left(now)) - self._waiting)

    def describe(self, now: float | None = None) -> Mapping[str, Any]:
        """What is left, who waits, what was refused, and the options, as plain values."""
        return {
            "available": self.available(self._clock() if now is None else now),
            "waiting": self._waiting,
            "refused": self._refused,
            "options": asdict(self._options),
        }

    def reconfigure(self, options: BudgetOptions, now: float | None = None) -> None:
        """Follow ``options`` from now on; what was counted is kept."""
        check_options(options, self._defaults)
        now = self._clock() if now is None else now
        with self._lock:
            self._fold(now)
            if options.window != self._options.window:
                self._counts.resize(options.window, now)
            self._options = options

    def _left(self, now: float) -> float:
        self._fold(now)
        counts, options = self._counts, self._options
        first_attempts = counts.total - counts.marked
        return options.ratio * first_attempts + options.per_second * options.window - counts.marked

    def _fold(self, now: float) -> None:
        self._counts.expire(now)
        self._counts.add(self._first_attempts.take())

    def after_fork_in_child(self) -> None:
        """Another thread may have held the lock; the counts go on, per process, the waiters do not."""
        self._lock = threading.RLock()
        self._waiting = 0
