"""What is kept for one instance, and its choice for one attempt."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from chassis.breaker import BreakerState, CircuitBreaker
from chassis.client._module import HTTPModule
from chassis.client._pool import InstancePool
from chassis.core import CircuitOpen, Outcome, Permit, monotonic
from chassis.loadbalancing import Endpoint, EndpointSet, Pick

SPARED_FOR = 10.0
"""Seconds for which an instance's probe is left to a call that may be sent again, if none comes."""


class InstanceState:
    """What is kept for one instance for as long as discovery tells of it.

    :param new_pool: makes the connections under one HTTP module, plain or with TLS.
    :ivar refusals: how many attempts in a row could not connect to it; 0 once one could. Threads that
        count at the same instant may count one too few.
    :ivar spared_since: when a call first left its probe to a better one, and none has come to it since.
    """

    __slots__ = ("_new_pool", "_pools", "breaker", "refusals", "spared_since")

    def __init__(self, breaker: CircuitBreaker, new_pool: Callable[[HTTPModule, bool], InstancePool]) -> None:
        self.breaker = breaker
        self.refusals = 0
        self.spared_since: float | None = None
        self._new_pool = new_pool
        self._pools: dict[tuple[str, bool], InstancePool] = {}

    def pool(self, http: HTTPModule, *, secure: bool) -> InstancePool:
        """The connections to this instance under one HTTP module, plain or with TLS."""
        key = http.name, secure
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools.setdefault(key, self._new_pool(http, secure))
        return pool

    def close(self) -> None:
        """Close the connections."""
        for pool in list(self._pools.values()):  # another thread may add one
            pool.close()


@dataclass(slots=True)
class Admitted:
    """One instance that may be called: chosen, and let in by its breaker."""

    pick: Pick[InstanceState]
    permit: Permit

    @property
    def probing(self) -> bool:
        """Whether this call is finding out, or may be, if its instance works again."""
        endpoint = self.pick.endpoint
        return endpoint.ejected or endpoint.state.breaker.state is BreakerState.HALF_OPEN

    def settle(
        self, outcome: Outcome, error: BaseException | None = None, *, retry_after: float | None = None
    ) -> None:
        """Give both back; a second time does nothing."""
        self.permit.settle(outcome, error)
        self.pick.settle(outcome, retry_after=retry_after)

    def refused(self, limit: int | None) -> None:
        """The attempt, settled by now, could not connect: ``limit`` of these in a row open the breaker."""
        state = self.pick.endpoint.state
        state.refusals = count = state.refusals + 1
        if limit is not None and count >= limit:
            state.breaker.trip(f"{count} consecutive attempts could not connect", permit=self.permit)

    def answered(self) -> None:
        """The headers have come: what follows is at the reader's pace, and makes the instance no slower."""
        state = self.pick.endpoint.state
        state.refusals = 0
        state.breaker.answered(self.permit)
        self.pick.answered()


def is_ready(endpoint: Endpoint[InstanceState]) -> bool:
    """Whether its breaker would let a call in."""
    return endpoint.state.breaker.ready


def on_probation(endpoint: Endpoint[InstanceState]) -> bool:
    """Whether a call to it, if it gets one, is its probe: its breaker is half open, or its ejection over."""
    if endpoint.ejected and endpoint.probe_due(monotonic()):
        return True
    return endpoint.state.breaker.state is BreakerState.HALF_OPEN


def left_to_others(endpoint: Endpoint[InstanceState]) -> bool:
    """Whether a call that may not be sent again leaves the endpoint's probe to one that may.

    That costs nobody an error if the probe fails. But such calls may not be made at all, or by hash
    never come here; so it does that for a while, and no more until one of them came.
    """
    if not on_probation(endpoint):
        return False
    state, now = endpoint.state, monotonic()
    since = state.spared_since  # read once: a call in another thread may take it back
    if since is None:
        since = state.spared_since = now
    return now - since < SPARED_FOR


def soonest(endpoints: Iterable[Endpoint[InstanceState]]) -> float | None:
    """Seconds until the first of their breakers lets a call in; None if nobody knows."""
    waits = (each.state.breaker.retry_after for each in endpoints)
    return min((each for each in waits if each is not None), default=None)


def admit(
    endpoints: EndpointSet[InstanceState],
    tried: Collection[Endpoint[InstanceState]],
    *,
    key: str | None = None,
    spare: Callable[[Endpoint[InstanceState]], bool] | None = None,
) -> Admitted | None:
    """An instance that is not among ``tried`` and whose breaker lets this call in; None if there is none.

    :param key: what to balance by, where that is done by hash.
    :param spare: tells of one that would let it in, and is not to be called for it.
    """
    passed_over = list(tried)
    while True:
        pick = endpoints.pick(exclude=passed_over, ready=is_ready, key=key, spare=spare)
        if pick is None:
            return None
        try:
            return Admitted(pick, pick.endpoint.state.breaker.acquire())
        except CircuitOpen:
            # Another call took its last probe since ``ready`` was asked: another instance's turn.
            pick.settle(Outcome.IGNORED)
            passed_over.append(pick.endpoint)
