"""Panic: where most are unhealthy, passing over the rest of them overruns the few that are left."""

from __future__ import annotations

import pytest

from chassis.core import Instance, Outcome, Status
from chassis.loadbalancing import EndpointEjected, PanicEntered, PanicLeft
from tests.loadbalancing.balanced import Balanced, instance, named


def critical(*names: str) -> list[Instance]:
    return [instance(name, status=Status.CRITICAL) for name in names]


def half_ejected(**options: object) -> Balanced:
    """Four instances of which two are ejected: half are healthy, which is no panic yet."""
    balanced = Balanced(*named(4), **options)  # type: ignore[arg-type]  # options are passed on
    for name in ("0002", "0003"):
        balanced.call_at(name, Outcome.SUCCESS, 20)
    for name in ("0000", "0001"):
        balanced.call_at(name, Outcome.FAILURE, 20)
        balanced.clock.advance(1.0)
    assert balanced.names(EndpointEjected) == ["0000", "0001"]
    return balanced


def test_case_28_below_half_the_ejected_are_called_as_well() -> None:
    balanced = half_ejected()
    assert set(balanced.calls(40)) == {"0002", "0003"}
    balanced.update(*named(4), *critical("x"))
    assert set(balanced.calls(40)) == {"0000", "0001", "0002", "0003"}
    (entered,) = (each for each in balanced.events if isinstance(each, PanicEntered))
    assert (entered.name, entered.level, entered.subject) == ("balancer.panic_entered", "error", "catalog")
    assert entered.details() == {"healthy": 2, "total": 5}
    assert balanced.set.describe()["panic"] is True


def test_panic_is_told_once_when_it_begins_and_once_when_it_ends() -> None:
    balanced = half_ejected()
    balanced.update(*named(4), *critical("x"))
    for _ in range(10):
        balanced.clock.advance(0.1)
        balanced.call()
        balanced.update(*named(4), *critical("x", "y"))
    balanced.update(*named(4), instance("x"))
    balanced.calls(10)
    edges = [each for each in balanced.events if isinstance(each, PanicEntered | PanicLeft)]
    assert [each.name for each in edges] == ["balancer.panic_entered", "balancer.panic_left"]
    assert edges[1].details() == {"healthy": 3, "total": 5}
    assert set(balanced.calls(40)) == {"0002", "0003", "x"}


def test_a_probe_under_panic_does_not_end_and_begin_it() -> None:
    balanced = half_ejected()
    balanced.update(*named(4), *critical("x"))
    for _ in range(60):
        balanced.clock.advance(0.2)
        balanced.call_at("0000", Outcome.FAILURE)
        balanced.call_at("0001", Outcome.FAILURE)
    assert len(balanced.names(PanicEntered)) == 1
    assert balanced.names(PanicLeft) == []


def test_instances_in_maintenance_neither_count_nor_are_called() -> None:
    balanced = half_ejected()
    away = [instance(f"m{each}", status=Status.MAINTENANCE) for each in range(20)]
    balanced.update(*named(4), *away)
    assert set(balanced.calls(40)) == {"0002", "0003"}
    balanced.set.reconfigure(type(balanced.set.options)(panic="all"))
    balanced.update(*away, *critical("c", "d"))
    assert set(balanced.calls(40)) == {"c", "d"}


def test_the_critical_are_called_only_if_that_is_chosen() -> None:
    for panic, called in (("ejection", {"0000"}), ("off", {"0000"}), ("all", {"0000", "x", "y"})):
        balanced = Balanced(*named(1), *critical("x", "y"), panic=panic)
        assert set(balanced.calls(30)) == called
        assert len(balanced.names(PanicEntered)) == (panic == "all")


def test_nobody_is_called_where_all_are_critical_unless_that_is_chosen() -> None:
    assert Balanced(*critical("x", "y")).set.pick() is None
    assert set(Balanced(*critical("x", "y"), panic="all").calls(10)) == {"x", "y"}


def test_switched_off_the_ejected_stay_ejected() -> None:
    balanced = half_ejected(panic="off")
    balanced.update(*named(4), *critical("x"))
    assert set(balanced.calls(40)) == {"0002", "0003"}
    assert balanced.names(PanicEntered) == []


@pytest.mark.parametrize(("below", "panics"), [(0.3, False), (0.41, True)])
def test_how_few_is_too_few_can_be_set(below: float, panics: bool) -> None:
    balanced = half_ejected(panic_below=below)
    balanced.update(*named(4), *critical("x"))
    balanced.call()
    assert balanced.set.describe()["panic"] is panics


def test_case_28_panic_never_overrides_a_refusal() -> None:
    """An open breaker stands; only the comparison with the peers is given up."""
    balanced = half_ejected()
    balanced.update(*named(4), *critical("x"))
    refusing = [balanced.endpoint("0000"), balanced.endpoint("0002")]
    called = balanced.calls(100, ready=lambda each: each not in refusing)
    assert set(called) == {"0001", "0003"}
    assert balanced.set.pick(ready=lambda each: False) is None


def test_a_healthy_second_tier_takes_the_calls_though_there_is_panic() -> None:
    home = critical("a", "b", "c")
    abroad = [instance("d", priority=1), instance("e", priority=1)]
    balanced = Balanced(*home, *abroad, panic="all")
    assert set(balanced.calls(40)) == {"d", "e"}


def test_panic_across_tiers_counts_all_of_them() -> None:
    balanced = half_ejected()
    balanced.update(*named(4), *(instance(f"far{each}", priority=1) for each in range(4)))
    balanced.call()
    assert balanced.set.describe()["panic"] is False
    balanced.update(
        *named(4), *(instance(each.id, priority=1, status=each.status) for each in critical(*"wxyz"))
    )
    balanced.call()
    assert balanced.set.describe()["panic"] is True


def test_under_panic_too_the_ones_passed_over_are_the_last_resort() -> None:
    balanced = Balanced(instance("a"), *critical("x", "y"), panic="all")
    balanced.call_at("a", Outcome.IGNORED, retry_after=20.0)
    assert set(balanced.calls(10)) == {"x", "y"}
    assert balanced.call(exclude=[balanced.endpoint("x"), balanced.endpoint("y")]) == "a"


def test_a_weak_second_tier_is_no_panic_while_most_of_all_are_healthy() -> None:
    balanced = Balanced(*named(8), instance("far", priority=1))
    for each in balanced.set.endpoints()[1:8]:
        balanced.call_at(each.instance.id, Outcome.SUCCESS, 20)
    balanced.call_at("0000", Outcome.FAILURE, 20)
    away = [instance(each.id, priority=1, status=each.status) for each in critical(*"xyz")]
    balanced.update(*named(8), instance("far", priority=1), *away)
    assert "0000" not in balanced.calls(80)
    assert balanced.names(PanicEntered) == []
