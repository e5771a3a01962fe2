"""How many blocking queries one process holds open."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.adapters.consul._slots import QuerySlots


def test_no_more_are_open_than_are_wanted() -> None:
    slots = QuerySlots()
    assert [slots.take(2, now=0.0) for _ in range(3)] == [True, True, False]
    slots.give_back()
    assert slots.take(2, now=0.0)
    assert slots.open == 2


def test_who_cannot_do_without_is_counted_all_the_same() -> None:
    slots = QuerySlots()
    slots.reserve()
    slots.reserve()
    assert slots.open == 2
    assert not slots.take(2, now=0.0)
    assert slots.take(3, now=0.0)


def test_nearing_the_limit_is_told_once_for_each_time() -> None:
    slots = QuerySlots()
    told = []
    for _ in range(6):
        slots.take(5, now=0.0)
        told.append(slots.near(5))
    assert told == [False, False, False, True, False, False]
    for _ in range(2):
        slots.give_back()
    assert not slots.near(5)
    slots.take(5, now=0.0)
    assert slots.near(5)


def test_case_14_a_crowded_agent_is_left_half_of_what_it_bears() -> None:
    slots = QuerySlots()
    for _ in range(30):
        slots.take(50, now=0.0)
    told = []
    # Ten of them are refused, and each gives its own back.
    for _ in range(10):
        slots.give_back()
        told.append(slots.crowded(now=1.0))
    assert told == [True] + [False] * 9
    assert slots.open == 20
    assert slots.ceiling == 10
    assert not slots.keeps(50, now=1.0)
    for _ in range(10):
        slots.give_back()
    assert slots.keeps(50, now=1.0)
    assert not slots.take(50, now=1.0)


def test_case_14_refusals_that_go_on_bring_the_number_down_to_one() -> None:
    """Who else asks the agent is not known, nor how much of it they hold."""
    slots, found = QuerySlots(), []
    for _ in range(10):
        slots.take(50, now=0.0)
    for second in range(4):
        slots.crowded(now=float(second))
        # Before any was given back a refusal tells nothing new.
        slots.crowded(now=float(second))
        found.append(slots.ceiling)
        while not slots.keeps(50, now=float(second)):
            slots.give_back()
    assert found == [5, 2, 1, 1]


def test_what_a_crowded_agent_bears_is_found_again_one_by_one() -> None:
    slots = QuerySlots()
    for _ in range(4):
        slots.take(4, now=0.0)
    slots.crowded(now=0.0)
    assert [slots.limit(4, now=at) for at in (0.0, 9.9, 10.0, 19.9, 20.0, 1000.0)] == [2, 2, 3, 3, 4, 4]
    # The number begins to grow at the last refusal, not at the first.
    slots.crowded(now=15.0)
    assert [slots.limit(4, now=at) for at in (15.0, 24.9, 25.0)] == [2, 2, 3]


def test_crowding_is_told_once_a_minute() -> None:
    slots = QuerySlots()
    told = [at for at in (0.0, 1.0, 59.9, 60.0, 61.0, 120.0) if slots.crowded(now=at)]
    assert told == [0.0, 60.0, 120.0]


@pytest.mark.parametrize(("still_open", "ceiling"), [(0, 1), (1, 1), (2, 1), (3, 1), (4, 2), (10, 5)])
def test_a_crowded_agent_keeps_half_and_at_least_one(still_open: int, ceiling: int) -> None:
    slots = QuerySlots()
    for _ in range(still_open):
        slots.take(50, now=0.0)
    assert slots.crowded(now=0.0)
    assert slots.ceiling == ceiling
    for _ in range(still_open):
        slots.give_back()
    # One more by then.
    taken = [slots.take(50, now=10.0) for _ in range(ceiling + 2)]
    assert taken == [True] * (ceiling + 1) + [False]


def test_case_14_a_full_agent_is_asked_for_a_place_every_ten_seconds() -> None:
    """Others hold all its connections, and this process has a hundred watches, each asking once a second."""
    slots, refused = QuerySlots(), 0
    for tenths in range(600):
        for _ in range(10):
            if slots.take(50, now=tenths / 10):
                slots.give_back()
                slots.crowded(now=tenths / 10)
                refused += 1
    assert refused == 6


@given(st.lists(st.sampled_from(["take", "back", "crowded", "later"]), max_size=60), st.integers(0, 6))
def test_the_limit_holds_whatever_happens(steps: list[str], limit: int) -> None:
    slots, held, now = QuerySlots(), 0, 0.0
    for step in steps:
        if step == "take":
            held += slots.take(limit, now=now)
        elif step == "back" and held:
            slots.give_back()
            held -= 1
        elif step == "crowded" and held:
            slots.give_back()
            held -= 1
            slots.crowded(now=now)
        else:
            now += 31.0
        assert slots.open == held <= limit
