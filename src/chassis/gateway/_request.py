"""An inbound request, read once. Matching, guarding and forwarding see this and never the scope."""

from __future__ import annotations

import re
from dataclasses import dataclass

from chassis.gateway._asgi import Headers, Scope
from chassis.gateway._options import GatewayOptions
from chassis.gateway._path import CanonicalPath, MalformedPath, canonical_path, check_query
from chassis.gateway._refusal import Refusal

_HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_NEVER_IN_A_VALUE = re.compile(rb"[\r\n\0]")


@dataclass(frozen=True, slots=True)
class Inbound:
    """What came in.

    :param path: the one view of the path; below the mount point if the gateway is mounted.
    :param host: as sent, None if there was none; ``route_host`` is lower case and without port.
    :param headers: a copy: uvicorn's own list goes on changing (it takes chunked trailers for
        headers) after the application has started.
    :param length: the body's length as declared; None if it was not.
    :param chunked: the body comes in chunks, its length not known.
    """

    method: str
    path: CanonicalPath
    query: bytes
    headers: Headers
    host: str | None
    route_host: str | None
    scheme: str
    client: str | None
    length: int | None
    chunked: bool

    def values(self, name: bytes) -> list[bytes]:
        """All values of the header ``name`` (lower case)."""
        return [value for key, value in self.headers if key == name]


def read_request(scope: Scope, options: GatewayOptions, methods: frozenset[str]) -> Inbound:
    """Read an ASGI scope.

    Servers differ in what they let through, so what could be read differently further on is
    refused here whatever the server did.

    :param methods: those that routes name, beside the usual ones.
    :raises Refusal: 400, 405, 414, 431 or 501.
    """
    headers = tuple((bytes(name).lower(), bytes(value)) for name, value in scope["headers"])
    if len(headers) > options.max_headers:
        raise Refusal(431, f"the request has more than {options.max_headers} header fields")
    if sum(len(name) + len(value) for name, value in headers) > options.max_header_bytes:
        raise Refusal(431, f"the request's headers are larger than {options.max_header_bytes} bytes")
    if any(_NEVER_IN_A_VALUE.search(value) for _, value in headers):
        raise Refusal(400, "a header holds a line break or NUL")
    version = scope.get("http_version", "1.1")
    length, chunked = _framing(headers, version)
    host, route_host = _host(headers, version)
    method = scope["method"]
    if method in ("CONNECT", "TRACE"):
        # TRACE would echo what the gateway adds, credentials of the inside among it.
        raise Refusal(405, f"{method} is never allowed", headers=((b"allow", b", ".join(_ALLOWED)),))
    if method not in _METHODS and method not in methods:
        raise Refusal(501, "the method is not known")
    query = scope.get("query_string", b"")
    raw_path = _raw_path(scope)
    if len(raw_path) + len(query) > options.max_url:
        raise Refusal(414, f"path and query are longer than {options.max_url} bytes")
    try:
        path = canonical_path(raw_path)
        check_query(query)
    except MalformedPath as error:
        raise Refusal(400, str(error)) from None
    client = scope.get("client")
    return Inbound(
        method=method,
        path=_below_mount(path, scope.get("root_path", "")),
        query=query,
        headers=headers,
        host=host,
        route_host=route_host,
        scheme=scope.get("scheme", "http"),
        client=client[0] if client else None,
        length=length,
        chunked=chunked,
    )


_ALLOWED = sorted(method.encode() for method in _METHODS)


def _raw_path(scope: Scope) -> bytes:
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        # The server only gives the decoded path, in which an encoded delimiter cannot be told from
        # a plain one; encoding it again keeps both views the same.
        from urllib.parse import quote

        return quote(scope["path"], safe="/!$&'()*+,;=:@~").encode()
    # Some servers leave the query on it.
    return raw.partition(b"?")[0]


def _below_mount(path: CanonicalPath, root_path: str) -> CanonicalPath:
    mount = tuple(root_path.strip("/").split("/")) if root_path.strip("/") else ()
    if not mount:
        return path
    if path.segments[: len(mount)] != mount:
        raise Refusal(404, "there is nothing here")
    depth = len(mount)
    return CanonicalPath(path.raw[depth:] or (b"",), path.segments[depth:] or ("",))


def _framing(headers: Headers, version: str) -> tuple[int | None, bool]:
    """Declared length, and whether the body is chunked.

    Everything that two readers could frame differently is refused (RFC 9112, 6.1 and 6.3): that is
    how requests are smuggled.
    """
    lengths = [value for name, value in headers if name == b"content-length"]
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings:
        if lengths:
            raise Refusal(400, "the request has both Content-Length and Transfer-Encoding", headers=_CLOSE)
        if version != "1.1" or len(codings) > 1 or codings[0].strip().lower() != b"chunked":
            raise Refusal(400, "the request's Transfer-Encoding cannot be accepted", headers=_CLOSE)
        return None, True
    if not lengths:
        return None, False
    # isdigit of bytes knows ASCII digits only: neither signs nor lists nor underscores pass.
    if len(lengths) > 1 or not lengths[0].isdigit():
        raise Refusal(400, "the request's Content-Length is not one number", headers=_CLOSE)
    return int(lengths[0][:20]), False


_CLOSE: Headers = ((b"connection", b"close"),)


def _host(headers: Headers, version: str) -> tuple[str | None, str | None]:
    hosts = [value for name, value in headers if name == b"host"]
    if not hosts and version != "1.1":
        return None, None
    if len(hosts) != 1:
        raise Refusal(400, "the request must have exactly one Host", headers=_CLOSE)
    host = hosts[0].decode("latin-1")
    found = _HOST.fullmatch(host.lower())
    if found is None:
        raise Refusal(400, "the request's Host is not a host", headers=_CLOSE)
    return host, found[1].rstrip(".")
