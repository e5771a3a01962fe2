"""Policies of balancing on simulated instances: whom calls wait for, without a machine's noise.

Closed loop: each of some callers makes its next call as soon as the last one is answered. An
instance works at so many calls at once and queues the others; how long it works at one is drawn
from an exponential distribution. Time is simulated and luck is seeded: the same figures each time.

    python -m benchmarks._simulation
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chassis.core import EventBus, Instance, Outcome, Snapshot
from chassis.loadbalancing import BalancingOptions, EndpointSet, Pick, PolicyName

POLICIES: tuple[PolicyName, ...] = ("round_robin", "random", "weighted", "least_request", "peak_ewma")


@dataclass(frozen=True)
class Node:
    """An instance: mean seconds of a call, calls it works at together, its weight in the registry."""

    seconds: float = 0.010
    parallel: int = 1_000
    weight: int = 1


@dataclass(frozen=True)
class Scenario:
    """What is simulated. Of the calls, ``dear`` (a fraction) take ``times`` as long."""

    name: str
    nodes: Sequence[Node]
    callers: int = 40
    dear: float = 0.0
    times: float = 1.0


@dataclass(frozen=True)
class Seen:
    """Calls a second, and latencies in seconds."""

    throughput: float
    median: float
    p99: float


SCENARIOS = (
    Scenario("ten alike", [Node()] * 10),
    Scenario("one of ten 20 times slower", [*[Node()] * 9, Node(seconds=0.200)]),
    Scenario(
        "two of six half as large, with half the weight",
        [*[Node(parallel=8, weight=2)] * 4, *[Node(parallel=4)] * 2],
    ),
    Scenario("one call in fifty takes 30 times as long", [Node(parallel=4)] * 10, dear=0.02, times=30.0),
)


def simulate(scenario: Scenario, policy: PolicyName, *, calls: int = 20_000, seed: int = 1) -> Seen:
    """Make ``calls`` calls under ``policy``; the first tenth is not looked at."""
    luck = random.Random(seed)
    now = 0.0
    endpoints: EndpointSet[int] = EndpointSet(
        "simulated",
        BalancingOptions(policy=policy),
        create=lambda instance: instance.port,
        dispose=lambda number: None,
        clock=lambda: now,
        draw=luck.random,
        bus=EventBus(),
    )
    instances = (
        Instance(id=f"{number:03}", service="simulated", host="node", port=number, weight=node.weight)
        for number, node in enumerate(scenario.nodes)
    )
    endpoints.update(Snapshot(service="simulated", instances=tuple(instances)))
    working = [0] * len(scenario.nodes)
    waiting: list[deque[tuple[float, Pick[int]]]] = [deque() for _ in scenario.nodes]
    ends: list[tuple[float, int, float, Pick[int]]] = []
    order = itertools.count()
    latencies: list[tuple[float, float]] = []

    def work(began: float, pick: Pick[int]) -> None:
        number = pick.endpoint.state
        seconds = luck.expovariate(1 / scenario.nodes[number].seconds)
        seconds *= scenario.times if luck.random() < scenario.dear else 1.0
        working[number] += 1
        heapq.heappush(ends, (now + seconds, next(order), began, pick))

    def call() -> None:
        pick: Any = endpoints.pick()
        number = pick.endpoint.state
        if working[number] < scenario.nodes[number].parallel:
            work(now, pick)
        else:
            waiting[number].append((now, pick))

    for _ in range(scenario.callers):
        call()
    while len(latencies) < calls:
        now, _, began, pick = heapq.heappop(ends)
        latencies.append((now, now - began))
        pick.settle(Outcome.SUCCESS)
        number = pick.endpoint.state
        working[number] -= 1
        if waiting[number]:
            work(*waiting[number].popleft())
        call()
    looked_at = latencies[calls // 10 :]
    seconds = sorted(latency for _, latency in looked_at)
    return Seen(
        throughput=len(looked_at) / (looked_at[-1][0] - looked_at[0][0]),
        median=statistics.median(seconds),
        p99=seconds[int(len(seconds) * 0.99)],
    )


def table(calls: int = 100_000) -> str:
    """All policies in all scenarios, as a table for the docs."""
    lines = []
    for scenario in SCENARIOS:
        lines += [
            f"**{scenario.name}** ({scenario.callers} calls in flight)",
            "",
            "| policy | calls a second | median | 99 % within |",
            "|---|---|---|---|",
        ]
        for policy in POLICIES:
            seen = simulate(scenario, policy, calls=calls)
            lines.append(
                f"| `{policy}` | {seen.throughput:,.0f} | {1e3 * seen.median:.0f} ms | {1e3 * seen.p99:.0f} ms |"
            )
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
