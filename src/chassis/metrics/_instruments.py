"""The instruments of the two edges. Names and buckets follow OpenTelemetry's HTTP conventions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from chassis.core.outcomes import Outcome
from chassis.metrics._bounded import BoundedChildren, known_method

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds; the advice of OpenTelemetry's semantic conventions for HTTP durations."""

DURATIONS = 2_000
"""Label sets of a duration histogram; more go to one series."""
ATTEMPTS = 1_000
EVENTS = 500
INSTANCES = 200


class ServerMetrics:
    """Rate, errors and duration of requests served.

    ``http_server_request_duration_seconds{method,route,status}`` and ``http_server_active_requests``.

    :param registry: where they are registered; prometheus_client's own one if left out. Two objects
        on one registry count in the same series.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        instruments = instruments_of(registry)
        self._active = instruments.server_active
        self._durations = instruments.server_durations

    def begin(self) -> None:
        """A request has come in."""
        self._active.inc()

    def end(self, method: str, route: str, status: int, seconds: float) -> None:
        """It has been answered: called once for each ``begin``.

        :param route: the matched route's template, "" if none matched; never the path.
        :param status: as it was sent; 499 if the client left before that.
        :param seconds: until the last byte of the body.
        """
        self._active.dec()
        self._durations.get(known_method(method), route, status).observe(seconds)


class ClientMetrics:
    """Rate, errors and duration of calls made: the logical call, and each attempt at an instance.

    ``http_client_request_duration_seconds{service,method,status}``,
    ``http_client_active_requests{service}`` and
    ``http_client_attempts_total{service,peer,outcome}``.

    :param registry: as for :class:`ServerMetrics`.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        instruments = instruments_of(registry)
        self._active = instruments.client_active
        self._durations = instruments.client_durations
        self._attempts = instruments.client_attempts
        self._instances = instruments.client_instances

    def begin(self, service: str) -> None:
        """A call to ``service`` begins."""
        self._active.get(service).inc()

    def end(self, service: str, method: str, status: int | None, seconds: float) -> None:
        """It has ended: called once for each ``begin``.

        :param status: the answer's; None if an error came instead, which is counted as ``error``.
        :param seconds: until the body was closed.
        """
        self._active.get(service).dec()
        label: str | int = "error" if status is None else status
        self._durations.get(service, known_method(method), label).observe(seconds)

    def attempt(self, service: str, outcome: Outcome, instance: str = "") -> None:
        """One attempt has ended.

        :param instance: the instance's id, the label ``peer`` (``instance`` is what Prometheus calls the
            scraped process). After 200 of them no more are told apart.
        """
        self._attempts.get(service, self._instances.get(instance), outcome.value).inc()


def count_event(name: str, registry: CollectorRegistry | None = None) -> None:
    """Count an event in ``chassis_events_total{event}``.

    :param name: the event's name, e.g. ``breaker.opened``.
    """
    instruments_of(registry).events.get(name).inc()


class _Instruments:
    """All of one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        overflow = Counter(
            "chassis_metric_overflow",
            "Observations that were put into the common series because the metric had too many.",
            ["metric"],
            registry=registry,
        )

        def bounded(metric: Any, name: str, labels: int, limit: int) -> BoundedChildren[Any]:
            overflowed = partial(_increment, overflow.labels(name))
            return BoundedChildren(metric.labels, limit=limit, labels=labels, overflowed=overflowed)

        name = "http_server_request_duration_seconds"
        self.server_durations: BoundedChildren[Histogram] = bounded(
            Histogram(
                name,
                "Time from a request's arrival to the last byte of its answer.",
                ["method", "route", "status"],
                buckets=BUCKETS,
                registry=registry,
            ),
            name,
            3,
            DURATIONS,
        )
        self.server_active = Gauge(
            "http_server_active_requests",
            "Requests being served now.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        name = "http_client_request_duration_seconds"
        self.client_durations: BoundedChildren[Histogram] = bounded(
            Histogram(
                name,
                "Time of a whole call to a service, over all its attempts, until the body was closed.",
                ["service", "method", "status"],
                buckets=BUCKETS,
                registry=registry,
            ),
            name,
            3,
            DURATIONS,
        )
        name = "http_client_active_requests"
        self.client_active: BoundedChildren[Gauge] = bounded(
            Gauge(name, "Calls under way now.", ["service"], multiprocess_mode="livesum", registry=registry),
            name,
            1,
            EVENTS,
        )
        name = "http_client_attempts_total"
        self.client_attempts: BoundedChildren[Counter] = bounded(
            Counter(
                "http_client_attempts",
                "Attempts of calls, by the instance asked and how they ended.",
                ["service", "peer", "outcome"],
                registry=registry,
            ),
            name,
            3,
            ATTEMPTS,
        )
        # Instances come and go with every deployment: beyond the limit they are not told apart,
        # and service and outcome stay.
        self.client_instances: BoundedChildren[str] = BoundedChildren(
            _same, limit=INSTANCES, labels=1, overflowed=partial(_increment, overflow.labels("peer"))
        )
        name = "chassis_events_total"
        self.events: BoundedChildren[Counter] = bounded(
            Counter("chassis_events", "Events by name.", ["event"], registry=registry), name, 1, EVENTS
        )


def _increment(counter: Counter) -> None:
    counter.inc()


def _same(value: str) -> str:
    return value


_lock = threading.Lock()
_known: WeakKeyDictionary[CollectorRegistry, _Instruments] = WeakKeyDictionary()
_families: WeakKeyDictionary[CollectorRegistry, dict[str, Any]] = WeakKeyDictionary()


def instruments_of(registry: CollectorRegistry | None) -> _Instruments:
    """The instruments of ``registry``, made when first asked for."""
    registry = default(registry)
    instruments = _known.get(registry)
    if instruments is None:
        with _lock:
            instruments = _known.get(registry)
            if instruments is None:
                instruments = _known[registry] = _Instruments(registry)
    return instruments


def family(name: str, registry: CollectorRegistry | None, make: Callable[[CollectorRegistry], Any]) -> Any:
    """The metric ``name`` of ``registry``, made when first asked for."""
    registry = default(registry)
    with _lock:
        known = _families.setdefault(registry, {})
        if name not in known:
            known[name] = make(registry)
        return known[name]


def default(registry: CollectorRegistry | None) -> CollectorRegistry:
    """``registry``, or prometheus_client's own."""
    if registry is None:
        from prometheus_client import REGISTRY

        return REGISTRY
    return registry
