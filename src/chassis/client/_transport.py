"""The httpx transports: a client made with one calls services by name."""

from __future__ import annotations

from ipaddress import ip_address
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from chassis.client._module import HTTPModuleName, http_module, module_of
from chassis.client._upstreams import ServiceUpstreams, is_service_name

if TYPE_CHECKING:
    import httpx2


_CALLED = "chassis.service"
"""A request's extension: the service it was sent to. Redirects inherit it."""


def _service_of(request: Any, upstreams: ServiceUpstreams) -> str:
    """The service a request is for: the host of its URL.

    Redirects come here as well. One to a service that this program calls is followed to that service.
    One to any other name is refused, or whoever is called could have this program look up and call any
    name, a new one each time; and one to an address, as it would leave discovery and every guard behind.
    """
    url = request.url
    host: str = url.host
    if not (url.scheme in ("http", "https") and url.port is None and _names_a_service(host)):
        raise module_of(request).module.UnsupportedProtocol(
            f"{url.scheme}://{url.netloc.decode()} is no service: write http://<service>/path, "
            "without a port; an address of its own is called with a plain client",
            request=request,
        )
    redirected_by = request.extensions.get(_CALLED, host)
    if redirected_by != host and not upstreams.calls(host):
        raise module_of(request).module.UnsupportedProtocol(
            f"{redirected_by} redirects to {host}, which this program does not call: "
            f"if that may be followed, make a client of {host} first",
            request=request,
        )
    request.extensions[_CALLED] = host
    return host


def _names_a_service(host: str) -> bool:
    if not is_service_name(host):
        return False
    try:
        ip_address(host)
    except ValueError:
        return True
    return False


class AsyncTransport:
    """An httpx transport that sends ``http://<service>/...`` to an instance of the service.

    It has no base class, so that one serves httpx2 and httpx. Closing it closes nothing: pools
    belong to the upstreams, which all clients share.
    """

    def __init__(self, upstreams: ServiceUpstreams) -> None:
        self._upstreams = upstreams

    async def handle_async_request(self, request: Any) -> Any:
        """Send ``request``; its errors are the HTTP module's own, and ours where they say more."""
        return await self._upstreams.send(_service_of(request, self._upstreams), request)

    async def aclose(self) -> None:
        """Nothing to close."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()


class SyncTransport:
    """The same for sync clients."""

    def __init__(self, upstreams: ServiceUpstreams) -> None:
        self._upstreams = upstreams

    def handle_request(self, request: Any) -> Any:
        """Send ``request``; its errors are the HTTP module's own, and ours where they say more."""
        return self._upstreams.send_sync(_service_of(request, self._upstreams), request)

    def close(self) -> None:
        """Nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.close()


# A request's timeouts are read by the call line, so the client itself must set none: what then
# stands in a request is what its caller asked for. The transport is duck-typed for both modules.


def async_client(
    upstreams: ServiceUpstreams, service: str, *, http: HTTPModuleName = "httpx2"
) -> httpx2.AsyncClient:
    """An ``AsyncClient`` whose relative URLs go to ``service``."""
    client: httpx2.AsyncClient = http_module(http).module.AsyncClient(
        transport=AsyncTransport(upstreams), base_url=f"http://{service}", timeout=None, trust_env=False
    )
    return client


def sync_client(
    upstreams: ServiceUpstreams, service: str, *, http: HTTPModuleName = "httpx2"
) -> httpx2.Client:
    """A ``Client`` whose relative URLs go to ``service``.

    :raises ConfigError: its calls are to be hedged, which threads cannot do.
    """
    upstreams.upstream(service).refuse_hedging_in_threads()
    client: httpx2.Client = http_module(http).module.Client(
        transport=SyncTransport(upstreams), base_url=f"http://{service}", timeout=None, trust_env=False
    )
    return client
