"""A small OTLP receiver: what it is sent stands in its file, one line each, before it answers.

    python -m examples.shop.collector telemetry.jsonl

It is a process of its own, so that what its file holds was delivered and not merely sent. A line is
``{"span": ...}`` or ``{"log": ...}`` with the service and instance it came from; times are
nanoseconds since the epoch. It reads OTLP over HTTP as protobuf, the form every receiver takes.
"""

import gzip
import json
import signal
import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue


def value(of: AnyValue) -> Any:
    """An attribute's value as JSON has it."""
    kind = of.WhichOneof("value")
    if kind == "array_value":
        return [value(each) for each in of.array_value.values]
    if kind == "kvlist_value":
        return attributes(of.kvlist_value.values)
    if kind == "bytes_value":
        return of.bytes_value.hex()
    return getattr(of, kind) if kind else None


def attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes by name."""
    return {pair.key: value(pair.value) for pair in pairs}


def source(resource: Any) -> dict[str, Any]:
    """The service and the instance a resource stands for."""
    known = attributes(resource.attributes)
    return {"service": known.get("service.name"), "instance": known.get("service.instance.id")}


def spans(body: bytes) -> Iterator[dict[str, Any]]:
    """One object per span of an export request."""
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        origin = source(resource.resource)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield {
                    "span": span.name,
                    **origin,
                    "trace_id": span.trace_id.hex(),
                    "span_id": span.span_id.hex(),
                    "parent_id": span.parent_span_id.hex(),
                    "kind": span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    "start": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "status": span.status.StatusCode.Name(span.status.code)
                    .removeprefix("STATUS_CODE_")
                    .lower(),
                    "attributes": attributes(span.attributes),
                }


def logs(body: bytes) -> Iterator[dict[str, Any]]:
    """One object per log record of an export request."""
    for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
        origin = source(resource.resource)
        for scope in resource.scope_logs:
            for record in scope.log_records:
                yield {
                    "log": value(record.body),
                    **origin,
                    "trace_id": record.trace_id.hex(),
                    "span_id": record.span_id.hex(),
                    "time": record.time_unix_nano or record.observed_time_unix_nano,
                    "severity": record.severity_text,
                    "attributes": attributes(record.attributes),
                }


READERS = {"/v1/traces": spans, "/v1/logs": logs}


class Receiver(ThreadingHTTPServer):
    """Listens on a free port of 127.0.0.1 and appends to ``file``."""

    daemon_threads = True

    def __init__(self, file: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self._file = file.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def write(self, lines: list[str]) -> None:
        """Append whole lines; returns when the operating system has them."""
        with self._lock:
            self._file.write("".join(lines))
            self._file.flush()


class Handler(BaseHTTPRequestHandler):
    """One connection of an exporter."""

    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        read = READERS.get(self.path)
        if read is None:
            self.answer(404)
            return
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        try:
            lines = [json.dumps(each, separators=(",", ":")) + "\n" for each in read(body)]
        except DecodeError:
            self.answer(400)
            return
        self.server.write(lines)
        self.answer(200)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: a line per export would be all it says."""


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, writable=True, path_type=Path))
def main(file: Path) -> None:
    """Append to FILE what exporters send, until SIGTERM."""
    receiver = Receiver(file)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=receiver.shutdown).start())
    print(json.dumps({"service": "collector", "address": receiver.address}), flush=True)
    receiver.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main()
