"""The pure parts of retry: pauses, budget, Retry-After, options."""

from __future__ import annotations

import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.core.errors import ConfigError
from chassis.retries import Backoff, BudgetOptions, RetryBudget, RetryOptions, retry_after_seconds

NOW = 1_700_000_000.0
DATE = datetime.fromtimestamp(NOW, UTC)


# ── backoff ──────────────────────────────────────────────────────────────────────────────────


def test_pauses_double_to_their_cap() -> None:
    """0.1, 0.2, 0.4, ... 5 seconds at most."""
    backoff = Backoff(0.1, 5.0, draw=lambda: 1.0)
    assert [backoff.delay(n) for n in range(7)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0])


def test_pauses_are_drawn_from_nothing_to_all() -> None:
    """Full jitter: the draw is the share of the pause."""
    assert Backoff(1.0, 8.0, draw=lambda: 0.0).delay(3) == 0.0
    assert Backoff(1.0, 8.0, draw=lambda: 0.25).delay(2) == 1.0
    pauses = {Backoff(1.0, 8.0).delay(3) for _ in range(50)}
    assert len(pauses) > 40
    assert all(0 <= each <= 8 for each in pauses)


def test_default_pauses() -> None:
    """0.1 s doubling to 5 s."""
    assert Backoff(draw=lambda: 1.0).delay(0) == 0.1
    assert Backoff(draw=lambda: 1.0).delay(100) == 5.0


def test_ten_thousandth_pause_does_not_overflow() -> None:
    """Also where the cap is far away."""
    assert math.isfinite(Backoff(1.0, 1e300, draw=lambda: 1.0).delay(10_000))
    assert Backoff(1.0, 1e300, draw=lambda: 1.0).delay(60) == 2.0**60


# ── budget ───────────────────────────────────────────────────────────────────────────────────


def budget(ratio: float = 0.2, per_second: float = 0.0, window: float = 10.0) -> RetryBudget:
    return RetryBudget(ratio=ratio, per_second=per_second, window=window)


def withdrawals(budget: RetryBudget, now: float) -> int:
    count = 0
    while budget.withdraw(now):
        count += 1
    return count


def test_budget_grants_its_share_of_the_first_attempts() -> None:
    """A fifth of ten first attempts is two; nothing for four."""
    each = budget()
    for _ in range(4):
        each.deposit(0.0)
    assert each.available(0.0) == 0
    assert not each.withdraw(0.0)
    for _ in range(6):
        each.deposit(0.0)
    assert each.available(0.0) == 2
    assert withdrawals(each, 0.0) == 2
    assert each.refused == 2
    assert each.available(0.0) == 0


def test_budget_has_a_floor_for_little_traffic() -> None:
    """`per_second` times the window may be spent with no first attempt at all."""
    assert withdrawals(budget(per_second=0.5), 0.0) == 5
    assert withdrawals(RetryBudget(), 0.0) == 100


def test_budget_forgets_what_is_older_than_its_window() -> None:
    """What was put in and what was taken out both leave it."""
    each = budget(ratio=1.0)
    for _ in range(3):
        each.deposit(0.0)
    assert each.withdraw(5.0)
    assert each.available(9.9) == 2
    assert each.available(10.0) == 0, "overdrawn is never negative"
    each.deposit(10.0)
    assert each.available(10.0) == 0
    assert each.available(15.0) == 1


def test_budget_follows_new_options_and_keeps_its_counts() -> None:
    """A new ratio applies to what was counted already; a new window begins with it."""
    each = budget()
    for _ in range(10):
        each.deposit(9.0)
    options = BudgetOptions(ratio=0.5, per_second=0.0, window=10.0)
    each.reconfigure(options, 9.5)
    assert each.options is options
    assert each.available(9.5) == 5
    assert each.available(19.0) == 0
    for _ in range(10):
        each.deposit(20.0)
    each.reconfigure(BudgetOptions(ratio=0.5, per_second=0.0, window=100.0), 25.0)
    assert each.available(110.0) == 5


@given(
    st.lists(st.tuples(st.sampled_from(["deposit", "withdraw", "wait"]), st.floats(0, 3)), max_size=80),
    st.sampled_from([0.2, 0.5, 1.0]),
    st.sampled_from([0.0, 0.3]),
)
def test_budget_agrees_with_a_list_of_what_happened(
    steps: list[tuple[str, float]], ratio: float, per_second: float
) -> None:
    """A withdrawal is granted exactly while the last ten buckets hold enough for one more."""
    each, log, now = budget(ratio, per_second), [], 0.0
    for step, pause in steps:
        live = [what for slot, what in log if slot > int(now) - 10]
        left = ratio * live.count("deposit") + per_second * 10 - live.count("withdraw")
        if step == "wait":
            now += pause
        elif step == "deposit":
            each.deposit(now)
            log.append((int(now), step))
        else:
            assert each.withdraw(now) == (left >= 1)
            if left >= 1:
                log.append((int(now), step))


def test_budget_is_exact_under_threads() -> None:
    """Eight threads get no more and no less than there is."""
    each = budget(per_second=10.0)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:

            def work(_: int) -> int:
                for _ in range(250):
                    each.deposit(0.0)
                return sum(each.withdraw(0.0) for _ in range(100))

            granted = sum(pool.map(work, range(8))) + withdrawals(each, 0.0)
    finally:
        sys.setswitchinterval(before)
    assert granted == 500


# ── Retry-After ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7\t", 7.0),
        ("9999999999", 9_999_999_999.0),
        (format_datetime(DATE + timedelta(seconds=30), usegmt=True), 30.0),
        ("Tuesday, 14-Nov-23 22:13:50 GMT", 30.0),
        ("Tue Nov 14 22:13:50 2023", 30.0),
        ("Tue, 14 Nov 2023 22:13:20 GMT", 0.0),
        ("Tue, 14 Nov 2023 22:13:19 GMT", 0.0),
        ("Tue Nov  4 22:13:50 2023", 0.0),
        ("Tue, 14 Nov 2023 22:13:60 GMT", 39.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Friday, 14-Nov-74 22:13:20 GMT", 0.0),
        ("Wednesday, 14-Nov-73 22:13:20 GMT", 1_577_923_200.0),
    ],
)
def test_retry_after_in_all_its_forms(value: str, seconds: float) -> None:
    """Whole seconds, and the three forms of a date (RFC 9110, 5.6.7); a past date is now."""
    assert retry_after_seconds(value, NOW) == seconds


def test_retry_after_is_in_universal_time_wherever_this_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A date without its zone is not one of the machine's own."""
    monkeypatch.setenv("TZ", "EST+5")
    time.tzset()
    try:
        assert retry_after_seconds("Tue Nov 14 22:13:50 2023", NOW) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "abc",
        "-1",
        "+1",
        "1e9",
        "1.5",
        "3, 5",
        "inf",
        "nan",
        "10000000000",
        "9" * 5_000,
        "²",
        "١٢",
        "Tue",
        "Tue, 99 Nov 2023 99:99:99 GMT",
        "Tue, 30 Feb 2023 22:13:50 GMT",
        "Tue, 14 Nov 0000 22:13:50 GMT",
        "Tue, 14 Foo 2023 22:13:50 GMT",
        "Tue, 14 Nov 2023 22:13:50 CET",
        "Tue, 14 Nov 99999999999999 22:13:50 GMT",
        "Tue, 14 Nov 2023 22:13:50 GMT, Tue, 14 Nov 2023 22:13:50 GMT" * 50,
        "14 Nov 2023 22:13:50 GMT",
        "\x00",
        "\n7",
        "X 7",
    ],
)
def test_trap_42_retry_after_that_means_nothing_is_ignored(value: str | None) -> None:
    """It never raises, and what is no number and no date is as if it were not there."""
    assert retry_after_seconds(value, NOW) is None


@given(st.text(max_size=60) | st.from_regex(r"[A-Z][a-z]{2}, [\d \-:A-Za-z+]{0,40}"))
def test_trap_42_retry_after_never_raises(value: str) -> None:
    """Whatever a server sends, the answer is None or a finite number of at least 0."""
    seconds = retry_after_seconds(value, NOW)
    assert seconds is None or 0 <= seconds < math.inf


# ── options ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        (RetryOptions, "retries", -1),
        (RetryOptions, "retries", True),
        (RetryOptions, "retries", 1.5),
        (RetryOptions, "wait_base", -0.1),
        (RetryOptions, "wait_base", math.nan),
        (RetryOptions, "wait_max", 0.05),
        (RetryOptions, "retry_after_max", math.inf),
        (RetryOptions, "minimum_attempt_time", -1),
        (BudgetOptions, "ratio", 0),
        (BudgetOptions, "ratio", 20),
        (BudgetOptions, "per_second", -1),
        (BudgetOptions, "per_second", math.nan),
        (BudgetOptions, "per_second", math.inf),
        (BudgetOptions, "per_second", True),
        (BudgetOptions, "per_second", "10"),
        (BudgetOptions, "window", 0),
    ],
)
def test_trap_60_impossible_options_are_refused_at_construction(options: Any, field: str, value: Any) -> None:
    """The error names the field, the value and what to write instead."""
    with pytest.raises(ConfigError) as caught:
        options(**{field: value})
    assert caught.value.setting == field
    assert repr(value) in str(caught.value)
    assert caught.value.remedy


def test_options_at_their_limits_are_taken() -> None:
    """What is just possible is possible."""
    RetryOptions(retries=0, wait_base=0, wait_max=0, retry_after_max=0)
    BudgetOptions(ratio=1, per_second=0)
