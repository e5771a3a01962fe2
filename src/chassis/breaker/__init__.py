"""Circuit breaker: stop calling what keeps failing, and find out when it works again.

:class:`CircuitBreaker` is a policy: a decorator, ``with breaker.guarded():`` for blocks, and
:meth:`~CircuitBreaker.acquire` for edges that hold a permit until a body is closed.
:class:`KeyedBreakers` is a family of them, one per key.
"""

from chassis.breaker._events import (
    BreakerClosed,
    BreakerDisabled,
    BreakerForcedOpen,
    BreakerHalfOpen,
    BreakerKeysExhausted,
    BreakerMetricsOnly,
    BreakerOpened,
    BreakerRejected,
    BreakerWouldOpen,
)
from chassis.breaker._keyed import KeyedBreakers
from chassis.breaker._options import BreakerFields, BreakerOptions, Mode
from chassis.breaker._policy import CircuitBreaker
from chassis.breaker._states import BreakerState

__all__ = [
    "BreakerClosed",
    "BreakerDisabled",
    "BreakerFields",
    "BreakerForcedOpen",
    "BreakerHalfOpen",
    "BreakerKeysExhausted",
    "BreakerMetricsOnly",
    "BreakerOpened",
    "BreakerOptions",
    "BreakerRejected",
    "BreakerState",
    "BreakerWouldOpen",
    "CircuitBreaker",
    "KeyedBreakers",
    "Mode",
]
