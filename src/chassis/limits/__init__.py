"""Limits: how long a call may take, and how many may be in flight at once."""

from chassis.limits._bulkhead import Bulkhead, bulkhead
from chassis.limits._events import BulkheadRejected
from chassis.limits._options import BulkheadOptions
from chassis.limits._timeout import Timeout, timeout

__all__ = ["Bulkhead", "BulkheadOptions", "BulkheadRejected", "Timeout", "bulkhead", "timeout"]
