"""Trace context on the wire, without any provider."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry import propagate, trace
from opentelemetry.propagators.textmap import TextMapPropagator

from chassis.core import ConfigError
from chassis.tracing import (
    TracingOptions,
    begin_client_span,
    begin_server_span,
    current_ids,
    disable_native_telemetry,
    extract,
    inject,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01".encode()


def injected() -> dict[str, str]:
    headers: dict[str, str] = {}
    inject(headers.__setitem__)
    return headers


def remote(*headers: tuple[bytes, bytes]) -> str | None:
    context = trace.get_current_span(extract(headers)).get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


def test_a_callers_trace_is_taken_on() -> None:
    """The ids that come in are the ids that logs carry here and that go out again."""
    span = begin_server_span(
        "GET", "/", "http", [(b"host", b"x"), (b"traceparent", GOOD), (b"tracestate", b"a=b")]
    )
    try:
        assert current_ids() == (TRACE, SPAN)
        assert injected() == {"traceparent": GOOD.decode(), "tracestate": "a=b"}
    finally:
        span.detach()
        span.end(200)


def test_without_a_provider_a_root_still_has_ids_which_propagate_unsampled() -> None:
    """Logs of one request are found by one id across services even where nothing is traced."""
    span = begin_server_span("GET", "/", "http", ())
    try:
        ids = current_ids()
        assert ids is not None
        call = begin_client_span("GET", "catalog")
        try:
            assert injected() == {"traceparent": f"00-{ids[0]}-{ids[1]}-00"}
        finally:
            call.detach()
            call.end(200)
    finally:
        span.detach()
        span.end(200)
    assert current_ids() is None


def test_two_roots_have_two_traces() -> None:
    """Ids are drawn, not fixed."""
    traces = set()
    for _ in range(50):
        span = begin_server_span("GET", "/", "http", ())
        ids = current_ids()
        assert ids is not None
        traces.add(ids[0])
        assert (len(ids[0]), len(ids[1])) == (32, 16)
        span.detach()
    assert len(traces) == 50


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"garbage",
        b"00-" + b"0" * 32 + b"-" + SPAN.encode() + b"-01",
        b"00-" + TRACE.encode() + b"-" + b"0" * 16 + b"-01",
        b"ff-" + TRACE.encode() + b"-" + SPAN.encode() + b"-01",
        GOOD + b"-more",
        GOOD.upper().replace(b"0AF", b"0AG"),
        b"00-" + TRACE.encode()[:31] + b"-" + SPAN.encode() + b"-01",
        b"00-" + TRACE.encode() + b"-" + SPAN.encode(),
        b"00_" + TRACE.encode() + b"_" + SPAN.encode() + b"_01",
        b"01-" + TRACE.encode() + b"-" + SPAN.encode() + b"-01-" + b"x" * 600,
        b"\xff\xfe" + GOOD,
    ],
)
def test_case_28_a_bad_traceparent_starts_a_new_trace(value: bytes) -> None:
    """Never an error, never a half-taken context (W3C Trace Context, section 3.2)."""
    assert remote((b"traceparent", value)) is None


def test_case_28_a_later_version_is_read_as_far_as_it_is_known() -> None:
    """Version 01 with more fields at the end is accepted (section 4.3)."""
    assert remote((b"traceparent", b"01" + GOOD[2:] + b"-more")) == TRACE


def test_case_28_a_traceparent_sent_twice_starts_a_new_trace() -> None:
    """Nobody can tell which one is meant."""
    assert remote((b"traceparent", GOOD), (b"traceparent", GOOD)) is None


def test_case_29_an_oversized_tracestate_is_left_out() -> None:
    """The trace goes on without it."""
    assert remote((b"traceparent", GOOD), (b"tracestate", b"a=" + b"x" * 9_000)) == TRACE


def test_baggage_goes_on() -> None:
    """W3C baggage that came in goes out with the calls made meanwhile."""
    span = begin_server_span("GET", "/", "http", [(b"baggage", b"tenant=blue")])
    try:
        assert injected()["baggage"] == "tenant=blue"
    finally:
        span.detach()


@contextmanager
def propagator(chosen: TextMapPropagator) -> Iterator[None]:
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(chosen)
    try:
        yield
    finally:
        propagate.set_global_textmap(before)


class Other(TextMapPropagator):
    """Reads a header that it does not write, as B3's does, and fails on one value."""

    fields = frozenset({"x-written"})

    def extract(self, carrier, context=None, getter=None):
        (value,) = getter.get(carrier, "X-Read")
        if value == "bad":
            raise RuntimeError
        ids = trace.SpanContext(int(value), 1, is_remote=True)
        return trace.set_span_in_context(trace.NonRecordingSpan(ids), context)

    def inject(self, carrier, context=None, setter=None):
        setter.set(carrier, "X-Written", "yes")


def test_the_applications_own_propagator_is_used() -> None:
    """It sees every header, whatever it names as its own."""
    with propagator(Other()):
        assert remote((b"x-read", b"7")) == f"{7:032x}"
        assert injected() == {"X-Written": "yes"}
    assert remote((b"traceparent", GOOD)) == TRACE


def test_a_propagator_that_raises_starts_a_new_trace() -> None:
    """What a stranger sent does not fail the request."""
    with propagator(Other()):
        assert remote((b"x-read", b"bad")) is None


def test_the_scope_says_that_fastapis_own_telemetry_was_taken_over() -> None:
    """FastAPI looks for this key; one that is there already is kept."""
    scope: dict[str, object] = {}
    disable_native_telemetry(scope)
    assert scope == {"fastapi.telemetry": None}
    scope = {"fastapi.telemetry": "theirs"}
    disable_native_telemetry(scope)
    assert scope == {"fastapi.telemetry": "theirs"}


@pytest.mark.parametrize("ratio", [0, 1.5, -1, "x"])
def test_a_share_that_is_none_is_refused(ratio: object) -> None:
    """Above 0 and at most 1, with the field in the message."""
    with pytest.raises(ConfigError, match="sample_ratio"):
        TracingOptions(sample_ratio=ratio)  # type: ignore[arg-type]
