from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Generic

from chassis.core.clock import Clock, monotonic
from chassis.core.events import EventBus, events
from chassis.core.forks import tell_after_fork
from chassis.core.instances import Instance, Snapshot
from chassis.core.outcomes import Outcome
from chassis.loadbalancing._candidate import any_fit, share_of
from chassis.loadbalancing._consistent_hash import stable_hash
from chassis.loadbalancing._endpoint import Endpoint, S, by_name
from chassis.loadbalancing._machine import LONG_AGO, BalancingMachine
from chassis.loadbalancing._options import BalancingOptions
from chassis.loadbalancing._view import Tier, View


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
    last call is settled. Neither ``create``, ``dispose``, ``ready`` nor a balancer's choice is called
    with a lock held.

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
        self._create = create
        self._dispose = dispose
        self._clock = clock
        self._draw = draw
        self._bus = bus
        # Re-entrant: a collection that starts inside may end a forgotten call of this very thread.
        self._lock = threading.RLock()
        self._machine: BalancingMachine[S] = BalancingMachine(service, options, draw)
        self._snapshot: Snapshot | None = None
        self._closed = False
        # Picks that were made before a fork belong to the parent.
        self._forked_at = LONG_AGO
        tell_after_fork(self)

    @property
    def options(self) -> BalancingOptions:
        """The options it follows now."""
        return self._machine.options

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest snapshot; None before the first."""
        return self._snapshot

    def endpoints(self) -> tuple[Endpoint[S], ...]:
        """All endpoints, of every status, ordered by instance id."""
        return self._machine.endpoints

    def by_name(self) -> dict[str, Endpoint[S]]:
        """All endpoints as they are described: by instance id, with the address where one id is two instances."""
        return by_name(self._machine.endpoints)

    def callable_endpoints(self) -> tuple[Endpoint[S], ...]:
        """Those whose registry calls them passing or warning, and that are of this process's subset."""
        return tuple(each for group in self._machine.groups for each in group.able)

    def update(self, snapshot: Snapshot) -> None:
        """Follow ``snapshot``. Updates come one after the other, as a subscription brings them.

        :raises Exception: what ``create`` raised; then nothing has changed.
        """
        known = {each.instance.key for each in self._machine.endpoints}
        in_order = sorted(snapshot.instances, key=lambda each: each.key)
        instances = {each.key: _with_weight(each) for each in in_order}
        states: dict[tuple[str, str, int], S] = {}
        try:
            for key, instance in instances.items():
                if key not in known:
                    states[key] = self._create(instance)
        except BaseException:
            self._dispose_all(states.values())
            raise
        with self._lock:
            if self._closed:
                unwanted = list(states.values())
            else:
                self._snapshot = snapshot
                # Here, as the options may have changed while states were made.
                made = {key: Endpoint(instances[key], state, self.options) for key, state in states.items()}
                departed = self._machine.follow(instances, made, self._clock())
                unwanted = [each.state for each in departed]
        self._dispose_all(unwanted)
        self._tell()

    def pick(
        self,
        *,
        exclude: Collection[Endpoint[S]] = (),
        ready: Callable[[Endpoint[S]], bool] | None = None,
        key: str | None = None,
        spare: Callable[[Endpoint[S]], bool] | None = None,
    ) -> Pick[S] | None:
        """Choose an endpoint for one call; None if none is fit.

        Fit is an instance that its registry calls passing or warning, that is not in ``exclude``,
        and for which ``ready`` (asked of few, not of all) is true. Those that are ejected or asked
        to be left alone are chosen only when no other is fit.

        :param key: calls of one key go to one instance, if the policy is ``consistent_hash``.
        :param spare: tells of a fit one that this call is not for: a call that is to find nothing out
            spares whose probe is due, say. Given it, the ejected and those left alone are chosen not
            even when no other is fit.
        """
        if exclude:
            fit = _untried(exclude, ready)
        else:
            fit = ready if ready is not None else _anyone
        if spare is not None:
            fit = _but(fit, spare)
        machine = self._machine
        while True:
            now = self._clock()
            view = machine.view
            if now >= view.until:
                view = self._refresh(now, ready)
            tiers = view.tiers
            if len(tiers) == 1 and tiers[0].allowed is None and not exclude:
                endpoint = tiers[0].balancer.choose(tiers[0].candidates, fit, key=key, now=now)
            else:
                endpoint = self._from_tiers(tiers, fit, key, now, again=bool(exclude))
            if endpoint is None and view.reserve and spare is None:
                endpoint = any_fit(view.reserve, fit, self._draw, share_of)
            with self._lock:
                # Else somebody changed who may be called between the choice and now, and the
                # chosen one's state may even be gone: choose again.
                if view is machine.view:
                    if endpoint is None:
                        return None
                    pick = Pick(endpoint, self, now)
                    machine.picked(endpoint, pick, now)
                    return pick

    def close(self) -> None:
        """Dispose of everything that no call holds, the rest when its calls are settled."""
        with self._lock:
            self._closed = True
            departed = self._machine.leave(self._clock())
        self._dispose_all(each.state for each in departed)
        self._tell()

    def reconfigure(self, options: BalancingOptions) -> None:
        """Follow other options from now on; what was counted and estimated is kept."""
        with self._lock:
            self._machine.reconfigure(options, self._clock())
        self._tell()

    def describe(self) -> Mapping[str, Any]:
        """The policy and options, whether there is panic, and how each instance stands.

        Per instance, by its id: ``tier`` counts from 0; ``share`` is below 1 while it warms up;
        ``ejected_for`` and ``waits_for`` are the seconds it is still passed over, or None;
        ``latency`` is the estimate in seconds, or None.
        """
        with self._lock:
            return self._machine.describe(self._clock())

    def after_fork_in_child(self) -> None:
        """Make the lock anew (see :mod:`chassis.core.forks`), and be a client of its own."""
        self._lock = threading.RLock()
        self._forked_at = self._clock()
        self._machine.begin_anew(self._forked_at)

    def _from_tiers(
        self,
        tiers: tuple[Tier[S], ...],
        fit: Callable[[Endpoint[S]], bool],
        key: str | None,
        now: float,
        *,
        again: bool,
    ) -> Endpoint[S] | None:
        """By the tiers' loads; where the tier has none that is fit, in their order."""
        first = None
        if len(tiers) > 1:
            if key is None or tiers[0].allowed is None:
                point = self._draw()
            else:
                # Calls of one key go to one tier, too, for as long as the loads stay.
                point = stable_hash(f"tier of {key}") / 2.0**64
            first = next((each for each in tiers if point < each.upto), tiers[0])
            chosen = _choose(first, fit, key, now, again=again)
            if chosen is not None:
                return chosen
        for tier in tiers:
            if tier is not first:
                chosen = _choose(tier, fit, key, now, again=again)
                if chosen is not None:
                    return chosen
        return None

    def _refresh(self, now: float, ready: Callable[[Endpoint[S]], bool] | None) -> View[S]:
        """The view as of ``now``, when the last one's time is up."""
        groups = self._machine.groups
        unready: frozenset[Endpoint[S]] = frozenset()
        if len(groups) > 1 and ready is not None:
            unready = frozenset(each for group in groups for each in group.able if not ready(each))
        with self._lock:
            self._machine.refresh(now, unready)
            view = self._machine.view
        self._tell()
        return view

    def _answered(self, pick: Pick[S]) -> None:
        with self._lock:
            if not pick._answered and not pick._settled:
                pick._answered = True
                now = self._clock()
                pick.endpoint.latency.observe(now - pick._since, now)

    def _settle(self, pick: Pick[S], outcome: Outcome, retry_after: float | None) -> None:
        endpoint = pick.endpoint
        with self._lock:
            if pick._settled or pick._since <= self._forked_at:
                return
            pick._settled = True
            now = self._clock()
            seconds = None if pick._answered else now - pick._since
            self._machine.settled(endpoint, pick, outcome, now, seconds=seconds, retry_after=retry_after)
            over = endpoint.departed and endpoint.in_flight == 0
        if over:
            self._dispose(endpoint.state)
        if self._machine.untold:
            self._tell()

    def _tell(self) -> None:
        """Emit what happened. No lock is held: a listener may do anything, picking included."""
        if self._machine.untold:
            with self._lock:
                untold, self._machine.untold = self._machine.untold, []
            for event in untold:
                self._bus.emit(event)

    def _dispose_all(self, states: Iterable[S]) -> None:
        for each in states:
            self._dispose(each)


def _choose(
    tier: Tier[S], fit: Callable[[Endpoint[S]], bool], key: str | None, now: float, *, again: bool
) -> Endpoint[S] | None:
    balancer = tier.again if again else tier.balancer
    allowed = tier.allowed
    if allowed is None:
        return balancer.choose(tier.candidates, fit, key=key, now=now)

    def allowed_and_fit(each: Endpoint[S]) -> bool:
        return each in allowed and fit(each)

    return balancer.choose(tier.candidates, allowed_and_fit, key=key, now=now)


def _with_weight(instance: Instance) -> Instance:
    """``instance``, with a weight that can be divided by, whatever its source says."""
    return instance if instance.weight >= 1 else replace(instance, weight=1)


def _untried(
    exclude: Collection[Endpoint[S]], ready: Callable[[Endpoint[S]], bool] | None
) -> Callable[[Endpoint[S]], bool]:
    if ready is None:
        return lambda each: each not in exclude
    return lambda each: each not in exclude and ready(each)


def _but(
    fit: Callable[[Endpoint[S]], bool], spare: Callable[[Endpoint[S]], bool]
) -> Callable[[Endpoint[S]], bool]:
    return lambda each: fit(each) and not spare(each)


def _anyone(each: Any) -> bool:
    return True
