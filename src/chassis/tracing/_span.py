"""The spans of the two HTTP edges, made current and ended by hand.

``start_as_current_span`` costs 3 µs more, and a client's span ends at body close, often in another
context than the one it was made current in.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, MutableMapping
from contextvars import Token
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    format_span_id,
    format_trace_id,
)

from chassis.tracing._propagation import Headers, extract

SCOPE = "chassis"
"""The instrumentation scope of every span made here."""

_METHODS = frozenset(
    {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "QUERY"}
)
_tracer = trace.get_tracer(SCOPE)


class RequestSpan:
    """One span of an edge, current from its beginning until :meth:`detach`.

    ``detach`` and ``end`` are two steps: the first belongs in the context that began the span, the
    second where the body is closed.
    """

    __slots__ = ("_ended", "_error_from", "_method", "_owned", "_span", "_token", "recording")

    def __init__(
        self,
        span: Span,
        parent: Context | None,
        *,
        method: str = "",
        error_from: int = 400,
        owned: bool = True,
    ) -> None:
        self._span = span
        self._method = method
        self._error_from = error_from
        self._owned = owned
        self._ended = False
        self.recording = span.is_recording()
        """Whether attributes are kept: build dear ones only if it is true."""
        self._token: Token[Context] | None = None
        if owned:
            self._token = otel_context.attach(trace.set_span_in_context(span, parent))

    @property
    def span(self) -> Span:
        """The OpenTelemetry span itself."""
        return self._span

    def set(self, key: str, value: str | bool | float) -> None:
        """Set one attribute; nothing if the span does not record."""
        if self.recording:
            self._span.set_attribute(key, value)

    def route(self, template: str) -> None:
        """Say which route was matched, as its template: ``/items/{id}``, never the path."""
        if self.recording:
            self._span.set_attribute("http.route", template)
            if self._owned:
                self._span.update_name(f"{self._method} {template}")

    def end(self, status_code: int | None = None, error: BaseException | None = None) -> None:
        """End the span; a second call does nothing.

        :param status_code: of the HTTP answer; 500 and above is an error of a server span, 400 and
            above one of a client span.
        :param error: what the call raised. Its type alone is recorded: messages carry secrets.
        """
        if self._ended:
            return
        self._ended = True
        if self.recording:
            if status_code is not None:
                self._span.set_attribute("http.response.status_code", status_code)
            if error is not None:
                fail(self._span, error)
            elif status_code is not None and status_code >= self._error_from:
                self._span.set_attribute("error.type", str(status_code))
                self._span.set_status(Status(StatusCode.ERROR))
        if self._owned:
            self._span.end()

    def detach(self) -> None:
        """Make the former span current again; in the context that began this one. Twice does nothing."""
        token, self._token = self._token, None
        if token is not None:
            otel_context.detach(token)


def begin_server_span(method: str, path: str, scheme: str, headers: Headers) -> RequestSpan:
    """Begin the SERVER span of a request, as a child of what ``headers`` carry, and make it current.

    If the application's own instrumentation has begun a recording SERVER span for this request
    already, that one is used: it gets our attributes, and its maker ends it.

    :param path: the path as it came, without the query, which may carry secrets.
    """
    parent = extract(headers)
    current = trace.get_current_span()
    if _is_foreign_server_span(current, parent):
        return RequestSpan(current, None, owned=False)
    known = method if method in _METHODS else "_OTHER"
    name = known if known == method else "HTTP"
    span = _start(
        name,
        parent,
        SpanKind.SERVER,
        {"http.request.method": known, "url.path": path, "url.scheme": scheme},
    )
    begun = RequestSpan(span, parent, method=name, error_from=500)
    if known != method:
        begun.set("http.request.method_original", method)
    return begun


def begin_client_span(method: str, service: str, *, attempt: int | None = None) -> RequestSpan:
    """Begin the span of an outbound call, or of one attempt of it, and make it current.

    The call as a whole is INTERNAL and named ``GET catalog``. Each attempt is a CLIENT span named
    ``GET``; its instance is set later as ``server.address`` and ``server.port``, and from the second
    attempt on it carries ``http.request.resend_count`` (OpenTelemetry semantic conventions, HTTP).

    :param attempt: 1 for the first attempt; None for the call as a whole.
    """
    known = method if method in _METHODS else "_OTHER"
    attributes: dict[str, str | int] = {"http.request.method": known, "peer.service": service}
    if attempt is None:
        span = _start(f"{known} {service}", None, SpanKind.INTERNAL, attributes)
    else:
        if attempt > 1:
            attributes["http.request.resend_count"] = attempt - 1
        span = _start(known, None, SpanKind.CLIENT, attributes)
    return RequestSpan(span, None, method=known)


def current_ids() -> tuple[str, str] | None:
    """Trace id (32 hex digits) and span id (16) that hold here, or None outside any trace."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return format_trace_id(context.trace_id), format_span_id(context.span_id)


def add_event(name: str, attributes: Mapping[str, Any]) -> None:
    """Put an event on the current span if it records.

    :param attributes: values that are not text, numbers or booleans are written as text; None is left out.
    """
    span = trace.get_current_span()
    if span.is_recording():
        kept = {key: _attribute(value) for key, value in attributes.items() if value is not None}
        span.add_event(name, kept)


def disable_native_telemetry(scope: MutableMapping[str, Any]) -> None:
    """Tell FastAPI, through the ASGI scope, that its own telemetry has been taken over.

    FastAPI makes one SERVER and three INTERNAL spans a request as soon as any provider is set, and
    skips that when the scope has this key. For a wrapper around the application; inside it, the
    SERVER span that FastAPI began is adopted by :func:`begin_server_span`.
    """
    scope.setdefault("fastapi.telemetry", None)


def fail(span: Span, error: BaseException) -> None:
    """Mark ``span`` as failed with the type of ``error``."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    span.set_attribute("error.type", name)
    span.set_status(Status(StatusCode.ERROR, name))


def begin_internal_span(name: str) -> Span:
    """A span for a piece of work inside this process, not yet current."""
    return _start(name, None, SpanKind.INTERNAL, None)


def _start(
    name: str, parent: Context | None, kind: SpanKind, attributes: Mapping[str, str | int] | None
) -> Span:
    span = _tracer.start_span(name, parent, kind, attributes)
    if span.get_span_context().is_valid:
        return span
    # No provider is set and nobody called us with a trace: these ids are for the logs and for
    # those we call. The sampled flag stays 0, since nothing is recorded here (W3C, section 3.2.2.5.1).
    return NonRecordingSpan(
        SpanContext(
            trace_id=random.getrandbits(128) or 1,
            span_id=random.getrandbits(64) or 1,
            is_remote=False,
        )
    )


def _is_foreign_server_span(span: Span, remote: Context) -> bool:
    """Whether ``span`` was begun by somebody else for the very request whose headers gave ``remote``.

    An application called in process (a test client in a handler) finds its caller's span current:
    that one is ours, or has another parent.
    """
    if not span.is_recording() or getattr(span, "kind", None) is not SpanKind.SERVER:
        return False
    if getattr(getattr(span, "instrumentation_scope", None), "name", None) == SCOPE:
        return False
    parent: SpanContext | None = getattr(span, "parent", None)
    expected = trace.get_current_span(remote).get_span_context()
    return (parent.span_id if parent is not None else 0) == expected.span_id


def _attribute(value: Any) -> str | bool | int | float:
    return value if isinstance(value, str | bool | int | float) else str(value)
