"""The tracer provider, where the application has set none, and the way of its spans into a sink."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from chassis.core.contracts import Sink
from chassis.core.options import check_fraction

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.sampling import Sampler


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingOptions:
    """How this process traces. The environment's ``OTEL_*`` names override each of them.

    :param sample_ratio: share of new traces that are recorded, above 0 and at most 1; a caller's
        decision holds for the traces it began. ``OTEL_TRACES_SAMPLER`` replaces it.
    :param resource: attributes of this process on every span; ``service.name`` is set already, and
        ``OTEL_RESOURCE_ATTRIBUTES`` adds to them.
    """

    sample_ratio: float = 1.0
    resource: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_fraction("sample_ratio", self.sample_ratio)


class ProviderHandle:
    """What :func:`install_provider` set up; flushed and shut down by whoever installed it."""

    def __init__(self, provider: Any, processor: _SinkProcessor | None) -> None:
        self._provider = provider
        self._processor = processor

    @property
    def installed(self) -> bool:
        """Whether spans go to the sink given; False if the application's own provider is in use."""
        return self._processor is not None

    def flush(self, timeout: float) -> bool:
        """Wait until the spans ended so far have been delivered.

        The application's own provider is flushed too, if it can be.

        :param timeout: seconds to wait at most.
        :returns: whether all of them were.
        """
        if self._processor is not None:
            return self._processor.flush(timeout)
        flush = getattr(self._provider, "force_flush", None)
        return True if flush is None else bool(flush(int(timeout * 1000)))

    def shutdown(self, timeout: float) -> bool:
        """Flush, then let no more spans in. The application's own provider is flushed and left running.

        :returns: whether everything accepted was delivered.
        """
        if self._processor is not None:
            return self._processor.close(timeout)
        return self.flush(timeout)


_ours: tuple[Any, _SinkProcessor] | None = None


def install_provider(service_name: str, options: TracingOptions, sink: Sink[Any]) -> ProviderHandle:
    """Send every sampled span to ``sink``, unless the application has set a provider of its own.

    To be called when the application starts, not when it is imported: by then its own provider is
    set if it has one. A process has one provider for ever (an OpenTelemetry rule), so a second
    installation in one process sends its spans to the new sink once the first was shut down, with
    the sampler of the first.

    Honours ``OTEL_SDK_DISABLED``, ``OTEL_TRACES_SAMPLER``, ``OTEL_TRACES_SAMPLER_ARG``,
    ``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES`` and the span limits. ``OTEL_PROPAGATORS`` is
    read by the OpenTelemetry API when it is imported.

    :param service_name: becomes ``service.name``.
    :param sink: takes ended spans (``opentelemetry.sdk.trace.ReadableSpan``).
    """
    global _ours  # noqa: PLW0603 - the global provider it stands for can be set once
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ProviderHandle(None, None)
    current = trace.get_tracer_provider()
    if _ours is not None and _ours[0] is current:
        provider, processor = _ours
        if not processor.open(sink):
            return ProviderHandle(provider, None)
        return ProviderHandle(provider, processor)
    if not isinstance(current, trace.ProxyTracerProvider):
        return ProviderHandle(current, None)

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    processor = _SinkProcessor()
    processor.open(sink)
    provider = TracerProvider(
        sampler=_sampler(options),
        resource=Resource(resource_attributes(service_name, options.resource)),
        # At exit is too late: a server that re-raises SIGTERM never gets there.
        shutdown_on_exit=False,
    )
    provider.add_span_processor(_as_span_processor(processor))
    trace.set_tracer_provider(provider)
    _ours = (provider, processor)
    return ProviderHandle(provider, processor)


def resource_attributes(service_name: str, attributes: Mapping[str, str]) -> dict[str, Any]:
    """What telemetry says of this process: the SDK's own attributes, these, and the environment's.

    :param service_name: ``service.name``, unless ``OTEL_SERVICE_NAME`` or
        ``OTEL_RESOURCE_ATTRIBUTES`` says otherwise.
    :param attributes: more of them; the environment overrides each.
    """
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    environment = OTELResourceDetector().detect().attributes
    given = {"service.name": service_name, **attributes}
    # Resource.create lets its arguments win over the environment: those it names are left to it.
    kept = {key: value for key, value in given.items() if key not in environment}
    return dict(Resource.create(kept).attributes)


def _sampler(options: TracingOptions) -> Sampler | None:
    if os.environ.get("OTEL_TRACES_SAMPLER"):
        return None  # the SDK reads it, and OTEL_TRACES_SAMPLER_ARG
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    return ParentBasedTraceIdRatio(options.sample_ratio)


class _SinkProcessor:
    """Hands ended spans to the open sink, if there is one."""

    def __init__(self) -> None:
        self._sink: Sink[Any] | None = None

    def open(self, sink: Sink[Any]) -> bool:
        if self._sink is not None:
            return False
        self._sink = sink
        return True

    def on_end(self, span: Any) -> None:
        sink = self._sink
        if sink is not None and span.context.trace_flags.sampled:
            sink.accept(span)

    def flush(self, timeout: float) -> bool:
        sink = self._sink
        return True if sink is None else sink.flush(timeout)

    def close(self, timeout: float) -> bool:
        sink = self._sink
        if sink is None:
            return True
        try:
            return sink.close(timeout)
        finally:
            self._sink = None


def _as_span_processor(processor: _SinkProcessor) -> SpanProcessor:
    """The SDK's base class is imported only where a provider is made."""
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

    class Processor(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            processor.on_end(span)

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return processor.flush(timeout_millis / 1000)

    return Processor()
