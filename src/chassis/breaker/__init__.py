"""Circuit breaker: stop calling what keeps failing, and find out when it works again.

:class:`CircuitBreaker` is a policy: a decorator, and :meth:`~CircuitBreaker.acquire` for edges that
hold a permit until a body is closed.
"""

from chassis.breaker._events import BreakerClosed, BreakerHalfOpen, BreakerOpened, BreakerRejected
from chassis.breaker._machine import BreakerState
from chassis.breaker._options import BreakerOptions
from chassis.breaker._policy import CircuitBreaker

__all__ = [
    "BreakerClosed",
    "BreakerHalfOpen",
    "BreakerOpened",
    "BreakerOptions",
    "BreakerRejected",
    "BreakerState",
    "CircuitBreaker",
]
