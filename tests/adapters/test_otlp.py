"""To a real receiver over HTTP, decoded there with OpenTelemetry's own classes."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context
from opentelemetry.trace.status import Status, StatusCode

from chassis.adapters.otlp import OtlpOptions, Shipper, log_shipper, span_shipper
from chassis.adapters.otlp._encode import encode_records, encode_spans
from chassis.core import EventBus
from chassis.logs import ExceptionText, LogOptions, Record, configure, emit, log
from tests.adapters.otlp_receiver import Fault, Receiver
from tests.support.ports import free_port

RESOURCE = {"service.name": "orders", "n": 7}
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def logs_to(url: str, environ: dict[str, str] | None = None, **options: Any) -> Shipper[Record]:
    sink = log_shipper(RESOURCE, environ or {}, options=OtlpOptions(endpoint=url, **options), bus=EventBus())
    assert sink is not None
    return sink


def traces_to(url: str, **options: Any) -> Shipper[ReadableSpan]:
    sink = span_shipper(RESOURCE, {}, options=OtlpOptions(endpoint=url, **options), bus=EventBus())
    assert sink is not None
    return sink


def record(message: str = "hello", **changes: Any) -> Record:
    values: dict[str, Any] = {
        "time_ns": 1_767_225_600_123_456_789,
        "level": "WARNING",
        "number": 30,
        "message": message,
        "logger": "shop",
        "trace_id": TRACE,
        "span_id": SPAN,
        "request_id": None,
        "fields": {},
        "exception": None,
    }
    return Record(**values | changes)


def span(name: str = "GET /") -> ReadableSpan:
    made = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span(name)
    made.end()
    assert isinstance(made, ReadableSpan)
    return made


def plain(value: Any) -> Any:
    """An AnyValue as what it stands for."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return {each.key: plain(each.value) for each in value.kvlist_value.values}
    return None if kind is None else getattr(value, kind)


def attributes(message: Any) -> dict[str, Any]:
    return {each.key: plain(each.value) for each in message.attributes}


# What is sent


def test_a_record_arrives_as_it_was_logged(receiver: Receiver) -> None:
    """Time, severity, body, fields of every kind, trace, exception, and where it came from."""
    fields = {
        "s": "ü",
        "i": 7,
        "b": True,
        "f": 1.5,
        "n": None,
        "l": [1, "a"],
        "d": {"x": {"y": 1}},
        "big": 2**70,
    }
    error = ExceptionText("ValueError", "no", "Traceback ...")
    sink = logs_to(receiver.url)
    sink.accept(record(fields=fields, exception=error, request_id="r-1"))
    assert sink.close(5)
    (got,) = receiver.records
    assert got.time_unix_nano == got.observed_time_unix_nano == 1_767_225_600_123_456_789
    assert (got.severity_number, got.severity_text, got.body.string_value) == (13, "WARNING", "hello")
    assert (got.trace_id.hex(), got.span_id.hex()) == (TRACE, SPAN)
    assert attributes(got) == fields | {
        "big": str(2**70),
        "request_id": "r-1",
        "exception.type": "ValueError",
        "exception.message": "no",
        "exception.stacktrace": "Traceback ...",
    }
    assert receiver.resources[0]["service.name"] == "orders"
    (post,) = receiver.posts
    assert (post.path, post.headers["Content-Type"]) == ("/v1/logs", "application/x-protobuf")


def test_records_are_grouped_by_their_logger() -> None:
    """Its name is the scope; outside a trace there are no ids."""
    batch = [
        record("1", logger="a"),
        record("2", logger="b"),
        record("3", logger="a", trace_id=None, span_id=None),
    ]
    message, count = encode_records(batch, RESOURCE)
    scopes = message.resource_logs[0].scope_logs
    assert count == 3
    shown = {each.scope.name: [one.body.string_value for one in each.log_records] for each in scopes}
    assert shown == {"a": ["1", "3"], "b": ["2"]}
    assert scopes[0].log_records[1].trace_id == b""


def test_a_span_arrives_as_it_was_made(receiver: Receiver) -> None:
    """Ids, parent, kind, times, attributes, events, links, status, scope."""
    provider = TracerProvider(shutdown_on_exit=False)
    remote = SpanContext(int(TRACE, 16), int(SPAN, 16), is_remote=True, trace_flags=TraceFlags(1))
    parent = set_span_in_context(NonRecordingSpan(remote))
    made = provider.get_tracer("scope", "1.0").start_span(
        "GET /x",
        parent,
        SpanKind.SERVER,
        {"a": "b", "l": [1, 2]},
        links=[Link(remote, {"why": "x"})],
        start_time=1_000,
    )
    made.add_event("breaker.opened", {"subject": "p"}, timestamp=1_500)
    made.set_status(Status(StatusCode.ERROR, "ValueError"))
    made.end(2_000)
    assert isinstance(made, ReadableSpan)
    sink = traces_to(receiver.url)
    sink.accept(made)
    assert sink.close(5)
    (got,) = receiver.spans
    assert (got.trace_id.hex(), got.parent_span_id.hex(), len(got.span_id)) == (TRACE, SPAN, 8)
    assert (got.name, got.kind) == ("GET /x", SpanMessage.SPAN_KIND_SERVER)
    assert (got.start_time_unix_nano, got.end_time_unix_nano) == (1_000, 2_000)
    assert attributes(got) == {"a": "b", "l": [1, 2]}
    assert (got.events[0].name, got.events[0].time_unix_nano, attributes(got.events[0])) == (
        "breaker.opened",
        1_500,
        {"subject": "p"},
    )
    assert (got.links[0].span_id.hex(), attributes(got.links[0])) == (SPAN, {"why": "x"})
    assert (got.status.code, got.status.message) == (2, "ValueError")
    # Sampled, and the parent is known to be remote (bits 8 and 9).
    assert got.flags & 0x301 == 0x301
    assert receiver.posts[0].path == "/v1/traces"


@pytest.mark.parametrize("kind", list(SpanKind))
def test_kinds_keep_their_names(kind: SpanKind) -> None:
    """The numbers of the two enumerations differ by one."""
    made = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("x", kind=kind)
    made.end()
    assert isinstance(made, ReadableSpan)
    message, _ = encode_spans([made], {})
    (got,) = message.resource_spans[0].scope_spans[0].spans
    assert SpanMessage.SpanKind.Name(got.kind) == f"SPAN_KIND_{kind.name}"
    # A root's parent is not remote.
    assert got.flags & 0x300 == 0x100


def test_case_23_a_lone_surrogate_is_replaced() -> None:
    """Protocol buffers would refuse the whole batch."""
    message, count = encode_records([record("a\ud800b", fields={"k\udfff": "\ud800"})], {})
    assert count == 1
    assert message.resource_logs[0].scope_logs[0].log_records[0].body.string_value == "a?b"


def test_one_record_that_cannot_be_encoded_is_left_out(receiver: Receiver) -> None:
    """And counted; its neighbours arrive."""
    sink = logs_to(receiver.url)
    sink.accept(record("1"))
    sink.accept(record("2", trace_id="no hex"))
    sink.accept(record("3"))
    assert sink.close(5) is False
    assert [one.body.string_value for one in receiver.records] == ["1", "3"]
    assert sink.counts.dropped == {"encode_error": 1}


def test_json_is_otlps_own(receiver: Receiver) -> None:
    """Ids in hex, enumerations as numbers, 64-bit integers as text, names in lower camel case."""
    receiver.rejecting = 1
    sink = logs_to(receiver.url, protocol="http/json")
    sink.accept(record(fields={"i": 7}))
    sink.close(5)
    (post,) = receiver.posts
    assert post.headers["Content-Type"] == "application/json"
    group = receiver.json[0]["resourceLogs"][0]
    (got,) = group["scopeLogs"][0]["logRecords"]
    assert (got["traceId"], got["spanId"], got["severityNumber"]) == (TRACE, SPAN, 13)
    assert got["timeUnixNano"] == "1767225600123456789"
    assert got["attributes"] == [{"key": "i", "value": {"intValue": "7"}}]
    traces = traces_to(receiver.url, protocol="http/json")
    made = span()
    traces.accept(made)
    traces.close(5)
    (sent,) = receiver.json[1]["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert made.context is not None
    assert sent["traceId"] == f"{made.context.trace_id:032x}"
    assert traces.counts.dropped == {"rejected": 1}


def test_gzip_and_headers_as_configured(receiver: Receiver) -> None:
    """The body smaller, and readable there."""
    sink = logs_to(receiver.url, {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=x%20y"}, compression="gzip")
    for number in range(100):
        sink.accept(record(f"message {number}"))
    assert sink.close(5)
    assert len(receiver.records) == 100
    (post,) = receiver.posts
    assert (post.headers["Content-Encoding"], post.headers["api-key"]) == ("gzip", "x y")
    assert len(post.body) < 3_000


# What comes of it


def test_counts_are_equal_at_shutdown(receiver: Receiver) -> None:
    """Everything logged before shutdown returned is with the receiver, through the whole pipeline."""
    sink = logs_to(receiver.url)
    logs = configure("orders", LogOptions(format="json"), sink=sink, stream=io.StringIO())
    for number in range(1_234):
        log.info("{}", number)
    emit("info", "last", logger="x")
    assert logs.shutdown(10)
    assert len(receiver.records) == sink.counts.accepted == sink.counts.delivered == 1_235


def test_a_burst_of_10000_with_a_healthy_receiver_loses_none(receiver: Receiver) -> None:
    """Of records and of spans, with the defaults."""
    records, spans = logs_to(receiver.url), traces_to(receiver.url)
    one, other = record(), span()
    for _ in range(10_000):
        records.accept(one)
        spans.accept(other)
    assert records.close(20)
    assert spans.close(20)
    assert (len(receiver.records), len(receiver.spans)) == (10_000, 10_000)
    assert max(len(post.body) for post in receiver.posts) < 512 * 400


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_503_and_then_200_delivers(receiver: Receiver, status: int) -> None:
    """Whatever may pass is tried again, and what was tried again arrives once."""
    receiver.faults.append(Fault(status))
    sink = logs_to(receiver.url)
    sink.accept(record())
    assert sink.close(10)
    assert (len(receiver.posts), len(receiver.records)) == (2, 1)


def test_case_5_retry_after_is_honoured(receiver: Receiver) -> None:
    """In seconds, to the second."""
    receiver.faults.append(Fault(429, {"Retry-After": "1"}))
    sink = logs_to(receiver.url)
    sink.accept(record())
    assert sink.close(20)
    assert receiver.posts[1].at - receiver.posts[0].at >= 1.0


@pytest.mark.parametrize("status", [400, 401, 404, 500, 301])
def test_what_will_never_be_taken_is_counted_by_its_status(receiver: Receiver, status: int) -> None:
    """And not sent again (OTLP specification, Failures)."""
    receiver.faults.append(Fault(status))
    sink = logs_to(receiver.url)
    sink.accept(record("lost"))
    assert sink.flush(5) is False
    sink.accept(record("kept"))
    sink.close(5)
    assert sink.counts.dropped == {f"http_{status}": 1}
    assert [one.body.string_value for one in receiver.records] == ["kept"]


def test_case_11_a_partial_success_is_counted(receiver: Receiver) -> None:
    """For each signal by its own field."""
    receiver.rejecting = 2
    for sink, one in ((logs_to(receiver.url), record()), (traces_to(receiver.url), span())):
        for _ in range(5):
            sink.accept(one)  # type: ignore[arg-type]
        assert sink.close(5) is False
        assert (sink.counts.delivered, sink.counts.dropped) == (3, {"rejected": 2})


def test_case_22_a_receiver_that_is_not_there_at_shutdown() -> None:
    """Refused connections: bounded by the time allowed, and counted."""
    sink = logs_to(f"http://127.0.0.1:{free_port()}")
    for _ in range(1_000):
        sink.accept(record())
    begun = time.monotonic()
    assert sink.close(0.5) is False
    assert time.monotonic() - begun < 5  # it would be asked again for a minute
    assert sink.counts.dropped == {"shutdown": 1_000}
    described = sink.describe()
    assert (described["accepted"], described["dropped"]) == (1_000, {"shutdown": 1_000})
    assert described["receiver"].endswith("/v1/logs")


def test_case_4_a_receiver_that_hangs_is_given_up_after_the_timeout(receiver: Receiver) -> None:
    """And asked again; callers do not notice."""
    receiver.faults.append(Fault(503, delay=3.0))
    sink = logs_to(receiver.url, timeout=0.2)
    begun = time.monotonic()
    sink.accept(record())
    assert time.monotonic() - begun < 0.2
    assert sink.flush(5)
    assert len(receiver.records) == 1
    sink.close(1)


@contextmanager
def instrumented() -> Iterator[list[bool]]:
    """An instrumentation of the HTTP client, as the contrib ones are made: it looks for a key."""
    import httpx2
    from opentelemetry import context

    seen: list[bool] = []
    original = httpx2.HTTPTransport.handle_request

    def traced(self: Any, request: Any) -> Any:
        seen.append(bool(context.get_value(context._SUPPRESS_HTTP_INSTRUMENTATION_KEY)))
        return original(self, request)

    httpx2.HTTPTransport.handle_request = traced  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        httpx2.HTTPTransport.handle_request = original  # type: ignore[method-assign]


def test_exporting_is_not_traced(receiver: Receiver) -> None:
    """Each export would make a span to be exported, for ever."""
    with instrumented() as seen:
        sink = logs_to(receiver.url)
        sink.accept(record())
        assert sink.close(5)
    assert seen == [True]


def test_proxies_of_the_environment_are_left_aside(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver is a neighbour."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    sink = logs_to(receiver.url)
    sink.accept(record())
    assert sink.close(5)


def test_an_answer_that_cannot_be_read_rejects_nothing(receiver: Receiver) -> None:
    """What the status said holds."""
    receiver.faults.append(Fault(202, {"Content-Type": "application/json"}))
    sink = logs_to(receiver.url)
    sink.accept(record())
    assert sink.close(5)
    assert json.dumps(sink.counts.dropped) == "{}"
