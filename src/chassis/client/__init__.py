"""The outbound edge: services called by name through the httpx API.

An :class:`AsyncTransport` or :class:`SyncTransport` finds the service's instances, chooses one,
guards the call and tries elsewhere when that helps; :func:`async_client` and :func:`sync_client`
make ordinary httpx clients over them.
"""

from chassis.client._events import NoInstanceReachable, NotHedged, OwnLag, RetryBudgetExhausted
from chassis.client._info import CallInfo
from chassis.client._module import HTTPModuleName, edge_error
from chassis.client._options import ClientOptions
from chassis.client._policies import BalancingPolicy, BreakerFamily, BudgetPolicy
from chassis.client._transport import AsyncTransport, SyncTransport, async_client, sync_client
from chassis.client._upstream import Upstream
from chassis.client._upstreams import ServiceUpstreams, check_service_name

__all__ = [
    "AsyncTransport",
    "BalancingPolicy",
    "BreakerFamily",
    "BudgetPolicy",
    "CallInfo",
    "ClientOptions",
    "HTTPModuleName",
    "NoInstanceReachable",
    "NotHedged",
    "OwnLag",
    "RetryBudgetExhausted",
    "ServiceUpstreams",
    "SyncTransport",
    "Upstream",
    "async_client",
    "check_service_name",
    "edge_error",
    "sync_client",
]
