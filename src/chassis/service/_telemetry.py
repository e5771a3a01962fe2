"""Where components meet telemetry: one event becomes a log line, a counter and a span event."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from chassis.core import Event, events, monotonic
from chassis.core.forks import tell_after_fork
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
    """Logs and traces of one service, from start to flush.

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
        self._log = partial(configure, service, options.logs, ids=current_ids, sink=log_sink)
        self._logs: Logs = self._log()
        self._provider: ProviderHandle | None = None
        if trace_sink is not None:
            self._provider = install_provider(service, options.tracing, trace_sink)

    def describe(self) -> dict[str, Any]:
        """What each signal accepted, delivered and dropped by reason."""
        return {signal: asdict(sink.counts) for signal, sink in self._sinks.items()}

    def log_again(self) -> None:
        """Take logging back from who took it over and has stopped."""
        self._logs = self._log()

    def close(self, timeout: float, *, last_event: Callable[[], None]) -> dict[str, Any]:
        """Deliver what was accepted, for at most ``timeout`` seconds in all, and say what became of it.

        :param last_event: called when no more events need be told.
        """
        until = monotonic() + timeout
        if self._provider is not None:
            self._provider.shutdown(timeout)
        last_event()
        # Logs go last, so that they can tell of trouble with the traces.
        if (sink := self._sinks.get("logs")) is not None:
            sink.close(max(0.1, until - monotonic()))
        # Written when nothing more is shipped, so that the numbers are the last ones.
        counts = self.describe()
        emit("info", "process.stopped", logger="chassis", telemetry=counts)
        self._logs.shutdown(0.1)
        return counts


def _nothing() -> None:
    """In place of an end of what was not begun."""


class ProcessTelemetry:
    """What the services of one process, seldom more than one, share of their telemetry.

    Each event is told and counted once. Logging is the process's and bears the name and options of who
    started last; when that one stops, of the one before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[Telemetry] = []
        self._unsubscribe: Callable[[], None] = _nothing
        tell_after_fork(self)

    def join(self, service: str, options: ChassisOptions, environment: Mapping[str, str] | None) -> Telemetry:
        """The telemetry of ``service``, which leaves with it once."""
        with self._lock:
            telemetry = Telemetry(service, options, environment)
            if not self._running:
                self._unsubscribe()  # in a forked child, what the parent had
                self._unsubscribe = events.subscribe(_tell)
            self._running.append(telemetry)
            return telemetry

    def leave(self, telemetry: Telemetry, timeout: float) -> None:
        """Deliver what it accepted, for at most ``timeout`` seconds."""
        with self._lock:
            logging = self._running[-1] is telemetry
            self._running.remove(telemetry)
            telemetry.close(timeout, last_event=_nothing if self._running else self._unsubscribe)
            if logging and self._running:
                self._running[-1].log_again()

    def after_fork_in_child(self) -> None:
        """The parent's services stayed there, and so did a thread that may have held the lock."""
        self._lock = threading.Lock()
        self._running = []


def _tell(event: Event) -> None:
    details = event.details()
    emit(event.level, event.name, logger="chassis", subject=event.subject, **details)
    count_event(event.name)
    add_event(event.name, {"subject": event.subject, **details})


telemetry = ProcessTelemetry()
