"""Tiers: this zone and datacenter first, the others for what it cannot carry."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.core import Instance, Outcome, Status
from chassis.loadbalancing import Endpoint
from chassis.loadbalancing._view import tier_loads
from tests.loadbalancing.balanced import Balanced, Pool, instance


def zone(name: str, size: int, healthy: int | None = None, **more: object) -> list[Instance]:
    """A zone's instances, of which the first ``healthy`` pass their checks."""
    healthy = size if healthy is None else healthy
    return [
        instance(
            f"{name}{number}",
            zone=name,
            status=Status.PASSING if number < healthy else Status.CRITICAL,
            **more,
        )
        for number in range(size)
    ]


def shares(balanced: Balanced, calls: int = 8_000, **filters: object) -> dict[str, float]:
    """What part of the calls each zone (the first letter of an id) takes."""
    counts: Counter[str] = Counter()
    for name, count in balanced.calls(calls, **filters).items():
        counts[name[0]] += count
    return {name: count / calls for name, count in counts.items()}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.floats(1, 3))
def test_a_tier_takes_what_it_can_carry_and_the_next_one_what_is_left(
    health: list[float], spill_over: float
) -> None:
    loads = tier_loads(health, spill_over)
    can = [min(1.0, each * spill_over) for each in health]
    if not any(health):
        assert loads == [0.0] * len(health)
        return
    assert sum(loads) == pytest.approx(1)
    if sum(can) >= 1:
        for position, load in enumerate(loads):
            assert load == pytest.approx(min(can[position], max(0.0, 1 - sum(can[:position]))), abs=1e-9)
    else:
        # All are short: each takes its part of the whole.
        assert loads == pytest.approx([each / sum(can) for each in can])


def test_this_zone_takes_all_calls_while_it_is_healthy() -> None:
    balanced = Balanced(*zone("a", 3), *zone("b", 30), instance("unknown"), zone="a")
    assert shares(balanced) == {"a": 1.0}


def test_without_a_zone_of_its_own_all_are_called_alike() -> None:
    balanced = Balanced(*zone("a", 1), *zone("b", 2), instance("c"))
    assert shares(balanced, 4000) == {"a": 0.25, "b": 0.5, "c": 0.25}


@pytest.mark.parametrize("policy", ["round_robin", "random", "weighted", "least_request", "peak_ewma"])
@pytest.mark.parametrize("healthy", [8, 7, 5, 2])
def test_case_32_a_weakened_zone_gives_away_what_it_cannot_carry_and_no_more(
    policy: str, healthy: int
) -> None:
    """Spilling over begins below 1/1.4 of the zone, and is exact in its shares."""
    balanced = Balanced(*zone("a", 10, healthy), *zone("b", 10), zone="a", policy=policy)
    local = shares(balanced).get("a", 0.0)
    assert local == pytest.approx(min(1.0, 1.4 * healthy / 10), abs=0.012)


def test_case_32_the_calls_come_back_as_the_zone_recovers() -> None:
    balanced = Balanced(*zone("a", 10, 2), *zone("b", 10), zone="a")
    seen = []
    for healthy in (2, 3, 5, 7, 8, 10):
        balanced.update(*zone("a", 10, healthy), *zone("b", 10))
        seen.append(shares(balanced, 10_000).get("a", 0.0))
    assert seen == pytest.approx([0.28, 0.42, 0.7, 0.98, 1.0, 1.0], abs=0.02)


def test_the_calls_within_a_tier_stay_even_while_it_spills_over() -> None:
    """Each tier has turns of its own: shared ones would fall into step."""
    balanced = Balanced(*zone("a", 4, 2), *zone("b", 2), zone="a")
    counts = balanced.calls(20_000)
    assert abs(counts["a0"] - counts["a1"]) <= 1
    assert abs(counts["b0"] - counts["b1"]) <= 1


def test_case_33_another_datacenter_takes_over_with_the_next_pick_and_gives_back_likewise() -> None:
    home, abroad = zone("a", 3), zone("b", 3, priority=1)
    balanced = Balanced(*home, *abroad)
    assert shares(balanced, 100) == {"a": 1.0}
    balanced.update(*zone("a", 3, 0), *abroad)
    assert balanced.call().startswith("b")
    assert shares(balanced, 100) == {"b": 1.0}
    balanced.update(*home, *abroad)
    assert balanced.call().startswith("a")
    assert shares(balanced, 100) == {"a": 1.0}


def test_case_33_the_listed_datacenters_come_in_their_order() -> None:
    second = zone("b", 2, priority=1)
    third = zone("c", 2, priority=2)
    balanced = Balanced(*zone("a", 2, 0), *zone("b", 2, 0, priority=1), *third)
    assert shares(balanced, 100) == {"c": 1.0}
    balanced.update(*zone("a", 2, 0), *second, *third)
    assert shares(balanced, 100) == {"b": 1.0}


def test_the_zone_counts_within_a_datacenter_and_not_across() -> None:
    balanced = Balanced(*zone("b", 1), *zone("z", 1, priority=1), zone="z")
    assert shares(balanced, 10) == {"b": 1.0}


def test_case_33_a_tier_whose_instances_refuse_carries_nothing_until_they_do_not() -> None:
    """Open breakers are seen long before the registry knows: a lone local one is not overrun."""
    balanced = Balanced(*zone("a", 4), *zone("b", 4), zone="a")
    refusing = {balanced.endpoint(name) for name in ("a1", "a2", "a3")}

    def ready(endpoint: Endpoint[Pool]) -> bool:
        return endpoint not in refusing

    assert shares(balanced, 100, ready=ready) == {"a": 1.0}
    balanced.clock.advance(1.0)
    assert shares(balanced, ready=ready)["a"] == pytest.approx(0.35, abs=0.02)
    refusing.add(balanced.endpoint("a0"))
    assert shares(balanced, 100, ready=ready) == {"b": 1.0}
    refusing.clear()
    balanced.clock.advance(1.0)
    assert shares(balanced, 100, ready=ready) == {"a": 1.0}


def test_how_many_of_a_tier_are_ready_is_asked_once_a_second() -> None:
    balanced = Balanced(*zone("a", 10), *zone("b", 10), zone="a")
    asked = 0

    def ready(endpoint: Endpoint[Pool]) -> bool:
        nonlocal asked
        asked += 1
        return True

    for _ in range(1000):
        balanced.clock.advance(0.01)
        balanced.call(ready=ready)
    assert asked == pytest.approx(1000 + 10 * 20, abs=20)


def test_when_all_of_a_tier_were_tried_the_next_one_is() -> None:
    balanced = Balanced(*zone("a", 2), *zone("b", 2), zone="a")
    tried = []
    for _ in range(4):
        pick = balanced.pick(exclude=tried)
        tried.append(pick.endpoint)
        pick.settle(Outcome.FAILURE)
    assert [each.instance.zone for each in tried] == ["a", "a", "b", "b"]
    assert balanced.set.pick(exclude=tried) is None


def test_case_35_calls_of_one_key_stay_in_one_tier_and_with_one_instance() -> None:
    balanced = Balanced(*zone("a", 4, 2), *zone("b", 4), zone="a", policy="consistent_hash")
    keys = [f"user-{number}" for number in range(2000)]
    first = {key: balanced.call(key=key) for key in keys}
    assert {key: balanced.call(key=key) for key in keys} == first
    local = sum(owner.startswith("a") for owner in first.values()) / len(keys)
    assert local == pytest.approx(0.7, abs=0.05)


def test_a_key_has_no_say_in_the_tier_where_the_policy_has_none_for_it() -> None:
    balanced = Balanced(*zone("a", 4, 2), *zone("b", 4), zone="a")
    assert shares(balanced, 10_000, key="always the same")["a"] == pytest.approx(0.7, abs=0.02)


def test_case_35_a_subset_has_a_ring_of_its_own() -> None:
    balanced = Balanced(*zone("a", 50), policy="consistent_hash", subset=5)
    called = {balanced.call(key=f"{each}") for each in range(500)}
    assert called == {each.instance.id for each in balanced.set.callable_endpoints()}
    assert len(called) == 5


def test_case_35_a_critical_instances_keys_move_and_all_others_stay() -> None:
    """The ring is made of all that are registered, so one that comes and goes moves its own keys."""
    balanced = Balanced(*zone("a", 5), policy="consistent_hash")
    keys = [f"user-{number}" for number in range(1000)]
    before = {key: balanced.call(key=key) for key in keys}
    balanced.update(*zone("a", 5, 4))
    after = {key: balanced.call(key=key) for key in keys}
    assert {key for key in keys if before[key] != after[key]} == {key for key in keys if before[key] == "a4"}


def test_weights_that_change_in_the_registry_move_keys_and_the_primary() -> None:
    keys = [f"user-{number}" for number in range(1000)]
    balanced = Balanced(*zone("a", 2), policy="consistent_hash")
    before = sum(balanced.call(key=key) == "a0" for key in keys)
    balanced.update(instance("a0", zone="a", weight=9), instance("a1", zone="a"))
    assert sum(balanced.call(key=key) == "a0" for key in keys) > before + 250
    balanced = Balanced(*zone("a", 2), policy="ordered")
    assert balanced.call() == "a0"
    balanced.update(instance("a0", zone="a"), instance("a1", zone="a", weight=2))
    assert balanced.call() == "a1"


def test_ordered_calls_the_primary_alone_and_fails_back() -> None:
    heavy = instance("b", weight=5)
    balanced = Balanced(instance("a"), heavy, instance("c", priority=1, weight=9), policy="ordered")
    assert balanced.calls(20) == {"b": 20}
    balanced.update(instance("a"), instance("b", status=Status.CRITICAL), instance("c", priority=1))
    assert balanced.calls(20) == {"a": 20}
    balanced.update(*(instance(name, status=Status.CRITICAL) for name in "ab"), instance("c", priority=1))
    assert balanced.calls(20) == {"c": 20}
    balanced.update(instance("a"), heavy, instance("c", priority=1))
    assert balanced.calls(20) == {"b": 20}


@pytest.mark.parametrize("size", [1, 5])
def test_a_subset_is_called_and_no_more_of_a_tier(size: int) -> None:
    balanced = Balanced(*zone("a", 50), *zone("b", 50), zone="a", subset=size)
    called = balanced.calls(100 * size)
    assert len(called) == size
    assert set(called.values()) == {100}
    assert len(balanced.set.callable_endpoints()) == 2 * size


def test_whoever_leaves_the_subset_is_replaced_and_the_others_stay() -> None:
    balanced = Balanced(*zone("a", 50), subset=5)
    before = set(balanced.calls(50))
    out = min(before)
    balanced.update(*(each for each in zone("a", 50) if each.id != out))
    after = set(balanced.calls(50))
    assert len(after) == 5
    assert before - after == {out}


def test_processes_have_different_subsets() -> None:
    subsets = {frozenset(Balanced(*zone("a", 50), subset=5, seed=seed).calls(20)) for seed in range(10)}
    assert len(subsets) == 10


def test_a_subset_does_not_make_a_healthy_tier_spill_over() -> None:
    balanced = Balanced(*zone("a", 50, 45), *zone("b", 50), zone="a", subset=5)
    assert shares(balanced, 200) == {"a": 1.0}
    assert not balanced.set.describe()["panic"]
