"""Trace context in headers: read from ASGI header pairs, written through a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter, Setter, TextMapPropagator

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]
"""Header pairs with lower-case names, as ASGI gives them."""

_W3C = frozenset({"traceparent", "tracestate", "baggage"})
_SINGLE = "traceparent"


def extract(headers: Headers) -> Context:
    """The remote context that ``headers`` carry, read by the global propagator.

    The propagator is W3C trace context and baggage unless ``OTEL_PROPAGATORS`` or the application
    says otherwise. A header that cannot be read, or a ``traceparent`` sent twice, starts a new
    trace: it is never an error (W3C Trace Context, section 4.3).

    :returns: a context with the remote span, or an empty one.
    """
    propagator = propagate.get_global_textmap()
    carrier: dict[str, list[str]] = {}
    wanted = _wanted(propagator)
    for name, value in headers:
        if wanted is None or name in wanted:
            carrier.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    if len(carrier.get(_SINGLE, ())) > 1:
        del carrier[_SINGLE]
    if not carrier:
        return Context()
    try:
        return propagator.extract(carrier, Context(), _GETTER)
    except Exception:  # noqa: BLE001 - what a stranger sent must not fail the request
        return Context()


def inject(set_header: Callable[[str, str], None]) -> None:
    """Write the current context into a request's headers.

    :param set_header: called with name and value of each header; it replaces one of that name.
    """
    propagate.get_global_textmap().inject(set_header, setter=_SETTER)


class _Getter(Getter[dict[str, list[str]]]):
    def get(self, carrier: dict[str, list[str]], key: str) -> list[str] | None:
        return carrier.get(key.lower())

    def keys(self, carrier: dict[str, list[str]]) -> list[str]:
        return list(carrier)


class _Setter(Setter[Callable[[str, str], None]]):
    def set(self, carrier: Callable[[str, str], None], key: str, value: str) -> None:
        carrier(key, value)


_GETTER = _Getter()
_SETTER = _Setter()
_known: tuple[TextMapPropagator | None, frozenset[bytes] | None] = (None, None)


def _wanted(propagator: TextMapPropagator) -> frozenset[bytes] | None:
    """The header names ``propagator`` reads; None if only it can know (``fields`` names what is written)."""
    global _known  # noqa: PLW0603 - remembers the last answer: the global propagator hardly ever changes
    if _known[0] is not propagator:
        fields = frozenset(propagator.fields)
        names = frozenset(name.encode() for name in fields) if fields <= _W3C else None
        _known = (propagator, names)
    return _known[1]
