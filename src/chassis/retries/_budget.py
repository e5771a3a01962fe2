from __future__ import annotations

import threading

from chassis.core.forks import tell_after_fork
from chassis.core.windows import SlidingCounts
from chassis.retries._options import BudgetOptions


class RetryBudget:
    """Bounds the extra load of further attempts, by retries and by anything else that shares it.

    Each first attempt puts a share in, each further attempt takes one out when it is decided on;
    what was decided on may then be launched whenever its pause is over, as it has been paid for.
    May be used from any thread.
    """

    def __init__(self, options: BudgetOptions | None = None) -> None:
        self._options = options or BudgetOptions()
        # Re-entrant: a collection that starts inside may end another call of this thread.
        self._lock = threading.RLock()
        self._counts = SlidingCounts(self._options.window)
        self._refused = 0
        tell_after_fork(self)

    @property
    def options(self) -> BudgetOptions:
        """The options it follows now."""
        return self._options

    @property
    def refused(self) -> int:
        """How many further attempts it has refused."""
        return self._refused

    def deposit(self, now: float) -> None:
        """Count a first attempt. ``now`` is in monotonic seconds."""
        with self._lock:
            self._counts.record(now)

    def withdraw(self, now: float) -> bool:
        """Take leave for one further attempt; False if the budget is spent."""
        with self._lock:
            left = self._left(now)
            if left < 1:
                self._refused += 1
                return False
            self._counts.record(now, marked=True)
            return True

    def available(self, now: float) -> int:
        """How many further attempts would be granted now."""
        with self._lock:
            return max(0, int(self._left(now)))

    def reconfigure(self, options: BudgetOptions, now: float) -> None:
        """Follow ``options`` from now on; what was counted is kept."""
        with self._lock:
            if options.window != self._options.window:
                self._counts.resize(options.window, now)
            self._options = options

    def _left(self, now: float) -> float:
        counts, options = self._counts, self._options
        counts.expire(now)
        first_attempts = counts.total - counts.marked
        return options.ratio * first_attempts + options.per_second * options.window - counts.marked

    def after_fork_in_child(self) -> None:
        """Another thread may have held the lock; the counts go on, per process."""
        self._lock = threading.RLock()
