from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from chassis.core.forks import tell_after_fork
from chassis.core.windows import SlidingCounts
from chassis.retries._budget import RetryBudget
from chassis.retries._hedge_options import HedgeOptions
from chassis.retries._percentile import RecentPercentile

LEAST_DELAY = 0.001
"""Seconds. An estimate below it says that the calls are too quick to be worth hedging sooner."""


class HedgeMachine:
    """Decides when a call that is slow gets company: after which delay, and whether at all.

    One for all calls of one operation or service. For each of them::

        delay = machine.begin(now)          # None: this call is made alone
        ...                                 # unanswered after `delay` seconds:
        machine.allow(now, budget)          # leave to send one more
        ...
        machine.observe(seconds, now)       # how long the first one took

    May be used from any thread.
    """

    def __init__(self, options: HedgeOptions | None = None) -> None:
        self.options = options or HedgeOptions()
        """The options it follows now."""
        self.sent = 0
        """How many further calls it has allowed."""
        self.refused = 0
        """How many it has not: its own share of the load, or the budget, was spent."""
        # Re-entrant: a collection that starts inside may end another call of this thread.
        self._lock = threading.RLock()
        self._counts = SlidingCounts(self.options.window)
        self._recent = RecentPercentile(self.options.window)
        tell_after_fork(self)

    def begin(self, now: float) -> float | None:
        """Count a call that begins now.

        :returns: seconds after which a further one may be sent; None if it stays alone, as too few
            calls were seen lately, as the share of further calls is spent, or as there are to be none.
        """
        with self._lock:
            self._counts.record(now)
            return self._delay(now) if self._share_left(now) else None

    def delay(self, now: float) -> float | None:
        """Seconds after which a call counts as slow; None while too few were seen lately."""
        with self._lock:
            return self._delay(now)

    def observe(self, seconds: float, now: float) -> None:
        """Take note of how long a call took by itself.

        Told of a first call that succeeded, and of one that a further call overtook with the time
        it had taken by then: if the slow ones were left out, the estimate would sink ever lower.
        """
        if self.options.delay is None:
            with self._lock:
                self._recent.add(seconds, now)

    def allow(self, now: float, budget: RetryBudget | None = None) -> bool:
        """Take leave to send one further call.

        :param budget: pays for it too, if its own share of the load is not spent.
        """
        with self._lock:
            if self._share_left(now) and (budget is None or budget.withdraw(now)):
                self._counts.record(now, marked=True)
                self.sent += 1
                return True
            self.refused += 1
            return False

    def reconfigure(self, options: HedgeOptions, now: float) -> None:
        """Follow ``options`` from now on; what was counted is kept."""
        with self._lock:
            if options.window != self.options.window:
                self._counts.resize(options.window, now)
                self._recent.resize(options.window, now)
            self.options = options

    def describe(self, now: float) -> Mapping[str, Any]:
        """The delay of now, what it has decided, and the options, as plain values."""
        with self._lock:
            return {
                "delay": self._delay(now),
                "sent": self.sent,
                "refused": self.refused,
                "options": asdict(self.options),
            }

    def _delay(self, now: float) -> float | None:
        options = self.options
        if options.delay is not None:
            return options.delay
        recent = self._recent
        recent.expire(now)
        if recent.count < options.minimum_calls:
            return None
        return max(LEAST_DELAY, recent.value(options.percentile))

    def _share_left(self, now: float) -> bool:
        counts = self._counts
        counts.expire(now)
        first = counts.total - counts.marked
        return self.options.extra > 0 and counts.marked + 1 <= self.options.extra_load * first

    def after_fork_in_child(self) -> None:
        """Another thread may have held the lock; the counts go on, per process."""
        self._lock = threading.RLock()
