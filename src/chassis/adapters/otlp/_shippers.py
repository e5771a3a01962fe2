"""The two shippers, put together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chassis.adapters.otlp._options import OtlpOptions, Signal, Target, target
from chassis.adapters.otlp._shipper import Shipper
from chassis.core.events import EventBus, events
from chassis.logs import Record

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_DISABLED = "OTEL_SDK_DISABLED"


def span_shipper(
    resource: Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
    *,
    options: OtlpOptions | None = None,
    bus: EventBus = events,
) -> Shipper[ReadableSpan] | None:
    """Ships spans, where options or environment say where to; else None.

    :param resource: attributes of this process: ``chassis.tracing.resource_attributes``.
    :param environ: read for OpenTelemetry's own names, which override ``options``.
    :raises ConfigError: an option or variable cannot be used.
    """
    options = options or OtlpOptions()
    where = _target("traces", options, environ)
    if where is None:
        return None
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    from chassis.adapters.otlp._encode import encode_spans
    from chassis.adapters.otlp._exporter import OtlpExporter

    def encode(batch: Sequence[ReadableSpan]) -> tuple[Any, int]:
        return encode_spans(batch, resource)

    exporter = OtlpExporter(where, encode, ExportTraceServiceResponse, "rejected_spans")
    return _shipper("traces", exporter, options, bus)


def log_shipper(
    resource: Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
    *,
    options: OtlpOptions | None = None,
    bus: EventBus = events,
) -> Shipper[Record] | None:
    """Ships log records, where options or environment say where to; else None.

    :param resource: as for :func:`span_shipper`; likewise the others.
    :raises ConfigError: an option or variable cannot be used.
    """
    options = options or OtlpOptions()
    where = _target("logs", options, environ)
    if where is None:
        return None
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

    from chassis.adapters.otlp._encode import encode_records
    from chassis.adapters.otlp._exporter import OtlpExporter

    def encode(batch: Sequence[Record]) -> tuple[Any, int]:
        return encode_records(batch, resource)

    exporter = OtlpExporter(where, encode, ExportLogsServiceResponse, "rejected_log_records")
    return _shipper("logs", exporter, options, bus)


def _target(signal: Signal, options: OtlpOptions, environ: Mapping[str, str]) -> Target | None:
    if environ.get(_DISABLED, "").strip().lower() == "true":
        return None
    return target(signal, options, environ)


def _shipper(name: str, exporter: Any, options: OtlpOptions, bus: EventBus) -> Shipper[Any]:
    return Shipper(name, exporter, bound=options.queue, batch=options.batch, linger=options.linger, bus=bus)
