"""Who may be called now: the filters, written once for all policies.

In this order: status, maintenance, subset, ejection, what an instance asked for by Retry-After,
tier. The result holds until an instance's standing changes or time alone changes it, so that a
pick reads one reference and filters nothing.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

from chassis.core.contracts import Balancer
from chassis.core.instances import Status
from chassis.loadbalancing._endpoint import Endpoint, S, TierKey, may_be_called
from chassis.loadbalancing._options import BalancingOptions, Panic

ASK_READY_EVERY = 1.0
"""Seconds between two looks at how many of a tier are ready; only where there are several tiers."""
_STEPS = 100  # a share that warms up is raised in so many
_SHORTEST_STEP = 0.05


@dataclass(frozen=True, slots=True)
class Group(Generic[S]):
    """The instances of one tier as the registry tells of them.

    :param members: all of them.
    :param ring: those that a ring is made of: all, or this process's subset.
    :param able: those that may be called: passing or warning, and of this process's subset.
    :param callable_part: what part of those that count the passing and warning are.
    :param total: how many count: all but those in maintenance.
    """

    key: TierKey
    members: tuple[Endpoint[S], ...]
    ring: tuple[Endpoint[S], ...]
    able: tuple[Endpoint[S], ...]
    callable_part: float
    total: int


@dataclass(frozen=True, slots=True)
class Tier(Generic[S]):
    """The candidates of one tier.

    :param balancer: chooses for first attempts.
    :param again: chooses for further attempts.
    :param candidates: as they are given them.
    :param allowed: those that may be called, where the candidates are more than these.
    :param upto: the tier takes the calls whose draw is below this, and not below the tier before.
    """

    key: TierKey
    balancer: Balancer
    again: Balancer
    candidates: tuple[Endpoint[S], ...]
    allowed: frozenset[Endpoint[S]] | None
    upto: float


class View(Generic[S]):
    """Who may be called.

    :ivar tiers: those with candidates, in the order they are turned to.
    :ivar reserve: able, but passed over: called when no other is left.
    :ivar until: when it must be made anew.
    :ivar panic: whether unhealthy ones are among the candidates because too few are healthy.
    """

    __slots__ = ("healthy", "panic", "reserve", "tiers", "total", "until")

    def __init__(
        self,
        tiers: tuple[Tier[S], ...] = (),
        reserve: tuple[Endpoint[S], ...] = (),
        *,
        until: float = math.inf,
        panic: bool = False,
        healthy: int = 0,
        total: int = 0,
    ) -> None:
        self.tiers = tiers
        self.reserve = reserve
        self.until = until
        self.panic = panic
        self.healthy = healthy
        self.total = total


def group_of(
    key: TierKey, members: Sequence[Endpoint[S]], subset: int, rank: Callable[[Endpoint[S]], int]
) -> Group[S]:
    """A tier's instances, and those of them that this process calls."""
    able = tuple(each for each in members if may_be_called(each.instance))
    total = sum(1 for each in members if each.instance.status is not Status.MAINTENANCE)
    part = len(able) / total if total else 0.0
    ring = members = tuple(members)
    if 0 < subset < len(able):
        # Rendezvous: who leaves is replaced by one other, and all others stay.
        mine = set(heapq.nsmallest(subset, able, key=rank))
        ring = able = tuple(each for each in able if each in mine)
    return Group(key, members, ring, able, part, total)


def tier_loads(health: Sequence[float], spill_over: float) -> list[float]:
    """What share of the calls each tier takes, by the healthy fraction of each (Envoy's rule).

    A tier takes up to ``health * spill_over`` of all calls, the next one what is left. If all
    together cannot take all, each takes as much more.
    """
    loads: list[float] = []
    left = 1.0
    for each in health:
        load = min(left, each * spill_over) if each else 0.0
        loads.append(load)
        left -= load
    total = sum(loads)
    return [load / total for load in loads] if total else loads


def build_view(
    groups: Iterable[Group[S]],
    now: float,
    options: BalancingOptions,
    *,
    unready: Collection[Endpoint[S]],
    balancers: Callable[[TierKey], tuple[Balancer, Balancer]],
    whole: bool,
    strict: bool,
    before: Mapping[TierKey, tuple[Endpoint[S], ...]],
) -> View[S]:
    """Filter the instances as they stand ``now``.

    :param unready: those that refuse calls by themselves; they stay candidates, but carry no load.
    :param balancers: gives a tier's two, for first and for further attempts.
    :param whole: the balancer is given the whole tier.
    :param strict: the first tier with a fit instance takes all calls.
    :param before: candidates of the last view, used again if they are the same.
    """
    groups = tuple(groups)
    until = _warm_up_and_find_next_edge(groups, now, options)
    healthy, total = _healthy(groups)
    alarmed = options.panic != "off" and healthy < options.panic_below * total
    allowed = _allowed(groups, now, options.panic if alarmed else "off")
    panic = alarmed and any(
        not may_be_called(each.instance) or each.ejection.active for some in allowed for each in some
    )
    health = _health(groups, allowed, now, unready)
    loads = tier_loads(health, math.inf if strict else options.spill_over)

    tiers: list[Tier[S]] = []
    reserve: list[Endpoint[S]] = []
    upto = 0.0
    for group, some, load in zip(groups, allowed, loads, strict=True):
        upto += load
        if alarmed or len(some) < len(group.able):
            chosen = set(some)
            reserve += (each for each in group.able if each not in chosen)
        if some:
            candidates = group.ring if whole else tuple(some)
            if before.get(group.key) == candidates:
                candidates = before[group.key]
            among = frozenset(some) if whole else None
            tiers.append(Tier(group.key, *balancers(group.key), candidates, among, upto))
    return View(tuple(tiers), tuple(reserve), until=until, panic=panic, healthy=round(healthy), total=total)


def _warm_up_and_find_next_edge(groups: Sequence[Group[S]], now: float, options: BalancingOptions) -> float:
    """Give everybody the share of this moment; returns when time alone changes something again."""
    until = math.inf if len(groups) < 2 else now + ASK_READY_EVERY
    for group in groups:
        for each in group.able:
            if each.warm(now, options.slow_start):
                until = min(until, now + max(options.slow_start / _STEPS, _SHORTEST_STEP))
            for edge in (each.ejection.until, each.told_until):
                if now < edge < until:
                    until = edge
    return until


def _healthy(groups: Iterable[Group[S]]) -> tuple[float, int]:
    """How many are passing or warning and not ejected (of a subset, as many as of all), and of how many."""
    healthy = 0.0
    total = 0
    for group in groups:
        total += group.total
        if group.able:
            ejected = sum(each.ejection.active for each in group.able)
            healthy += group.callable_part * group.total * (1 - ejected / len(group.able))
    return healthy, total


def _allowed(groups: Sequence[Group[S]], now: float, panic: Panic) -> list[list[Endpoint[S]]]:
    """Per tier who may be called, in the order of the ids."""
    if panic == "all":
        allowed = [
            [each for each in group.members if each.instance.status is not Status.MAINTENANCE]
            for group in groups
        ]
    elif panic == "ejection":
        allowed = [list(group.able) for group in groups]
    else:
        allowed = [[each for each in group.able if each.ejection.until <= now] for group in groups]
    if not any(allowed):
        # The last ones are kept whatever they did.
        allowed = [list(group.able) for group in groups]
    left_alone = [[each for each in some if each.told_until <= now] for some in allowed]
    # And whatever they asked for.
    return left_alone if any(left_alone) else allowed


def _health(
    groups: Sequence[Group[S]],
    allowed: Sequence[Sequence[Endpoint[S]]],
    now: float,
    unready: Collection[Endpoint[S]],
) -> list[float]:
    """Per tier which part of it can carry calls. Whose probe is due can: it would never be made else."""
    health = []
    for group, some in zip(groups, allowed, strict=True):
        fit = sum(
            each.ejection.until <= now and may_be_called(each.instance) and each not in unready
            for each in some
        )
        health.append(group.callable_part * fit / max(len(group.able), 1))
    if not any(health):
        health = [len(some) / max(group.total, 1) for group, some in zip(groups, allowed, strict=True)]
    return health
