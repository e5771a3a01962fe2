"""The machine behind hedging: when a call is slow, and how many may get company."""

from __future__ import annotations

import bisect
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.core.errors import ConfigError
from chassis.retries import HedgeMachine, HedgeOptions, RetryBudget
from chassis.retries._percentile import RecentPercentile


def machine(**options: Any) -> HedgeMachine:
    return HedgeMachine(HedgeOptions(**options))


def fed(durations: list[float], now: float = 0.0, **options: Any) -> HedgeMachine:
    """A machine that has seen these calls."""
    made = machine(**options)
    for each in durations:
        made.begin(now)
        made.observe(each, now)
    return made


# ── the delay ────────────────────────────────────────────────────────────────────────────────


def test_fixed_delay_holds_from_the_first_call() -> None:
    """It needs no estimate; that it may be paid for is another question."""
    assert machine(delay=0.3).delay(0.0) == 0.3
    assert machine(delay=0.3, extra_load=1.0).begin(0.0) == 0.3


def test_without_a_hundred_calls_there_is_no_estimate_and_no_hedge() -> None:
    """A percentile of a handful is a guess."""
    made = fed([0.1] * 99)
    assert made.delay(0.0) is None
    assert made.begin(0.0) is None
    made.observe(0.1, 0.0)
    assert made.delay(0.0) is not None


def test_delay_is_what_95_of_a_hundred_calls_stayed_below() -> None:
    """To 6 %, and never below what was asked for."""
    delay = fed([0.010] * 95 + [5.0] * 5).delay(0.0)
    assert delay is not None
    assert 0.010 <= delay <= 0.0107
    delay = fed([0.010] * 94 + [5.0] * 6).delay(0.0)
    assert delay is not None
    assert 5.0 <= delay <= 5.4


def test_delay_is_at_least_a_millisecond() -> None:
    """Calls that are over in microseconds are not sent twice."""
    assert fed([0.000_02] * 200).delay(0.0) == 0.001
    assert fed([0.0] * 200).delay(0.0) == 0.001


def test_delay_forgets_what_is_older_than_the_window() -> None:
    """A slow minute does not keep hedges away for the rest of the day."""
    made = fed([3.0] * 200, now=0.0)
    for _ in range(200):
        made.observe(0.01, 31.0)
    delay = made.delay(31.0)
    assert delay is not None
    assert delay < 0.011
    assert made.delay(90.0) is None


def test_new_options_keep_what_was_seen() -> None:
    """Another percentile applies at once; another window begins with what the old one held."""
    made = fed([0.01] * 90 + [1.0] * 10)
    assert made.delay(0.0) == pytest.approx(1.0, rel=0.07)
    made.reconfigure(HedgeOptions(percentile=0.5, window=100.0), 1.0)
    assert made.delay(1.0) == pytest.approx(0.01, rel=0.07)
    assert made.delay(80.0) == pytest.approx(0.01, rel=0.07)
    assert made.delay(200.0) is None
    made.reconfigure(HedgeOptions(delay=0.2), 200.0)
    assert made.delay(200.0) == 0.2


def test_percentile_covers_four_to_five_fifths_of_its_window() -> None:
    recent = RecentPercentile(10.0)
    recent.add(0.1, 0.0)
    recent.expire(9.9)
    assert recent.count == 1
    recent.expire(10.0)
    assert recent.count == 0


def test_percentile_forgets_what_was_slower_than_its_answer() -> None:
    """The place in the histogram stays right when what lies above it goes with its slice."""
    recent = RecentPercentile(10.0)
    for seconds, now, times in ((5.0, 0.0, 3), (0.01, 2.0, 97)):
        for _ in range(times):
            recent.add(seconds, now)
    assert recent.value(0.95) == pytest.approx(0.01, rel=0.07)
    for _ in range(5):
        recent.add(5.0, 10.0)  # the three of the beginning have gone
    assert recent.value(0.95) == pytest.approx(0.01, rel=0.07)
    recent.add(5.0, 10.0)
    assert recent.value(0.95) == pytest.approx(5.0, rel=0.07)


@given(
    st.lists(st.tuples(st.floats(0.0006, 3_000), st.floats(0, 4)), min_size=1, max_size=150),
    st.sampled_from([0.5, 0.9, 0.95, 1.0]),
)
def test_delay_agrees_with_a_sorted_list(calls: list[tuple[float, float]], percentile: float) -> None:
    """The smallest duration that the share did not exceed, to one part in sixteen."""
    made, seen, now = machine(percentile=percentile, minimum_calls=1), [], 0.0
    for seconds, pause in calls:
        now += pause
        made.observe(seconds, now)
        seen.append((int(now / 6.0), seconds))
        live = sorted(each for slot, each in seen if slot > int(now / 6.0) - 5)
        index = min(len(live) - 1, math.ceil(round(percentile * len(live), 9)) - 1)
        delay = made.delay(now)
        assert delay is not None
        assert max(0.001, live[index]) <= delay <= max(0.001, live[index] * (1 + 1 / 16) + 1e-12)
        assert bisect.bisect_right(live, delay) >= percentile * len(live) - 1e-9


# ── the load ─────────────────────────────────────────────────────────────────────────────────


def test_further_calls_are_at_most_a_twentieth() -> None:
    """Of the calls of the window, whatever the budget would pay."""
    made, budget = machine(delay=0.1), RetryBudget(ratio=1.0)
    for call in range(100):
        delay = made.begin(0.0)
        assert (delay is None) == (call < 19), "a call that cannot be hedged is told so at once"
    assert sum(made.allow(0.0, budget) for _ in range(100)) == 5
    assert (made.sent, made.refused) == (5, 95)
    assert made.begin(0.0) is None
    assert made.begin(31.0) is None, "calls of the past pay for nothing"


def test_trap_56_empty_budget_allows_no_further_call() -> None:
    """And what it refuses is not taken from the machine's own share."""
    empty = RetryBudget(ratio=0.01, per_second=0.0)
    made = fed([0.01] * 40)
    assert not made.allow(0.0, empty)
    full = RetryBudget(per_second=1.0)
    assert made.allow(0.0, full)
    assert full.available(0.0) == 9, "a hedge is paid from the budget that pays retries"
    assert made.allow(0.0)
    assert not made.allow(0.0, full)
    assert full.available(0.0) == 9, "and pays nothing when the share of hedges is spent"


@given(st.lists(st.tuples(st.sampled_from(["begin", "allow"]), st.floats(0, 5)), max_size=150))
def test_further_calls_never_exceed_their_share(steps: list[tuple[str, float]]) -> None:
    """In whatever order calls begin and are found slow."""
    made, log, now = machine(delay=0.1, extra_load=0.5), [], 0.0
    for step, pause in steps:
        now += pause
        live = [what for slot, what in log if slot > int(now / 3.0) - 10]
        payable = live.count("allow") + 1 <= 0.5 * live.count("begin")
        if step == "begin":
            payable = live.count("allow") + 1 <= 0.5 * (live.count("begin") + 1)
            assert made.begin(now) == (0.1 if payable else None)
            log.append((int(now / 3.0), step))
        else:
            assert made.allow(now) == payable
            if payable:
                log.append((int(now / 3.0), step))


def test_machine_is_exact_under_threads() -> None:
    """Eight threads get no more than their share together."""
    made = machine(delay=0.1)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:

            def work(_: int) -> int:
                granted = 0
                for _ in range(250):
                    made.begin(0.0)
                    granted += made.allow(0.0)
                    made.observe(0.1, 0.0)
                return granted

            granted = sum(pool.map(work, range(8)))
    finally:
        sys.setswitchinterval(before)
    assert granted == made.sent == 100


def test_after_a_fork_it_works_in_the_child() -> None:
    """Another thread may have held the lock, and does not exist there."""
    made = fed([0.01] * 100)
    made._lock.acquire()
    made.after_fork_in_child()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(made.begin, 0.0).result(5) is not None


def test_it_tells_its_delay_and_what_it_decided() -> None:
    """As plain values."""
    made = fed([0.01] * 100)
    made.allow(0.0)
    made.allow(0.0, RetryBudget(per_second=0.0))
    assert made.describe(0.0) == {
        "delay": made.delay(0.0),
        "sent": 1,
        "refused": 1,
        "options": {
            "delay": None,
            "percentile": 0.95,
            "minimum_calls": 100,
            "window": 30.0,
            "extra": 1,
            "extra_load": 0.05,
            "grace": 0.1,
        },
    }


def test_durations_beyond_all_measure_are_taken() -> None:
    """A day is as slow as an hour."""
    assert fed([86_400.0] * 100).delay(0.0) == fed([4_000.0] * 100).delay(0.0)


# ── options ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("delay", 0),
        ("delay", math.nan),
        ("delay", True),
        ("percentile", 95),
        ("percentile", 0),
        ("minimum_calls", 0),
        ("minimum_calls", True),
        ("window", 0),
        ("window", math.inf),
        ("extra", -1),
        ("extra", 1.0),
        ("extra_load", 5),
        ("extra_load", 0.0),
        ("grace", -1),
    ],
)
def test_trap_60_impossible_hedge_options_are_refused_at_construction(field: str, value: Any) -> None:
    """The error names the field, the value and what to write instead."""
    with pytest.raises(ConfigError) as caught:
        HedgeOptions(**{field: value})
    assert caught.value.setting == field
    assert repr(value) in str(caught.value)
    assert caught.value.remedy
