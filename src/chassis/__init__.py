"""A microservice chassis for Python.

Services find each other, balance, fail over, break circuits, read configuration and credentials, are
traced, logged and measured, and stand behind a gateway; each of it works alone. Names are imported
when they are first used: importing this package imports nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chassis.breaker import BreakerOptions, CircuitBreaker, KeyedBreakers
    from chassis.client import ClientOptions
    from chassis.core import (
        BulkheadFull,
        ChassisError,
        CircuitOpen,
        ConfigError,
        Deadline,
        DeadlineExceeded,
        DiscoveryError,
        Event,
        NoInstance,
        Overloaded,
        Pipeline,
        RateLimited,
        Rejected,
        UpstreamError,
        current_deadline,
        deadline_scope,
        detach_deadline,
        events,
        policies,
        remaining,
    )
    from chassis.core.secrets import Secret
    from chassis.fallbacks import fallback
    from chassis.gateway import Gateway
    from chassis.limits import LoadShedder, RateLimit, bulkhead, rate_limit, timeout
    from chassis.logs import log, log_context
    from chassis.metrics import counted, timed
    from chassis.retries import HedgeOptions, hedge, retry
    from chassis.service import Chassis
    from chassis.tracing import traced

_HOMES = {
    "BreakerOptions": "chassis.breaker",
    "BulkheadFull": "chassis.core",
    "Chassis": "chassis.service",
    "ChassisError": "chassis.core",
    "CircuitBreaker": "chassis.breaker",
    "CircuitOpen": "chassis.core",
    "ClientOptions": "chassis.client",
    "ConfigError": "chassis.core",
    "Deadline": "chassis.core",
    "DeadlineExceeded": "chassis.core",
    "DiscoveryError": "chassis.core",
    "Event": "chassis.core",
    "Gateway": "chassis.gateway",
    "HedgeOptions": "chassis.retries",
    "KeyedBreakers": "chassis.breaker",
    "LoadShedder": "chassis.limits",
    "NoInstance": "chassis.core",
    "Overloaded": "chassis.core",
    "Pipeline": "chassis.core",
    "RateLimit": "chassis.limits",
    "RateLimited": "chassis.core",
    "Rejected": "chassis.core",
    "Secret": "chassis.core.secrets",
    "UpstreamError": "chassis.core",
    "bulkhead": "chassis.limits",
    "counted": "chassis.metrics",
    "current_deadline": "chassis.core",
    "deadline_scope": "chassis.core",
    "detach_deadline": "chassis.core",
    "events": "chassis.core",
    "fallback": "chassis.fallbacks",
    "hedge": "chassis.retries",
    "log": "chassis.logs",
    "log_context": "chassis.logs",
    "policies": "chassis.core",
    "rate_limit": "chassis.limits",
    "remaining": "chassis.core",
    "retry": "chassis.retries",
    "timed": "chassis.metrics",
    "timeout": "chassis.limits",
    "traced": "chassis.tracing",
}

__all__ = [
    "BreakerOptions",
    "BulkheadFull",
    "Chassis",
    "ChassisError",
    "CircuitBreaker",
    "CircuitOpen",
    "ClientOptions",
    "ConfigError",
    "Deadline",
    "DeadlineExceeded",
    "DiscoveryError",
    "Event",
    "Gateway",
    "HedgeOptions",
    "KeyedBreakers",
    "LoadShedder",
    "NoInstance",
    "Overloaded",
    "Pipeline",
    "RateLimit",
    "RateLimited",
    "Rejected",
    "Secret",
    "UpstreamError",
    "bulkhead",
    "counted",
    "current_deadline",
    "deadline_scope",
    "detach_deadline",
    "events",
    "fallback",
    "hedge",
    "log",
    "log_context",
    "policies",
    "rate_limit",
    "remaining",
    "retry",
    "timed",
    "timeout",
    "traced",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return __all__
