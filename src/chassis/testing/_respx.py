"""respx for services: answers ``http://<service>/...`` in place of discovery and everything behind it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import httpx
import respx
from respx.mocks import Mocker
from respx.models import PassThrough

from chassis.client import CallInfo, edge_error
from chassis.core import ChassisError, DeadlineExceeded, Rejected

USING = "chassis"


class ServiceMocker(Mocker):
    """Registers ``respx.mock(using="chassis")``: it stands in place of a service's whole call.

    respx speaks httpx. A request of httpx2 is shown to its routes as one of httpx, and what they
    give is turned into httpx2's own, errors included.
    """

    name = USING
    targets = ["chassis.client.ServiceUpstreams"]  # noqa: RUF012 - respx's own declaration
    target_methods = ["send", "send_sync"]  # noqa: RUF012 - respx's own declaration

    @classmethod
    def mock(cls, spec: Callable[..., Any]) -> Callable[..., Any]:
        """What takes the place of ``spec``, one of the target methods."""
        answer_async: Any = cls.async_handler  # respx leaves both untyped
        answer: Any = cls.handler

        async def send(upstreams: Any, service: str, request: Any) -> Any:
            await request.aread()
            try:
                response = await answer_async(_as_httpx(request))
            except PassThrough:
                return await spec(upstreams, service, request)
            except _told_errors(request) as error:
                raise _own_error(error, request) from error
            return _own_response(response, request, service)

        def send_sync(upstreams: Any, service: str, request: Any) -> Any:
            request.read()
            try:
                response = answer(_as_httpx(request))
            except PassThrough:
                return spec(upstreams, service, request)
            except _told_errors(request) as error:
                raise _own_error(error, request) from error
            return _own_response(response, request, service)

        return send if inspect.iscoroutinefunction(spec) else send_sync


def mock_services(
    *, base_url: str | None = None, assert_all_called: bool = True, assert_all_mocked: bool = True
) -> respx.MockRouter:
    """A respx router that answers for services, for clients of httpx2 and of httpx.

    Neither discovery nor any policy of the client takes part: what a route gives is what
    the caller sees. ``response.extensions["chassis"]`` tells of one attempt and no instance.

    :param base_url: what all routes begin with, e.g. ``http://catalog``.
    :param assert_all_called: whether a route that nobody called fails the test.
    :param assert_all_mocked: whether a request without a route fails the test.
    """
    return respx.mock(
        base_url=base_url,
        assert_all_called=assert_all_called,
        assert_all_mocked=assert_all_mocked,
        using=USING,
    )


def _module_of(request: Any) -> Any:
    return sys.modules[type(request).__module__.partition(".")[0]]


def _as_httpx(request: Any) -> httpx.Request:
    if isinstance(request, httpx.Request):
        return request
    shown = httpx.Request(
        request.method,
        str(request.url),
        headers=request.headers.raw,
        # As a stream, or httpx would add headers that were not sent.
        stream=httpx.ByteStream(request.content),
        extensions=request.extensions,
    )
    shown.read()
    return shown


def _own_response(response: httpx.Response, request: Any, service: str) -> Any:
    """The answer as a response of the request's module, its body unread."""
    module = _module_of(request)
    extensions = {**response.extensions, "chassis": CallInfo(service, attempts=1)}
    return module.Response(
        response.status_code,
        headers=response.headers.raw,
        stream=_own_stream(response.stream, module),
        extensions=extensions,
    )


def _own_stream(stream: Any, module: Any) -> Any:
    if isinstance(stream, httpx.SyncByteStream):
        return module.ByteStream(b"".join(stream))

    async def chunks(_: Any) -> AsyncIterator[bytes]:
        async for chunk in stream:
            yield chunk

    return type("MockedStream", (module.AsyncByteStream,), {"__aiter__": chunks})()


def _told_errors(request: Any) -> tuple[type[Exception], ...]:
    """What a route may raise in the client's name; any other error is the test's own."""
    return (Rejected, DeadlineExceeded, httpx.RequestError, _module_of(request).RequestError)


def _own_error(error: Any, request: Any) -> Exception:
    """``error`` as the client raises it: of the request's module, or ours that is one of it too."""
    if isinstance(error, ChassisError):
        return edge_error(error, request)
    module = _module_of(request)
    names = [each.__name__ for each in type(error).__mro__]
    own = getattr(module, next(name for name in names if hasattr(module, name)))(str(error))
    own.request = request
    return edge_error(cast(Exception, own), request)
