"""The sliding counts behind breaker and retry budget."""

from __future__ import annotations

import math
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.core.windows import BUCKETS, RingCounts, SlidingCounts, Tally


def test_counts_leave_with_their_bucket() -> None:
    """What was counted goes when its bucket is ten buckets old, not before and not later."""
    counts = SlidingCounts(10.0)
    counts.record(100.0, marked=True)
    counts.record(101.5)
    counts.expire(109.999)
    assert (counts.total, counts.marked) == (2, 1)
    counts.expire(110.0)
    assert (counts.total, counts.marked) == (1, 0)
    counts.expire(110.999)
    assert counts.total == 1
    counts.expire(111.0)
    assert counts.total == 0


def test_first_moment_of_the_clock_counts() -> None:
    """A clock that begins at zero works from its first reading."""
    counts = SlidingCounts(10.0)
    counts.record(0.0, marked=True)
    counts.record(0.5)
    assert (counts.total, counts.marked) == (2, 1)
    assert counts.edge == 1.0
    counts.expire(9.9)
    assert (counts.total, counts.marked) == (2, 1)
    counts.expire(10.0)
    assert (counts.total, counts.marked) == (0, 0)


def test_trap_21_idle_for_longer_than_the_span_forgets_all() -> None:
    """After any long pause only the new call counts."""
    for pause in (10.0, 10.5, 11.0, 86_400.0):
        counts = SlidingCounts(10.0)
        for each in range(12):
            counts.record(each / 2, marked=True)
        counts.record(5.5 + pause, marked=True)
        assert (counts.total, counts.marked) == (1, 1), pause


def test_clock_that_steps_back_counts_into_the_newest_bucket() -> None:
    """A step back loses nothing and ages nothing."""
    counts = SlidingCounts(10.0)
    counts.record(50.0, marked=True)
    counts.record(3.0)
    counts.expire(3.0)
    assert (counts.total, counts.marked) == (2, 1)
    counts.expire(59.9)
    assert (counts.total, counts.marked) == (2, 1)
    counts.expire(60.0)
    assert (counts.total, counts.marked) == (0, 0)


def test_clear_forgets_every_bucket() -> None:
    """After clear nothing old is subtracted later on."""
    counts = SlidingCounts(10.0)
    for each in range(8):
        counts.record(float(each), marked=True)
    counts.clear()
    assert (counts.total, counts.marked) == (0, 0)
    counts.record(8.0, marked=True)
    counts.expire(17.9)
    assert (counts.total, counts.marked) == (1, 1)
    counts.expire(18.0)
    assert (counts.total, counts.marked) == (0, 0)


def test_resize_keeps_what_still_counts_as_if_it_had_just_happened() -> None:
    """A new span keeps the sums, drops what was too old already, and lets the rest go together."""
    counts = SlidingCounts(10.0)
    counts.record(1.0, marked=True)
    counts.record(6.0, marked=True)
    counts.record(7.0)
    counts.resize(20.0, 12.0)
    assert (counts.total, counts.marked) == (2, 1)
    assert counts.edge == 14.0
    counts.record(14.0)
    assert (counts.total, counts.marked) == (3, 1)
    counts.expire(31.9)
    assert (counts.total, counts.marked) == (3, 1)
    counts.expire(32.0)
    assert (counts.total, counts.marked) == (1, 0)
    counts.expire(34.0)
    assert counts.total == 0


@given(st.lists(st.tuples(st.floats(0, 7), st.booleans(), st.booleans(), st.booleans()), max_size=60))
def test_sums_equal_what_is_in_the_last_ten_buckets(steps: list[tuple[float, bool, bool, bool]]) -> None:
    """Against a list that is searched each time."""
    counts, now, log = SlidingCounts(10.0), 0.0, []
    for pause, record, marked, slow in steps:
        now += pause
        if record:
            counts.record(now, marked=marked, slow=slow)
            log.append((int(now), marked, slow))
        else:
            counts.expire(now)
        live = [each for each in log if each[0] > int(now) - BUCKETS]
        assert counts.total == len(live)
        assert counts.marked == sum(marked for _, marked, _ in live)
        assert counts.slow == sum(slow for _, _, slow in live)


def test_windows_that_never_left_their_first_bucket_share_their_memory() -> None:
    """Thousands of them are kept, most of which have nothing to remember."""
    assert SlidingCounts(10.0)._buckets is SlidingCounts(3.0)._buckets


# ── the last calls ───────────────────────────────────────────────────────────────────────────


def test_ring_forgets_the_oldest_call_whatever_the_time() -> None:
    """Each call pushes one out, with its mark; a year's pause none."""
    counts = RingCounts(3)
    counts.record(0.0, marked=True)
    counts.record(0.0, slow=True)
    counts.record(0.0, marked=True, slow=True)
    assert (counts.total, counts.marked, counts.slow) == (3, 2, 2)
    counts.expire(3e7)
    assert counts.total == 3
    counts.record(3e7)
    assert (counts.total, counts.marked, counts.slow) == (3, 1, 2)
    counts.record(3e7)
    assert (counts.total, counts.marked, counts.slow) == (3, 1, 1)
    counts.record(3e7)
    assert (counts.total, counts.marked, counts.slow) == (3, 0, 0)
    assert counts.edge == math.inf


ring_steps = st.one_of(
    st.tuples(st.just("record"), st.tuples(st.booleans(), st.booleans())),
    st.tuples(st.just("add"), st.integers(0, 12)),
    st.tuples(st.just("resize"), st.integers(1, 9)),
    st.tuples(st.just("clear"), st.none()),
)


@given(st.integers(1, 9), st.lists(ring_steps, max_size=60))
def test_ring_holds_the_last_calls_of_all(size: int, steps: list[tuple[str, object]]) -> None:
    """Against a list whose tail is summed up, however calls come, and however its size changes."""
    counts: RingCounts = RingCounts(size)
    log: list[tuple[bool, bool]] = []
    for step, value in steps:
        if step == "record":
            assert isinstance(value, tuple)
            counts.record(0.0, marked=value[0], slow=value[1])
            log.append(value)
        elif step == "add":
            assert isinstance(value, int)
            counts.add(value)
            log += [(False, False)] * value
        elif step == "resize":
            assert isinstance(value, int)
            log, size = log[-size:], value
            counts.resize(size)
        else:
            counts.clear()
            log = []
        live = log[-size:]
        assert counts.total == len(live)
        assert (counts.marked, counts.slow) == (sum(bad for bad, _ in live), sum(slow for _, slow in live))


@pytest.mark.parametrize("kind", [SlidingCounts, RingCounts])
def test_many_good_ones_are_counted_at_once(kind: type[SlidingCounts | RingCounts]) -> None:
    """`add` is as many records of nothing special."""
    counts = kind(50)
    counts.record(0.0, marked=True)
    counts.add(40)
    counts.add(0)
    assert (counts.total, counts.marked, counts.slow) == (41, 1, 0)


# ── counting without a lock ──────────────────────────────────────────────────────────────────


def test_tally_tells_what_came_since_it_was_asked_last() -> None:
    """Asking takes a step of its own, which is not counted."""
    tally = Tally()
    assert tally.take() == 0
    tally.add()
    tally.add()
    assert tally.take() == 2
    assert tally.take() == 0
    tally.add()
    assert tally.take() == 1


def test_tally_loses_nothing_among_threads() -> None:
    """Eight threads count while another one takes, switched as often as can be."""
    tally, taken = Tally(), 0
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=lambda: [tally.add() for _ in range(2_000)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            taken += tally.take()
        for thread in threads:
            thread.join(10)
    finally:
        sys.setswitchinterval(before)
    assert taken + tally.take() == 16_000
