"""Where components meet telemetry: one event becomes a log line, a counter and a span event."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from chassis.core import Event, events, monotonic
from chassis.logs import Logs, configure, emit
from chassis.metrics import count_event
from chassis.tracing import (
    ProviderHandle,
    add_event,
    current_ids,
    install_provider,
    resource_attributes,
)

if TYPE_CHECKING:
    from chassis.adapters.otlp import Shipper
    from chassis.service._options import ChassisOptions


_ENDPOINTS = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
)
"""Nothing is sent anywhere unless somebody says where."""


class Telemetry:
    """Logs, traces and the event bus of one process, from start to flush.

    :param environment: in place of ``os.environ``; what begins with ``OTEL_`` is read from it.
    """

    def __init__(self, service: str, options: ChassisOptions, environment: Mapping[str, str] | None) -> None:
        environ = os.environ if environment is None else environment
        self._sinks: dict[str, Shipper[Any]] = {}
        log_sink = trace_sink = None
        # Asked first, as the exporter's own libraries are dear to import.
        if any(environ.get(name) for name in _ENDPOINTS):
            from chassis.adapters.otlp import log_shipper, span_shipper

            resource = resource_attributes(service, options.tracing.resource)
            log_sink = log_shipper(resource, environ, options=options.otlp)
            trace_sink = span_shipper(resource, environ, options=options.otlp)
        for signal, sink in (("logs", log_sink), ("traces", trace_sink)):
            if sink is not None:
                self._sinks[signal] = sink
        self._logs: Logs = configure(service, options.logs, ids=current_ids, sink=log_sink)
        self._provider: ProviderHandle | None = None
        if trace_sink is not None:
            self._provider = install_provider(service, options.tracing, trace_sink)
        self._unsubscribe: Callable[[], None] = events.subscribe(_tell)

    def describe(self) -> dict[str, Any]:
        """What each signal accepted, delivered and dropped by reason."""
        return {signal: asdict(sink.counts) for signal, sink in self._sinks.items()}

    def close(self, timeout: float) -> dict[str, Any]:
        """Deliver what was accepted, for at most ``timeout`` seconds in all, and say what became of it."""
        until = monotonic() + timeout
        if self._provider is not None:
            self._provider.shutdown(timeout)
        self._unsubscribe()
        # Logs go last, so that they can tell of trouble with the traces.
        if (sink := self._sinks.get("logs")) is not None:
            sink.close(max(0.1, until - monotonic()))
        # Written when nothing more is shipped, so that the numbers are the last ones.
        counts = self.describe()
        emit("info", "process.stopped", logger="chassis", telemetry=counts)
        self._logs.shutdown(0.1)
        return counts


def _tell(event: Event) -> None:
    details = event.details()
    emit(event.level, event.name, logger="chassis", subject=event.subject, **details)
    count_event(event.name)
    add_event(event.name, {"subject": event.subject, **details})
