"""Calls through ``Upstreams``, and what their errors are to the client."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, cast

import httpx2

from chassis.core import DeadlineExceeded, Rejected, Upstreams
from chassis.gateway._asgi import Headers
from chassis.gateway._refusal import Refusal, UpstreamAborted, retry_after


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


FAILURES = (Rejected, DeadlineExceeded, httpx2.HTTPError, OSError)
"""How a call may fail through no fault of the gateway; TimeoutError is an OSError."""


def refusal_for(service: str, error: BaseException) -> Refusal:
    """What the client is told: which service, never where it is or what it said."""
    # First, for at the HTTP edge they are the library's own errors too.
    if isinstance(error, Rejected):
        return Refusal(503, f"{service} cannot be asked now", headers=retry_after(error.retry_after))
    if isinstance(error, httpx2.PoolTimeout):
        return Refusal(503, f"{service} cannot be asked now", headers=retry_after(None))
    if isinstance(error, DeadlineExceeded | TimeoutError | httpx2.TimeoutException):
        return Refusal(504, f"{service} did not answer in time")
    return Refusal(502, f"{service} gave no usable answer")
