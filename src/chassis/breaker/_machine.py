"""The circuit breaker as a pure machine: no clock, no lock, no call.

::

    CLOSED ──too many failures──> OPEN ──its time is up, at the next call──> HALF_OPEN
       ^                           ^                                         │     │
       │                           └──a probe fails, hangs, or none decides──┘     │
       └───────────────────────all probes succeed──────────────────────────────────┘

Every admission bears a ticket. All closed calls between two transitions share one number, each
probe has its own, and a number never comes back: so a result that comes after a transition is
known as stale by its ticket alone, and can neither trip, close nor confuse a later round.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from chassis.breaker._options import BreakerOptions
from chassis.core.outcomes import Outcome
from chassis.core.windows import SlidingCounts

_MOST_DOUBLINGS = 60  # beyond it the float would overflow one day; every cap is reached long before


class BreakerState(Enum):
    """What a breaker does with calls."""

    CLOSED = "closed"
    """Lets them through and counts how they end."""
    OPEN = "open"
    """Refuses them."""
    HALF_OPEN = "half_open"
    """Lets a few through as probes."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state.

    :param reason: why, as a phrase for an operator.
    :param open_for: seconds it will stay open; 0 unless ``state`` is OPEN.
    :param calls: calls the window held.
    :param failures: how many of them had failed.
    :param last_failure: the failure that counted last.
    """

    state: BreakerState
    at: float
    reason: str
    open_for: float
    calls: int
    failures: int
    last_failure: str | None


class BreakerMachine:
    """Counts outcomes and decides who is admitted. Its owner holds a lock around each method.

    :param draw: draws from [0, 1).
    """

    __slots__ = (
        "_draw",
        "_ignored",
        "_now",
        "_rounds",
        "_streak",
        "_succeeded",
        "_tickets",
        "_until",
        "_window",
        "closed",
        "last_failure",
        "options",
        "probes",
        "refused",
        "state",
        "transitions",
    )

    def __init__(self, options: BreakerOptions, *, draw: Callable[[], float] = random.random) -> None:
        self.options = options
        self.state = BreakerState.CLOSED
        self.closed = 1
        """The ticket of closed calls, 0 while not closed: reading it is all a closed call asks."""
        self.probes: dict[int, float] = {}
        """Ticket and start of each probe in flight, oldest first."""
        self.refused = 0
        self.last_failure: str | None = None
        self.transitions: list[Transition] = []
        """What happened and was not told yet; the owner takes them out."""
        self._draw = draw
        self._tickets = 1
        self._window = SlidingCounts(options.window)
        self._now = 0.0
        self._streak = 0
        self._rounds = 0
        self._until = 0.0
        self._succeeded = 0
        self._ignored = 0

    def admit(self, now: float) -> tuple[int, float]:
        """A ticket for one call; or 0, and the seconds after which a call has a chance."""
        if self.closed:
            return self.closed, 0.0
        retry_after = self.retry_after(now)
        if retry_after > 0.0:
            self.refused += 1
            return 0, retry_after
        self._tickets += 1
        self.probes[self._tickets] = self._now
        return self._tickets, 0.0

    def settle(self, ticket: int, outcome: Outcome, now: float, failure: str | None = None) -> None:
        """Take a ticket back with how the call ended.

        :param failure: what is kept of the error behind a FAILURE.
        """
        if ticket == self.closed:
            if outcome is not Outcome.IGNORED:
                self._count(outcome is Outcome.FAILURE, now, failure)
        elif ticket in self.probes:
            self._advance(now)
            del self.probes[ticket]
            self._judge_round(outcome, failure)

    def succeed(self, ticket: int, now: float) -> None:
        """Settle a SUCCESS, at the least cost while the window holds no failure."""
        window = self._window
        if ticket == self.closed and not window.marked and now < window.edge:
            window.total += 1
            self._streak = 0
        else:
            self.settle(ticket, Outcome.SUCCESS, now)

    def retry_after(self, now: float) -> float:
        """Seconds until a call has a chance; 0 if it would be admitted now.

        In HALF_OPEN, where all depends on the probes in flight, at most ``open_for``.
        """
        self.poll(now)
        if self.state is BreakerState.OPEN:
            return self._until - self._now
        if self.state is BreakerState.CLOSED:
            return 0.0
        busy = len(self.probes)
        if busy < self.options.probe_concurrency and self._succeeded + busy < self.options.probes:
            return 0.0
        return min(self.options.open_for, self._lease_end() - self._now)

    def poll(self, now: float) -> None:
        """Make the transition that time alone has brought about."""
        self._advance(now)
        if self.state is BreakerState.OPEN:
            if self._now >= self._until:
                self._succeeded = self._ignored = 0
                self._enter(BreakerState.HALF_OPEN, "its time was up")
        elif self.probes and self._now >= self._lease_end():
            self.last_failure = f"a probe gave no result within {self.options.probe_timeout:g} s"
            self._open(self.last_failure, grow=True)

    def counts(self, now: float) -> tuple[int, int]:
        """Calls and failures in the window."""
        self._advance(now)
        self._window.expire(self._now)
        return self._window.total, self._window.marked

    def reconfigure(self, options: BreakerOptions, now: float) -> None:
        """Follow ``options`` from now on. What was counted stays; an opening keeps its length."""
        self._advance(now)
        if options.window != self.options.window:
            self._window.resize(options.window, self._now)
        self.options = options
        if self.state is BreakerState.HALF_OPEN and self._succeeded >= options.probes:
            self._close()

    def _count(self, failed: bool, now: float, failure: str | None) -> None:
        self._advance(now)
        window, options = self._window, self.options
        window.record(self._now, marked=failed)
        if failed:
            self._streak += 1
            self.last_failure = failure
            if options.consecutive_failures is not None and self._streak >= options.consecutive_failures:
                self._open(f"{self._streak} consecutive failures", grow=True)
                return
        else:
            self._streak = 0
        # Also after a success: it may be the call that makes the window speak.
        if window.marked and window.total >= options.minimum_calls:
            rate = window.marked / window.total
            if rate >= options.failure_rate:
                self._open(f"{rate:.0%} of {window.total} calls failed", grow=True)

    def _judge_round(self, outcome: Outcome, failure: str | None) -> None:
        if outcome is Outcome.FAILURE:
            self.last_failure = failure
            self._open("a probe failed", grow=True)
        elif outcome is Outcome.SUCCESS:
            self._succeeded += 1
            if self._succeeded >= self.options.probes:
                self._close()
        else:
            self._ignored += 1
            if self._ignored >= 2 * self.options.probes:
                # Callers that keep giving up must not hold it half open for ever; but as they say
                # nothing of the dependency, the next opening is no longer than this one was.
                self._open("no probe came to a verdict", grow=False)

    def _open(self, reason: str, *, grow: bool) -> None:
        if grow:
            self._rounds += 1
        doublings = min(self._rounds - 1, _MOST_DOUBLINGS)
        length = min(self.options.open_for * 2.0**doublings, self.options.open_for_max)
        length *= 0.9 + 0.2 * self._draw()
        self._until = self._now + length
        self.closed = 0
        self.probes.clear()
        self._enter(BreakerState.OPEN, reason, open_for=length)

    def _close(self) -> None:
        calls = self._succeeded
        self._window.clear()
        self._streak = self._rounds = 0
        self.probes.clear()
        self._tickets += 1
        self.closed = self._tickets
        self._enter(BreakerState.CLOSED, f"{calls} probes succeeded")

    def _enter(self, state: BreakerState, reason: str, *, open_for: float = 0.0) -> None:
        self.state = state
        calls, failures = self._window.total, self._window.marked
        self.transitions.append(
            Transition(state, self._now, reason, open_for, calls, failures, self.last_failure)
        )

    def _lease_end(self) -> float:
        return next(iter(self.probes.values())) + self.options.probe_timeout

    def _advance(self, now: float) -> None:
        # A clock that steps back neither shortens nor lengthens anything: time stands still for it.
        self._now = max(self._now, now)
