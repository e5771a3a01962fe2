"""Which instance takes the next call.

A *balancer* is a pure function with a little memory: it chooses among candidates that are all fit
to be called. An *endpoint set* follows a service's snapshots, keeps what belongs to each instance
(its breaker, its pool) for as long as the instance stays, says who is fit, and counts the calls in
flight.
"""

from chassis.loadbalancing._endpoints import Endpoint, EndpointSet, Pick
from chassis.loadbalancing._options import BalancingOptions
from chassis.loadbalancing._round_robin import RoundRobin

__all__ = ["BalancingOptions", "Endpoint", "EndpointSet", "Pick", "RoundRobin"]
