"""All services this process calls."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

from chassis.breaker import BreakerOptions
from chassis.client._effects import drive, drive_sync
from chassis.client._line import call_line
from chassis.client._module import module_of
from chassis.client._options import ClientOptions
from chassis.client._upstream import Upstream
from chassis.core import ConfigError, Discovery, EventBus, PolicyRegistry, events, policies
from chassis.core.forks import tell_after_fork
from chassis.loadbalancing import BalancingOptions

_SERVICE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def is_service_name(name: str) -> bool:
    """Whether it can be the host of a URL that calls a service."""
    return _SERVICE_NAME.fullmatch(name.lower()) is not None


def check_service_name(service: str) -> str:
    """``service`` in lower case, as host names are compared.

    :raises ConfigError: it cannot be the host of a URL.
    """
    name = service.lower()
    if not is_service_name(name):
        raise ConfigError(
            f"{service!r} is no service name",
            setting="service",
            remedy="use 1 to 63 letters, digits, dots, dashes or underscores, a letter or digit first",
        )
    return name


class ServiceUpstreams:
    """All services this process calls; made on first use, one :class:`Upstream` each.

    :param discovery: gives what knows where the services are; asked at the first call, so that
        clients can be made before anything is configured.
    :param zone: gives this process's own zone, which balancing prefers where its options name none;
        asked when ``discovery`` is.
    :param registry: where each upstream, its breakers, its balancing and its retry budget are
        registered as ``client:<service>``, and below it ``/breaker``, ``/balancing``, ``/budget``.
    """

    def __init__(
        self,
        discovery: Callable[[], Discovery],
        *,
        zone: Callable[[], str] = str,
        registry: PolicyRegistry = policies,
        bus: EventBus = events,
    ) -> None:
        self._discovery = discovery
        self._zone = zone
        self._registry = registry
        self._bus = bus
        self._lock = threading.Lock()
        self._upstreams: dict[str, Upstream] = {}
        tell_after_fork(self)

    def upstream(
        self,
        service: str,
        options: ClientOptions | None = None,
        breaker: BreakerOptions | None = None,
        balancing: BalancingOptions | None = None,
    ) -> Upstream:
        """The upstream of ``service``.

        :param options: how it is called; None for the defaults, or for what was given before.
        :param breaker: the options of its instances' breakers; None likewise.
        :param balancing: how calls are spread over its instances; None likewise.
        :raises ConfigError: the name is no service name, or other options were given before.
        """
        service = check_service_name(service)
        with self._lock:
            known = self._upstreams.get(service)
            if known is None:
                known = Upstream(
                    service,
                    self._discovery,
                    self._zone,
                    options=options or ClientOptions(),
                    breaker=breaker or BreakerOptions(),
                    balancing=balancing or BalancingOptions(),
                    bus=self._bus,
                )
                for policy in (known, known.breakers, known.balancing, known.budgeting):
                    self._registry.register(policy)
                self._upstreams[service] = known
                return known
        for given, default in (
            (options, known.defaults),
            (breaker, known.breakers.defaults),
            (balancing, known.balancing.defaults),
        ):
            if given is not None and given != default:
                raise ConfigError(
                    f"the client of {service!r} was made before with other options",
                    setting=f"client:{service}",
                    remedy="give the options once, where the client is made first",
                )
        return known

    def calls(self, service: str) -> bool:
        """Whether this program calls ``service``: it has a client of it, or has sent it a request."""
        return service.lower() in self._upstreams

    async def send(self, service: str, request: Any) -> Any:
        """Send ``request`` to some instance of ``service``; see :class:`chassis.core.Upstreams`."""
        return await drive(call_line(self.upstream(service), request, module_of(request), hedging=True))

    def send_sync(self, service: str, request: Any) -> Any:
        """As :meth:`send`, in the calling thread, where nothing is hedged."""
        upstream = self.upstream(service)
        if upstream.options.hedges:
            upstream.not_hedged()
        return drive_sync(call_line(upstream, request, module_of(request), hedging=False))

    def open(self) -> None:
        """Begin to follow discovery for every service known so far, so that first calls need not wait."""
        for upstream in list(self._upstreams.values()):
            upstream.open()

    def close(self) -> None:
        """End following discovery and close all connections; a call that comes later begins both anew."""
        for upstream in list(self._upstreams.values()):
            upstream.close()

    def after_fork_in_child(self) -> None:
        """Another thread may have held the lock; the services stay known, per process."""
        self._lock = threading.Lock()
