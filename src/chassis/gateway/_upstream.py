"""Calls through ``Upstreams``, and what their errors are to the client."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, cast

import httpx2

from chassis.core import Rejected, UpstreamError, Upstreams
from chassis.core.headers import NO_RETRY
from chassis.gateway._asgi import Headers
from chassis.gateway._refusal import Refusal, UpstreamAborted, retry_after
from chassis.server import ANSWERABLE, status_for


class Stream(httpx2.AsyncByteStream):
    """A request body that is made as it is read."""

    def __init__(self, chunks: Any) -> None:
        self._chunks = chunks

    def __aiter__(self) -> Any:
        return self._chunks


def outgoing_request(
    method: str, service: str, target: bytes, headers: Headers, stream: Any = None
) -> httpx2.Request:
    """The request for ``service``, its target byte for byte.

    The URL is for those who look at the request; the HTTP library would normalise it (encode again,
    resolve, parse ``//`` as a host), so what goes over the wire is the extension ``target``.
    """
    return httpx2.Request(
        method,
        f"http://{service}{target.decode('ascii')}",
        headers=list(headers),
        stream=httpx2.ByteStream(b"") if stream is None else stream,
        extensions={"target": target},
    )


async def send(upstreams: Upstreams, service: str, request: httpx2.Request) -> httpx2.Response:
    """The answer of some instance of ``service``, its body unread.

    :raises Refusal: 502, 503 or 504: there is none.
    """
    try:
        response: httpx2.Response = await upstreams.send(service, request)
    except FAILURES as error:
        raise refusal_for(service, error) from error
    return response


def raw_body(response: httpx2.Response) -> AsyncIterable[bytes]:
    """The answer's body as it came over the wire: neither decompressed nor gathered."""
    return cast(AsyncIterable[bytes], response.stream)


async def relayed_body(service: str, response: httpx2.Response) -> AsyncIterator[bytes]:
    """As :func:`raw_body`, for a client that has the head of the answer already.

    :raises UpstreamAborted: it broke off.
    """
    try:
        async for chunk in raw_body(response):
            yield chunk
    except FAILURES as error:
        raise UpstreamAborted(f"the answer of {service} broke off: {type(error).__name__}") from error


FAILURES = (*ANSWERABLE, httpx2.HTTPError, OSError)
"""How a call may fail through no fault of the gateway; TimeoutError is an OSError."""


def refusal_for(service: str, error: BaseException) -> Refusal:
    """What the client is told: which service, never where it is or what it said.

    The statuses are those of :func:`chassis.server.status_for`; as there, what was tried as often as
    is worth it asks for no retry.
    """
    headers = ((NO_RETRY.lower().encode(), b"1"),) if isinstance(error, UpstreamError) else ()
    if isinstance(error, ANSWERABLE):
        status = status_for(error)
    else:
        status = 504 if isinstance(error, TimeoutError) else 502
    if status == 504:
        return Refusal(504, f"{service} did not answer in time", headers=headers)
    if status == 502:
        return Refusal(502, f"{service} gave no usable answer", headers=headers)
    seconds = error.retry_after if isinstance(error, Rejected) else None
    return Refusal(503, f"{service} cannot be asked now", headers=(*retry_after(seconds), *headers))
