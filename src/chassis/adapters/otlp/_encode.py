"""Spans and records as OTLP messages, with OpenTelemetry's generated classes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from chassis.logs import Record, severity_number

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from opentelemetry.sdk.trace import ReadableSpan

ItemT = TypeVar("ItemT")
EncodedT = TypeVar("EncodedT")

_REMOTE_KNOWN = 0x100
_REMOTE = 0x200


def encode_spans(
    spans: Iterable[ReadableSpan], resource: Mapping[str, Any]
) -> tuple[ExportTraceServiceRequest, int]:
    """One request for ``spans``, and how many it holds: those that cannot be encoded are left out."""
    scopes, count = _by_scope(spans, _scope_of_span, _span)
    message = ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=_resource(resource),
                scope_spans=[ScopeSpans(scope=_scope(key), spans=items) for key, items in scopes.items()],
            )
        ]
    )
    return message, count


def encode_records(
    records: Iterable[Record], resource: Mapping[str, Any]
) -> tuple[ExportLogsServiceRequest, int]:
    """One request for ``records``, and how many it holds: those that cannot be encoded are left out."""
    scopes, count = _by_scope(records, lambda record: (record.logger, ""), _record)
    message = ExportLogsServiceRequest(
        resource_logs=[
            ResourceLogs(
                resource=_resource(resource),
                scope_logs=[ScopeLogs(scope=_scope(key), log_records=items) for key, items in scopes.items()],
            )
        ]
    )
    return message, count


def as_json(message: Message) -> Any:
    """``message`` in OTLP's own JSON: ids in hex instead of base64, enumerations as numbers."""
    return _hex_ids(MessageToDict(message, use_integers_for_enums=True))


_IDS = frozenset({"traceId", "spanId", "parentSpanId"})


def _hex_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: base64.b64decode(each).hex() if key in _IDS and isinstance(each, str) else _hex_ids(each)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_hex_ids(each) for each in value]
    return value


def _by_scope(
    items: Iterable[ItemT],
    scope_of: Callable[[ItemT], tuple[str, str]],
    encode: Callable[[ItemT], EncodedT],
) -> tuple[dict[tuple[str, str], list[EncodedT]], int]:
    scopes: dict[tuple[str, str], list[EncodedT]] = {}
    count = 0
    for item in items:
        # One odd item must not cost its neighbours; the shipper counts what is missing.
        with suppress(Exception):
            encoded = encode(item)
            scopes.setdefault(scope_of(item), []).append(encoded)
            count += 1
    return scopes, count


def _resource(attributes: Mapping[str, Any]) -> Resource:
    return Resource(attributes=_attributes(attributes))


def _scope(key: tuple[str, str]) -> InstrumentationScope:
    return InstrumentationScope(name=_text(key[0]), version=_text(key[1]))


def _scope_of_span(span: ReadableSpan) -> tuple[str, str]:
    scope = span.instrumentation_scope
    return (scope.name, scope.version or "") if scope is not None else ("", "")


def _span(span: ReadableSpan) -> Span:
    context, parent = span.context, span.parent
    if context is None:
        raise ValueError("a span without a context")
    # Bits 8 and 9 say whether the parent came from another process.
    flags = int(context.trace_flags) | _REMOTE_KNOWN | (_REMOTE if parent and parent.is_remote else 0)
    return Span(
        trace_id=context.trace_id.to_bytes(16, "big"),
        span_id=context.span_id.to_bytes(8, "big"),
        trace_state=context.trace_state.to_header(),
        parent_span_id=parent.span_id.to_bytes(8, "big") if parent is not None else b"",
        flags=flags,
        name=_text(span.name),
        kind=Span.SpanKind.ValueType(span.kind.value + 1),
        start_time_unix_nano=span.start_time or 0,
        end_time_unix_nano=span.end_time or 0,
        attributes=_attributes(span.attributes or {}),
        dropped_attributes_count=span.dropped_attributes,
        events=[
            Span.Event(
                time_unix_nano=event.timestamp,
                name=_text(event.name),
                attributes=_attributes(event.attributes or {}),
                dropped_attributes_count=event.dropped_attributes,
            )
            for event in span.events
        ],
        dropped_events_count=span.dropped_events,
        links=[
            Span.Link(
                trace_id=link.context.trace_id.to_bytes(16, "big"),
                span_id=link.context.span_id.to_bytes(8, "big"),
                trace_state=link.context.trace_state.to_header(),
                attributes=_attributes(link.attributes or {}),
                dropped_attributes_count=link.dropped_attributes,
                flags=int(link.context.trace_flags)
                | _REMOTE_KNOWN
                | (_REMOTE if link.context.is_remote else 0),
            )
            for link in span.links
        ],
        dropped_links_count=span.dropped_links,
        status=Status(
            code=Status.StatusCode.ValueType(span.status.status_code.value),
            message=_text(span.status.description or ""),
        ),
    )


def _record(record: Record) -> LogRecord:
    attributes = dict(record.fields)
    if record.request_id is not None:
        attributes["request_id"] = record.request_id
    if record.exception is not None:
        attributes["exception.type"] = record.exception.type
        attributes["exception.message"] = record.exception.message
        attributes["exception.stacktrace"] = record.exception.stacktrace
    return LogRecord(
        time_unix_nano=record.time_ns,
        observed_time_unix_nano=record.time_ns,
        severity_number=SeverityNumber.ValueType(severity_number(record.number)),
        severity_text=_text(record.level),
        body=AnyValue(string_value=_text(record.message)),
        attributes=_attributes(attributes),
        trace_id=bytes.fromhex(record.trace_id or ""),
        span_id=bytes.fromhex(record.span_id or ""),
    )


def _attributes(attributes: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=_text(key), value=_value(value)) for key, value in attributes.items()]


def _value(value: Any) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=_text(value))
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        fits = -(2**63) <= value < 2**63
        return AnyValue(int_value=value) if fits else AnyValue(string_value=str(value))
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    if isinstance(value, Mapping):
        return AnyValue(kvlist_value=KeyValueList(values=_attributes(value)))
    if isinstance(value, Sequence):
        return AnyValue(array_value=ArrayValue(values=[_value(each) for each in value]))
    return AnyValue() if value is None else AnyValue(string_value=_text(str(value)))


def _text(text: str) -> str:
    # Protocol buffers refuse lone surrogates, which undecodable file names and headers bring.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
