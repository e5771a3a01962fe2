"""Run in a process of its own: a process has one tracer provider for ever.

Prints, for each scenario, the spans that reached the sink, and what else the scenario returned.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from chassis import tracing

PARENT = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
UNSAMPLED = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-00"


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.flushed: list[float] = []
        self.closed: list[float] = []

    def accept(self, record: Any) -> bool:
        self.spans.append(record)
        return True

    def flush(self, timeout: float) -> bool:
        self.flushed.append(timeout)
        return True

    def close(self, timeout: float) -> bool:
        self.closed.append(timeout)
        return True


def headers_out() -> dict[str, str]:
    out: dict[str, str] = {}
    tracing.inject(out.__setitem__)
    return out


def served() -> Any:
    span = tracing.begin_server_span("GET", "/items/7", "http", [(b"traceparent", PARENT)])
    span.route("/items/{id}")
    span.set("chassis.note", "x")
    inside = tracing.current_ids()
    span.detach()
    after = tracing.current_ids()
    span.end(200)
    span.end(500)
    return {"inside": inside, "after": after}


def server_errors() -> Any:
    for status in (404, 503):
        span = tracing.begin_server_span("GET", "/", "http", ())
        span.detach()
        span.end(status)
    span = tracing.begin_server_span("GET", "/", "http", ())
    span.detach()
    span.end(500, KeyError("password=hunter2"))


def strange_method() -> Any:
    span = tracing.begin_server_span("FOO", "/", "http", ())
    span.route("/all")
    span.detach()
    span.end(405)


def called() -> Any:
    out = []
    call = tracing.begin_client_span("POST", "catalog")
    for number in (1, 2):
        attempt = tracing.begin_client_span("POST", "catalog", attempt=number)
        attempt.set("server.address", "10.0.0.7")
        out.append(headers_out()["traceparent"])
        attempt.detach()
        attempt.end(503 if number == 1 else 404)
    call.detach()
    call.end(error=ConnectionError("no"))
    return out


def unsampled() -> Any:
    span = tracing.begin_server_span(
        "GET", "/", "http", [(b"traceparent", UNSAMPLED), (b"tracestate", b"x=y")]
    )
    out = headers_out()
    ids = tracing.current_ids()
    span.detach()
    span.end(500)
    return {"out": out, "ids": ids, "recording": span.recording}


def ended_elsewhere() -> Any:
    """A client's span ends at body close, in another context than it was begun in."""

    async def main() -> Any:
        span = tracing.begin_client_span("GET", "catalog")
        span.detach()
        here = tracing.current_ids()

        async def close_body() -> None:
            span.detach()
            span.end(200)

        await asyncio.create_task(close_body())
        return here

    return asyncio.run(main())


def adopted() -> Any:
    """The application's own instrumentation wraps the edge."""
    parent = tracing.extract([(b"traceparent", PARENT)])
    tracer = trace.get_tracer("users.instrumentation")
    with tracer.start_as_current_span("theirs", parent, SpanKind.SERVER):
        span = tracing.begin_server_span("GET", "/", "http", [(b"traceparent", PARENT)])
        span.route("/r")
        span.detach()
        span.end(500)


def in_process_call() -> Any:
    """A handler calls another application in its own process and context: that is a request of its own."""
    outer = tracing.begin_server_span("GET", "/outer", "http", ())
    inner = tracing.begin_server_span("GET", "/inner", "http", ())
    inner.detach()
    inner.end(200)
    outer.detach()
    outer.end(200)


def events() -> Any:
    span = tracing.begin_server_span("GET", "/", "http", ())
    tracing.add_event("breaker.opened", {"subject": "payments", "none": None, "odd": ["x"], "rate": 0.5})
    span.detach()
    span.end(200)
    tracing.add_event("outside", {})


def decorated() -> Any:
    seen: dict[str, Any] = {}

    @tracing.traced
    def plain() -> Any:
        return tracing.current_ids()

    @tracing.traced("named")
    async def asynchronous() -> Any:
        return tracing.current_ids()

    @tracing.traced("generator")
    def generator() -> Any:
        try:
            sent = yield tracing.current_ids()
            yield sent
        except LookupError:
            yield "caught"
        return "end"

    @tracing.traced("agenerator")
    async def agenerator() -> Any:
        try:
            sent = yield tracing.current_ids()
            yield sent
        except LookupError:
            yield "caught"

    @tracing.traced("failing")
    def failing() -> Any:
        raise ValueError("secret")

    @tracing.traced("closed")
    def closed() -> Any:
        yield 1
        yield 2

    class Methods:
        @tracing.traced
        @classmethod
        def of_class(cls) -> Any:
            return tracing.current_ids()

        @tracing.traced
        @staticmethod
        def static() -> Any:
            return tracing.current_ids()

    seen["methods"] = [Methods.of_class(), Methods.static()]
    seen["plain"] = plain()
    seen["asynchronous"] = asyncio.run(asynchronous())
    first = generator()
    seen["generator"] = [next(first), tracing.current_ids(), first.send("sent"), first.throw(LookupError())]
    try:
        next(first)
    except StopIteration as end:
        seen["generator"].append(end.value)

    async def consume() -> Any:
        stream = agenerator()
        got = [await anext(stream), tracing.current_ids(), await stream.asend("sent")]
        got.append(await stream.athrow(LookupError()))
        got += [each async for each in stream]
        return got

    seen["agenerator"] = asyncio.run(consume())
    try:
        failing()
    except ValueError:
        seen["failing"] = "raised"
    stopped = closed()
    next(stopped)
    stopped.close()
    return seen


def shown(span: Any) -> dict[str, Any]:
    return {
        "name": span.name,
        "kind": span.kind.name,
        "trace": f"{span.context.trace_id:032x}",
        "id": f"{span.context.span_id:016x}",
        "parent": f"{span.parent.span_id:016x}" if span.parent else None,
        "attributes": dict(span.attributes),
        "status": span.status.status_code.name,
        "description": span.status.description,
        "events": [[event.name, dict(event.attributes)] for event in span.events],
        "service": span.resource.attributes["service.name"],
    }


SCENARIOS = (
    served,
    server_errors,
    strange_method,
    called,
    unsampled,
    ended_elsewhere,
    adopted,
    in_process_call,
    events,
    decorated,
)


def main() -> None:
    sink = Kept()
    handle = tracing.install_provider("orders", tracing.TracingOptions(), sink)
    results: dict[str, Any] = {"installed": handle.installed}
    for scenario in SCENARIOS:
        sink.spans.clear()
        returned = scenario()
        results[scenario.__name__] = {"spans": [shown(span) for span in sink.spans], "returned": returned}

    # One provider for ever: a second installation is refused while the first is open, and takes
    # its place afterwards.
    second = Kept()
    results["second_while_open"] = tracing.install_provider("b", tracing.TracingOptions(), second).installed
    handle.flush(1.5)
    handle.shutdown(2.5)
    served()
    sink.spans.clear()
    results["second_after"] = tracing.install_provider("b", tracing.TracingOptions(), second).installed
    served()
    results["first_got"], results["second_got"] = len(sink.spans), len(second.spans)
    results["flushed"], results["closed"] = sink.flushed, sink.closed
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
