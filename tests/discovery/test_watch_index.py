"""The index to ask with, and how often to ask."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.discovery import Backoff, ChurnLimit, Wake, WatchIndex


def test_the_first_answer_shows_how_things_stand() -> None:
    index = WatchIndex()
    assert index.index == 0
    assert index.answered(7) is Wake.FIRST
    assert index.index == 7


def test_a_higher_index_is_a_change_and_the_same_is_none() -> None:
    index = WatchIndex()
    index.answered(7)
    assert index.answered(7) is Wake.UNCHANGED
    assert index.answered(8) is Wake.CHANGED
    assert index.index == 8


def test_case_4_a_lower_index_begins_anew() -> None:
    index = WatchIndex()
    index.answered(162)
    assert index.answered(13) is Wake.WENT_BACK
    assert index.index == 0
    assert index.answered(13) is Wake.FIRST
    assert index.index == 13


def test_case_4_a_lower_index_after_an_error_is_a_lost_past_too() -> None:
    """A registry that begins anew is unreachable meanwhile, so its lower index answers a question without one."""
    index = WatchIndex()
    index.answered(162)
    index.failed()
    assert index.answered(13) is Wake.WENT_BACK
    assert index.answered(13) is Wake.FIRST
    index.failed()
    assert index.answered(14) is Wake.FIRST


def test_case_8_no_index_never_makes_a_question_that_returns_at_once_for_ever() -> None:
    index = WatchIndex()
    assert index.answered(0) is Wake.FIRST
    assert index.index == 1
    assert index.answered(1) is Wake.UNCHANGED
    # Nor is it a past that was lost, each time: an empty answer would never be believed.
    assert index.answered(0) is Wake.UNCHANGED


def test_an_error_begins_anew_because_the_index_may_have_come_round_again() -> None:
    index = WatchIndex()
    index.answered(162)
    index.failed()
    assert index.index == 0
    assert index.answered(162) is Wake.FIRST


@given(st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=40))
def test_the_index_is_what_was_answered_last_or_zero(answers: list[int | None]) -> None:
    index, seen = WatchIndex(), 0
    for answer in answers:
        before = index.index
        if answer is None:
            index.failed()
            assert index.index == 0
        else:
            wake = index.answered(answer)
            assert (wake is Wake.WENT_BACK) == (max(1, answer) < seen)
            assert index.index == (0 if max(1, answer) < seen else max(1, answer))
            seen = max(1, answer)
            assert (wake is Wake.CHANGED) == (0 < before < answer)


def test_case_9_a_burst_is_asked_at_once_and_then_one_a_second() -> None:
    churn = ChurnLimit()
    assert [churn.delay(100.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert churn.delay(100.0) == pytest.approx(1.0)
    assert churn.delay(101.0) == pytest.approx(1.0)


def test_a_quiet_time_brings_the_whole_burst_back_and_no_more() -> None:
    churn = ChurnLimit(burst=2, per_second=2.0)
    for _ in range(2):
        churn.delay(0.0)
    assert churn.delay(0.0) == pytest.approx(0.5)
    assert [churn.delay(1000.0) for _ in range(3)] == pytest.approx([0.0, 0.0, 0.5])


@given(st.lists(st.floats(0, 2), min_size=1, max_size=100))
def test_questions_never_come_faster_than_a_burst_and_one_a_second(pauses: list[float]) -> None:
    churn, now, asked = ChurnLimit(), 50.0, []
    for pause in pauses:
        now += pause
        now += churn.delay(now)
        asked.append(now)
    for first, start in enumerate(asked):
        for last in range(first, len(asked)):
            assert last - first + 1 <= 3 + (asked[last] - start) + 1 + 1e-6


def test_backoff_doubles_up_to_its_cap_and_begins_anew_after_success() -> None:
    backoff = Backoff(base=0.1, cap=1.0, draw=lambda: 1.0)
    assert [backoff.delay() for _ in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    backoff.reset()
    assert backoff.delay() == pytest.approx(0.1)


def test_backoff_draws_from_nothing_up_to_the_ceiling() -> None:
    draws = iter([0.0, 0.5, 0.25])
    backoff = Backoff(draw=lambda: next(draws))
    assert [backoff.delay() for _ in range(3)] == pytest.approx([0.0, 0.1, 0.1])


def test_backoff_stays_within_its_cap_for_ever() -> None:
    backoff = Backoff(draw=lambda: 1.0)
    delays = [backoff.delay() for _ in range(5000)]
    assert max(delays) == 10.0
    assert delays[7] == 10.0
