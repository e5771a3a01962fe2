"""One service as seen by its callers."""

from __future__ import annotations

import concurrent.futures
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import Any

from chassis.breaker import BreakerOptions, CircuitBreaker
from chassis.client._events import NoInstanceReachable, NotHedged, Occasion, OwnLag, RetryBudgetExhausted
from chassis.client._instance import InstanceState
from chassis.client._module import HTTPModule
from chassis.client._options import ClientOptions
from chassis.client._policies import BalancingPolicy, BreakerFamily, BudgetPolicy
from chassis.client._pool import InstancePool
from chassis.core import (
    ConfigError,
    Discovery,
    EventBus,
    Instance,
    Reason,
    ServiceSubscription,
    Snapshot,
    Status,
    monotonic,
)
from chassis.core.forks import tell_after_fork
from chassis.core.options import check_options
from chassis.limits import Bulkhead, BulkheadOptions
from chassis.loadbalancing import BalancingOptions, EndpointSet
from chassis.metrics import ClientMetrics
from chassis.retries import Backoff, HedgeMachine, HedgeOptions

_DOUBTS_EVERY = 1.0
_LAG_TOLD_EVERY = 1.0
_NOT_HEDGED_TOLD_EVERY = 60.0


class Upstream:
    """One service: its instances, their breakers and connections, the retry budget, the options.

    Shared by all clients of the service in the process, async and sync; it may be used from
    several event loops and threads at once.
    """

    kind = "client"

    def __init__(
        self,
        service: str,
        discovery: Callable[[], Discovery],
        zone: Callable[[], str],
        *,
        options: ClientOptions,
        breaker: BreakerOptions,
        balancing: BalancingOptions,
        bus: EventBus,
    ) -> None:
        self.service = self.name = service
        self.defaults = options
        self.options = options
        self.budgeting = BudgetPolicy(service)
        self.budget = self.budgeting.budget
        self.backoff = Backoff()
        self.hedging = HedgeMachine(options.hedge)
        self.metrics = ClientMetrics()
        self.bulkhead = self._bulkhead(None)
        self._bus = bus
        self.endpoints: EndpointSet[InstanceState] = EndpointSet(
            service, balancing, create=self._new_state, dispose=InstanceState.close, bus=bus
        )
        self.breakers = BreakerFamily(service, breaker, self.endpoints)
        self.balancing = BalancingPolicy(service, balancing, self.endpoints)
        self.known = False
        """Whether discovery has said anything definite about the service."""
        self.answered: concurrent.futures.Future[None] = concurrent.futures.Future()
        """Done when it has, for those who wait. Has a lock, so whoever need not wait leaves it alone."""
        self._discovery = discovery
        self._zone = zone
        self._lock = threading.RLock()
        self._following = False
        self._subscription: ServiceSubscription | None = None
        self._doubts = Occasion(_DOUBTS_EVERY)
        self._lags = Occasion(_LAG_TOLD_EVERY)
        self._not_hedged = Occasion(_NOT_HEDGED_TOLD_EVERY)
        tell_after_fork(self)

    def open(self) -> None:
        """Begin to follow discovery; nothing if that has begun."""
        if self._subscription is None:
            with self._lock:
                # Asked before there is a subscription, too: making it tells of events, and their
                # listener may call this very service.
                if self._following:
                    return
                self._following = True
                try:
                    self.balancing.locate(self._zone())
                    self._subscription = self._discovery().subscribe(self.service, self._update)
                except BaseException:
                    self._following = False
                    raise

    def after_fork_in_child(self) -> None:
        """Another thread may have held the lock. Discovery follows the service anew by itself."""
        self._lock = threading.RLock()
        self._following = self._subscription is not None
        self.answered = concurrent.futures.Future()
        if self.known:
            self.answered.set_result(None)

    # ── what the line tells ──────────────────────────────────────────────────────────────────

    def budget_exhausted(self) -> None:
        """A retry was not made for want of budget."""
        if self._bus.listening:
            self._bus.emit(RetryBudgetExhausted(subject=self._subject))

    def note_own_lag(self, late: float, lost: float) -> None:
        """An attempt timed out while this process was not listening."""
        if self._bus.listening and self._lags.come(monotonic()):
            self._bus.emit(OwnLag(subject=self._subject, late=late, lost=lost))

    def doubt_if_none_connects(self) -> None:
        """An instance took no connection. If none does any more, discovery may be wrong about all."""
        endpoints = self.endpoints.callable_endpoints()
        if not endpoints or not all(each.state.refusals for each in endpoints):
            return
        if not self._doubts.come(monotonic()):
            return
        if self._subscription is not None:
            self._subscription.doubt()
        if self._bus.listening:
            self._bus.emit(NoInstanceReachable(subject=self._subject, instances=len(endpoints)))

    def refuse_hedging_in_threads(self) -> None:
        """Say no to a sync client of a service whose calls shall be hedged.

        :raises ConfigError: they shall.
        """
        if self.options.hedges:
            raise ConfigError(
                f"calls to {self.service!r} are to be hedged, and a sync client cannot: "
                "a thread cannot be cancelled",
                setting=f"client:{self.service}.hedge",
                remedy="use an async client for this service, or leave hedge out",
            )

    def not_hedged(self) -> None:
        """A call from a thread goes unhedged, as the option came after the sync client was made."""
        if self._bus.listening and self._not_hedged.come(monotonic()):
            self._bus.emit(NotHedged(subject=self._subject))

    @property
    def _subject(self) -> str:
        return f"client:{self.service}"

    def server_name(self, instance: Instance) -> str:
        """The name an ``https`` instance must prove to have."""
        name = self.options.server_name
        if "{" in name:
            name = name.replace("{service}", self.service).replace("{host}", instance.host)
        return name

    def describe(self) -> Mapping[str, Any]:
        """The instances as known now, and what is known about knowing them."""
        snapshot = self.endpoints.snapshot
        reason = snapshot.reason if snapshot is not None else Reason.NOT_ASKED_YET
        return {
            "instances": {
                name: {
                    "address": endpoint.instance.address,
                    "status": endpoint.instance.status.value,
                    "in_flight": endpoint.in_flight,
                }
                for name, endpoint in self.endpoints.by_name().items()
            },
            "source": snapshot.source.value if snapshot is not None else None,
            "freshness": snapshot.freshness.value if snapshot is not None else None,
            "reason": reason.value if reason is not None else None,
            "hedging": self.hedging.describe(monotonic()) if self.options.hedges else None,
        }

    def reconfigure(self, options: ClientOptions) -> None:
        """Take other options; calls under way finish under the old ones, connections stay as they are."""
        check_options(options, self.defaults)
        self.options = options
        self.bulkhead = self._bulkhead(self.bulkhead)
        self.hedging.reconfigure(options.hedge or HedgeOptions(), monotonic())

    def close(self) -> None:
        """End the subscription and close the connections; a call that comes later begins anew.

        The options stay, and so do the clients and policies that hold this object.
        """
        with self._lock:
            self._following = False
            subscription, self._subscription = self._subscription, None
            if subscription is not None:
                subscription.close()
            if self.known:
                self.known = False
                self.answered = concurrent.futures.Future()
        self.endpoints.update(Snapshot(service=self.service, instances=(), reason=Reason.NOT_ASKED_YET))

    def _bulkhead(self, current: Bulkhead | None) -> Bulkhead | None:
        limit = self.options.max_in_flight
        if limit is None:
            return None
        options = BulkheadOptions(limit=limit)
        if current is None:
            return Bulkhead(f"{self.service}/bulkhead", options=options, register=False)
        current.reconfigure(options)
        return current

    def _new_state(self, instance: Instance) -> InstanceState:
        breaker = CircuitBreaker(
            f"client:{self.service}/breaker/{instance.id}",
            options=self.breakers.effective,
            register=False,
            bus=self._bus,
        )
        return InstanceState(breaker, self._new_pool)

    def _new_pool(self, http: HTTPModule, secure: bool) -> InstancePool:
        return InstancePool(
            http,
            max_connections=self.options.max_connections,
            keepalive=self.options.keepalive,
            # A plain connection needs no trust store, whose loading costs tens of milliseconds.
            verify=self._tls() if secure else False,
        )

    def _tls(self) -> ssl.SSLContext:
        from chassis.wire import ssl_context

        options = self.options
        return ssl_context(ca=options.ca, certificate=options.certificate, key=options.key)

    def _update(self, snapshot: Snapshot) -> None:
        # First, as breakers made for new instances begin as the others are.
        self.breakers.follow(snapshot.freshness)
        options = self.breakers.effective
        ailing = [each for each in self.endpoints.endpoints() if each.instance.status is not Status.PASSING]
        self.endpoints.update(snapshot)
        for each in ailing:
            if each.instance.status is Status.PASSING:
                # Its breaker may have opened for minutes by now, for what its check says is over.
                each.state.breaker.retry_now()
        if self.breakers.effective != options:
            # Others came meanwhile, in another thread, which did not see the new instances yet.
            self.breakers.apply()
        if snapshot.reason is not Reason.NOT_ASKED_YET:
            self.known = True
            if not self.answered.done():
                self.answered.set_result(None)
