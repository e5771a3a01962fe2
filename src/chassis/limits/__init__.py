"""Limits: how long a call may take, how many may be in flight or made, and what is shed under load."""

from chassis.limits._bulkhead import Bulkhead, bulkhead
from chassis.limits._events import BulkheadRejected, LoadShed, RateLimitRejected
from chassis.limits._fields import rate_limit_fields
from chassis.limits._options import BulkheadOptions, LoadShedderOptions, RateLimitOptions
from chassis.limits._rate_limit import RateLimit, rate_limit
from chassis.limits._shedder import LoadShedder
from chassis.limits._timeout import Timeout, timeout

__all__ = [
    "Bulkhead",
    "BulkheadOptions",
    "BulkheadRejected",
    "LoadShed",
    "LoadShedder",
    "LoadShedderOptions",
    "RateLimit",
    "RateLimitOptions",
    "RateLimitRejected",
    "Timeout",
    "bulkhead",
    "rate_limit",
    "rate_limit_fields",
    "timeout",
]
