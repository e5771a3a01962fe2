"""The circuit breaker without threads, clocks or calls."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.breaker import BreakerOptions, BreakerState
from chassis.breaker._machine import BreakerMachine
from chassis.core.errors import ConfigError
from chassis.core.outcomes import Outcome

SUCCESS, FAILURE, IGNORED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def middle() -> float:
    """Draws no jitter."""
    return 0.5


def machine(*, draw: Any = middle, **options: Any) -> BreakerMachine:
    return BreakerMachine(BreakerOptions(**options), draw=draw)


def call(breaker: BreakerMachine, outcome: Outcome, now: float, failure: str = "boom") -> None:
    ticket, _ = breaker.admit(now)
    assert ticket, "refused"
    breaker.settle(ticket, outcome, now, failure if outcome is FAILURE else None)


def opened(now: float = 0.0, **options: Any) -> BreakerMachine:
    """A breaker that has just opened, for 5 seconds unless told otherwise."""
    breaker = machine(**{"consecutive_failures": 1, **options})
    call(breaker, FAILURE, now)
    assert breaker.state is OPEN
    return breaker


def half_open(**options: Any) -> tuple[BreakerMachine, int]:
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
    assert breaker.closed > 0
    assert breaker.admit(0.0) == (breaker.closed, 0.0)
    assert breaker.retry_after(0.0) == 0.0
    assert breaker.counts(0.0) == (0, 0)
    assert (breaker.refused, breaker.last_failure, breaker.transitions) == (0, None, [])


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
    assert breaker.closed == 0
    [transition] = breaker.transitions
    assert transition.reason == "5 consecutive failures"
    assert transition.open_for == 5.0
    assert (transition.calls, transition.failures) == (10, 9)
    assert transition.last_failure == breaker.last_failure == "ConnectionError: refused"


def test_short_form_of_success_also_ends_the_streak() -> None:
    """`succeed` is `settle` with SUCCESS, whether or not the window holds failures."""
    breaker = machine(consecutive_failures=2, window=1.0, minimum_calls=1_000)
    for now in (0.0, 0.05, 100.0, 200.0, 200.05):
        call(breaker, FAILURE, now)
        breaker.succeed(breaker.closed, now)
    assert breaker.state is CLOSED
    assert breaker.counts(200.05) == (4, 2)
    call(breaker, FAILURE, 300.0)
    breaker.succeed(breaker.closed, 302.0)  # the failure has left the window, the streak had not
    breaker.succeed(breaker.closed, 302.0)
    assert breaker.counts(302.0) == (2, 0)
    call(breaker, FAILURE, 302.0)
    assert breaker.state is CLOSED


def test_short_form_of_success_is_counted_in_its_own_time() -> None:
    """Successes age like everything else."""
    breaker = machine(window=10.0)
    for now in (0.0, 0.9, 1.0, 5.0):
        breaker.succeed(breaker.closed, now)
    assert breaker.counts(9.9) == (4, 0)
    assert breaker.counts(10.0) == (2, 0)
    assert breaker.counts(11.0) == (1, 0)


def test_short_form_of_success_heeds_tickets() -> None:
    """A stale success is nothing, a probe's success is one of its round."""
    breaker, probe = half_open(probes=1)
    before = breaker.counts(5.0)
    breaker.succeed(1, 5.0)
    assert breaker.state is HALF_OPEN
    assert breaker.counts(5.0) == before
    breaker.succeed(probe, 5.0)
    assert breaker.state is CLOSED


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
    assert breaker.counts(30.0) == (1, 1)


def test_trap_09_ignored_calls_leave_no_trace_while_closed() -> None:
    """A cancelled call changes neither window nor streak."""
    breaker = machine(consecutive_failures=2)
    call(breaker, FAILURE, 0.0)
    call(breaker, IGNORED, 0.0)
    assert breaker.counts(0.0) == (1, 1)
    call(breaker, FAILURE, 0.0)
    assert breaker.state is OPEN


# ── open ─────────────────────────────────────────────────────────────────────────────────────


def test_refuses_until_its_time_is_up() -> None:
    """Open for exactly `open_for`: refused with what is left of it, then a probe is admitted."""
    breaker = opened(now=100.0)
    assert breaker.admit(100.0) == (0, 5.0)
    assert breaker.admit(104.0) == (0, 1.0)
    assert breaker.refused == 2
    assert breaker.retry_after(104.5) == 0.5
    assert breaker.refused == 2, "asking refuses nobody"
    ticket, retry_after = breaker.admit(105.0)
    assert ticket
    assert retry_after == 0.0
    assert breaker.state is HALF_OPEN
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
    assert breaker.counts(6.0) == (0, 0)
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
    assert breaker.admit(5.0) == (0, 5.0)
    breaker.settle(first, SUCCESS, 5.0)
    third, _ = breaker.admit(5.0)
    assert third
    breaker.settle(second, SUCCESS, 5.0)
    assert breaker.admit(5.0)[0] == 0, "the third probe is in flight, a fourth is not needed"
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
    assert breaker.admit(5.0)[0] == 0
    breaker.settle(probe, IGNORED, 5.0)
    assert breaker.state is HALF_OPEN
    assert not breaker.probes
    assert breaker.admit(5.0)[0]


def test_trap_04_probe_that_never_returns_counts_as_failed() -> None:
    """At its time limit the breaker opens with backoff; the late result is nothing."""
    breaker, hung = half_open(probe_timeout=30.0, probes=1)
    assert breaker.admit(34.9)[0] == 0
    assert breaker.state is HALF_OPEN
    assert breaker.admit(35.0) == (0, 10.0)
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


@pytest.mark.parametrize("outcome", [SUCCESS, FAILURE])
def test_trap_05_06_results_of_closed_calls_are_stale_later(outcome: Outcome) -> None:
    """A call admitted while closed changes nothing in OPEN, HALF_OPEN and the next CLOSED."""
    breaker = machine(consecutive_failures=1, probes=1)
    late, _ = breaker.admit(0.0)
    call(breaker, FAILURE, 0.0)
    breaker.settle(late, outcome, 1.0, "late")
    assert breaker.state is OPEN
    assert breaker.retry_after(1.0) == 4.0
    probe, _ = breaker.admit(5.0)
    breaker.settle(late, outcome, 5.0, "late")
    assert breaker.state is HALF_OPEN
    breaker.settle(probe, SUCCESS, 5.0)
    breaker.settle(late, outcome, 5.0, "late")
    assert breaker.state is CLOSED
    assert breaker.counts(5.0) == (0, 0)
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
    assert breaker.counts(6.0) == (0, 0)


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
    assert breaker.admit(10.0) == (0, 5.0)
    assert breaker.retry_after(1_001.0) == 4.0
    assert breaker.retry_after(500.0) == 4.0
    assert breaker.admit(1_000.0 + 86_400)[0]
    assert breaker.state is HALF_OPEN
    breaker.settle(next(iter(breaker.probes)), FAILURE, 0.0)
    assert breaker.retry_after(0.0) == 10.0


# ── options ──────────────────────────────────────────────────────────────────────────────────


def test_reconfigure_keeps_what_was_counted() -> None:
    """New thresholds and a new window apply to the calls already counted."""
    breaker = machine(consecutive_failures=None, minimum_calls=20, window=30.0)
    for _ in range(10):
        call(breaker, FAILURE, 10.0)
    breaker.reconfigure(BreakerOptions(consecutive_failures=None, minimum_calls=11, window=10.0), 15.0)
    assert breaker.counts(15.0) == (10, 10)
    call(breaker, FAILURE, 16.0)
    assert breaker.state is OPEN
    assert breaker.transitions[-1].calls == 11


def test_reconfigure_with_the_same_window_ages_nothing_anew() -> None:
    """Only a new window moves what was counted."""
    breaker = machine(window=10.0)
    call(breaker, FAILURE, 0.0)
    breaker.reconfigure(BreakerOptions(window=10.0, probes=1), 9.0)
    assert breaker.counts(9.9) == (1, 1)
    assert breaker.counts(10.0) == (0, 0)


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


@pytest.mark.parametrize(
    ("field", "value"),
    [
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


def test_options_at_their_limits_are_taken() -> None:
    """What is just possible is possible."""
    BreakerOptions(failure_rate=1, open_for=60.0, probes=2, probe_concurrency=2, consecutive_failures=None)


# ── against a model ──────────────────────────────────────────────────────────────────────────


class Model:
    """What the machine should do, told slowly: no sums, no tickets, calls as tuples in lists."""

    def __init__(self, options: BreakerOptions) -> None:
        self.o, self.state, self.era = options, CLOSED, 0
        self.calls: list[tuple[int, bool]] = []
        self.streak = self.rounds = self.good = self.ignored = 0
        self.flying: list[tuple[int, float]] = []
        self.until = 0.0

    def go(self, state: BreakerState, now: float, *, grow: bool = True) -> None:
        self.state, self.era, self.flying, self.good, self.ignored = state, self.era + 1, [], 0, 0
        if state is OPEN:
            self.rounds += grow
            self.until = now + min(self.o.open_for * 2 ** (self.rounds - 1), self.o.open_for_max)
        elif state is CLOSED:
            self.calls, self.streak, self.rounds = [], 0, 0

    def tick(self, now: float) -> None:
        if self.state is OPEN and now >= self.until:
            self.go(HALF_OPEN, now)
        elif self.flying and now >= self.flying[0][1] + self.o.probe_timeout:
            self.go(OPEN, now)

    def admit(self, number: int, now: float) -> bool:
        self.tick(now)
        if self.state is HALF_OPEN:
            free = min(self.o.probe_concurrency, self.o.probes - self.good) - len(self.flying)
            if free > 0:
                self.flying.append((number, now))
            return free > 0
        return self.state is CLOSED

    def settle(self, number: int, era: int, outcome: Outcome, now: float) -> None:
        if era != self.era:
            return
        if self.state is CLOSED and outcome is not IGNORED:
            width = self.o.window / 10
            self.calls.append((int(now / width), outcome is FAILURE))
            live = [bad for slot, bad in self.calls if slot > int(now / width) - 10]
            self.streak = self.streak + 1 if outcome is FAILURE else 0
            limit = self.o.consecutive_failures
            full = len(live) >= self.o.minimum_calls and sum(live) / len(live) >= self.o.failure_rate
            if (limit and self.streak >= limit) or full:
                self.go(OPEN, now)
        elif self.state is HALF_OPEN:
            self.flying = [each for each in self.flying if each[0] != number]
            self.good += outcome is SUCCESS
            self.ignored += outcome is IGNORED
            if outcome is FAILURE:
                self.go(OPEN, now)
            elif self.good >= self.o.probes:
                self.go(CLOSED, now)
            elif self.ignored >= 2 * self.o.probes:
                self.go(OPEN, now, grow=False)


steps = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0, 7.0, 20.0])),
    st.tuples(st.just("begin"), st.none()),
    st.tuples(st.just("end"), st.tuples(st.integers(0, 5), st.sampled_from(Outcome))),
    st.tuples(st.just("call"), st.sampled_from(Outcome)),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(steps, max_size=80),
    st.builds(
        BreakerOptions,
        window=st.sampled_from([5.0, 10.0]),
        minimum_calls=st.integers(1, 6),
        failure_rate=st.sampled_from([0.3, 0.5, 1.0]),
        consecutive_failures=st.sampled_from([None, 1, 3]),
        open_for=st.just(2.0),
        open_for_max=st.just(6.0),
        probes=st.integers(2, 3),
        probe_concurrency=st.integers(1, 2),
        probe_timeout=st.just(4.0),
    ),
)
def test_any_sequence_of_calls_agrees_with_the_model(
    sequence: list[tuple[str, Any]], options: BreakerOptions
) -> None:
    """Admissions, refusals, waits and states are the model's, however calls overlap transitions."""
    breaker, model, now = BreakerMachine(options, draw=middle), Model(options), 0.0
    flying: list[tuple[int, int, int]] = []

    def begin(number: int) -> None:
        ticket, retry_after = breaker.admit(now)
        assert bool(ticket) == model.admit(number, now)
        assert (retry_after > 0) == (not ticket)
        if ticket:
            flying.append((ticket, number, model.era))

    def end(index: int, outcome: Outcome) -> None:
        if flying:
            ticket, number, era = flying.pop(index % len(flying))
            breaker.settle(ticket, outcome, now, "boom")
            model.settle(number, era, outcome, now)

    for number, (step, value) in enumerate(sequence):
        if step == "wait":
            now += value
        elif step == "begin":
            begin(number)
        elif step == "end":
            end(*value)
        else:
            before = len(flying)
            begin(number)
            if len(flying) > before:
                end(-1, value)
        breaker.poll(now)
        model.tick(now)
        assert breaker.state is model.state
        assert len(breaker.probes) == len(model.flying)
        if model.state is OPEN:
            assert breaker.retry_after(now) == pytest.approx(model.until - now)
