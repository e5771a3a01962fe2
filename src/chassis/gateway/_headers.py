"""Which headers pass, in both directions. Pure functions over lists of byte pairs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from chassis.core.request import request_id
from chassis.gateway._request import Inbound

_HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization",
    b"te", b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings",
})  # fmt: skip
"""RFC 9110, 7.6.1, and what is used like them. An upgrade to h2c would be a tunnel past the gateway."""

_REPLACED = frozenset({
    # Made anew for the next hop.
    b"host", b"content-length", b"expect",
    # Who the client is, in the client's own words; the gateway's word stands instead.
    b"forwarded", b"x-real-ip", b"x-client-ip", b"x-cluster-client-ip", b"true-client-ip", b"fastly-client-ip",
    # Would make the service see another method or path than the one that was let in.
    b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-rewrite-url",
})  # fmt: skip
_SPEAKS_FOR_THE_INSIDE = (b"x-chassis-", b"x-forwarded-", b"cf-")
_REQUEST_ID = frozenset({b"x-request-id"})
_CREDENTIALS = frozenset({b"authorization", b"cookie"})

_PASSED_TO_PARTS = frozenset({
    b"accept-language", b"user-agent", b"x-request-id", b"traceparent", b"tracestate", b"baggage",
})  # fmt: skip

# The server in front of the gateway writes its own; two of them would be malformed.
_SERVERS_OWN = frozenset({b"date", b"server"})
_BROKEN = re.compile(rb"[\r\n\0]")


def named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Header names that Connection declares to be for this hop only, lower case."""
    return frozenset(
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    )


def outgoing_headers(
    request: Inbound, *, service: str, credentials: bool, key_headers: frozenset[bytes]
) -> list[tuple[bytes, bytes]]:
    """The request's headers as the service gets them, without those of its body.

    What the gateway says is added last, so that nothing in the request can take it away. Headers
    with an underscore are dropped: many servers take ``X_User`` for ``X-User``.

    :param credentials: whether Authorization, Cookie and API keys are passed on.
    :param key_headers: the headers that carry API keys, lower case.
    """
    dropped = named_by_connection(request.headers) | _HOP_BY_HOP | _REPLACED
    if request_id.get() is not None:
        dropped |= _REQUEST_ID
    if not credentials:
        dropped |= _CREDENTIALS | key_headers
    headers = [
        (name, value)
        for name, value in request.headers
        if name not in dropped and b"_" not in name and not name.startswith(_SPEAKS_FOR_THE_INSIDE)
    ]
    return [(b"host", service.encode()), *headers, *_said_here(request)]


def part_headers(
    request: Inbound, *, service: str, credentials: bool, key_headers: frozenset[bytes]
) -> list[tuple[bytes, bytes]]:
    """The headers of a request for one part: it is a request of the gateway's own."""
    passed = _PASSED_TO_PARTS | (_CREDENTIALS | key_headers if credentials else frozenset())
    passed -= named_by_connection(request.headers)
    if request_id.get() is not None:
        passed -= _REQUEST_ID
    return [
        (b"host", service.encode()),
        (b"accept", b"application/json"),
        # Never compressed: a small body could then be made to grow without bounds here.
        (b"accept-encoding", b"identity"),
        *((name, value) for name, value in request.headers if name in passed),
        *_said_here(request),
    ]


def _said_here(request: Inbound) -> list[tuple[bytes, bytes]]:
    said = [(b"x-forwarded-proto", request.scheme.encode())]
    if request.client is not None:
        said.append((b"x-forwarded-for", request.client.encode()))
    if request.host is not None:
        said.append((b"x-forwarded-host", request.host.encode("latin-1")))
    # The server edge's: an id that it did not like it has replaced.
    if (current := request_id.get()) is not None:
        said.append((b"x-request-id", current.encode("latin-1")))
    return said


def returned_headers(raw: Iterable[tuple[bytes, bytes]], *, status: int) -> list[tuple[bytes, bytes]] | None:
    """An answer's headers as the client gets them; each field stays a field of its own (Set-Cookie).

    :returns: None if one of them would split the answer: such an upstream is not to be passed on.
    """
    headers = [(name.lower(), value) for name, value in raw]
    if any(_BROKEN.search(value) or _BROKEN.search(name) for name, value in headers):
        return None
    dropped = named_by_connection(headers) | _HOP_BY_HOP | _SERVERS_OWN
    if status == 204 or any(name == b"transfer-encoding" for name, _ in headers):
        # RFC 9110, 8.6 and RFC 9112, 6.3: it has no say in either case.
        dropped |= {b"content-length"}
    return [(name, value) for name, value in headers if name not in dropped]
