"""An OTLP receiver in a thread: decodes what it is sent, and fails as it is told to."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass
class Fault:
    """What the next request gets instead of being taken."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0


@dataclass
class Post:
    """One request as it came."""

    at: float
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """Takes traces and logs; ``faults`` are served first, ``down`` refuses everything with it."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.spans: list[Any] = []
        self.records: list[Any] = []
        self.resources: list[dict[str, str]] = []
        self.json: list[Any] = []
        self.faults: deque[Fault] = deque()
        self.down: Fault | None = None
        self.rejecting = 0
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, headers, answer, delay = receiver._take(self.path, dict(self.headers.items()), body)
                time.sleep(delay)
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except OSError:
                    self.close_connection = True

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take(
        self, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes, float]:
        with self._lock:
            self.posts.append(Post(time.monotonic(), path, headers, body))
            fault = self.faults.popleft() if self.faults else self.down
            if fault is not None and fault.status != 200:
                return fault.status, fault.headers, b"", fault.delay
            delay = fault.delay if fault is not None else 0.0
            if headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if headers["Content-Type"] == "application/json":
                self.json.append(json.loads(body))
                answer = json.dumps({"partialSuccess": {"rejectedSpans": str(self.rejecting)}}).encode()
                return 200, {"Content-Type": "application/json"}, answer, delay
            return 200, {"Content-Type": "application/x-protobuf"}, self._decode(path, body), delay

    def _decode(self, path: str, body: bytes) -> bytes:
        if path.endswith("/v1/traces"):
            traces = ExportTraceServiceRequest.FromString(body)
            for group in traces.resource_spans:
                self.resources.append(
                    {each.key: each.value.string_value for each in group.resource.attributes}
                )
                self.spans += [span for scope in group.scope_spans for span in scope.spans]
            answer: Any = ExportTraceServiceResponse()
            if self.rejecting:
                answer.partial_success.rejected_spans = self.rejecting
        else:
            logs = ExportLogsServiceRequest.FromString(body)
            for each in logs.resource_logs:
                self.resources.append({kv.key: kv.value.string_value for kv in each.resource.attributes})
                self.records += [record for scope in each.scope_logs for record in scope.log_records]
            answer = ExportLogsServiceResponse()
            if self.rejecting:
                answer.partial_success.rejected_log_records = self.rejecting
        return answer.SerializeToString()
