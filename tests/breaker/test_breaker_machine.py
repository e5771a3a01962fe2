"""The circuit breaker without threads, clocks or calls."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.breaker import BreakerFields, BreakerOptions, BreakerState
from chassis.breaker._machine import BreakerMachine
from chassis.breaker._states import Transition
from chassis.breaker._tickets import Generation, Ticket
from chassis.core.errors import ConfigError
from chassis.core.outcomes import Outcome

SUCCESS, FAILURE, IGNORED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
FORCED_OPEN, DISABLED = BreakerState.FORCED_OPEN, BreakerState.DISABLED
METRICS_ONLY = BreakerState.METRICS_ONLY


def middle() -> float:
    """Draws no jitter."""
    return 0.5


def machine(*, draw: Any = middle, **options: Any) -> BreakerMachine:
    return BreakerMachine(BreakerOptions(**options), draw=draw)


def call(
    breaker: BreakerMachine,
    outcome: Outcome,
    now: float,
    failure: str = "boom",
    *,
    slow: bool = False,
    told: float | None = None,
) -> None:
    ticket, _ = breaker.admit(now)
    assert ticket, "refused"
    failed = outcome is FAILURE
    breaker.settle(ticket, outcome, now, slow=slow, failure=failure if failed else None, told=told)


def succeed(breaker: BreakerMachine, generation: Generation | None, now: float) -> None:
    """Count a success as the guards do, without the lock where that will do."""
    assert generation is not None
    if now < generation.edge:
        generation.add()
        if now >= generation.edge:
            breaker.weigh(generation, now)
    else:
        breaker.settle(generation, SUCCESS, now)


def opened(now: float = 0.0, **options: Any) -> BreakerMachine:
    """A breaker that has just opened, for 5 seconds unless told otherwise."""
    breaker = machine(**{"consecutive_failures": 1, **options})
    call(breaker, FAILURE, now)
    assert breaker.state is OPEN
    return breaker


def half_open(**options: Any) -> tuple[BreakerMachine, Ticket]:
    """A breaker with its first probe in flight since t=5."""
    breaker = opened(**options)
    ticket, _ = breaker.admit(5.0)
    assert ticket
    assert breaker.state is HALF_OPEN
    return breaker, ticket


# ── opening ──────────────────────────────────────────────────────────────────────────────────


def test_begins_closed_and_admits() -> None:
    """A fresh breaker lets calls through, has counted nothing and says so."""
    breaker = machine()
    assert breaker.state is CLOSED
    assert breaker.closed is not None
    assert breaker.admit(0.0) == (breaker.closed, 0.0)
    assert breaker.retry_after(0.0) == 0.0
    assert breaker.counts(0.0) == (0, 0, 0)
    assert (breaker.last_failure, breaker.transitions) == (None, ())


def test_opens_after_consecutive_failures_exactly() -> None:
    """The fifth failure in a row opens, the fourth does not; a success in between begins anew."""
    breaker = machine(consecutive_failures=5, minimum_calls=1_000)
    for _ in range(4):
        call(breaker, FAILURE, 0.0)
    call(breaker, SUCCESS, 0.0)
    for _ in range(4):
        call(breaker, FAILURE, 0.0)
    assert breaker.state is CLOSED
    call(breaker, FAILURE, 0.0, "ConnectionError: refused")
    assert breaker.state is OPEN
    assert breaker.closed is None
    [transition] = breaker.transitions
    assert transition.reason == "5 consecutive failures"
    assert transition.open_for == 5.0
    assert (transition.calls, transition.failures) == (10, 9)
    assert transition.last_failure == breaker.last_failure == "ConnectionError: refused"


def test_unlocked_success_also_ends_the_streak() -> None:
    """A success counted by `add` alone is one all the same, whether or not the window holds failures."""
    breaker = machine(consecutive_failures=2, window=1.0, minimum_calls=1_000)
    for now in (0.0, 0.05, 100.0, 200.0, 200.05):
        call(breaker, FAILURE, now)
        succeed(breaker, breaker.closed, now)
    assert breaker.state is CLOSED
    assert breaker.counts(200.05) == (4, 2, 0)
    call(breaker, FAILURE, 300.0)
    succeed(breaker, breaker.closed, 302.0)  # the failure has left the window, the streak had not
    succeed(breaker, breaker.closed, 302.0)
    assert breaker.counts(302.0) == (2, 0, 0)
    call(breaker, FAILURE, 302.0)
    assert breaker.state is CLOSED


def test_unlocked_success_is_counted_in_its_own_time() -> None:
    """Successes age like everything else."""
    breaker = machine(window=10.0)
    for now in (0.0, 0.9, 1.0, 5.0):
        succeed(breaker, breaker.closed, now)
    assert breaker.counts(9.9) == (4, 0, 0)
    assert breaker.counts(10.0) == (2, 0, 0)
    assert breaker.counts(11.0) == (1, 0, 0)


def test_unlocked_success_of_an_earlier_generation_is_lost() -> None:
    """What is added to a generation that has ended is looked at by nobody, and it says that it is over."""
    breaker = machine(consecutive_failures=1, probes=1)
    call(breaker, SUCCESS, 0.0)
    old = breaker.closed
    assert old is not None
    assert old.edge > 0.0
    call(breaker, FAILURE, 0.0)
    assert old.edge == -math.inf
    old.add()
    breaker.weigh(old, 0.0)
    call(breaker, SUCCESS, 5.0)
    breaker.weigh(old, 5.0)
    assert breaker.state is CLOSED
    assert breaker.counts(5.0) == (0, 0, 0)


def test_success_needs_the_lock_only_where_it_may_open() -> None:
    """With failures in a window too small to speak every success is looked at, with enough of them none."""
    breaker = machine(consecutive_failures=None, minimum_calls=4, failure_rate=0.5, window=10.0)
    generation = breaker.closed
    assert generation is not None
    call(breaker, SUCCESS, 0.0)
    assert generation.edge == 1.0
    call(breaker, FAILURE, 0.0)
    assert generation.edge == -math.inf
    call(breaker, SUCCESS, 0.0)
    assert generation.edge == -math.inf
    call(breaker, SUCCESS, 0.0)
    assert generation.edge == 1.0
    generation.add()
    assert breaker.counts(0.0) == (5, 1, 0)
    assert generation.edge == -math.inf, "asking may have let go of some, so the next call is looked at"


def test_success_counted_while_a_failure_came_in_between_is_weighed() -> None:
    """It may be the one that makes the rate speak: whoever added it is sent to ask."""
    breaker = machine(consecutive_failures=None, minimum_calls=3)
    generation = breaker.closed
    assert generation is not None
    call(breaker, SUCCESS, 0.0)
    for _ in range(1):
        call(breaker, FAILURE, 0.0)
    assert generation.edge == -math.inf
    generation.add()  # by a thread that had read the edge before the failure was counted
    assert breaker.state is CLOSED
    breaker.weigh(generation, 0.0)
    assert breaker.state is CLOSED, "1 of 3"
    breaker = machine(consecutive_failures=None, minimum_calls=2)
    generation = breaker.closed
    assert generation is not None
    call(breaker, FAILURE, 0.0)
    generation.add()
    breaker.weigh(generation, 0.0)
    assert breaker.state is OPEN, "1 of 2"


def test_trap_22_opens_at_exactly_the_rate_and_the_minimum() -> None:
    """Opens with exactly `minimum_calls` of which exactly `failure_rate` failed; not one call before."""
    breaker = machine(consecutive_failures=None, failure_rate=0.55, minimum_calls=20)
    for _ in range(9):
        call(breaker, SUCCESS, 0.0)
    for _ in range(10):
        call(breaker, FAILURE, 0.0)
    assert breaker.state is CLOSED
    call(breaker, FAILURE, 0.0)
    assert breaker.state is OPEN  # 11 of 20 is 0.55, though 0.55 * 20 is a little more than 11
    assert breaker.transitions[0].reason == "55% of 20 calls failed"


def test_stays_closed_just_below_the_rate() -> None:
    """One failure fewer than the rate asks for does not open."""
    breaker = machine(consecutive_failures=None, failure_rate=0.5, minimum_calls=20)
    for _ in range(10):
        call(breaker, SUCCESS, 0.0)
        call(breaker, FAILURE, 0.0)
        if breaker.state is OPEN:
            break
        call(breaker, SUCCESS, 0.0)
    assert breaker.state is CLOSED


def test_trap_24_the_success_that_fills_the_window_may_open() -> None:
    """The rate speaks once the window holds enough calls, whichever way the last one ended."""
    breaker = machine(consecutive_failures=None, failure_rate=0.5, minimum_calls=4)
    for _ in range(3):
        call(breaker, FAILURE, 0.0)
    assert breaker.state is CLOSED
    call(breaker, SUCCESS, 0.0)
    assert breaker.state is OPEN


def test_trap_21_old_failures_have_left_the_window() -> None:
    """After a pause longer than the window one failure finds too few calls to open."""
    breaker = machine(consecutive_failures=None, minimum_calls=20, window=30.0)
    for _ in range(19):
        call(breaker, FAILURE, 0.0)
    call(breaker, FAILURE, 30.0)
    assert breaker.state is CLOSED
    assert breaker.counts(30.0) == (1, 1, 0)


def test_trap_09_ignored_calls_leave_no_trace_while_closed() -> None:
    """A cancelled call changes neither window nor streak."""
    breaker = machine(consecutive_failures=2)
    call(breaker, FAILURE, 0.0)
    call(breaker, IGNORED, 0.0)
    assert breaker.counts(0.0) == (1, 1, 0)
    call(breaker, FAILURE, 0.0)
    assert breaker.state is OPEN


# ── open ─────────────────────────────────────────────────────────────────────────────────────


def test_refuses_until_its_time_is_up() -> None:
    """Open for exactly `open_for`: refused with what is left of it, then a probe is admitted."""
    breaker = opened(now=100.0)
    assert breaker.until == 105.0, "which is all that a refusal reads"
    assert breaker.length == 5.0
    assert breaker.admit(100.0) == (None, 5.0)
    assert breaker.admit(104.0) == (None, 1.0)
    assert breaker.retry_after(104.5) == 0.5
    ticket, retry_after = breaker.admit(105.0)
    assert ticket
    assert retry_after == 0.0
    assert breaker.state is HALF_OPEN
    assert breaker.until == -math.inf
    assert [each.state for each in breaker.transitions] == [OPEN, HALF_OPEN]
    assert breaker.transitions[1].at == 105.0
    assert breaker.transitions[1].open_for == 0.0
    assert breaker.transitions[1].reason == "its time was up"


def test_polling_alone_makes_it_half_open() -> None:
    """Asking applies what time has brought about and takes no probe."""
    breaker = opened()
    breaker.poll(4.99)
    assert breaker.state is OPEN
    assert breaker.retry_after(5.0) == 0.0
    assert breaker.state is HALF_OPEN
    assert not breaker.probes


def test_open_time_doubles_to_its_cap_and_begins_anew_after_closing() -> None:
    """5, 10, 20, 40, 60, 60 seconds; after a recovery 5 again."""
    breaker = opened(probes=1)
    lengths, now = [], 0.0
    for _ in range(6):
        lengths.append(breaker.retry_after(now))
        now += lengths[-1]
        call(breaker, FAILURE, now)
    assert lengths == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    now += breaker.retry_after(now)
    call(breaker, SUCCESS, now)
    assert breaker.state is CLOSED
    call(breaker, FAILURE, now)
    assert breaker.retry_after(now) == 5.0


def test_jitter_is_ten_percent_and_drawn_once_per_opening() -> None:
    """The length is drawn at the opening: asking again does not change it."""
    draws = iter([0.0, 1.0, 0.25])
    breaker = machine(draw=lambda: next(draws), consecutive_failures=1, open_for=10.0, open_for_max=80.0)
    call(breaker, FAILURE, 0.0)
    assert breaker.retry_after(0.0) == 9.0
    assert breaker.retry_after(0.0) == 9.0
    call(breaker, FAILURE, 9.0)
    assert breaker.retry_after(9.0) == pytest.approx(22.0)
    call(breaker, FAILURE, 31.0)
    assert breaker.retry_after(31.0) == pytest.approx(38.0)


def test_trap_20_ten_thousand_failed_rounds_stay_finite_and_capped() -> None:
    """The doubling never overflows."""
    breaker, now = opened(probes=1), 0.0
    for _ in range(10_000):
        now += breaker.retry_after(now)
        call(breaker, FAILURE, now)
        breaker.transitions = ()
    assert breaker.retry_after(now) == pytest.approx(60.0)
    assert math.isfinite(now)


# ── half open ────────────────────────────────────────────────────────────────────────────────


def test_closes_after_its_probes_with_an_empty_window() -> None:
    """Three successes in a row close it, two do not; what was counted before is forgotten."""
    breaker = opened()
    for _ in range(2):
        call(breaker, SUCCESS, 5.0)
        assert breaker.state is HALF_OPEN
    call(breaker, SUCCESS, 6.0)
    assert breaker.state is CLOSED
    assert breaker.closed
    assert breaker.counts(6.0) == (0, 0, 0)
    assert breaker.transitions[-1].reason == "3 probes succeeded"
    assert breaker.transitions[-1].at == 6.0
    assert breaker.admit(6.0) == (breaker.closed, 0.0)


def test_streak_begins_anew_after_closing() -> None:
    """The failures that opened it do not count towards the next opening."""
    breaker = machine(consecutive_failures=2, probes=1)
    call(breaker, FAILURE, 0.0)
    call(breaker, FAILURE, 0.0)
    call(breaker, SUCCESS, 5.0)
    call(breaker, FAILURE, 5.0)
    assert breaker.state is CLOSED


def test_one_failed_probe_opens_again() -> None:
    """The first failure ends the round, even after a success."""
    breaker = opened()
    call(breaker, SUCCESS, 5.0)
    call(breaker, FAILURE, 6.0, "still down")
    assert breaker.state is OPEN
    assert breaker.retry_after(6.0) == 10.0
    assert breaker.transitions[-1].reason == "a probe failed"
    assert breaker.last_failure == "still down"
    call(breaker, SUCCESS, 16.0)
    call(breaker, SUCCESS, 16.0)
    assert breaker.state is HALF_OPEN, "the earlier round's success does not count"


def test_admits_no_more_probes_at_once_than_allowed() -> None:
    """`probe_concurrency` in flight, and never more than the round still needs."""
    breaker = opened(probes=3, probe_concurrency=2)
    first, second = breaker.admit(5.0)[0], breaker.admit(5.0)[0]
    assert first
    assert second
    assert first != second
    assert breaker.admit(5.0) == (None, 5.0)
    breaker.settle(first, SUCCESS, 5.0)
    third, _ = breaker.admit(5.0)
    assert third
    breaker.settle(second, SUCCESS, 5.0)
    assert breaker.admit(5.0)[0] is None, "the third probe is in flight, a fourth is not needed"
    breaker.settle(third, SUCCESS, 5.0)
    assert breaker.state is CLOSED


def test_refusal_while_probing_says_when_to_come_back() -> None:
    """At most `open_for`, less when the probe's time ends sooner."""
    breaker, _ = half_open(probe_timeout=8.0)
    assert breaker.retry_after(6.0) == 5.0
    assert breaker.retry_after(12.0) == 1.0


def test_trap_03_cancelled_probe_frees_its_slot() -> None:
    """An ignored probe leaves the round where it was and the next one is admitted."""
    breaker, probe = half_open()
    assert breaker.admit(5.0)[0] is None
    breaker.settle(probe, IGNORED, 5.0)
    assert breaker.state is HALF_OPEN
    assert not breaker.probes
    assert breaker.admit(5.0)[0]


def test_trap_04_probe_that_never_returns_counts_as_failed() -> None:
    """At its time limit the breaker opens with backoff; the late result is nothing."""
    breaker, hung = half_open(probe_timeout=30.0, probes=1)
    assert breaker.admit(34.9)[0] is None
    assert breaker.state is HALF_OPEN
    assert breaker.admit(35.0) == (None, 10.0)
    assert breaker.state is OPEN
    assert breaker.transitions[-1].reason == "a probe gave no result within 30 s"
    assert breaker.last_failure == "a probe gave no result within 30 s"
    probe, _ = breaker.admit(45.0)
    assert probe
    breaker.settle(hung, SUCCESS, 46.0)
    assert breaker.state is HALF_OPEN
    assert list(breaker.probes) == [probe]
    breaker.settle(probe, SUCCESS, 46.0)
    assert breaker.state is CLOSED


def test_trap_04_it_is_the_oldest_probe_that_is_waited_for() -> None:
    """A second, younger probe does not prolong the first one's time."""
    breaker = opened(probe_concurrency=2, probe_timeout=10.0)
    first, _ = breaker.admit(5.0)
    breaker.admit(14.0)
    breaker.poll(14.9)
    assert breaker.state is HALF_OPEN
    breaker.settle(first, SUCCESS, 14.9)
    breaker.poll(23.9)
    assert breaker.state is HALF_OPEN
    breaker.poll(24.0)
    assert breaker.state is OPEN


def test_trap_05_success_of_a_closed_call_is_stale_later() -> None:
    """Admitted while closed, it changes nothing in OPEN, HALF_OPEN and the next CLOSED."""
    a_closed_call_is_stale_later(SUCCESS)


def test_trap_06_failure_of_a_closed_call_is_stale_later() -> None:
    """Admitted while closed, it changes nothing in OPEN, HALF_OPEN and the next CLOSED."""
    a_closed_call_is_stale_later(FAILURE)


def a_closed_call_is_stale_later(outcome: Outcome) -> None:
    breaker = machine(consecutive_failures=1, probes=1)
    late, _ = breaker.admit(0.0)
    call(breaker, FAILURE, 0.0)
    breaker.settle(late, outcome, 1.0, failure="late")
    assert breaker.state is OPEN
    assert breaker.retry_after(1.0) == 4.0
    probe, _ = breaker.admit(5.0)
    breaker.settle(late, outcome, 5.0, failure="late")
    assert breaker.state is HALF_OPEN
    breaker.settle(probe, SUCCESS, 5.0)
    breaker.settle(late, outcome, 5.0, failure="late")
    assert breaker.state is CLOSED
    assert breaker.counts(5.0) == (0, 0, 0)
    assert breaker.last_failure == "boom"


def test_trap_07_probe_of_an_earlier_round_is_stale() -> None:
    """A success of round one neither closes round two nor frees a slot of it."""
    breaker = opened(probes=2, probe_concurrency=2)
    slow, failing = breaker.admit(5.0)[0], breaker.admit(5.0)[0]
    breaker.settle(failing, FAILURE, 5.0)
    first = breaker.admit(15.0)[0]
    second = breaker.admit(15.0)[0]
    for outcome in (SUCCESS, FAILURE, IGNORED, SUCCESS):
        breaker.settle(slow, outcome, 15.0)
        breaker.settle(failing, outcome, 15.0)
    assert breaker.state is HALF_OPEN
    assert set(breaker.probes) == {first, second}
    breaker.settle(first, SUCCESS, 15.0)
    breaker.settle(first, SUCCESS, 15.0)
    assert breaker.state is HALF_OPEN, "a probe votes once"
    breaker.settle(second, SUCCESS, 15.0)
    assert breaker.state is CLOSED


def test_trap_08_failure_from_before_an_open_and_close_is_stale() -> None:
    """It is not in the new window."""
    breaker = machine(consecutive_failures=3, probes=1)
    late, _ = breaker.admit(0.0)
    for _ in range(3):
        call(breaker, FAILURE, 0.0)
    call(breaker, SUCCESS, 5.0)
    breaker.settle(late, FAILURE, 6.0)
    assert breaker.counts(6.0) == (0, 0, 0)


def test_trap_12_rounds_without_a_verdict_end_without_longer_waits() -> None:
    """Twice as many ignored probes as a round needs open it again, for no longer than before."""
    breaker = opened(probes=2)
    for _ in range(3):
        call(breaker, IGNORED, 5.0)
        assert breaker.state is HALF_OPEN
    call(breaker, IGNORED, 5.0)
    assert breaker.state is OPEN
    assert breaker.retry_after(5.0) == 5.0
    assert breaker.transitions[-1].reason == "no probe came to a verdict"
    for _ in range(3):
        call(breaker, IGNORED, 10.0)
    assert breaker.state is HALF_OPEN, "each round counts its own"
    call(breaker, FAILURE, 10.0)
    assert breaker.retry_after(10.0) == 10.0


def test_trap_19_clock_that_steps_back_or_jumps() -> None:
    """No wait is negative or longer for it, and nothing closes early."""
    breaker = opened(now=1_000.0)
    assert breaker.admit(10.0) == (None, 5.0)
    assert breaker.retry_after(1_001.0) == 4.0
    assert breaker.retry_after(500.0) == 4.0
    assert breaker.admit(1_000.0 + 86_400)[0]
    assert breaker.state is HALF_OPEN
    breaker.settle(next(iter(breaker.probes)), FAILURE, 0.0)
    assert breaker.retry_after(0.0) == 10.0


# ── slow calls ───────────────────────────────────────────────────────────────────────────────


def test_slow_calls_open_by_their_own_rate() -> None:
    """Half of the calls slow, none failed: that opens, and says so."""
    breaker = machine(slow_after=1.0, slow_rate=0.5, minimum_calls=4)
    for slow in (True, False, False):
        call(breaker, SUCCESS, 0.0, slow=slow)
    assert breaker.state is CLOSED
    call(breaker, SUCCESS, 0.0, slow=True)
    assert breaker.state is OPEN
    [transition] = breaker.transitions
    assert transition.reason == "50% of 4 calls were slow"
    assert (transition.calls, transition.failures, transition.slow) == (4, 0, 2)


def test_trap_23_slow_call_that_fails_counts_once_in_each_rate() -> None:
    """One call, one failure, one slow call."""
    breaker = machine(slow_after=1.0, minimum_calls=10)
    call(breaker, FAILURE, 0.0, slow=True)
    assert breaker.counts(0.0) == (1, 1, 1)
    call(breaker, IGNORED, 0.0, slow=True)
    assert breaker.counts(0.0) == (1, 1, 1)


@pytest.mark.parametrize("window", [{"window": 10.0}, {"window_calls": 4}])
def test_trap_24_slow_success_may_open(window: dict[str, Any]) -> None:
    """The last call of the window opens although it succeeded, if it makes the slow rate speak."""
    breaker = machine(slow_after=1.0, slow_rate=0.25, minimum_calls=4, **window)
    for slow in (False, False, True):
        call(breaker, SUCCESS, 0.0, slow=slow)
    assert breaker.state is CLOSED
    succeed(breaker, breaker.closed, 0.0)
    assert breaker.state is OPEN


def test_slow_probe_does_not_close() -> None:
    """A dependency that answers as slowly as when it was given up is not well again."""
    breaker = opened(slow_after=1.0)
    call(breaker, SUCCESS, 5.0, slow=True)
    assert breaker.state is OPEN
    assert breaker.transitions[-1].reason == "a probe was slow"
    assert breaker.last_failure == "boom", "it has not failed"


# ── the time a server told ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("told", "lasts"), [(None, 5.0), (2.0, 5.0), (42.0, 42.0), (10_000.0, 300.0), (0.0, 5.0)]
)
def test_opening_lasts_as_long_as_the_server_told(told: float | None, lasts: float) -> None:
    """Its own length or the time told, whichever is longer, the latter up to its cap."""
    breaker = machine(consecutive_failures=1)
    call(breaker, FAILURE, 0.0, told=told)
    assert breaker.retry_after(0.0) == lasts
    assert breaker.transitions[0].open_for == lasts


def test_told_time_of_a_failed_probe_counts_and_may_be_off() -> None:
    """Also when it opens again; with None as its cap no heed is paid to it."""
    breaker = opened()
    call(breaker, FAILURE, 5.0, told=60.0)
    assert breaker.retry_after(5.0) == 60.0
    breaker = machine(consecutive_failures=1, retry_after_max=None)
    call(breaker, FAILURE, 0.0, told=60.0)
    assert breaker.retry_after(0.0) == 5.0


def test_told_time_of_an_earlier_failure_is_not_kept() -> None:
    """It is the failure that opens it whose word counts."""
    breaker = machine(consecutive_failures=2)
    call(breaker, FAILURE, 0.0, told=60.0)
    call(breaker, FAILURE, 0.0)
    assert breaker.retry_after(0.0) == 5.0


# ── rounds in which probes may fail ──────────────────────────────────────────────────────────


def test_round_closes_as_soon_as_enough_have_succeeded() -> None:
    """Two of five may fail: the third success closes, the rest is not waited for."""
    breaker = opened(probes=5, probe_failures=2)
    for outcome in (FAILURE, SUCCESS, SUCCESS):
        call(breaker, outcome, 5.0)
        assert breaker.state is HALF_OPEN
    call(breaker, SUCCESS, 5.0)
    assert breaker.state is CLOSED
    assert breaker.transitions[-1].reason == "3 probes succeeded"


def test_round_opens_as_soon_as_it_cannot_be_passed() -> None:
    """Two of five may fail: the third failure opens, however many have succeeded."""
    breaker = opened(probes=5, probe_failures=2)
    for outcome in (FAILURE, SUCCESS, SUCCESS, FAILURE):
        call(breaker, outcome, 5.0)
        assert breaker.state is HALF_OPEN
    call(breaker, FAILURE, 5.0)
    assert breaker.state is OPEN
    assert breaker.retry_after(5.0) == 10.0


def test_failed_probes_take_a_place_of_the_round() -> None:
    """No more than `probes` calls are risked in a round, the tolerated failures among them."""
    breaker = opened(probes=2, probe_failures=1, probe_concurrency=2)
    first, second = breaker.admit(5.0)[0], breaker.admit(5.0)[0]
    assert first is not None
    assert second is not None
    breaker.settle(first, FAILURE, 5.0)
    assert breaker.admit(5.0)[0] is None
    breaker.settle(second, SUCCESS, 5.0)
    assert breaker.state is CLOSED


# ── calls as the window ──────────────────────────────────────────────────────────────────────


def test_trap_22_window_of_calls_opens_at_exactly_the_rate() -> None:
    """With exactly the minimum, at exactly the rate, and only the last calls are looked at."""
    breaker = machine(consecutive_failures=None, window_calls=10, minimum_calls=10, failure_rate=0.5)
    for outcome in [FAILURE] * 4 + [SUCCESS] * 6:
        call(breaker, outcome, 0.0)
    assert breaker.counts(1e9) == (10, 4, 0), "nothing grows old"
    for _ in range(4):
        succeed(breaker, breaker.closed, 0.0)
    assert breaker.counts(0.0) == (10, 0, 0)
    for _ in range(4):
        call(breaker, FAILURE, 0.0)
    assert breaker.state is CLOSED
    call(breaker, FAILURE, 0.0)
    assert breaker.state is OPEN


# ── what an operator orders ──────────────────────────────────────────────────────────────────


def test_forced_open_refuses_without_a_time_until_it_is_reset() -> None:
    """No probe is admitted however long it lasts, and nobody can know how long."""
    breaker = machine()
    breaker.order("forced_open", 0.0)
    assert breaker.state is FORCED_OPEN
    assert breaker.until == math.inf
    assert breaker.admit(1e9) == (None, None)
    assert breaker.retry_after(1e9) is None
    breaker.order(None, 1e9)
    assert breaker.state is CLOSED
    assert breaker.admit(1e9) == (breaker.closed, 0.0)
    assert [(each.state, each.reason) for each in breaker.transitions] == [
        (FORCED_OPEN, "it was ordered to"),
        (CLOSED, "it was reset"),
    ]


def test_trap_36_probes_in_flight_when_it_is_forced_open_change_nothing() -> None:
    """Their success does not close what an operator holds open."""
    breaker, probe = half_open(probes=1)
    breaker.order("forced_open", 5.0)
    breaker.settle(probe, SUCCESS, 6.0)
    assert breaker.state is FORCED_OPEN
    assert not breaker.probes
    breaker.poll(1e9)
    assert breaker.state is FORCED_OPEN


def test_trap_37_reset_after_disable_begins_anew() -> None:
    """A fresh window, closed, and calls from before are stale."""
    breaker = machine(consecutive_failures=2)
    late, _ = breaker.admit(0.0)
    assert late is not None
    call(breaker, FAILURE, 0.0)
    breaker.order("disabled", 1.0)
    assert breaker.state is DISABLED
    assert breaker.admit(1.0) == (None, 0.0), "let through, with nothing to give back"
    breaker.settle(late, FAILURE, 1.0)
    breaker.order(None, 2.0)
    assert breaker.state is CLOSED
    assert breaker.closed is not late
    breaker.settle(late, FAILURE, 2.0)
    assert breaker.counts(2.0) == (0, 0, 0)
    call(breaker, FAILURE, 2.0)
    assert breaker.state is CLOSED


def test_metrics_only_counts_and_tells_each_time_it_would_open() -> None:
    """Never refuses; told once at each edge, not at each call."""
    breaker = machine(mode="metrics_only", consecutive_failures=2)
    assert breaker.state is METRICS_ONLY
    assert not breaker.transitions, "it began so"
    for _ in range(4):
        call(breaker, FAILURE, 0.0)
    succeed(breaker, breaker.closed, 0.0)
    for _ in range(3):
        call(breaker, FAILURE, 0.0)
    assert breaker.state is METRICS_ONLY
    assert breaker.counts(0.0) == (8, 7, 0)
    assert [(each.state, each.would_open, each.reason) for each in breaker.transitions] == [
        (METRICS_ONLY, True, "2 consecutive failures"),
        (METRICS_ONLY, True, "2 consecutive failures"),
    ]


def test_order_by_hand_goes_before_the_options_until_it_is_reset() -> None:
    """What a reload of the configuration says must not undo what an operator has just ordered."""
    breaker = machine()
    breaker.order("forced_open", 0.0)
    breaker.reconfigure(BreakerOptions(mode="disabled"), 1.0)
    assert breaker.state is FORCED_OPEN
    assert breaker.ordered == "forced_open"
    breaker.order(None, 2.0)
    assert breaker.state is DISABLED
    assert breaker.ordered is None


def test_mode_of_the_options_is_followed() -> None:
    """Each change of it begins anew; other options meanwhile change nothing of it."""
    breaker = opened()
    breaker.reconfigure(BreakerOptions(mode="forced_open"), 1.0)
    assert breaker.state is FORCED_OPEN
    breaker.reconfigure(BreakerOptions(mode="forced_open", probes=1), 2.0)
    breaker.reconfigure(BreakerOptions(mode="metrics_only"), 3.0)
    assert breaker.state is METRICS_ONLY
    call(breaker, SUCCESS, 3.0)
    breaker.reconfigure(BreakerOptions(mode="metrics_only", minimum_calls=7), 3.0)
    assert breaker.counts(3.0) == (1, 0, 0)
    breaker.reconfigure(BreakerOptions(consecutive_failures=1), 4.0)
    assert breaker.state is CLOSED
    assert breaker.counts(4.0) == (0, 0, 0)
    assert [each.state for each in breaker.transitions] == [OPEN, FORCED_OPEN, METRICS_ONLY, CLOSED]
    assert breaker.transitions[1].reason == "its options say so"


def test_reset_closes_an_open_breaker_and_its_backoff_begins_anew() -> None:
    """The next opening is as short as the first."""
    breaker = opened()
    call(breaker, FAILURE, 5.0)
    breaker.order(None, 6.0)
    assert breaker.state is CLOSED
    call(breaker, FAILURE, 6.0)
    assert breaker.state is CLOSED or breaker.retry_after(6.0) == 5.0


# ── options ──────────────────────────────────────────────────────────────────────────────────


def test_reconfigure_keeps_what_was_counted() -> None:
    """New thresholds and a new window apply to the calls already counted."""
    breaker = machine(consecutive_failures=None, minimum_calls=20, window=30.0)
    for _ in range(10):
        call(breaker, FAILURE, 10.0)
    breaker.reconfigure(BreakerOptions(consecutive_failures=None, minimum_calls=11, window=10.0), 15.0)
    assert breaker.counts(15.0) == (10, 10, 0)
    call(breaker, FAILURE, 16.0)
    assert breaker.state is OPEN
    assert breaker.transitions[-1].calls == 11


def test_reconfigure_with_the_same_window_ages_nothing_anew() -> None:
    """Only a new window moves what was counted."""
    breaker = machine(window=10.0)
    call(breaker, FAILURE, 0.0)
    breaker.reconfigure(BreakerOptions(window=10.0, probes=1), 9.0)
    assert breaker.counts(9.9) == (1, 1, 0)
    assert breaker.counts(10.0) == (0, 0, 0)


def test_reconfigure_to_fewer_probes_ends_a_round_that_has_enough() -> None:
    """Else it would neither admit a probe nor ever close."""
    breaker = opened(probes=3)
    call(breaker, SUCCESS, 5.0)
    breaker.reconfigure(BreakerOptions(probes=2), 5.0)
    assert breaker.state is HALF_OPEN
    breaker.reconfigure(BreakerOptions(probes=1), 5.0)
    assert breaker.state is CLOSED
    assert breaker.transitions[-1].reason == "1 probes succeeded"


def test_reconfigure_leaves_an_opening_its_length() -> None:
    """The next one follows the new options."""
    breaker = opened()
    breaker.reconfigure(BreakerOptions(open_for=1.0, probes=1), 1.0)
    assert breaker.retry_after(1.0) == 4.0
    call(breaker, FAILURE, 5.0)
    assert breaker.retry_after(5.0) == 2.0


def test_reconfigure_that_allows_fewer_failed_probes_ends_the_round() -> None:
    """Else a round with more of them could neither be passed nor lost."""
    breaker = opened(probes=3, probe_failures=1)
    call(breaker, FAILURE, 5.0)
    breaker.reconfigure(BreakerOptions(probes=3), 5.0)
    assert breaker.state is OPEN
    assert breaker.transitions[-1].reason == "fewer probes may fail now"


def test_reconfigure_of_a_window_of_calls_keeps_the_newest() -> None:
    """A smaller window looks at the last of them; one of another kind begins empty."""
    breaker = machine(consecutive_failures=None, window_calls=6, minimum_calls=3)
    for outcome in (SUCCESS, SUCCESS, SUCCESS, FAILURE, SUCCESS):
        call(breaker, outcome, 0.0)
    succeed(breaker, breaker.closed, 0.0)
    options = {"consecutive_failures": None, "minimum_calls": 3}
    breaker.reconfigure(BreakerOptions(window_calls=3, **options), 0.0)
    assert breaker.counts(0.0) == (3, 1, 0)
    breaker.reconfigure(BreakerOptions(window=9.0, **options), 0.0)
    assert breaker.counts(0.0) == (0, 0, 0)
    call(breaker, FAILURE, 0.0)
    breaker.reconfigure(BreakerOptions(window_calls=3, **options), 0.0)
    assert breaker.counts(0.0) == (0, 0, 0)
    generation = breaker.closed
    assert generation is not None
    assert not generation.timed


def test_reconfigure_reaches_the_calls_in_flight_only_by_what_comes_after() -> None:
    """The generation goes on; its next success is looked at under the new options."""
    breaker = machine(consecutive_failures=None, minimum_calls=1_000)
    generation = breaker.closed
    assert generation is not None
    for _ in range(5):
        call(breaker, FAILURE, 0.0)
    for _ in range(5):
        succeed(breaker, generation, 0.0)
    breaker.reconfigure(BreakerOptions(consecutive_failures=None, minimum_calls=10, slow_after=2.0), 0.0)
    assert breaker.closed is generation
    assert generation.slow_after == 2.0
    succeed(breaker, generation, 0.0)
    assert breaker.state is CLOSED
    call(breaker, FAILURE, 0.0)
    assert breaker.state is OPEN


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mode", "open"),
        ("mode", True),
        ("slow_after", 0),
        ("slow_after", math.nan),
        ("slow_rate", 50),
        ("slow_rate", True),
        ("window_calls", 0),
        ("window_calls", True),
        ("window_calls", 1_000_001),
        ("retry_after_max", 0),
        ("retry_after_max", math.inf),
        ("probe_failures", -1),
        ("probe_failures", True),
        ("probe_failures", 3),
        ("failure_rate", 50),
        ("failure_rate", 0),
        ("failure_rate", math.nan),
        ("failure_rate", True),
        ("window", 0),
        ("window", math.inf),
        ("minimum_calls", 0),
        ("minimum_calls", True),
        ("consecutive_failures", 0),
        ("consecutive_failures", 2.5),
        ("open_for", -1),
        ("open_for_max", math.nan),
        ("open_for_max", 4.9),
        ("probes", 0),
        ("probe_concurrency", 0),
        ("probe_concurrency", 4),
        ("probe_timeout", "30"),
    ],
)
def test_trap_60_impossible_options_are_refused_at_construction(field: str, value: Any) -> None:
    """The error names the field, the value and what to write instead."""
    with pytest.raises(ConfigError) as caught:
        BreakerOptions(**{field: value})
    assert caught.value.setting == field
    assert repr(value) in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("minimum_calls", {"window_calls": 10}),
        ("minimum_calls", {"window_calls": 10, "minimum_calls": 11}),
        ("probes", {"window_calls": 2, "minimum_calls": 2, "probes": 3}),
        ("window_calls", {"window_calls": 100, "window": 30.0}),
        ("probe_concurrency", {"probes": 1, "probe_concurrency": 2}),
        ("open_for_max", {"open_for": 61.0, "open_for_max": 60.5}),
    ],
)
def test_trap_60_options_that_contradict_each_other_are_refused(field: str, given: dict[str, Any]) -> None:
    """The error names the one to be changed, its value and what it must agree with."""
    with pytest.raises(ConfigError) as caught:
        BreakerOptions(**given)
    assert caught.value.setting == field
    assert caught.value.remedy
    assert repr(given.get(field, 20)) in str(caught.value)


def test_trap_60_a_percentage_is_told_from_a_fraction() -> None:
    """Whoever writes 50 meant 0.5, and is told so."""
    with pytest.raises(ConfigError, match=r"e\.g\. 0\.5 for 50 %"):
        BreakerOptions(slow_rate=50)


def test_options_at_their_limits_are_taken() -> None:
    """What is just possible is possible."""
    BreakerOptions(failure_rate=1, open_for=60.0, probes=2, probe_concurrency=2, consecutive_failures=None)
    BreakerOptions(window_calls=20, probes=20, minimum_calls=20, probe_failures=19, retry_after_max=None)


DURATIONS = ["slow_after", "window", "open_for", "open_for_max", "retry_after_max", "probe_timeout"]


@pytest.mark.parametrize("value", [1e-9, 36_525 * 86_400.0], ids=["nanosecond", "century"])
@pytest.mark.parametrize("field", DURATIONS)
def test_trap_60_a_duration_that_is_taken_serves(field: str, value: float) -> None:
    """The shortest and the longest there are overflow nothing, whatever the clock shows."""
    opening = {"open_for": min(value, 5.0), "open_for_max": max(value, 60.0)} if "open_for" in field else {}
    options = BreakerOptions(**{"consecutive_failures": 3, "probes": 1, **opening, field: value})
    breaker = BreakerMachine(options, draw=lambda: 0.999)
    for start in (0.0, 1e-9, 1e6, 4e9):
        for outcome in (SUCCESS, FAILURE, FAILURE, FAILURE):
            call(breaker, outcome, start, told=1e300)
        assert breaker.state is OPEN
        for _ in range(100):
            wait = breaker.retry_after(breaker.until)
            assert wait == 0.0
            call(breaker, FAILURE, breaker.transitions[-1].at)
            assert math.isfinite(breaker.until), "which stands for an order by hand"
        assert breaker.counts(breaker.until)[0] <= 4
        for other in (BreakerOptions(window=3.0), options):
            breaker.reconfigure(other, breaker.until)
        breaker.order(None, breaker.until)


def test_options_say_what_becomes_of_those_left_open() -> None:
    """30 s of window unless calls are counted; a probe's time is that of an opening, at least 30 s."""
    assert BreakerOptions().window_seconds == BreakerOptions().describe()["window"] == 30.0
    assert BreakerOptions(window_calls=50).window_seconds is None
    assert BreakerOptions(window=7.0).window_seconds == 7.0
    assert BreakerOptions().lease == BreakerOptions().describe()["probe_timeout"] == 30.0
    assert BreakerOptions(open_for=45.0).lease == 45.0
    assert BreakerOptions(open_for=45.0, probe_timeout=3.0).lease == 3.0


def test_options_may_be_given_as_keywords_of_the_same_names() -> None:
    """The keywords of the constructors are the fields, no more and no less."""
    assert list(get_type_hints(BreakerFields)) == [each.name for each in fields(BreakerOptions)]


# ── against a model ──────────────────────────────────────────────────────────────────────────


class Model:
    """What the machine should do, told slowly: no sums, no tickets, calls as tuples in lists."""

    def __init__(self, options: BreakerOptions) -> None:
        self.o, self.era = options, 0
        self.calls: list[tuple[int, bool, bool]] = []
        self.streak = self.rounds = self.good = self.bad = self.ignored = self.would = 0
        self.alarmed = False
        self.flying: list[tuple[int, float]] = []
        self.until = 0.0
        self.ordered: Any = None
        self.state = self.due()

    def due(self) -> BreakerState:
        mode = self.ordered or self.o.mode
        return CLOSED if mode == "automatic" else BreakerState(mode)

    def go(self, state: BreakerState, now: float, *, grow: bool = True, told: float | None = None) -> None:
        self.state, self.era, self.flying = state, self.era + 1, []
        self.good = self.bad = self.ignored = 0
        if state is OPEN:
            self.rounds += grow
            lasts = min(self.o.open_for * 2 ** (self.rounds - 1), self.o.open_for_max)
            if told is not None and self.o.retry_after_max is not None:
                lasts = max(lasts, min(told, self.o.retry_after_max))
            self.until = now + lasts
        elif state is not HALF_OPEN:
            self.calls, self.streak, self.rounds, self.alarmed = [], 0, 0, False

    def order(self, mode: Any, now: float) -> None:
        self.ordered = mode
        if mode is None or self.due() is not self.state:
            self.go(self.due(), now)

    def tick(self, now: float) -> None:
        if self.state is OPEN and now >= self.until:
            self.go(HALF_OPEN, now)
        elif self.flying and now >= self.flying[0][1] + self.o.lease:
            self.go(OPEN, now)

    def admit(self, number: int, now: float) -> bool:
        self.tick(now)
        if self.state is HALF_OPEN:
            over = self.o.probes - self.good - self.bad
            free = min(self.o.probe_concurrency - len(self.flying), over - len(self.flying))
            if free > 0:
                self.flying.append((number, now))
            return free > 0
        return self.state in (CLOSED, METRICS_ONLY)

    def live(self, now: float) -> list[tuple[int, bool, bool]]:
        if self.o.window_calls is not None:
            return self.calls[-self.o.window_calls :]
        assert self.o.window is not None
        return [each for each in self.calls if each[0] > int(now / (self.o.window / 10)) - 10]

    def settle(
        self, number: int, era: int, outcome: Outcome, slow: bool, told: float | None, now: float
    ) -> None:
        if era != self.era:
            return
        failed = outcome is FAILURE
        if self.state in (CLOSED, METRICS_ONLY) and outcome is not IGNORED:
            width = 1.0 if self.o.window is None else self.o.window / 10
            self.calls.append((int(now / width), failed, slow))
            live = self.live(now)
            self.streak = self.streak + 1 if failed else 0
            limit = self.o.consecutive_failures
            full = len(live) >= self.o.minimum_calls and (
                sum(each[1] for each in live) / len(live) >= self.o.failure_rate
                or sum(each[2] for each in live) / len(live) >= self.o.slow_rate
            )
            alarmed = bool((limit and self.streak >= limit) or full)
            if alarmed and self.state is CLOSED:
                self.go(OPEN, now, told=told)
            else:
                self.would += alarmed and not self.alarmed
                self.alarmed = alarmed
        elif self.state is HALF_OPEN:
            self.flying = [each for each in self.flying if each[0] != number]
            self.good += outcome is SUCCESS and not slow
            self.ignored += outcome is IGNORED
            self.bad += failed or (outcome is SUCCESS and slow)
            if self.bad > self.o.probe_failures:
                self.go(OPEN, now, told=told)
            elif self.good >= self.o.probes - self.o.probe_failures:
                self.go(CLOSED, now)
            elif self.ignored >= 2 * self.o.probes:
                self.go(OPEN, now, grow=False)


ends = st.tuples(st.sampled_from(Outcome), st.booleans(), st.sampled_from([None, 1.0, 3.0, 50.0]))
steps = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0, 7.0, 20.0])),
    st.tuples(st.just("begin"), st.none()),
    st.tuples(st.just("end"), st.tuples(st.integers(0, 5), ends)),
    st.tuples(st.just("call"), ends),
    st.tuples(st.just("ask"), st.none()),
    st.tuples(
        st.just("order"), st.sampled_from(["forced_open", "disabled", "metrics_only", None, None, None])
    ),
)
windows = st.sampled_from(
    [{"window": 5.0}, {"window": 10.0}, {"window_calls": 6}, {"window_calls": 9}, {"window": 4.0}]
)
options = st.builds(
    lambda window, **others: BreakerOptions(**window, **others),
    windows,
    mode=st.sampled_from(["automatic", "automatic", "automatic", "metrics_only"]),
    minimum_calls=st.integers(1, 6),
    failure_rate=st.sampled_from([0.3, 0.5, 1.0]),
    slow_after=st.just(1.0),
    slow_rate=st.sampled_from([0.4, 0.8, 1.0]),
    consecutive_failures=st.sampled_from([None, 1, 3]),
    open_for=st.just(2.0),
    open_for_max=st.just(6.0),
    retry_after_max=st.sampled_from([None, 10.0]),
    probes=st.integers(2, 3),
    probe_concurrency=st.integers(1, 2),
    probe_failures=st.integers(0, 1),
    probe_timeout=st.just(4.0),
)


@settings(max_examples=400)
@given(st.lists(steps, max_size=80), options)
def test_any_sequence_of_calls_agrees_with_the_model(
    sequence: list[tuple[str, Any]], options: BreakerOptions
) -> None:
    """Admissions, refusals, waits, states and counts are the model's, however calls overlap transitions.

    A success goes without the lock where the machine says that this will do, as in the guards.
    """
    breaker, model, now = BreakerMachine(options, draw=middle), Model(options), 0.0
    flying: list[tuple[Ticket, int, int]] = []
    told_of: list[Transition] = []

    def begin(number: int) -> None:
        ticket, retry_after = breaker.admit(now)
        assert bool(ticket) == model.admit(number, now)
        if ticket is not None:
            flying.append((ticket, number, model.era))
        elif breaker.state is FORCED_OPEN:
            assert retry_after is None
        else:
            assert retry_after is not None
            assert (retry_after == 0.0) == (breaker.state is DISABLED)

    def end(index: int, how: tuple[Outcome, bool, float | None]) -> None:
        if flying:
            ticket, number, era = flying.pop(index % len(flying))
            outcome, slow, told = how
            told = told if outcome is FAILURE else None
            if isinstance(ticket, Generation) and outcome is SUCCESS and not slow:
                succeed(breaker, ticket, now)
            else:
                breaker.settle(ticket, outcome, now, slow=slow, failure="boom", told=told)
            model.settle(number, era, outcome, slow, told, now)

    for number, (step, value) in enumerate(sequence):
        if step == "wait":
            now += value
        elif step == "begin":
            begin(number)
        elif step == "end":
            end(*value)
        elif step == "order":
            breaker.order(value, now)
            model.order(value, now)
        elif step == "ask" and breaker.closed is not None:
            live = model.live(now)
            assert breaker.counts(now) == (
                len(live),
                sum(bad for _, bad, _ in live),
                sum(slow for _, _, slow in live),
            )
        elif step == "call":
            before = len(flying)
            begin(number)
            if len(flying) > before:
                end(-1, value)
        breaker.poll(now)
        model.tick(now)
        told_of += breaker.transitions
        breaker.transitions = ()
        assert breaker.state is model.state
        assert len(breaker.probes) == len(model.flying)
        assert sum(each.would_open for each in told_of) == model.would
        if model.state is OPEN:
            assert breaker.retry_after(now) == pytest.approx(model.until - now)
