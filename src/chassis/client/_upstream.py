"""One service as seen by its callers, and the collection of them."""

from __future__ import annotations

import concurrent.futures
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from chassis.breaker import BreakerOptions, CircuitBreaker
from chassis.client._effects import drive, drive_sync
from chassis.client._events import RetryBudgetExhausted
from chassis.client._line import call_line
from chassis.client._module import HTTPModule, module_of
from chassis.client._options import ClientOptions
from chassis.client._pool import InstancePool
from chassis.core import (
    ConfigError,
    Discovery,
    EventBus,
    Instance,
    PolicyRegistry,
    Reason,
    ServiceSubscription,
    Snapshot,
    events,
    monotonic,
    policies,
)
from chassis.limits import Bulkhead, BulkheadOptions
from chassis.loadbalancing import BalancingOptions, EndpointSet
from chassis.metrics import ClientMetrics
from chassis.retries import Backoff, BudgetOptions, RetryBudget

_SERVICE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def check_service_name(service: str) -> str:
    """``service`` in lower case, as host names are compared.

    :raises ConfigError: it cannot be the host of a URL.
    """
    name = service.lower()
    if not _SERVICE_NAME.fullmatch(name):
        raise ConfigError(
            f"{service!r} is no service name",
            setting="service",
            remedy="use 1 to 63 letters, digits, dots, dashes or underscores, a letter or digit first",
        )
    return name


class InstanceState:
    """What is kept for one instance for as long as discovery tells of it."""

    __slots__ = ("_instance", "_max_connections", "_pools", "breaker")

    def __init__(self, instance: Instance, breaker: CircuitBreaker, max_connections: int) -> None:
        self.breaker = breaker
        self._instance = instance
        self._max_connections = max_connections
        self._pools: dict[str, InstancePool] = {}

    def pool(self, http: HTTPModule) -> InstancePool:
        """The connections to this instance under one HTTP module."""
        pool = self._pools.get(http.name)
        if pool is None:
            new = InstancePool(self._instance, http, max_connections=self._max_connections)
            pool = self._pools.setdefault(http.name, new)
        return pool

    def close(self) -> None:
        """Close the connections."""
        for pool in self._pools.values():
            pool.close()


class BreakerFamily:
    """The breakers of one service's instances, described by instance and configured as one."""

    kind = "client"

    def __init__(self, upstream: Upstream, options: BreakerOptions) -> None:
        self.name = f"{upstream.service}/breaker"
        self.defaults = options
        self.options = options
        self._upstream = upstream

    def describe(self) -> Mapping[str, Any]:
        """Each instance's breaker."""
        return {
            "instances": {
                endpoint.instance.id: endpoint.state.breaker.describe()
                for endpoint in self._upstream.endpoints.endpoints()
            }
        }

    def reconfigure(self, options: BreakerOptions) -> None:
        """Give all of them, and those to come, other options."""
        self.options = options
        for endpoint in self._upstream.endpoints.endpoints():
            endpoint.state.breaker.reconfigure(options)


class BudgetPolicy:
    """One service's retry budget, as a policy that is described and configured by name.

    It pays for every further attempt, those that fail over from a refused connection included.
    """

    kind = "client"

    def __init__(self, service: str) -> None:
        self.name = f"{service}/budget"
        self.defaults = BudgetOptions()
        self.budget = RetryBudget(self.defaults)

    def describe(self) -> Mapping[str, Any]:
        """Further attempts it would grant now, those it has refused, and its options."""
        return {
            "available": self.budget.available(monotonic()),
            "refused": self.budget.refused,
            "options": asdict(self.budget.options),
        }

    def reconfigure(self, options: BudgetOptions) -> None:
        """Follow other options; what was counted is kept."""
        self.budget.reconfigure(options, monotonic())


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
        *,
        options: ClientOptions,
        breaker: BreakerOptions,
        bus: EventBus,
    ) -> None:
        self.service = self.name = service
        self.defaults = options
        self.options = options
        self.budgeting = BudgetPolicy(service)
        self.budget = self.budgeting.budget
        self.backoff = Backoff()
        self.metrics = ClientMetrics()
        self.bulkhead = self._bulkhead(None)
        self.breakers = BreakerFamily(self, breaker)
        self._bus = bus
        self.endpoints: EndpointSet[InstanceState] = EndpointSet(
            service, BalancingOptions(), create=self._new_state, dispose=InstanceState.close, bus=bus
        )
        self.answered: concurrent.futures.Future[None] = concurrent.futures.Future()
        """Done once discovery has said anything definite about the service."""
        self._discovery = discovery
        self._opening = threading.Lock()
        self._subscription: ServiceSubscription | None = None

    def open(self) -> None:
        """Begin to follow discovery; nothing if that has begun."""
        if self._subscription is None:
            with self._opening:
                if self._subscription is None:
                    self._subscription = self._discovery().subscribe(self.service, self._update)

    def budget_exhausted(self) -> None:
        """Tell that a retry was not made for want of budget."""
        if self._bus.listening:
            self._bus.emit(RetryBudgetExhausted(subject=f"client:{self.service}"))

    def describe(self) -> Mapping[str, Any]:
        """The instances as known now, and what is known about knowing them."""
        snapshot = self.endpoints.snapshot
        reason = snapshot.reason if snapshot is not None else Reason.NOT_ASKED_YET
        return {
            "instances": {
                endpoint.instance.id: {
                    "address": endpoint.instance.address,
                    "status": endpoint.instance.status.value,
                    "in_flight": endpoint.in_flight,
                }
                for endpoint in self.endpoints.endpoints()
            },
            "source": snapshot.source.value if snapshot is not None else None,
            "freshness": snapshot.freshness.value if snapshot is not None else None,
            "reason": reason.value if reason is not None else None,
        }

    def reconfigure(self, options: ClientOptions) -> None:
        """Take other options; calls under way finish under the old ones."""
        self.options = options
        self.bulkhead = self._bulkhead(self.bulkhead)

    def close(self) -> None:
        """End the subscription and close the connections."""
        with self._opening:
            if self._subscription is not None:
                self._subscription.close()
        self.endpoints.close()

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
            options=self.breakers.options,
            register=False,
            bus=self._bus,
        )
        return InstanceState(instance, breaker, self.options.max_connections)

    def _update(self, snapshot: Snapshot) -> None:
        self.endpoints.update(snapshot)
        if snapshot.reason is not Reason.NOT_ASKED_YET and not self.answered.done():
            self.answered.set_result(None)


class ServiceUpstreams:
    """All services this process calls; made on first use, one :class:`Upstream` each.

    :param discovery: gives what knows where the services are; asked at the first call, so that
        clients can be made before anything is configured.
    :param registry: where each upstream, its breakers and its retry budget are registered as
        ``client:<service>``, ``client:<service>/breaker`` and ``client:<service>/budget``.
    """

    def __init__(
        self,
        discovery: Callable[[], Discovery],
        *,
        registry: PolicyRegistry = policies,
        bus: EventBus = events,
    ) -> None:
        self._discovery = discovery
        self._registry = registry
        self._bus = bus
        self._lock = threading.Lock()
        self._upstreams: dict[str, Upstream] = {}

    def upstream(
        self, service: str, options: ClientOptions | None = None, breaker: BreakerOptions | None = None
    ) -> Upstream:
        """The upstream of ``service``.

        :param options: how it is called; None for the defaults, or for what was given before.
        :raises ConfigError: the name is no service name, or other options were given before.
        """
        service = check_service_name(service)
        with self._lock:
            known = self._upstreams.get(service)
            if known is None:
                known = Upstream(
                    service,
                    self._discovery,
                    options=options or ClientOptions(),
                    breaker=breaker or BreakerOptions(),
                    bus=self._bus,
                )
                self._registry.register(known)
                self._registry.register(known.breakers)
                self._registry.register(known.budgeting)
                self._upstreams[service] = known
                return known
        for given, default in ((options, known.defaults), (breaker, known.breakers.defaults)):
            if given is not None and given != default:
                raise ConfigError(
                    f"the client of {service!r} was made before with other options",
                    setting=f"client:{service}",
                    remedy="give the options once, where the client is made first",
                )
        return known

    async def send(self, service: str, request: Any) -> Any:
        """Send ``request`` to some instance of ``service``; see :class:`chassis.core.Upstreams`."""
        return await drive(call_line(self.upstream(service), request, module_of(request)))

    def send_sync(self, service: str, request: Any) -> Any:
        """As :meth:`send`, in the calling thread."""
        return drive_sync(call_line(self.upstream(service), request, module_of(request)))

    def open(self) -> None:
        """Begin to follow discovery for every service known so far, so that first calls need not wait."""
        for upstream in list(self._upstreams.values()):
            upstream.open()

    def close(self) -> None:
        """Forget all services and close their connections."""
        with self._lock:
            upstreams, self._upstreams = self._upstreams, {}
        for upstream in upstreams.values():
            upstream.close()
