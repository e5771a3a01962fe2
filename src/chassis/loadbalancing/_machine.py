"""What an endpoint set knows and decides: no clock, no lock, no call of anybody else's code.

It keeps the instances in tiers, who of them may be called (:mod:`chassis.loadbalancing._view`), and
what their calls have shown: an instance that fails where its peers do not is ejected, and comes
back by one call that succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Generic

from chassis.core.contracts import Balancer
from chassis.core.events import Event
from chassis.core.instances import Instance, Status
from chassis.core.outcomes import Outcome
from chassis.loadbalancing._consistent_hash import stable_hash
from chassis.loadbalancing._ejection import NEVER_EJECTED, Ejection, outliers, suspicious
from chassis.loadbalancing._endpoint import Endpoint, S, TierKey, by_name
from chassis.loadbalancing._events import EndpointEjected, EndpointReturned, PanicEntered, PanicLeft
from chassis.loadbalancing._options import BalancingOptions
from chassis.loadbalancing._policies import kind_of, name_of
from chassis.loadbalancing._view import Group, View, build_view, group_of

LONG_AGO = float("-inf")
_SWEEPS = 10  # comparisons with the peers in a window, at most


class BalancingMachine(Generic[S]):
    """The standing of all endpoints. Its owner holds a lock around each method.

    :ivar endpoints: all of them, ordered by instance key.
    :ivar groups: the same by tier.
    :ivar view: who may be called. It and the two above are replaced, never changed (but for the
        view's ``until``), so that they can be read without the lock.
    :ivar untold: events that happened and were not told yet; the owner takes them out.
    """

    __slots__ = (
        "_balancers",
        "_draw",
        "_kind",
        "_next_sweep",
        "_seed",
        "_service",
        "_unready",
        "endpoints",
        "groups",
        "options",
        "untold",
        "view",
    )

    def __init__(self, service: str, options: BalancingOptions, draw: Callable[[], float]) -> None:
        self.options = options
        self.endpoints: tuple[Endpoint[S], ...] = ()
        self.groups: tuple[Group[S], ...] = ()
        self.view: View[S] = View()
        self.untold: list[Event] = []
        self._service = service
        self._draw = draw
        self._kind = kind_of(options)
        self._balancers: dict[TierKey, tuple[Balancer, Balancer]] = {}
        self._unready: frozenset[Endpoint[S]] = frozenset()
        self._seed = 0.0
        self._next_sweep = LONG_AGO

    # Who there is.

    def follow(
        self,
        instances: Mapping[tuple[str, str, int], Instance],
        made: Mapping[tuple[str, str, int], Endpoint[S]],
        now: float,
    ) -> list[Endpoint[S]]:
        """Take ``instances``, in this order, for all there are.

        :param made: the endpoints of those that were not known before.
        :returns: the endpoints that are needed no more.
        """
        known = {each.instance.key: each for each in self.endpoints}
        reweighted = False
        for key, instance in instances.items():
            if key in known:
                reweighted |= instance.weight != known[key].instance.weight
                self._renew(known[key], instance, now)
        if not known.keys().isdisjoint(instances):
            # Where all are new nobody can spare them anything.
            for endpoint in made.values():
                self._warm_up(endpoint, now)
        return self._replace(tuple(known.get(key) or made[key] for key in instances), now, anew=reweighted)

    def leave(self, now: float) -> list[Endpoint[S]]:
        """Know nobody any more; returns the endpoints that are needed no more."""
        return self._replace((), now)

    def reconfigure(self, options: BalancingOptions, now: float) -> None:
        """Follow ``options`` from now on; what was counted and estimated is kept."""
        before, self.options = self.options, options
        self._kind = kind_of(options)
        made_of = ("policy", "choices", "failure_cost")
        if any(getattr(before, field) != getattr(options, field) for field in made_of):
            self._balancers = {}
        for each in self.endpoints:
            each.latency.decay = options.latency_decay
            if options.ejection_window != before.ejection_window:
                each.recent.resize(options.ejection_window, now)
            if each.ejection.active and not options.ejection_cap:
                self._return(each, now, "ejection was switched off")
        self._replace(self.endpoints, now)

    def begin_anew(self, now: float) -> None:
        """In a forked child: the calls in flight are the parent's; other turns, and another subset."""
        self._balancers = {}
        self._seed = self._draw()
        for each in self.endpoints:
            each.in_flight = 0
            each.rank = -1
            if each.ejection.probe is not None:
                each.ejection.probe_again(now)
        self._replace(self.endpoints, now)

    def refresh(self, now: float, unready: frozenset[Endpoint[S]]) -> None:
        """Make the view anew when its time is up.

        :param unready: those that refuse calls by themselves, an open breaker for one.
        """
        if now >= self.view.until:
            self._unready = unready
            self._look(now)

    # What calls show.

    def picked(self, endpoint: Endpoint[S], pick: object, now: float) -> None:
        """A call begins; of an ejected endpoint whose time is up, it is the probe."""
        endpoint.in_flight += 1
        if endpoint.ejection.active and endpoint.ejection.due(now):
            endpoint.ejection.probed_by(pick, now)
            self._look(now)

    def settled(
        self,
        endpoint: Endpoint[S],
        pick: object,
        outcome: Outcome,
        now: float,
        *,
        seconds: float | None,
        retry_after: float | None,
    ) -> None:
        """A call ends.

        :param seconds: how long it took, if that is not known yet.
        """
        endpoint.in_flight -= 1
        if outcome is Outcome.SUCCESS:
            endpoint.successes += 1
            endpoint.recent.record(now)
            if seconds is not None:
                endpoint.latency.observe(seconds, now)
            if endpoint.ejection.probe is pick:
                self._return(endpoint, now, "a call that probed it succeeded")
        elif outcome is Outcome.FAILURE:
            endpoint.failures += 1
            endpoint.recent.record(now, marked=True)
            # One that fails fast must not look quick.
            endpoint.latency.observe(max(seconds or 0.0, self.options.failure_cost), now)
            if not endpoint.departed:
                self._judge(endpoint, pick, now)
        elif endpoint.ejection.probe is pick:
            endpoint.ejection.probe_again(now)
            self._view_is_old()
        if retry_after is not None:
            until = now + min(retry_after, self.options.retry_after_max)
            if until > max(now, endpoint.told_until):
                endpoint.told_until = until
                self._view_is_old()

    def describe(self, now: float) -> dict[str, Any]:
        """See :meth:`EndpointSet.describe`."""
        policy = name_of(self.options)
        instances: dict[str, Any] = {}
        names = {each: name for name, each in by_name(self.endpoints).items()}
        for tier, group in enumerate(self.groups):
            for each in group.members:
                instances[names[each]] = {
                    "address": each.instance.address,
                    "status": each.instance.status.value,
                    "tier": tier,
                    "weight": each.instance.weight,
                    "share": each.share,
                    "in_flight": each.in_flight,
                    "successes": each.successes,
                    "failures": each.failures,
                    "ejected_for": max(0.0, each.ejection.until - now) if each.ejection.active else None,
                    "waits_for": each.told_until - now if each.told_until > now else None,
                    "latency": each.latency_at(now) or None,
                }
        return {
            "policy": policy,
            "panic": self.view.panic,
            "options": {**asdict(self.options), "policy": policy},
            "instances": instances,
        }

    def _renew(self, endpoint: Endpoint[S], instance: Instance, now: float) -> None:
        before, endpoint.instance = endpoint.instance, instance
        endpoint.weight = instance.weight * endpoint.share
        if instance.status is Status.PASSING and before.status is not Status.PASSING:
            if endpoint.ejection.active:
                self._return(endpoint, now, "its check passes again")
            elif before.status is not Status.WARNING:
                self._warm_up(endpoint, now)

    def _replace(
        self, endpoints: tuple[Endpoint[S], ...], now: float, *, anew: bool = True
    ) -> list[Endpoint[S]]:
        kept = set(endpoints)
        gone = [each for each in self.endpoints if each not in kept]
        for each in gone:
            each.departed = True
        self.endpoints = endpoints
        tiers: dict[TierKey, list[Endpoint[S]]] = {}
        zone = self.options.zone
        for each in endpoints:
            elsewhere = zone not in ("", each.instance.zone)
            tiers.setdefault((each.instance.priority, elsewhere), []).append(each)
        self.groups = tuple(
            group_of(key, tiers[key], self.options.subset, self._rank) for key in sorted(tiers)
        )
        self._balancers = {key: each for key, each in self._balancers.items() if key in tiers}
        self._unready &= kept
        self._look(now, anew=anew)
        return [each for each in gone if each.in_flight == 0]

    def _rank(self, endpoint: Endpoint[S]) -> int:
        if endpoint.rank < 0:
            # The seed is this process's, so that the processes' subsets differ.
            self._seed = self._seed or self._draw()
            endpoint.rank = stable_hash(f"{self._seed} {endpoint.instance.key}")
        return endpoint.rank

    def _look(self, now: float, *, anew: bool = False) -> None:
        """Make the view anew.

        :param anew: give the balancers other sequences even of the same endpoints.
        """
        before = self.view
        self.view = build_view(
            self.groups,
            now,
            self.options,
            unready=self._unready,
            balancers=self._balancers_of,
            whole=self._kind.whole,
            strict=self._kind.strict,
            before={} if anew else {each.key: each.candidates for each in before.tiers},
        )
        if self.view.panic != before.panic:
            event = PanicEntered if self.view.panic else PanicLeft
            self.untold.append(
                event(subject=self._service, at=now, healthy=self.view.healthy, total=self.view.total)
            )

    def _view_is_old(self) -> None:
        """Let the next pick make it anew: many calls may say the same before it comes."""
        self.view.until = LONG_AGO

    def _balancers_of(self, key: TierKey) -> tuple[Balancer, Balancer]:
        found = self._balancers.get(key)
        if found is None:
            # Each tier has its own: turns that two of them shared would not be even in either.
            first = self._kind.make(self.options, self._draw)
            again = self._kind.make(self.options, self._draw) if self._kind.turns else first
            found = self._balancers[key] = (first, again)
        return found

    def _warm_up(self, endpoint: Endpoint[S], now: float) -> None:
        if self.options.slow_start:
            endpoint.warm_since = now

    def _judge(self, endpoint: Endpoint[S], pick: object, now: float) -> None:
        """What a failed call means for its endpoint."""
        options = self.options
        if endpoint.ejection.probe is pick:
            self._eject(endpoint, now, "a call that probed it failed")
        elif (
            options.ejection_cap
            and now >= self._next_sweep
            and suspicious(endpoint.recent.total, endpoint.recent.marked, options)
        ):
            self._next_sweep = now + options.ejection_window / _SWEEPS
            self._compare(now)

    def _compare(self, now: float) -> None:
        """Eject those that stand out among all, as far as the cap allows."""
        able = [each for group in self.groups for each in group.able]
        for each in able:
            each.recent.expire(now)
        counts = [(each.recent.total, each.recent.marked) for each in able]
        places = min(int(len(able) * self.options.ejection_cap), len(able) - 1)
        places -= sum(each.ejection.active for each in able)
        for position, reason in outliers(counts, self.options):
            if places > 0 and not able[position].ejection.active:
                self._eject(able[position], now, reason)
                places -= 1

    def _eject(self, endpoint: Endpoint[S], now: float, reason: str) -> None:
        if endpoint.ejection is NEVER_EJECTED:
            endpoint.ejection = Ejection()
        length = endpoint.ejection.begin(now, self.options, self._draw)
        # It comes back as one that nothing is known of: neither its failures nor its latency count.
        endpoint.recent.clear()
        endpoint.latency.forget()
        self._view_is_old()
        self.untold.append(
            EndpointEjected(
                subject=self._service,
                at=now,
                instance=endpoint.instance.id,
                address=endpoint.instance.address,
                reason=reason,
                ejected_for=length,
                times=endpoint.ejection.times,
            )
        )

    def _return(self, endpoint: Endpoint[S], now: float, reason: str) -> None:
        endpoint.ejection.end(now)
        self._warm_up(endpoint, now)
        self._view_is_old()
        self.untold.append(
            EndpointReturned(
                subject=self._service,
                at=now,
                instance=endpoint.instance.id,
                address=endpoint.instance.address,
                reason=reason,
            )
        )
