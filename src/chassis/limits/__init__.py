"""Limits: how long a call may take, how many may be in flight or made, and what is shed under load."""

from chassis.limits._bulkhead import Bulkhead, bulkhead
from chassis.limits._events import BulkheadRejected, RateLimitRejected
from chassis.limits._options import BulkheadOptions, RateLimitOptions
from chassis.limits._rate_limit import RateLimit, rate_limit
from chassis.limits._timeout import Timeout, timeout

__all__ = [
    "Bulkhead",
    "BulkheadOptions",
    "BulkheadRejected",
    "RateLimit",
    "RateLimitOptions",
    "RateLimitRejected",
    "Timeout",
    "bulkhead",
    "rate_limit",
    "timeout",
]
