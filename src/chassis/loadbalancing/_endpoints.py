from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, TypeVar

from chassis.core.clock import Clock, monotonic
from chassis.core.events import EventBus, events
from chassis.core.forks import tell_after_fork
from chassis.core.instances import Instance, Snapshot, Status
from chassis.core.outcomes import Outcome
from chassis.loadbalancing._latency import Latency
from chassis.loadbalancing._options import BalancingOptions
from chassis.loadbalancing._round_robin import RoundRobin

S = TypeVar("S")

# How often the balancer is asked before a list of the fit is made for it. With a thousand candidates
# the list costs more than all the rest. With few, a rotation finds a fit one within one round, and
# fairly: an unfit one's turn is passed over, while a list would shift everybody's turns.
_ASKS = 4
_FEW = 16


class Endpoint(Generic[S]):
    """One instance as this process calls it.

    :ivar instance: its newest data; its ``key`` never changes.
    :ivar state: what the set's owner keeps for it.
    :ivar in_flight: picks not settled yet.
    :ivar successes: picks settled as SUCCESS so far.
    :ivar failures: picks settled as FAILURE so far.
    :ivar departed: whether the instance has left the service, so that it is picked no more.
    """

    __slots__ = ("departed", "failures", "in_flight", "instance", "latency", "state", "successes")

    def __init__(self, instance: Instance, state: S) -> None:
        self.instance = instance
        self.state = state
        self.latency = Latency()
        self.in_flight = 0
        self.successes = 0
        self.failures = 0
        self.departed = False

    def __repr__(self) -> str:
        return f"Endpoint({self.instance.id!r}, {self.instance.address!r}, in_flight={self.in_flight})"


class Pick(Generic[S]):
    """The chosen endpoint, for one call; to be settled once.

    :ivar instance: the instance's data when it was chosen.
    """

    __slots__ = ("_answered", "_owner", "_settled", "_since", "endpoint", "instance")

    def __init__(self, endpoint: Endpoint[S], owner: EndpointSet[S], now: float) -> None:
        self.endpoint = endpoint
        self.instance = endpoint.instance
        self._owner = owner
        self._since = now
        self._answered = False
        self._settled = False

    def answered(self) -> None:
        """Say that the answer's headers are there: the latency ends here, however long its body."""
        self._owner._answered(self)

    def settle(self, outcome: Outcome, *, retry_after: float | None = None) -> None:
        """Say how the call ended; a second time does nothing.

        :param retry_after: seconds after which the instance asked to be called again (429, 503).
        """
        self._owner._settle(self, outcome, retry_after)


class EndpointSet(Generic[S]):
    """The endpoints of one service, and the choice among them. Safe to use from any thread.

    State is kept by :attr:`Instance.key <chassis.core.instances.Instance.key>`: it survives every
    change of an instance's data or status, and is disposed of when the instance has left and its
    last call is settled. Neither ``create``, ``dispose``, ``ready`` nor the balancer is called with
    a lock held.

    :param service: the service's name, for messages and events.
    :param options: how to balance.
    :param create: makes what is kept for an instance.
    :param dispose: ends it; must not raise. It runs in the thread of the update or of the last call.
    :param clock: a monotonic clock.
    :param draw: draws from [0, 1).
    :param bus: where its events go.
    """

    def __init__(
        self,
        service: str,
        options: BalancingOptions,
        *,
        create: Callable[[Instance], S],
        dispose: Callable[[S], None],
        clock: Clock = monotonic,
        draw: Callable[[], float] = random.random,
        bus: EventBus = events,
    ) -> None:
        self.service = service
        self.options = options
        self._balancer = RoundRobin(draw=draw)
        self._create = create
        self._dispose = dispose
        self._clock = clock
        self._draw = draw
        self._bus = bus
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        # Both are replaced, never changed: a pick reads one reference and needs no lock for it.
        self._endpoints: tuple[Endpoint[S], ...] = ()
        self._callable: tuple[Endpoint[S], ...] = ()
        self._closed = False
        tell_after_fork(self)

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest snapshot; None before the first."""
        return self._snapshot

    def endpoints(self) -> tuple[Endpoint[S], ...]:
        """All endpoints, of every status, ordered by instance id."""
        return self._endpoints

    def callable_endpoints(self) -> tuple[Endpoint[S], ...]:
        """Those whose registry calls them passing or warning, ordered by instance id."""
        return self._callable

    def update(self, snapshot: Snapshot) -> None:
        """Follow ``snapshot``. Updates come one after the other, as a subscription brings them.

        :raises Exception: what ``create`` raised; then nothing has changed.
        """
        known = {each.instance.key: each for each in self._endpoints}
        instances = {each.key: each for each in sorted(snapshot.instances, key=lambda each: each.key)}
        made: dict[tuple[str, str, int], Endpoint[S]] = {}
        try:
            for key, instance in instances.items():
                if key not in known:
                    made[key] = Endpoint(instance, self._create(instance))
        except BaseException:
            self._dispose_all(made.values())
            raise
        with self._lock:
            if self._closed:
                unwanted = list(made.values())
            else:
                self._snapshot = snapshot
                for key, instance in instances.items():
                    if key in known:
                        known[key].instance = instance
                endpoints = tuple(known.get(key) or made[key] for key in instances)
                unwanted = self._replace(endpoints)
        self._dispose_all(unwanted)

    def pick(
        self,
        *,
        exclude: Collection[Endpoint[S]] = (),
        ready: Callable[[Endpoint[S]], bool] | None = None,
        key: str | None = None,
    ) -> Pick[S] | None:
        """Choose an endpoint for one call; None if none is fit.

        Fit is an instance that its registry calls passing or warning, that is not in ``exclude``,
        and for which ``ready`` (asked of few, not of all) is true.
        """
        while True:
            endpoint = self._choose(self._callable, exclude, ready)
            if endpoint is None:
                return None
            with self._lock:
                if not endpoint.departed:
                    endpoint.in_flight += 1
                    return Pick(endpoint, self, self._clock())
            # It left between the choice and now, and its state may be gone: choose again.

    def close(self) -> None:
        """Dispose of everything that no call holds, the rest when its calls are settled."""
        with self._lock:
            self._closed = True
            unwanted = self._replace(())
        self._dispose_all(unwanted)

    def reconfigure(self, options: BalancingOptions) -> None:
        """Follow other options from now on."""
        self.options = options

    def describe(self) -> Mapping[str, Any]:
        """The policy, and how each instance stands."""
        now = self._clock()
        return {
            "policy": self.options.policy,
            "instances": {
                each.instance.id: {
                    "address": each.instance.address,
                    "status": each.instance.status.value,
                    "weight": each.instance.weight,
                    "in_flight": each.in_flight,
                    "successes": each.successes,
                    "failures": each.failures,
                    "latency": each.latency.at(now, self.options.latency_decay),
                }
                for each in self._endpoints
            },
        }

    def after_fork_in_child(self) -> None:
        """Make the lock anew: see :mod:`chassis.core.forks`."""
        self._lock = threading.Lock()

    def _choose(
        self,
        candidates: tuple[Endpoint[S], ...],
        exclude: Collection[Endpoint[S]],
        ready: Callable[[Endpoint[S]], bool] | None,
    ) -> Endpoint[S] | None:
        if not candidates:
            return None
        for _ in range(len(candidates) if len(candidates) <= _FEW else _ASKS):
            endpoint: Endpoint[S] = self._balancer.choose(candidates)
            if endpoint not in exclude and (ready is None or ready(endpoint)):
                return endpoint
        fit = [each for each in candidates if each not in exclude and (ready is None or ready(each))]
        return self._balancer.choose(fit) if fit else None

    def _replace(self, endpoints: tuple[Endpoint[S], ...]) -> list[Endpoint[S]]:
        """Make ``endpoints`` the set (the lock is held); returns those to dispose of now."""
        kept = set(endpoints)
        gone = [each for each in self._endpoints if each not in kept]
        for each in gone:
            each.departed = True
        self._endpoints = endpoints
        self._callable = tuple(each for each in endpoints if _may_be_called(each.instance))
        return [each for each in gone if each.in_flight == 0]

    def _answered(self, pick: Pick[S]) -> None:
        with self._lock:
            if pick._answered or pick._settled:
                return
            pick._answered = True
            now = self._clock()
            pick.endpoint.latency.observe(now - pick._since, now, self.options.latency_decay)

    def _settle(self, pick: Pick[S], outcome: Outcome, retry_after: float | None) -> None:
        endpoint = pick.endpoint
        with self._lock:
            if pick._settled:
                return
            pick._settled = True
            if not pick._answered and outcome is not Outcome.IGNORED:
                now = self._clock()
                endpoint.latency.observe(now - pick._since, now, self.options.latency_decay)
            endpoint.in_flight -= 1
            if outcome is Outcome.SUCCESS:
                endpoint.successes += 1
            elif outcome is Outcome.FAILURE:
                endpoint.failures += 1
            over = endpoint.departed and endpoint.in_flight == 0
        if over:
            self._dispose(endpoint.state)

    def _dispose_all(self, endpoints: Collection[Endpoint[S]]) -> None:
        for each in endpoints:
            self._dispose(each.state)


def _may_be_called(instance: Instance) -> bool:
    return instance.status in (Status.PASSING, Status.WARNING)
