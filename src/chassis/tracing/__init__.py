"""Distributed tracing: W3C context in and out, and one span per thing that happens.

Built on the OpenTelemetry API alone; the SDK is imported only by :func:`install_provider`. A span
costs what its sampler makes it cost: three attributes are given at the start, for samplers to read,
and everything else is built only if the span records.

Where no provider is set, a request still gets a trace id of its own: it stands in the logs and goes
on to whoever is called, marked as not sampled.
"""

from chassis.tracing._propagation import extract, inject
from chassis.tracing._provider import ProviderHandle, TracingOptions, install_provider, resource_attributes
from chassis.tracing._span import (
    RequestSpan,
    add_event,
    begin_client_span,
    begin_server_span,
    current_ids,
    disable_native_telemetry,
)
from chassis.tracing._traced import traced

__all__ = [
    "ProviderHandle",
    "RequestSpan",
    "TracingOptions",
    "add_event",
    "begin_client_span",
    "begin_server_span",
    "current_ids",
    "disable_native_telemetry",
    "extract",
    "inject",
    "install_provider",
    "resource_attributes",
    "traced",
]
