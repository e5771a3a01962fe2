"""Slow start: who has just come is brought to its full share step by step."""

from __future__ import annotations

import itertools

import pytest

from chassis.core import Outcome, Status
from tests.loadbalancing.balanced import Balanced, instance, named


@pytest.mark.parametrize("policy", ["round_robin", "random", "weighted", "least_request", "peak_ewma"])
def test_case_31_a_new_instance_is_brought_to_its_share_over_the_window(policy: str) -> None:
    balanced = Balanced(*named(9), policy=policy, slow_start=30.0)
    balanced.update(*named(10))
    for elapsed, share in ((0.0, 0.1), (3.0, 0.1), (15.0, 0.5), (27.0, 0.9), (30.0, 1.0), (3600.0, 1.0)):
        balanced.clock.now = 1000.0 + elapsed
        counts = balanced.calls(9_000)
        assert counts["0009"] == pytest.approx(9_000 * share / (9 + share), rel=0.12, abs=30), elapsed
        assert balanced.endpoint("0009").share == pytest.approx(share)


def test_case_31_where_all_are_new_all_get_their_full_share_at_once() -> None:
    balanced = Balanced(*named(4), slow_start=30.0)
    assert set(balanced.calls(400).values()) == {100}
    balanced.update(*(instance(name) for name in "wxyz"))
    assert set(balanced.calls(400).values()) == {100}


def test_case_31_the_share_rises_in_small_steps() -> None:
    balanced = Balanced(*named(1), slow_start=30.0)
    balanced.update(*named(2))
    seen = []
    for _ in range(300):
        balanced.clock.advance(0.1)
        balanced.call()
        seen.append(balanced.endpoint("0001").share)
    steps = [after - before for before, after in itertools.pairwise(seen)]
    assert all(0 <= step <= 0.02 for step in steps)
    assert seen[-1] == 1.0


def test_who_may_be_called_is_not_worked_out_anew_for_each_call_of_a_warm_up() -> None:
    """Once a step is enough, a hundredth of the window: with a thousand instances it takes a millisecond."""
    balanced = Balanced(*named(9), slow_start=30.0)
    balanced.update(*named(10))
    balanced.clock.advance(1.0)
    balanced.call()
    view = balanced.set._machine.view
    balanced.clock.advance(0.29)
    balanced.calls(20)
    assert balanced.set._machine.view is view
    balanced.clock.advance(0.02)
    balanced.call()
    assert balanced.set._machine.view is not view


def test_without_a_window_a_new_instance_gets_its_share_at_once() -> None:
    balanced = Balanced(*named(1))
    balanced.update(*named(2))
    assert balanced.calls(100) == {"0000": 50, "0001": 50}


@pytest.mark.parametrize("status", [Status.CRITICAL, Status.MAINTENANCE])
def test_one_that_passes_again_warms_up_as_well(status: Status) -> None:
    balanced = Balanced(*named(3), instance("late", status=status), slow_start=30.0)
    balanced.update(*named(3), instance("late"))
    assert balanced.calls(3100)["late"] == pytest.approx(100, abs=30)


def test_one_that_was_only_warned_of_does_not_warm_up() -> None:
    balanced = Balanced(*named(3), instance("late", status=Status.WARNING), slow_start=30.0)
    balanced.update(*named(3), instance("late"))
    assert balanced.endpoint("late").share == 1.0


def test_the_weight_of_one_that_warms_up_is_a_part_of_its_own() -> None:
    balanced = Balanced(instance("a", weight=10), policy="weighted", slow_start=30.0)
    balanced.update(instance("a", weight=10), instance("b", weight=10))
    balanced.clock.advance(15.0)
    assert balanced.calls(3000)["b"] == pytest.approx(1000, rel=0.03)
    # A weight that changes meanwhile counts at once.
    balanced.update(instance("a", weight=10), instance("b", weight=40))
    assert balanced.endpoint("b").weight == 20.0


def test_keys_and_the_primary_do_not_move_twice_for_a_warm_up() -> None:
    for policy in ("consistent_hash", "ordered"):
        balanced = Balanced(instance("b"), policy=policy, slow_start=30.0)
        balanced.update(instance("a"), instance("b"))
        keys = [f"user-{number}" for number in range(200)]
        first = {key: balanced.call(key=key) for key in keys}
        balanced.clock.advance(60.0)
        assert {key: balanced.call(key=key) for key in keys} == first


def test_the_window_can_be_set_while_it_runs() -> None:
    balanced = Balanced(*named(3), slow_start=30.0)
    balanced.update(*named(4))
    balanced.clock.advance(15.0)
    balanced.call(Outcome.SUCCESS)
    assert balanced.endpoint("0003").share == 0.5
    balanced.set.reconfigure(type(balanced.set.options)(slow_start=150.0))
    assert balanced.endpoint("0003").share == 0.1
    balanced.set.reconfigure(type(balanced.set.options)())
    assert balanced.endpoint("0003").share == 1.0
