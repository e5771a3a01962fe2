"""What the policies make of unlike instances, simulated: seeded, on a clock set by hand."""

from __future__ import annotations

from benchmarks._simulation import SCENARIOS, simulate

CALLS = 6_000
ALIKE, SLOW, UNLIKE, DEAR = SCENARIOS


def test_where_all_are_alike_the_policies_are_too() -> None:
    turns = simulate(ALIKE, "round_robin", calls=CALLS)
    for policy in ("least_request", "peak_ewma"):
        assert 0.9 < simulate(ALIKE, policy, calls=CALLS).throughput / turns.throughput < 1.1


def test_one_slow_instance_of_ten_halves_round_robin_and_hardly_touches_the_others() -> None:
    turns = simulate(SLOW, "round_robin", calls=CALLS)
    for policy in ("least_request", "peak_ewma"):
        seen = simulate(SLOW, policy, calls=CALLS)
        assert seen.throughput > 2 * turns.throughput
        assert seen.p99 < turns.p99 / 3


def test_weights_make_good_what_turns_get_wrong_where_capacity_differs() -> None:
    turns = simulate(UNLIKE, "round_robin", calls=CALLS)
    for policy in ("weighted", "least_request", "peak_ewma"):
        assert simulate(UNLIKE, policy, calls=CALLS).p99 < turns.p99


def test_calls_of_unlike_cost_wait_less_where_calls_in_flight_are_counted() -> None:
    turns = simulate(DEAR, "round_robin", calls=CALLS)
    assert simulate(DEAR, "least_request", calls=CALLS).throughput > turns.throughput
