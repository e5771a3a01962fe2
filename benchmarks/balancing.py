"""What the choice of an instance costs a call: each policy, with 3, 20, 200 and 1,000 instances.

A case is a pick and its settlement, as the client makes them: with a question whether the instance
is ready, which is answered by a plain function here, and with a key. Beside them stands what a
Python user has otherwise: a choice from a list (blacksmith draws one per client), or a cycle over
it. Those count no calls in flight, learn nothing and follow no change.
"""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any, get_args

from benchmarks._simulation import SCENARIOS, simulate
from benchmarks.harness import Benchmark, Case, bytes_each, calls, main
from chassis.core import EventBus, Instance, Outcome, Snapshot
from chassis.loadbalancing import BalancingOptions, Endpoint, EndpointSet, PolicyName

ARGUMENT = 7
BARE = "bare call"
SIZES = (3, 20, 200, 1_000)


def bare(value: int) -> int:
    """What a pick is compared with."""
    return value


def ready(endpoint: Endpoint[None]) -> bool:
    return True


def instances(count: int, *, weight: int = 1) -> tuple[Instance, ...]:
    return tuple(
        Instance(id=f"{number:04}", service="measured", host="10.0.0.1", port=80, weight=weight)
        for number in range(count)
    )


def endpoint_set(policy: PolicyName, count: int) -> EndpointSet[None]:
    endpoints: EndpointSet[None] = EndpointSet(
        "measured",
        BalancingOptions(policy=policy),
        create=lambda instance: None,
        dispose=lambda state: None,
        bus=EventBus(),
    )
    endpoints.update(Snapshot(service="measured", instances=instances(count)))
    return endpoints


def pick_and_settle(endpoints: EndpointSet[None]) -> bool:
    pick: Any = endpoints.pick(ready=ready, key="user-1234")
    pick.settle(Outcome.SUCCESS)
    return True


def build(bench: Benchmark) -> None:
    bench.case(Case(BARE, calls(bare, ARGUMENT), ARGUMENT))
    for size in SIZES:
        for policy in get_args(PolicyName):
            name = f"{policy}, {size:,} instances"
            run = calls(pick_and_settle, endpoint_set(policy, size))
            bench.case(Case(name, run, True, baseline=BARE, group=f"{size:,} instances"))
            bench.target(name, at_most=160)
        peers(bench, size)
    swaps(bench)
    memory(bench)
    if not bench.quick:
        policies(bench)


def peers(bench: Benchmark, size: int) -> None:
    """A choice from a list, and a cycle over it."""
    addresses = [each.url for each in instances(size)]
    turns = itertools.cycle(addresses)
    ways: dict[str, Callable[[list[str]], bool]] = {
        "random.choice": lambda those: bool(random.choice(those)),
        "itertools.cycle": lambda those: bool(next(turns)),
    }
    for way, function in ways.items():
        name = f"{way}, {size:,} addresses"
        bench.case(Case(name, calls(function, addresses), True, baseline=BARE, group=f"{size:,} instances"))


def swaps(bench: Benchmark) -> None:
    """What a new snapshot costs, the same or with every weight changed."""
    for policy in ("round_robin", "weighted", "consistent_hash"):
        took = {}
        for size in (100, 1_000):
            endpoints = endpoint_set(policy, size)
            snapshots = [Snapshot(service="measured", instances=instances(size, weight=w)) for w in (1, 2)]
            took[size] = statistics.median(swap(endpoints, each) for each in snapshots * 10)
        per = took[1_000] / took[100]
        bench.figure(
            f"snapshot swap at 1,000, {policy}", 1e3 * took[1_000], "ms", note=f"{per:.1f} times that at 100"
        )


def swap(endpoints: EndpointSet[None], snapshot: Snapshot) -> float:
    """Seconds until the first pick from ``snapshot`` is made."""
    began = perf_counter()
    endpoints.update(snapshot)
    pick_and_settle(endpoints)
    return perf_counter() - began


def memory(bench: Benchmark) -> None:
    """What an instance takes in the set, called once; its own data is not counted."""
    known = instances(1_001)

    def used(number: int) -> Endpoint[None]:
        endpoint: Endpoint[None] = Endpoint(known[number], None)
        endpoint.recent.record(1.0)
        endpoint.latency.observe(0.01, 1.0)
        return endpoint

    bench.figure("memory per instance", bytes_each(used), "bytes")


def policies(bench: Benchmark) -> None:
    """What the policies make of a slow instance, simulated."""
    for scenario in SCENARIOS[:2]:
        for policy in ("round_robin", "least_request", "peak_ewma"):
            seen = simulate(scenario, policy)
            bench.figure(
                f"99 % within, {scenario.name}, {policy}",
                1e3 * seen.p99,
                "ms",
                note=f"{seen.throughput:,.0f} calls/s, simulated",
            )


if __name__ == "__main__":
    main("balancing", build)
