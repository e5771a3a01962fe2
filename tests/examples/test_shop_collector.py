"""The shop's OTLP receiver: what it has answered 200 to stands in its file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from examples.shop.received import Received
from tests.support.processes import ManagedProcess

TRACE, SPAN, PARENT = bytes(range(16)), bytes(range(8)), bytes(range(8, 16))
RESOURCE = Resource(
    attributes=[
        KeyValue(key="service.name", value=AnyValue(string_value="orders")),
        KeyValue(key="service.instance.id", value=AnyValue(string_value="orders-1")),
    ]
)


def trace_request() -> bytes:
    span = Span(
        trace_id=TRACE,
        span_id=SPAN,
        parent_span_id=PARENT,
        name="POST /orders",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=1_000,
        end_time_unix_nano=5_000,
        status=Status(code=Status.STATUS_CODE_ERROR),
        attributes=[KeyValue(key="http.response.status_code", value=AnyValue(int_value=503))],
    )
    scopes = [ScopeSpans(spans=[span])]
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=RESOURCE, scope_spans=scopes)]
    ).SerializeToString()


def log_request() -> bytes:
    inner = AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="a", value=AnyValue(bool_value=True))]))
    record = LogRecord(
        time_unix_nano=2_000,
        severity_text="INFO",
        body=AnyValue(string_value="paid"),
        trace_id=TRACE,
        span_id=SPAN,
        attributes=[KeyValue(key="charge", value=inner)],
    )
    scopes = [ScopeLogs(log_records=[record])]
    return ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(resource=RESOURCE, scope_logs=scopes)]
    ).SerializeToString()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("collector") / "received.jsonl"


@pytest.fixture(scope="module")
def collector(file: Path) -> Iterator[httpx2.Client]:
    with ManagedProcess.python("-m", "examples.shop.collector", str(file)) as process:
        address = process.wait_for_json("service", "address")["address"]
        with httpx2.Client(base_url=address) as client:
            yield client


def last(file: Path) -> dict[str, object]:
    return json.loads(file.read_text().splitlines()[-1])


def test_a_span_is_in_the_file_when_the_answer_comes(collector: httpx2.Client, file: Path) -> None:
    assert collector.post("/v1/traces", content=trace_request()).status_code == 200
    assert last(file) == {
        "span": "POST /orders",
        "service": "orders",
        "instance": "orders-1",
        "trace_id": TRACE.hex(),
        "span_id": SPAN.hex(),
        "parent_id": PARENT.hex(),
        "kind": "server",
        "start": 1_000,
        "end": 5_000,
        "status": "error",
        "attributes": {"http.response.status_code": 503},
    }


def test_a_record_is_in_the_file_when_the_answer_comes(collector: httpx2.Client, file: Path) -> None:
    assert collector.post("/v1/logs", content=log_request()).status_code == 200
    assert last(file) == {
        "log": "paid",
        "service": "orders",
        "instance": "orders-1",
        "trace_id": TRACE.hex(),
        "span_id": SPAN.hex(),
        "time": 2_000,
        "severity": "INFO",
        "attributes": {"charge": {"a": True}},
    }


def test_compressed_requests_are_read(collector: httpx2.Client, file: Path) -> None:
    before = file.stat().st_size
    headers = {"Content-Encoding": "gzip"}
    assert (
        collector.post("/v1/logs", content=gzip.compress(log_request()), headers=headers).status_code == 200
    )
    assert file.stat().st_size > before


@pytest.mark.parametrize(
    ("path", "body", "status"), [("/v1/logs", b"\xff\xff", 400), ("/v1/metrics", b"", 404)]
)
def test_what_it_cannot_read_is_refused_and_leaves_no_line(
    collector: httpx2.Client, file: Path, path: str, body: bytes, status: int
) -> None:
    before = file.stat().st_size if file.exists() else 0
    assert collector.post(path, content=body).status_code == status
    assert (file.stat().st_size if file.exists() else 0) == before


def test_its_counts_are_by_instance_and_signal(tmp_path: Path) -> None:
    file = tmp_path / "received.jsonl"
    file.write_text(
        '{"span":"a","instance":"x-1"}\n{"log":"b","instance":"x-1"}\n{"log":"c","instance":"x-2"}\n{"log":"half'
    )
    counts = Received(file).counts()
    assert {name: dict(each) for name, each in counts.items()} == {
        "x-1": {"traces": 1, "logs": 1},
        "x-2": {"logs": 1},
    }
