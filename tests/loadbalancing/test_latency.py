"""The latency estimate: up at once, down slowly, forgotten in time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.core import Outcome
from chassis.loadbalancing import BalancingOptions
from chassis.loadbalancing._latency import Latency
from tests.loadbalancing.balanced import Balanced, instance


def test_nothing_is_known_before_the_first_sample() -> None:
    assert Latency(10.0).at(5.0) == 0.0


def test_a_higher_sample_counts_at_once() -> None:
    latency = Latency(10.0)
    latency.observe(0.01, 0.0)
    latency.observe(0.5, 0.001)
    assert latency.at(0.001) == 0.5


def test_a_lower_sample_counts_for_the_time_since_the_last() -> None:
    latency = Latency(10.0)
    latency.observe(1.0, 0.0)
    latency.observe(0.1, 1.0)
    kept = math.exp(-0.1)
    assert latency.at(1.0) == pytest.approx(kept + 0.1 * (1 - kept))
    latency.observe(0.1, 1000.0)
    assert latency.at(1000.0) == pytest.approx(0.1)


def test_it_fades_by_time_alone() -> None:
    latency = Latency(10.0)
    latency.observe(1.0, 0.0)
    assert latency.at(10.0) == pytest.approx(math.exp(-1))
    latency.decay = 1.0
    assert latency.at(10.0) == pytest.approx(math.exp(-10))


def test_a_clock_that_steps_back_changes_nothing() -> None:
    latency = Latency(10.0)
    latency.observe(1.0, 100.0)
    assert latency.at(50.0) == 1.0
    latency.observe(0.5, 50.0)
    assert latency.at(50.0) == 1.0


def test_it_can_forget() -> None:
    latency = Latency(10.0)
    latency.observe(1.0, 0.0)
    latency.forget()
    assert latency.at(0.0) == 0.0


@given(st.lists(st.tuples(st.floats(0.001, 10), st.floats(0, 30)), min_size=1, max_size=20))
def test_it_stays_between_the_newest_and_the_highest_sample(samples: list[tuple[float, float]]) -> None:
    latency = Latency(10.0)
    now = 0.0
    for seconds, passed in samples:
        now += passed
        latency.observe(seconds, now)
        assert seconds <= latency.at(now) * 1.000001
        assert latency.at(now) <= max(each for each, _ in samples)


def test_a_failure_costs_at_least_what_is_set() -> None:
    """One that fails fast must not look quick, and one that fails slowly is as slow as it was."""
    balanced = Balanced(instance("a"), failure_cost=2.0)
    endpoint = balanced.endpoint("a")
    balanced.call(Outcome.FAILURE)
    assert endpoint.latency_at(balanced.clock.now) == 2.0
    pick = balanced.pick()
    balanced.clock.advance(5.0)
    pick.settle(Outcome.FAILURE)
    assert endpoint.latency_at(balanced.clock.now) == 5.0


def test_an_answer_that_turns_out_a_failure_costs_as_much() -> None:
    balanced = Balanced(instance("a"), failure_cost=2.0)
    pick = balanced.pick()
    balanced.clock.advance(0.1)
    pick.answered()
    assert balanced.endpoint("a").latency_at(balanced.clock.now) == pytest.approx(0.1)
    pick.settle(Outcome.FAILURE)
    assert balanced.endpoint("a").latency_at(balanced.clock.now) == 2.0


def test_how_fast_it_fades_can_be_set_while_it_runs() -> None:
    balanced = Balanced(instance("a"))
    pick = balanced.pick()
    balanced.clock.advance(1.0)
    pick.settle(Outcome.SUCCESS)
    balanced.set.reconfigure(BalancingOptions(latency_decay=1.0))
    balanced.clock.advance(1.0)
    assert balanced.set.describe()["instances"]["a"]["latency"] == pytest.approx(math.exp(-1))
