"""Load shedding as a pure machine: what is in flight, how late the event loop runs, how long work takes."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from chassis.limits._machine import Pace
from chassis.limits._options import LoadShedderOptions

Reason: TypeAlias = Literal["in_flight", "lag", "hopeless"]

_HALF = 5.0
"""What is measured is kept for one to two of these, in seconds."""


class _Half:
    """What was seen in one half of the last ten seconds."""

    __slots__ = ("calls", "hopeless", "quickest")

    def __init__(self) -> None:
        self.calls = 0
        self.hopeless = 0
        self.quickest = math.inf


class LoadMachine:
    """Says of each call whether it is refused, and why. Its owner holds a lock around each method.

    Lag is judged as CoDel (RFC 8289) judges a queue: not by its height, but by whether it has been
    too high for all of an interval. Of the time that work takes the least is kept: a call that has
    less than that left cannot be answered in time, whatever kind of call it is.
    """

    __slots__ = (
        "_before",
        "_half_since",
        "_last_probed",
        "_late_since",
        "_now",
        "_options",
        "_pace",
        "_probing_since",
        "in_flight",
        "lag",
        "refused",
    )

    def __init__(self, options: LoadShedderOptions) -> None:
        self._options = options
        self.in_flight = 0
        self._pace = Pace()
        self.refused: dict[Reason, int] = {"in_flight": 0, "lag": 0, "hopeless": 0}
        self.lag = 0.0
        """What was measured last, in seconds."""
        self._late_since: float | None = None
        self._last_probed = -math.inf
        self._probing_since: float | None = None
        self._half_since = -math.inf
        self._before = _Half()
        self._now = _Half()

    # ── calls ────────────────────────────────────────────────────────────────────────────────

    def enter(self, now: float, left: float | None) -> Reason | None:
        """Count a call that comes now and has ``left`` seconds, and say why it is refused, if it is."""
        options = self._options
        if options.hopeless:
            self._turn(now)
            self._now.calls += 1
        reason: Reason
        if self.late(now):
            reason = "lag"
        elif left is not None and options.hopeless and self._is_hopeless(left):
            reason = "hopeless"
            self._now.hopeless += 1
        elif options.max_in_flight is not None and self.in_flight >= options.max_in_flight:
            reason = "in_flight"
        else:
            self.in_flight += 1
            if self.in_flight == options.max_in_flight:
                self._pace.filled(now)
            return None
        self.refused[reason] += 1
        return reason

    def leave(self, now: float, took: float | None) -> None:
        """A call has ended; ``took`` seconds if it did what it was to do."""
        if self.in_flight == self._options.max_in_flight:
            self._pace.freed(now)
        self.in_flight -= 1
        if took is not None and self._options.hopeless:
            self._turn(now)
            self._now.quickest = min(self._now.quickest, took)

    def retry_after(self, reason: Reason, now: float) -> float:
        """Seconds after which it may be otherwise."""
        return self._pace.next_free(now) if reason == "in_flight" else self._options.interval

    def _is_hopeless(self, left: float) -> bool:
        quickest = min(self._now.quickest, self._before.quickest)
        if left >= quickest or quickest == math.inf:
            return False
        calls = self._now.calls + self._before.calls
        refused = self._now.hopeless + self._before.hopeless
        return refused + 1 <= self._options.hopeless_share * calls

    def _turn(self, now: float) -> None:
        """Let go of what is too old."""
        if now - self._half_since >= _HALF:
            self._before = self._now if now - self._half_since < 2 * _HALF else _Half()
            self._now = _Half()
            self._half_since = now

    # ── lag ──────────────────────────────────────────────────────────────────────────────────

    def probe(self, now: float) -> None:
        """A step has been put at the end of what the event loop has to do."""
        self._probing_since = now

    def probed(self, since: float, now: float) -> None:
        """The step put there at ``since`` runs now."""
        self.lag = now - since
        max_lag = self._options.max_lag
        if max_lag is None or self.lag <= max_lag:
            self._late_since = None
        elif self._late_since is None or since - self._last_probed > self._options.interval:
            # The first late one; or nothing is known of the time between it and the one before.
            self._late_since = now
        self._last_probed = now
        self._probing_since = None

    def late(self, now: float) -> bool:
        """Whether the loop has been late for all of the interval, and nothing else is known since."""
        if self._late_since is None or self._options.max_lag is None:
            return False
        known_until = now if self._probing_since is None else self._probing_since
        interval = self._options.interval
        return now - self._late_since >= interval and known_until - self._last_probed <= interval

    # ── changing ─────────────────────────────────────────────────────────────────────────────

    def reconfigure(self, options: LoadShedderOptions, now: float) -> None:
        """Follow ``options`` from now on; what is in flight, and what was measured, stays."""
        self._options = options
        self._pace = Pace()
        self._pace.filled(now)
