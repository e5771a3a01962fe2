"""The outbound edge: services called by name through the httpx API.

An :class:`AsyncTransport` or :class:`SyncTransport` finds the service's instances, chooses one,
guards the call and tries elsewhere when that helps; :func:`async_client` and :func:`sync_client`
make ordinary httpx clients over them.
"""

from chassis.client._events import RetryBudgetExhausted
from chassis.client._line import CallInfo
from chassis.client._module import HTTPModuleName
from chassis.client._options import ClientOptions
from chassis.client._transport import AsyncTransport, SyncTransport, async_client, sync_client
from chassis.client._upstream import BreakerFamily, ServiceUpstreams, Upstream, check_service_name

__all__ = [
    "AsyncTransport",
    "BreakerFamily",
    "CallInfo",
    "ClientOptions",
    "HTTPModuleName",
    "RetryBudgetExhausted",
    "ServiceUpstreams",
    "SyncTransport",
    "Upstream",
    "async_client",
    "check_service_name",
    "sync_client",
]
