"""What is kept for one instance, and its choice for one attempt."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from chassis.breaker import BreakerState, CircuitBreaker
from chassis.client._module import HTTPModule
from chassis.client._pool import InstancePool
from chassis.core import CircuitOpen, Instance, Outcome, Permit
from chassis.loadbalancing import Endpoint, EndpointSet, Pick


class InstanceState:
    """What is kept for one instance for as long as discovery tells of it.

    :param new_pool: makes the connections under one HTTP module.
    :ivar refusing: whether the last attempt to connect to it failed.
    """

    __slots__ = ("_instance", "_new_pool", "_pools", "breaker", "refusing")

    def __init__(
        self,
        instance: Instance,
        breaker: CircuitBreaker,
        new_pool: Callable[[Instance, HTTPModule], InstancePool],
    ) -> None:
        self.breaker = breaker
        self.refusing = False
        self._instance = instance
        self._new_pool = new_pool
        self._pools: dict[str, InstancePool] = {}

    def pool(self, http: HTTPModule) -> InstancePool:
        """The connections to this instance under one HTTP module."""
        pool = self._pools.get(http.name)
        if pool is None:
            pool = self._pools.setdefault(http.name, self._new_pool(self._instance, http))
        return pool

    def close(self) -> None:
        """Close the connections."""
        for pool in self._pools.values():
            pool.close()


@dataclass(slots=True)
class Admitted:
    """One instance that may be called: chosen, and let in by its breaker."""

    pick: Pick[InstanceState]
    permit: Permit

    def settle(
        self, outcome: Outcome, error: BaseException | None = None, *, retry_after: float | None = None
    ) -> None:
        """Give both back; a second time does nothing."""
        self.permit.settle(outcome, error)
        self.pick.settle(outcome, retry_after=retry_after)


def is_ready(endpoint: Endpoint[InstanceState]) -> bool:
    """Whether its breaker would let a call in."""
    return endpoint.state.breaker.ready


def is_closed(endpoint: Endpoint[InstanceState]) -> bool:
    """Whether its breaker is closed: a probe is no call to be made for good measure."""
    return endpoint.state.breaker.state is BreakerState.CLOSED


def admit(
    endpoints: EndpointSet[InstanceState],
    tried: Collection[Endpoint[InstanceState]],
    *,
    ready: Callable[[Endpoint[InstanceState]], bool] = is_ready,
    key: str | None = None,
) -> Admitted | None:
    """An instance that is not among ``tried`` and whose breaker lets this call in; None if there is none.

    :param key: what to balance by, where that is done by hash.
    """
    passed_over = list(tried)
    while True:
        pick = endpoints.pick(exclude=passed_over, ready=ready, key=key)
        if pick is None:
            return None
        try:
            return Admitted(pick, pick.endpoint.state.breaker.acquire())
        except CircuitOpen:
            # Another call took its last probe since ``ready`` was asked: another instance's turn.
            pick.settle(Outcome.IGNORED)
            passed_over.append(pick.endpoint)
