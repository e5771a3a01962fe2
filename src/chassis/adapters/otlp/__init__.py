"""OTLP: spans and log records to any OpenTelemetry receiver, over HTTP.

A :class:`Shipper` has a thread of its own, a bounded queue and a count of everything it took:
``accepted = delivered + pending + dropped``, whatever happens. It is the
:class:`~chassis.core.contracts.Sink` that tracing and logs are given.
"""

from chassis.adapters.otlp._events import RecordsDropped, ShippingFailed, ShippingRecovered
from chassis.adapters.otlp._options import OtlpOptions
from chassis.adapters.otlp._shipper import Counts, Shipper
from chassis.adapters.otlp._shippers import log_shipper, span_shipper

__all__ = [
    "Counts",
    "OtlpOptions",
    "RecordsDropped",
    "Shipper",
    "ShippingFailed",
    "ShippingRecovered",
    "log_shipper",
    "span_shipper",
]
