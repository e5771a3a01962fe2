"""Round robin: each candidate in turn."""

from __future__ import annotations

import threading
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from chassis.loadbalancing import RoundRobin


@given(st.integers(1, 50), st.integers(0, (1 << 16) - 1), st.integers(1, 5))
def test_every_candidate_gets_the_same_number_of_turns(size: int, start: int, rounds: int) -> None:
    balancer = RoundRobin(draw=lambda: start / (1 << 16))
    candidates = range(size)
    turns = Counter(balancer.choose(candidates) for _ in range(size * rounds))
    assert turns == dict.fromkeys(candidates, rounds)


def test_turns_follow_the_order_of_the_candidates() -> None:
    balancer = RoundRobin(draw=lambda: 4 / (1 << 16))
    assert [balancer.choose("abc") for _ in range(5)] == ["b", "c", "a", "b", "c"]


def test_case_10_the_count_goes_on_when_the_candidates_change() -> None:
    balancer = RoundRobin(draw=lambda: 0.0)
    assert balancer.choose("abc") == "a"
    assert [balancer.choose("abcd") for _ in range(4)] == ["b", "c", "d", "a"]


def test_processes_started_together_do_not_all_begin_with_the_same_instance() -> None:
    firsts = {RoundRobin().choose(range(1000)) for _ in range(50)}
    assert len(firsts) > 10


def test_threads_share_the_turns_evenly() -> None:
    balancer = RoundRobin()
    chosen: list[list[int]] = []

    def choose() -> None:
        chosen.append([balancer.choose(range(4)) for _ in range(1000)])

    threads = [threading.Thread(target=choose) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert Counter(turn for each in chosen for turn in each) == dict.fromkeys(range(4), 1000)
