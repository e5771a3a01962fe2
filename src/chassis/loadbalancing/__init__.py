"""Which instance takes the next call.

An *endpoint set* follows a service's snapshots, keeps what belongs to each instance (its breaker,
its pool) for as long as the instance stays, counts the calls in flight, and knows who may be called
now: the filters stand there, once. A *policy* (:class:`~chassis.core.contracts.Balancer`) chooses
among those: a pure object with a little memory.
"""

from chassis.loadbalancing._endpoint import Endpoint
from chassis.loadbalancing._endpoints import EndpointSet, Pick
from chassis.loadbalancing._events import EndpointEjected, EndpointReturned, PanicEntered, PanicLeft
from chassis.loadbalancing._options import BalancingOptions, PolicyName

__all__ = [
    "BalancingOptions",
    "Endpoint",
    "EndpointEjected",
    "EndpointReturned",
    "EndpointSet",
    "PanicEntered",
    "PanicLeft",
    "Pick",
    "PolicyName",
]
