"""Options: impossible ones are refused with field, value and remedy, and all can be set while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from chassis.core import ConfigError, EventBus, Instance, Outcome
from chassis.loadbalancing import BalancingOptions, EndpointSet
from tests.loadbalancing.balanced import Balanced, instance, named, snapshot


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("policy", "fastest"),
        ("policy", None),
        ("panic", True),
        ("choices", 1),
        ("choices", 11),
        ("choices", 2.0),
        ("zone", None),
        ("spill_over", 0.9),
        ("spill_over", math.nan),
        ("spill_over", math.inf),
        ("subset", -1),
        ("subset", True),
        ("slow_start", -1.0),
        ("slow_start", math.nan),
        ("ejection_cap", 50),
        ("ejection_cap", -0.1),
        ("ejection_cap", False),
        ("ejection_rate", 0),
        ("ejection_rate", 1.5),
        ("ejection_deviations", -1.0),
        ("ejection_deviations", math.nan),
        ("ejection_deviations", True),
        ("ejection_window", 0),
        ("ejection_minimum", 0),
        ("ejection_time", 0),
        ("ejection_time_max", 4.9),
        ("ejection_time_max", math.inf),
        ("panic_below", 0),
        ("panic_below", 50),
        ("retry_after_max", -1),
        ("latency_decay", 0),
        ("failure_cost", math.nan),
    ],
)
def test_an_impossible_value_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        BalancingOptions(**{field: value})
    assert refused.value.setting == field
    assert repr(value) in str(refused.value)
    assert refused.value.remedy


def test_zero_switches_off_what_can_be_switched_off() -> None:
    BalancingOptions(slow_start=0, ejection_cap=0, retry_after_max=0, subset=0)


class Newest:
    """A balancer of the user's own: the last one by id."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1

    def choose(
        self, candidates: Sequence[Any], fit: Callable[[Any], bool], *, key: str | None, now: float
    ) -> Any:
        return next((each for each in reversed(candidates) if fit(each)), None)


def test_a_policy_of_ones_own_chooses_and_the_filters_hold_for_it_too() -> None:
    balanced = Balanced(*named(3), policy=Newest)
    assert balanced.calls(5) == {"0002": 5}
    balanced.call_at("0002", Outcome.IGNORED, retry_after=5.0)
    assert balanced.calls(5) == {"0001": 5}
    assert balanced.set.describe()["policy"] == "Newest"
    assert balanced.set.describe()["options"]["policy"] == "Newest"


def test_each_tier_has_its_own_balancer() -> None:
    Newest.made = 0
    balanced = Balanced(instance("a"), instance("b", priority=1), policy=Newest)
    assert Newest.made == 2
    balanced.update(instance("a"), instance("c"), instance("b", priority=1))
    assert Newest.made == 2


def test_another_policy_can_be_chosen_while_it_runs() -> None:
    balanced = Balanced(instance("a", weight=9), instance("b"))
    assert balanced.calls(100) == {"a": 50, "b": 50}
    balanced.set.reconfigure(BalancingOptions(policy="weighted"))
    assert balanced.calls(100)["a"] == 90
    balanced.set.reconfigure(BalancingOptions(policy="ordered"))
    assert balanced.calls(100) == {"a": 100}
    assert balanced.set.options.policy == "ordered"


def test_an_instance_that_comes_while_options_change_follows_the_new_ones() -> None:
    newer = BalancingOptions(latency_decay=1.0, ejection_window=60.0)

    def create(instance: Instance) -> None:
        endpoints.reconfigure(newer)

    endpoints: EndpointSet[None] = EndpointSet(
        "catalog", BalancingOptions(), create=create, dispose=lambda state: None, bus=EventBus()
    )
    endpoints.update(snapshot(instance("a")))
    (endpoint,) = endpoints.endpoints()
    assert endpoint.latency.decay == 1.0
    endpoint.recent.record(1000.0)
    endpoint.recent.expire(1050.0)
    assert endpoint.recent.total == 1


def test_other_options_keep_the_turns_and_what_was_counted() -> None:
    balanced = Balanced(*named(3), draw=lambda: 0.0)
    assert balanced.call() == "0000"
    balanced.call_at("0001", Outcome.FAILURE, 3)
    balanced.set.reconfigure(BalancingOptions(ejection_window=60.0))
    endpoint = balanced.endpoint("0001")
    balanced.clock.advance(30.0)
    endpoint.recent.expire(balanced.clock.now)
    assert (endpoint.recent.total, endpoint.recent.marked, endpoint.failures) == (3, 3, 3)


def test_the_zone_and_the_subset_can_be_set_while_it_runs() -> None:
    balanced = Balanced(instance("a", zone="x"), instance("b", zone="y"))
    assert len(balanced.calls(10)) == 2
    balanced.set.reconfigure(BalancingOptions(zone="y"))
    assert balanced.calls(10) == {"b": 10}
    balanced.update(*named(10))
    balanced.set.reconfigure(BalancingOptions(subset=3))
    assert len(balanced.calls(30)) == 3


def test_a_description_says_how_each_instance_stands() -> None:
    balanced = Balanced(instance("a", weight=2), instance("b", zone="y"), zone="")
    pick = balanced.pick(exclude=[balanced.endpoint("b")])
    balanced.clock.advance(0.25)
    balanced.call_at("b", Outcome.FAILURE)
    pick.answered()
    described = balanced.set.describe()
    assert described["policy"] == "round_robin"
    assert described["panic"] is False
    assert described["options"]["slow_start"] == 0.0
    assert described["instances"]["a"] == {
        "address": "10.0.0.1:80",
        "status": "passing",
        "tier": 0,
        "weight": 2,
        "share": 1.0,
        "in_flight": 1,
        "successes": 0,
        "failures": 0,
        "ejected_for": None,
        "waits_for": None,
        "latency": 0.25,
    }
    assert described["instances"]["b"]["failures"] == 1
    balanced.set.reconfigure(BalancingOptions(zone="x"))
    assert balanced.set.describe()["instances"]["b"]["tier"] == 0
    balanced.update(instance("a", zone="x"), instance("b", zone="y"))
    assert [each["tier"] for each in balanced.set.describe()["instances"].values()] == [0, 1]


def test_turns_go_on_when_options_change_that_no_turn_depends_on() -> None:
    balanced = Balanced(*named(50))
    last = balanced.call()
    for options in ({"panic": "off"}, {"panic": "off", "ejection_cap": 0.2}, {"slow_start": 5.0}):
        balanced.set.reconfigure(BalancingOptions(**options))
        following = balanced.call()
        assert int(following) == (int(last) + 1) % 50
        last = following
    assert sum(each["successes"] for each in balanced.set.describe()["instances"].values()) == 4


def test_case_40_a_forked_child_is_a_client_of_its_own() -> None:
    """The parent's calls are not its own; its turns and its subset are others; a probe may be made anew."""
    balanced = Balanced(*named(50), subset=5)
    before = set(balanced.calls(50))
    held = [balanced.pick() for _ in range(3)]
    balanced.clock.advance(1.0)
    balanced.set.after_fork_in_child()
    assert {each.in_flight for each in balanced.set.endpoints()} == {0}
    balanced.clock.advance(1.0)
    assert set(balanced.calls(50)) != before
    for pick in held:
        pick.settle(Outcome.FAILURE)
    assert {each.in_flight for each in balanced.set.endpoints()} == {0}
    assert {each.failures for each in balanced.set.endpoints()} == {0}


def test_case_40_what_a_parent_probes_its_child_probes_too() -> None:
    balanced = Balanced(*named(4))
    for name in ("0000", "0002", "0003"):
        balanced.call_at(name, Outcome.SUCCESS, 40)
    balanced.call_at("0001", Outcome.FAILURE, 40)
    assert balanced.endpoint("0001").ejection.active
    balanced.clock.advance(6.5)
    while balanced.endpoint("0001").in_flight == 0:
        balanced.pick()
    balanced.clock.advance(1.0)
    assert "0001" not in balanced.calls(8)
    balanced.set.after_fork_in_child()
    balanced.clock.advance(0.1)
    assert "0001" in balanced.calls(8)
    assert not balanced.endpoint("0001").ejection.active


def test_two_instances_of_one_id_are_both_described() -> None:
    balanced = Balanced(instance("a", port=80), instance("a", port=81))
    described = balanced.set.describe()["instances"]
    assert {name: each["address"] for name, each in described.items()} == {
        "a": "10.0.0.1:80",
        "a at 10.0.0.1:81": "10.0.0.1:81",
    }


def test_an_instance_outside_the_subset_is_described_all_the_same() -> None:
    assert len(Balanced(*named(10), subset=3).set.describe()["instances"]) == 10
