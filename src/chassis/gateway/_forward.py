"""One request, one service: streamed through, both ways."""

from __future__ import annotations

from collections.abc import Mapping

import httpx2

from chassis.core import Upstreams, current_deadline, deadline_scope
from chassis.core.headers import DEADLINE
from chassis.gateway._asgi import Send
from chassis.gateway._client_watch import ClientWatch
from chassis.gateway._headers import outgoing_headers, returned_headers
from chassis.gateway._location import rewrite_references
from chassis.gateway._options import RouteOptions
from chassis.gateway._refusal import Refusal
from chassis.gateway._request import Inbound
from chassis.gateway._upstream import Stream, outgoing_request, relayed_body
from chassis.gateway._upstream import send as ask

_DEADLINE = DEADLINE.lower().encode()


class Forward:
    """Passes requests of one route to its service.

    :param key_headers: the headers that carry API keys.
    """

    def __init__(
        self, route: RouteOptions, service: str, upstreams: Upstreams, key_headers: frozenset[bytes]
    ) -> None:
        self._route = route
        self._service = service
        self._upstreams = upstreams
        self._key_headers = key_headers

    async def __call__(
        self, request: Inbound, values: Mapping[str, str], client: ClientWatch, send: Send
    ) -> None:
        async with client:
            outgoing = self._outgoing(request, client)
            # A deadline that the client did not set must not cut a body whose head has come: event
            # streams go on for hours. Until the head has come, the call's own deadline holds.
            own = any(name == _DEADLINE for name, _ in request.headers)
            with deadline_scope(current_deadline() if own else None):
                response = await ask(self._upstreams, self._service, outgoing)
            # If the head of the answer came before the end of the request, the rest of the request
            # is of no interest to the service any more.
            client.watch()
            try:
                await self._relay(request, response, send)
            finally:
                await response.aclose()

    def _outgoing(self, request: Inbound, client: ClientWatch) -> httpx2.Request:
        headers = outgoing_headers(
            request,
            service=self._service,
            credentials=self._route.forward_credentials,
            key_headers=self._key_headers,
        )
        body = client.whole_body
        stream: httpx2.AsyncByteStream
        if body is not None:
            stream = httpx2.ByteStream(body)
            if body or request.length is not None or request.chunked:
                headers.append((b"content-length", str(len(body)).encode()))
        else:
            stream = Stream(client.chunks())
            if request.length is not None:
                headers.append((b"content-length", str(request.length).encode()))
            else:
                headers.append((b"transfer-encoding", b"chunked"))
        return outgoing_request(request.method, self._service, self._target(request), headers, stream)

    def _target(self, request: Inbound) -> bytes:
        target = b"/" + b"/".join(request.path.raw[self._route.stripped :])
        return target + b"?" + request.query if request.query else target

    async def _relay(self, request: Inbound, response: httpx2.Response, send: Send) -> None:
        status = response.status_code
        headers = returned_headers(response.headers.raw, status=status)
        if headers is None or status < 200:
            raise Refusal(502, f"{self._service} gave no usable answer")
        headers = rewrite_references(
            headers,
            hosts=self._hosts(response),
            origin=None if request.host is None else f"{request.scheme}://{request.host}",
            prefix=self._route.strip,
        )
        await send({"type": "http.response.start", "status": status, "headers": headers})
        bodiless = request.method == "HEAD" or status in (204, 304)
        # As it came: not decompressed, not gathered. `send` waits while the client is slow, and so the
        # upstream is read no faster than the client reads.
        async for chunk in relayed_body(self._service, response):
            if not bodiless:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _hosts(self, response: httpx2.Response) -> frozenset[str]:
        """Under which names the upstream may speak of itself."""
        instance = getattr(response.extensions.get("chassis"), "instance", None)
        return frozenset({self._service} if instance is None else {self._service, instance.address})
