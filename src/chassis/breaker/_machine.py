"""The circuit breaker as a pure machine: no clock, no lock, no call.

::

    CLOSED ──too many failures──> OPEN ──its time is up, at the next call──> HALF_OPEN
       ^                           ^                                         │     │
       │                           └──too many probes fail, or none decides──┘     │
       └────────────────────────enough probes succeed──────────────────────────────┘

and beside these FORCED_OPEN, DISABLED and METRICS_ONLY, which only an operator enters and leaves.

Every admission bears a ticket, by which a result that comes after a transition is known as stale.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from chassis.breaker._options import BreakerOptions, Mode
from chassis.breaker._states import BreakerState, Transition
from chassis.breaker._tickets import NEVER, Generation, Probe, Ticket
from chassis.core.outcomes import Outcome
from chassis.core.windows import RingCounts, SlidingCounts, Tally

_MOST_DOUBLINGS = 60  # beyond it the float would overflow one day; every cap is reached long before

# What nearly all breakers of a large family have, they share.
_NO_REFUSALS = Tally()
_NONE: Mapping[Probe, None] = MappingProxyType({})

_MODES = {
    "forced_open": BreakerState.FORCED_OPEN,
    "disabled": BreakerState.DISABLED,
    "metrics_only": BreakerState.METRICS_ONLY,
}


class BreakerMachine:
    """Counts outcomes and decides who is admitted. Its owner holds a lock around each method.

    :param draw: draws from [0, 1).
    """

    __slots__ = (
        "_draw",
        "_failed",
        "_ignored",
        "_now",
        "_refused",
        "_rounds",
        "_streak",
        "_succeeded",
        "_tripped",
        "_window",
        "_would_open",
        "closed",
        "last_failure",
        "length",
        "options",
        "ordered",
        "probes",
        "refusals",
        "state",
        "transitions",
        "until",
    )

    def __init__(self, options: BreakerOptions, *, draw: Callable[[], float] = random.random) -> None:
        self.options = options
        self.ordered: Mode | None = None
        """The mode that was ordered by hand, which goes before that of the options."""
        self.closed: Generation | None = None
        """The ticket of calls that are let through and counted: reading it is all such a call asks."""
        self.until = NEVER
        """Before this moment calls are refused without asking for the lock; infinity while forced open."""
        self.length = 0.0
        """How long the opening was meant to last."""
        self.probes: Mapping[Probe, None] = _NONE
        """The probes in flight, oldest first."""
        self.refusals = _NO_REFUSALS
        """Counts the calls refused, without the lock."""
        self._refused = 0
        self.last_failure: str | None = None
        self.transitions: Sequence[Transition] = ()
        """What happened and was not told yet; the owner takes them out."""
        self._draw = draw
        self._now = 0.0
        self._window = _window(options)
        self._streak = 0
        self._rounds = 0
        self._succeeded = self._failed = self._ignored = 0
        self._would_open = False
        self._tripped: str | None = None
        self.state = BreakerState.CLOSED
        self._begin(_MODES.get(options.mode, BreakerState.CLOSED))

    # ── admission ────────────────────────────────────────────────────────────────────────────

    def admit(self, now: float) -> tuple[Ticket | None, float | None]:
        """A ticket for one call; or None, and the seconds after which a call has a chance, if known."""
        if self.closed is not None:
            return self.closed, 0.0
        retry_after = self.retry_after(now)
        if retry_after != 0.0 or self.state is BreakerState.DISABLED:
            return None, retry_after
        probe = Probe(self._now)
        self.probes = {**self.probes, probe: None}
        return probe, 0.0

    def retry_after(self, now: float) -> float | None:
        """Seconds until a call has a chance; 0 if it would be admitted now, None if nobody can know.

        In HALF_OPEN, where all depends on the probes in flight, at most ``open_for``.
        """
        self.poll(now)
        if self.state is BreakerState.OPEN:
            return self.until - self._now
        if self.state is BreakerState.FORCED_OPEN:
            return None
        if self.state is not BreakerState.HALF_OPEN:
            return 0.0
        busy, options = len(self.probes), self.options
        if busy < options.probe_concurrency and self._succeeded + self._failed + busy < options.probes:
            return 0.0
        return min(options.open_for, self._lease_end() - self._now)

    def poll(self, now: float) -> None:
        """Make the transition that time alone has brought about."""
        self._advance(now)
        if self.state is BreakerState.OPEN:
            if self._now >= self.until:
                self.until = NEVER
                self._succeeded = self._failed = self._ignored = 0
                self._enter(BreakerState.HALF_OPEN, "its time was up")
        elif self.probes and self._now >= self._lease_end():
            self.last_failure = f"a probe gave no result within {self.options.lease:g} s"
            self._open(self.last_failure)

    def _lease_end(self) -> float:
        return next(iter(self.probes)).began + self.options.lease

    # ── outcomes ─────────────────────────────────────────────────────────────────────────────

    def settle(
        self,
        ticket: Ticket,
        outcome: Outcome,
        now: float,
        *,
        slow: bool = False,
        failure: str | None = None,
        told: float | None = None,
    ) -> None:
        """Take a ticket back with how the call ended.

        :param slow: it took longer than ``slow_after``.
        :param failure: what is kept of the error behind a FAILURE.
        :param told: the seconds after which that error asks to be called again.
        """
        if ticket is self.closed:
            if outcome is not Outcome.IGNORED:
                self._count(outcome is Outcome.FAILURE, slow, now, failure, told)
        elif ticket in self.probes:
            self._advance(now)
            self.probes = {each: None for each in self.probes if each is not ticket}
            self._judge_round(outcome, slow, failure, told)

    def weigh(self, generation: Generation, now: float) -> None:
        """See whether the successes that were counted by ``generation.add`` make the breaker open."""
        if generation is self.closed:
            self._advance(now)
            self._collect(generation)
            self._window.expire(self._now)
            self._judge(generation, None)

    def _count(self, failed: bool, slow: bool, now: float, failure: str | None, told: float | None) -> None:
        generation = self.closed
        assert generation is not None  # noqa: S101 - the ticket was it
        self._advance(now)
        self._collect(generation)
        self._window.record(self._now, marked=failed, slow=slow)
        if failed:
            self._streak += 1
            self.last_failure = failure
        else:
            self._streak, self._tripped = 0, None
        self._judge(generation, told)

    def _collect(self, generation: Generation) -> None:
        """Bring in the successes that were counted without the lock."""
        # Whatever may come to be decided hereafter is no longer for these alone to see.
        generation.edge = NEVER
        count = generation.take()
        if count:
            self._window.add(count)
            self._streak, self._tripped = 0, None

    def _judge(self, generation: Generation, told: float | None) -> None:
        """Open if there is reason to. Also after a success: it may be the call that makes a rate speak."""
        reason = self._reason_to_open()
        if reason is not None and self.state is BreakerState.CLOSED:
            self._open(reason, told=told)
            return
        if reason is not None and not self._would_open:
            self._enter(self.state, reason, would_open=True)
        self._would_open = reason is not None
        # With enough calls in the window, or nothing in it but good ones, one more good call lowers
        # the rates or leaves them: it is no reason to open, and need not be looked at.
        window = self._window
        if reason is None and (
            window.total >= self.options.minimum_calls or not (window.marked or window.slow)
        ):
            generation.edge = window.edge

    def _reason_to_open(self) -> str | None:
        window, options = self._window, self.options
        if self._tripped is not None:
            return self._tripped
        if options.consecutive_failures is not None and self._streak >= options.consecutive_failures:
            return f"{self._streak} consecutive failures"
        if window.total >= options.minimum_calls:
            if window.marked and window.marked / window.total >= options.failure_rate:
                return f"{window.marked / window.total:.0%} of {window.total} calls failed"
            if window.slow and window.slow / window.total >= options.slow_rate:
                return f"{window.slow / window.total:.0%} of {window.total} calls were slow"
        return None

    def _judge_round(self, outcome: Outcome, slow: bool, failure: str | None, told: float | None) -> None:
        if outcome is Outcome.IGNORED:
            self._ignored += 1
            if self._ignored >= 2 * self.options.probes:
                # Callers that keep giving up must not hold it half open for ever; but as they say
                # nothing of the dependency, the next opening is no longer than this one was.
                self._open("no probe came to a verdict", grow=False)
        elif outcome is Outcome.FAILURE or slow:
            # A slow answer is what it may have opened for: closing on one would let all callers wait.
            self._failed += 1
            if outcome is Outcome.FAILURE:
                self.last_failure = failure
            self._end_round("a probe failed" if outcome is Outcome.FAILURE else "a probe was slow", told)
        else:
            self._succeeded += 1
            self._end_round("", None)

    def _end_round(self, failed: str, told: float | None) -> None:
        """Close or open again if the rest of the round can change nothing.

        :param failed: the reason for opening.
        """
        succeeded, options = self._succeeded, self.options
        if self._failed > options.probe_failures:
            self._open(failed, told=told)
        elif succeeded >= options.probes - options.probe_failures:
            self._begin(BreakerState.CLOSED)
            self._enter(BreakerState.CLOSED, f"{succeeded} probes succeeded")

    # ── transitions ──────────────────────────────────────────────────────────────────────────

    def trip(self, reason: str, now: float, ticket: Ticket | None = None) -> None:
        """Open for ``reason``, which stands until a call succeeds.

        :param ticket: of the call that showed it; nothing is done if that time is over.
        """
        self.poll(now)
        generation = self.closed
        if ticket is not None and ticket is not generation:
            return
        if generation is not None:
            self._collect(generation)
            self._window.expire(self._now)
            self._tripped = reason
            self._judge(generation, None)
        elif self.state is BreakerState.HALF_OPEN:
            self._open(reason)

    def retry_now(self, now: float) -> None:
        """Let the time it is open be over; the next one is as long as it would have been."""
        self._advance(now)
        if self.state is BreakerState.OPEN:
            self.until = min(self.until, self._now)

    def order(self, mode: Mode | None, now: float) -> None:
        """Take ``mode`` whatever the options say; None takes that back and forgets all that was counted."""
        self._advance(now)
        self.ordered = mode
        state = self._due()
        if mode is None or state is not self.state:
            self._begin(state)
            self._enter(state, "it was reset" if mode is None else "it was ordered to")

    def reconfigure(self, options: BreakerOptions, now: float) -> None:
        """Follow ``options`` from now on. What was counted stays; an opening keeps its length."""
        before = self._due()
        self._advance(now)
        if self.closed is not None:
            self._collect(self.closed)
        if (before_seconds := self.options.window_seconds) != options.window_seconds or (
            self.options.window_calls != options.window_calls
        ):
            window = self._window
            if isinstance(window, SlidingCounts) and before_seconds and options.window_seconds:
                window.resize(options.window_seconds, self._now)
            elif isinstance(window, RingCounts) and options.window_calls:
                window.resize(options.window_calls)
            else:
                # Calls of the last seconds do not tell in what order they came, nor the last calls when.
                self._window = _window(options)
        self.options = options
        state = self._due()
        if state is not before:
            self._begin(state)
            self._enter(state, "its options say so")
        elif self.closed is not None:
            self._tell_generation(self.closed)
        elif self.state is BreakerState.HALF_OPEN:
            self._end_round("fewer probes may fail now", None)

    def counts(self, now: float) -> tuple[int, int, int]:
        """Calls in the window, and how many of them failed and were slow."""
        self._advance(now)
        if self.closed is not None:
            self._collect(self.closed)
        window = self._window
        window.expire(self._now)
        return window.total, window.marked, window.slow

    def refused(self) -> int:
        """Calls refused since it was made."""
        if self.refusals is not _NO_REFUSALS:
            self._refused += self.refusals.take()
        return self._refused

    def _due(self) -> BreakerState:
        """The state that an operator wants, CLOSED standing for the three of the breaker's own."""
        return _MODES.get(self.ordered or self.options.mode, BreakerState.CLOSED)

    def _open(self, reason: str, *, grow: bool = True, told: float | None = None) -> None:
        if grow:
            self._rounds += 1
        options = self.options
        doublings = min(self._rounds - 1, _MOST_DOUBLINGS)
        length = min(options.open_for * 2.0**doublings, options.open_for_max)
        length *= 0.9 + 0.2 * self._draw()
        if told is not None and options.retry_after_max is not None:
            length = max(length, min(told, options.retry_after_max))
        self._end_generation()
        self.probes = _NONE
        self.length = length
        self._refuse_until(self._now + length)
        self._enter(BreakerState.OPEN, reason, open_for=length)

    def _begin(self, state: BreakerState) -> None:
        """Start afresh in ``state``, which is none that time ends."""
        self._end_generation()
        self.state = state
        self._window.clear()
        self._streak = self._rounds = 0
        self._would_open = False
        self._tripped = None
        self.probes = _NONE
        self.until = NEVER
        if state is BreakerState.FORCED_OPEN:
            self._refuse_until(math.inf)
        if state in (BreakerState.CLOSED, BreakerState.METRICS_ONLY):
            generation = Generation()
            self._tell_generation(generation)
            self.closed = generation

    def _refuse_until(self, moment: float) -> None:
        if self.refusals is _NO_REFUSALS:
            self.refusals = Tally()
        self.until = moment

    def _tell_generation(self, generation: Generation) -> None:
        """What its calls must know. The next one is looked at, whatever it is."""
        generation.edge = NEVER
        generation.slow_after = self.options.slow_after
        generation.timed = self.options.window_calls is None

    def _end_generation(self) -> None:
        if self.closed is not None:
            # Whoever still counts by it shall come and be told that it is over.
            self.closed.edge = NEVER
            self.closed = None

    def _enter(
        self, state: BreakerState, reason: str, *, open_for: float = 0.0, would_open: bool = False
    ) -> None:
        self.state = state
        window = self._window
        transition = Transition(
            state,
            self._now,
            reason,
            open_for,
            window.total,
            window.marked,
            window.slow,
            self.last_failure,
            would_open,
        )
        self.transitions = (*self.transitions, transition)

    def _advance(self, now: float) -> None:
        # A clock that steps back neither shortens nor lengthens anything: time stands still for it.
        self._now = max(self._now, now)


def _window(options: BreakerOptions) -> SlidingCounts | RingCounts:
    seconds = options.window_seconds
    return RingCounts(options.window_calls or 1) if seconds is None else SlidingCounts(seconds)
