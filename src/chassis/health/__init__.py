"""Health: whether this process lives, whether it should get traffic, and what it depends on.

Liveness asks nothing of anybody: a dependency that is down is no reason to be restarted. Readiness
is the lifecycle's state and the critical checks. Checks run beside the traffic and their results
are kept, so a probe never waits for a dependency.
"""

from chassis.health._events import CheckFailed, CheckRecovered
from chassis.health._health import CONTENT_TYPE, Answer, Health, Unhealthy
from chassis.health._machine import State

__all__ = [
    "CONTENT_TYPE",
    "Answer",
    "CheckFailed",
    "CheckRecovered",
    "Health",
    "State",
    "Unhealthy",
]
