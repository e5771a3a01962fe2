"""The sliding counts behind breaker and retry budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chassis.core.windows import BUCKETS, SlidingCounts


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


@given(st.lists(st.tuples(st.floats(0, 7), st.booleans(), st.booleans()), max_size=60))
def test_sums_equal_what_is_in_the_last_ten_buckets(steps: list[tuple[float, bool, bool]]) -> None:
    """Against a list that is searched each time."""
    counts, now, log = SlidingCounts(10.0), 0.0, []
    for pause, record, marked in steps:
        now += pause
        if record:
            counts.record(now, marked=marked)
            log.append((int(now), marked))
        else:
            counts.expire(now)
        live = [mark for slot, mark in log if slot > int(now) - BUCKETS]
        assert (counts.total, counts.marked) == (len(live), sum(live))
