"""The policies by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chassis.core.contracts import Balancer
from chassis.loadbalancing._consistent_hash import ConsistentHash
from chassis.loadbalancing._least_loaded import LeastRequest, PeakEwma
from chassis.loadbalancing._options import BalancingOptions
from chassis.loadbalancing._ordered import Ordered
from chassis.loadbalancing._random import Random
from chassis.loadbalancing._round_robin import RoundRobin
from chassis.loadbalancing._weighted import Weighted

Make = Callable[[BalancingOptions, Callable[[], float]], Balancer]


@dataclass(frozen=True, slots=True)
class Kind:
    """What the endpoint set must know of a policy.

    :param make: makes one; each tier has its own.
    :param whole: it is given all instances of its tier, of every status, with the unfit among them:
        a ring made of the fit alone would move other instances' keys.
    :param strict: the first tier that has a fit instance takes all calls.
    :param turns: it counts turns, so that further attempts must have one of their own: if a call
        that fails takes two turns, each call meets the failing one of two instances first.
    """

    make: Make
    whole: bool = False
    strict: bool = False
    turns: bool = False


_KINDS: dict[str, Kind] = {
    "round_robin": Kind(lambda options, draw: RoundRobin(draw=draw), turns=True),
    "random": Kind(lambda options, draw: Random(draw=draw)),
    "weighted": Kind(lambda options, draw: Weighted(draw=draw), turns=True),
    "least_request": Kind(lambda options, draw: LeastRequest(choices=options.choices, draw=draw)),
    "peak_ewma": Kind(
        lambda options, draw: PeakEwma(failure_cost=options.failure_cost, choices=options.choices, draw=draw)
    ),
    "consistent_hash": Kind(lambda options, draw: ConsistentHash(draw=draw), whole=True),
    "ordered": Kind(lambda options, draw: Ordered(), strict=True),
}


def kind_of(options: BalancingOptions) -> Kind:
    """What ``options.policy`` names, or is."""
    policy = options.policy
    return Kind(lambda options, draw: policy()) if callable(policy) else _KINDS[policy]


def name_of(options: BalancingOptions) -> str:
    """What ``options.policy`` is called."""
    policy = options.policy
    return getattr(policy, "__qualname__", repr(policy)) if callable(policy) else policy
