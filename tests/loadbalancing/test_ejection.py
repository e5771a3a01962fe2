"""Ejection: whoever fails where its peers do not is passed over, and comes back by one call."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.core import Outcome, Status
from chassis.loadbalancing import BalancingOptions, EndpointEjected, EndpointReturned
from chassis.loadbalancing._ejection import Ejection, outliers, suspicious
from tests.loadbalancing.balanced import Balanced, instance, named

DEFAULTS = BalancingOptions()


def half() -> float:
    return 0.5


def failing(*names: str, among: int = 4, **options: Any) -> Balanced:
    """A set in which ``names`` have failed all their calls and the others none."""
    balanced = Balanced(*named(among), draw=random.Random(5).random, **options)
    for each in balanced.set.endpoints():
        if each.instance.id not in names:
            balanced.call_at(each.instance.id, Outcome.SUCCESS, 20)
    for name in names:
        balanced.call_at(name, Outcome.FAILURE, 20)
        balanced.clock.advance(1.0)
    return balanced


# Who stands out.


def test_one_that_fails_where_its_peers_do_not_stands_out() -> None:
    assert outliers([(20, 0), (20, 11), (20, 1)], DEFAULTS) == [
        (1, "55% of its 20 calls failed, 2% elsewhere")
    ]


@pytest.mark.parametrize(
    ("counts", "why"),
    [
        ([(20, 10), (20, 0)], "not more than half of its calls failed"),
        ([(19, 19), (20, 0)], "it had too few calls"),
        ([(20, 20), (19, 0)], "its peers had too few calls"),
        ([(20, 20)], "it has no peers"),
        ([(20, 12), (20, 8)], "its peers fail as well"),
        ([(100, 100)] * 8, "all fail alike"),
        ([], "there is nobody"),
        ([(0, 0)] * 5, "nothing was called"),
    ],
)
def test_case_28_nobody_stands_out_when(counts: list[tuple[int, int]], why: str) -> None:
    assert outliers(counts, DEFAULTS) == [], why


def test_among_five_or_more_one_far_below_the_mean_stands_out() -> None:
    """A third of the calls failing is much where no other fails, though it is not half."""
    four, five = [(100, 0)] * 3, [(100, 0)] * 4
    assert outliers([*five, (100, 33)], DEFAULTS) == [(4, "33% of its 100 calls failed, 7% is the mean")]
    assert outliers([*four, (100, 33)], DEFAULTS) == []
    assert outliers([*five, (100, 33)], BalancingOptions(ejection_deviations=None)) == []


def test_all_that_stand_out_are_found_the_worst_first() -> None:
    counts = [(20, 18), (20, 20), *[(20, 0)] * 8]
    assert [position for position, _ in outliers(counts, DEFAULTS)] == [1, 0]


def test_twice_as_many_failures_as_its_peers_have_is_clear_enough() -> None:
    assert [position for position, _ in outliers([(20, 12), (20, 6)], DEFAULTS)] == [0]
    assert outliers([(20, 12), (20, 7)], DEFAULTS) == []


def test_where_rates_are_spread_anyway_nobody_is_far_from_the_mean() -> None:
    assert outliers([*[(100, 0)] * 3, *[(100, 45)] * 3], DEFAULTS) == []


@pytest.mark.parametrize(
    ("calls", "failures", "worth"), [(20, 4, True), (20, 3, False), (19, 19, False), (1000, 150, False)]
)
def test_the_peers_are_looked_at_only_when_its_own_counts_are_bad(
    calls: int, failures: int, worth: bool
) -> None:
    assert suspicious(calls, failures, DEFAULTS) is worth


def test_one_failure_more_than_the_others_is_no_outlier() -> None:
    """Among five of which one has failed once, that one is always two deviations away."""
    assert outliers([*[(20, 0)] * 4, (20, 1)], DEFAULTS) == []
    assert outliers([*[(1000, 0)] * 30, (1000, 150)], DEFAULTS) == []


@given(st.integers(0, 9999), st.integers(5, 60), st.floats(0, 0.1))
def test_luck_alone_makes_hardly_any_outlier(seed: int, size: int, rate: float) -> None:
    luck = random.Random(seed)
    counts = [(50, sum(luck.random() < rate for _ in range(50))) for _ in range(size)]
    assert len(outliers(counts, DEFAULTS)) <= 1


@given(
    st.lists(st.integers(20, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), max_size=12)
)
def test_the_worst_stand_out_first_and_never_all(counts: list[tuple[int, int]]) -> None:
    found = outliers(counts, DEFAULTS)
    rates = [counts[position][1] / counts[position][0] for position, _ in found]
    assert rates == sorted(rates, reverse=True)
    assert len({position for position, _ in found}) == len(found) < max(1, len(counts))


# How long.


def test_each_time_it_is_out_twice_as_long_up_to_the_limit() -> None:
    ejection = Ejection()
    lengths = []
    now = 0.0
    for _ in range(8):
        lengths.append(ejection.begin(now, DEFAULTS, half))
        now = ejection.until
        ejection.end(now)
    assert lengths == pytest.approx([5, 10, 20, 40, 80, 160, 300, 300])


def test_the_length_is_drawn_within_a_fifth() -> None:
    assert Ejection().begin(0.0, DEFAULTS, lambda: 0.0) == pytest.approx(4.0)
    assert Ejection().begin(0.0, DEFAULTS, lambda: 0.999999) == pytest.approx(6.0, abs=0.001)


def test_each_good_window_takes_one_doubling_back() -> None:
    ejection = Ejection()
    for _ in range(4):
        ejection.begin(0.0, DEFAULTS, half)
        ejection.end(0.0)
    assert ejection.begin(29.0, DEFAULTS, half) == pytest.approx(20)  # 4 less 2: the third time
    ejection.end(29.0)
    assert ejection.begin(1000.0, DEFAULTS, half) == pytest.approx(5)


def test_a_hundred_ejections_do_not_overflow() -> None:
    ejection = Ejection()
    for _ in range(5000):
        ejection.begin(0.0, DEFAULTS, half)
    assert ejection.begin(0.0, DEFAULTS, half) == pytest.approx(300)


# In the set.


def test_case_25_the_one_that_fails_is_called_no_more_after_a_bounded_number_of_failures() -> None:
    """A frozen instance costs at most the minimum of failures, whatever the policy makes of it."""
    for policy in ("round_robin", "random", "weighted", "least_request", "peak_ewma"):
        balanced = Balanced(*named(4), policy=policy)
        failures = 0
        for _ in range(2000):
            pick = balanced.pick()
            bad = pick.instance.id == "0002"
            failures += bad
            pick.settle(Outcome.FAILURE if bad else Outcome.SUCCESS)
            balanced.clock.advance(0.001)
        assert failures <= 22, policy
        # Peak EWMA leaves it alone of itself, long before it can be judged.
        assert balanced.names(EndpointEjected) == (["0002"] if policy != "peak_ewma" else [])


def test_an_ejection_is_told_once_with_its_reason() -> None:
    balanced = failing("0001", ejection_time=5.0)
    (event,) = balanced.events
    assert isinstance(event, EndpointEjected)
    assert (event.name, event.level, event.subject) == ("balancer.ejected", "warning", "catalog")
    assert event.details() == {
        "instance": "0001",
        "address": "10.0.0.1:80",
        "reason": "100% of its 20 calls failed, 0% elsewhere",
        "ejected_for": event.ejected_for,
        "times": 1,
    }
    assert 4.0 <= event.ejected_for <= 6.0
    told = balanced.set.describe()["instances"]["0001"]
    assert told["ejected_for"] == pytest.approx(event.ejected_for - 1.0)
    assert balanced.set.describe()["instances"]["0000"]["ejected_for"] is None


def test_after_its_time_exactly_one_call_probes_it() -> None:
    balanced = failing("0001")
    assert "0001" not in balanced.calls(100)
    balanced.clock.advance(6.0)
    picks = [balanced.pick() for _ in range(20)]
    (probe,) = [each for each in picks if each.instance.id == "0001"]
    probe.settle(Outcome.SUCCESS)
    assert balanced.names(EndpointReturned) == ["0001"]
    assert balanced.calls(100)["0001"] == 25


@pytest.mark.parametrize("policy", ["round_robin", "random", "least_request", "peak_ewma", "weighted"])
def test_a_probe_comes_soon_whatever_the_policy(policy: str) -> None:
    balanced = failing("0001", policy=policy)
    balanced.clock.advance(6.0)
    called = [balanced.call() for _ in range(40)]
    assert "0001" in called
    assert balanced.names(EndpointReturned) == ["0001"]


def test_a_probe_that_fails_ejects_it_for_longer() -> None:
    balanced = failing("0001")
    balanced.clock.advance(6.0)
    balanced.call_at("0001", Outcome.FAILURE)
    first, second = (each for each in balanced.events if isinstance(each, EndpointEjected))
    assert (first.times, second.times) == (1, 2)
    assert 8.0 <= second.ejected_for <= 12.0
    assert second.reason == "a call that probed it failed"
    balanced.clock.advance(7.9)
    assert "0001" not in balanced.calls(100)


def test_case_38_a_probe_that_is_cancelled_leaves_the_next_call_to_probe() -> None:
    balanced = failing("0001")
    balanced.clock.advance(6.0)
    picks = [balanced.pick() for _ in range(8)]
    (probe,) = [each for each in picks if each.instance.id == "0001"]
    probe.settle(Outcome.IGNORED)
    assert [balanced.pick().instance.id for _ in range(8)].count("0001") == 1


def test_a_probe_that_never_ends_does_not_keep_it_out_for_ever() -> None:
    balanced = failing("0001")
    balanced.clock.advance(6.0)
    [balanced.pick() for _ in range(8)]
    balanced.clock.advance(29.0)
    assert "0001" not in balanced.calls(20)
    balanced.clock.advance(1.0)
    assert balanced.calls(20)["0001"] > 0
    assert balanced.names(EndpointReturned) == ["0001"]


def test_one_that_returns_warms_up() -> None:
    balanced = failing("0001", slow_start=30.0)
    balanced.clock.advance(6.0)
    balanced.call_at("0001", Outcome.SUCCESS)
    assert balanced.calls(3100)["0001"] == pytest.approx(100, abs=30)


def test_one_whose_check_passes_again_returns_at_once() -> None:
    balanced = failing("0001")
    others = [each for each in named(4) if each.id != "0001"]
    balanced.update(instance("0001", status=Status.WARNING), *others)
    assert "0001" not in balanced.calls(20)
    balanced.update(instance("0001"), *others)
    (event,) = (each for each in balanced.events if isinstance(each, EndpointReturned))
    assert event.details() == {
        "instance": "0001",
        "address": "10.0.0.1:80",
        "reason": "its check passes again",
    }
    assert event.name == "balancer.returned"
    assert balanced.calls(20)["0001"] == 5


def test_the_same_news_again_does_not_return_it() -> None:
    balanced = failing("0001")
    balanced.update(*named(4))
    assert "0001" not in balanced.calls(20)
    assert balanced.names(EndpointReturned) == []


def test_case_28_no_more_than_the_cap_are_ejected() -> None:
    balanced = failing("0000", "0001", "0002", "0003", among=10, ejection_cap=0.3)
    assert len(balanced.names(EndpointEjected)) == 3
    assert set(balanced.calls(700)) >= {f"000{each}" for each in range(4, 10)}
    assert len(balanced.calls(700)) == 7


def test_case_28_the_cap_holds_within_one_comparison_too() -> None:
    """Several stand out in the same moment: as many of them go as there are places."""
    balanced = Balanced(*named(10), ejection_cap=0.2, ejection_deviations=None)
    for number in range(4, 10):
        balanced.call_at(f"{number:04}", Outcome.SUCCESS, 40)
    for number in range(4):
        balanced.call_at(f"{number:04}", Outcome.FAILURE, 19)
    balanced.call_at("0000", Outcome.IGNORED)
    balanced.clock.advance(2.0)
    for number in range(4):
        # None is judged before its twentieth call, and all of them have it at once.
        balanced.endpoint(f"{number:04}").recent.record(balanced.clock.now, marked=True)
    balanced.call_at("0000", Outcome.FAILURE)
    assert len(balanced.names(EndpointEjected)) == 2


def test_case_28_when_all_fail_nobody_is_ejected_and_all_are_called() -> None:
    balanced = Balanced(*named(4))
    for _ in range(400):
        balanced.call(Outcome.FAILURE)
        balanced.clock.advance(0.01)
    assert balanced.events == []
    assert len(balanced.calls(40)) == 4


def test_case_29_the_only_instance_is_never_ejected() -> None:
    balanced = Balanced(instance("a"))
    for _ in range(200):
        assert balanced.call(Outcome.FAILURE) == "a"
        balanced.clock.advance(0.05)
    assert balanced.events == []


def test_case_29_the_last_one_of_two_is_never_ejected() -> None:
    balanced = failing("0000", among=2, ejection_cap=1.0)
    assert balanced.names(EndpointEjected) == ["0000"]
    # It does well again, asked as a last resort, while the other one fails.
    balanced.call_at("0000", Outcome.SUCCESS, 20)
    balanced.call_at("0001", Outcome.FAILURE, 60)
    balanced.clock.advance(1.0)
    balanced.call_at("0001", Outcome.FAILURE, 60)
    assert balanced.names(EndpointEjected) == ["0000"]
    assert balanced.call() == "0001"


def test_case_29_the_ejected_are_called_when_no_other_is_left() -> None:
    """The others left, or were tried, or refuse: an instance that may fail is better than none."""
    balanced = failing("0001", panic="off")
    others = [each for each in balanced.set.endpoints() if each.instance.id != "0001"]
    assert balanced.call(exclude=others) == "0001"
    assert balanced.call(ready=lambda each: each not in others) == "0001"
    balanced.update(instance("0001"))
    assert balanced.call() == "0001"


def test_without_a_cap_nobody_is_ejected() -> None:
    assert failing("0001", ejection_cap=0).names(EndpointEjected) == []


def test_switching_ejection_off_returns_the_ejected() -> None:
    balanced = failing("0001")
    balanced.set.reconfigure(BalancingOptions(ejection_cap=0))
    assert balanced.names(EndpointReturned) == ["0001"]
    assert len(balanced.calls(40)) == 4


def test_calls_that_begin_before_and_end_after_the_ejection_do_not_end_it() -> None:
    balanced = Balanced(*named(4))
    for name in ("0000", "0002", "0003"):
        balanced.call_at(name, Outcome.SUCCESS, 20)
    late = balanced.pick(exclude=[each for each in balanced.set.endpoints() if each.instance.id != "0001"])
    balanced.call_at("0001", Outcome.FAILURE, 20)
    late.settle(Outcome.SUCCESS)
    assert balanced.names(EndpointEjected) == ["0001"]
    assert balanced.names(EndpointReturned) == []


def test_failures_of_long_ago_do_not_count() -> None:
    balanced = Balanced(*named(2))
    balanced.call_at("0000", Outcome.SUCCESS, 40)
    balanced.call_at("0001", Outcome.FAILURE, 19)
    balanced.clock.advance(10.0)
    balanced.call_at("0000", Outcome.SUCCESS, 40)
    balanced.call_at("0001", Outcome.FAILURE, 19)
    assert balanced.events == []
    balanced.call_at("0001", Outcome.FAILURE, 1)
    assert balanced.names(EndpointEjected) == ["0001"]


def test_the_peers_are_compared_at_most_ten_times_a_window() -> None:
    """An outage of a thousand must not cost a comparison with a thousand for every failure."""
    balanced = Balanced(*named(4))
    for name in ("0000", "0003"):
        balanced.call_at(name, Outcome.SUCCESS, 40)
    balanced.call_at("0001", Outcome.FAILURE, 20)
    balanced.call_at("0002", Outcome.FAILURE, 20)
    assert balanced.names(EndpointEjected) == ["0001"]
    balanced.clock.advance(1.0)
    balanced.call_at("0002", Outcome.FAILURE)
    assert balanced.names(EndpointEjected) == ["0001", "0002"]


# What an instance asks for.


@pytest.mark.parametrize("outcome", list(Outcome))
def test_one_that_asks_to_be_left_alone_is_passed_over_for_that_long(outcome: Outcome) -> None:
    balanced = Balanced(*named(3))
    balanced.call_at("0001", outcome, retry_after=2.0)
    assert set(balanced.calls(30)) == {"0000", "0002"}
    assert balanced.set.describe()["instances"]["0001"]["waits_for"] == pytest.approx(2.0)
    balanced.clock.advance(2.0)
    assert len(balanced.calls(30)) == 3
    assert balanced.set.describe()["instances"]["0001"]["waits_for"] is None


def test_case_30_an_hour_is_not_heeded_for_an_hour() -> None:
    balanced = Balanced(*named(3), retry_after_max=30.0)
    balanced.call_at("0001", Outcome.IGNORED, retry_after=3600.0)
    balanced.clock.advance(29.0)
    assert len(balanced.calls(30)) == 2
    balanced.clock.advance(1.0)
    assert len(balanced.calls(30)) == 3


def test_case_30_the_last_ones_are_called_whatever_they_ask_for() -> None:
    balanced = Balanced(*named(3))
    balanced.call_at("0000", Outcome.IGNORED, retry_after=20.0)
    balanced.call_at("0001", Outcome.IGNORED, retry_after=20.0)
    assert set(balanced.calls(30)) == {"0002"}
    balanced.call_at("0002", Outcome.IGNORED, retry_after=20.0)
    assert len(balanced.calls(30)) == 3


def test_case_30_among_the_last_ones_the_policy_chooses_still() -> None:
    balanced = Balanced(instance("a"), instance("b", weight=5), policy="ordered")
    for name in "ab":
        balanced.call_at(name, Outcome.IGNORED, retry_after=20.0)
    assert balanced.calls(30) == {"b": 30}


def test_a_shorter_wish_does_not_shorten_a_longer_one_and_zero_heeds_none() -> None:
    balanced = Balanced(*named(3))
    balanced.call_at("0001", Outcome.IGNORED, retry_after=20.0)
    balanced.call_at("0001", Outcome.IGNORED, retry_after=1.0)
    balanced.clock.advance(10.0)
    assert len(balanced.calls(30)) == 2
    heedless = Balanced(*named(3), retry_after_max=0)
    heedless.call_at("0001", Outcome.IGNORED, retry_after=20.0)
    assert len(heedless.calls(30)) == 3


# Who is spared.


@pytest.mark.parametrize(
    "policy", ["round_robin", "random", "weighted", "least_request", "peak_ewma", "ordered"]
)
def test_a_call_that_spares_whose_probe_is_due_is_not_its_probe(policy: str) -> None:
    """It goes elsewhere, and the next call that spares nobody finds out."""
    balanced = failing("0000", among=3, policy=policy, ejection_time=5.0)
    ejected = balanced.endpoint("0000")
    balanced.clock.advance(7.0)
    assert ejected.probe_due(balanced.clock.now)

    def due(endpoint: Any) -> bool:
        return bool(endpoint.probe_due(balanced.clock.now))

    assert "0000" not in balanced.calls(30, spare=due)
    assert ejected.ejected
    assert balanced.names(EndpointReturned) == []
    balanced.call_at("0000", Outcome.SUCCESS)
    assert balanced.names(EndpointReturned) == ["0000"]


def test_who_spares_is_told_that_nobody_is_left_rather_than_given_one_passed_over() -> None:
    """Neither an ejected one nor one that asked to be left alone."""
    balanced = failing("0000", among=2, retry_after_max=30.0)
    balanced.call_at("0001", Outcome.SUCCESS, retry_after=20.0)
    others = [balanced.endpoint("0001")]
    assert balanced.set.pick(exclude=others, spare=lambda each: False) is None
    balanced.call(exclude=others)
    assert balanced.set.pick(exclude=[balanced.endpoint("0000")], spare=lambda each: True) is None


def test_whom_one_call_spares_carries_his_load_all_the_same() -> None:
    """What is asked of a single call makes no tier look sick to the others."""
    balanced = Balanced(*named(2, zone="here"), *[instance("far", zone="there")], zone="here")
    near = [balanced.endpoint("0000"), balanced.endpoint("0001")]
    balanced.clock.advance(2.0)
    assert balanced.call(ready=lambda each: True, spare=lambda each: each in near) == "far"
    assert "far" not in balanced.calls(50, ready=lambda each: True)
