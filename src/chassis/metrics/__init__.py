"""RED metrics and their exposition: rate, errors and duration of both edges, on prometheus_client.

Everything is registered in prometheus_client's own registry, so the application's metrics and ours
stand on one page. Each label set's child is looked up once and kept; the number of label sets of a
metric is bounded, and what comes beyond shares one series, so totals stay right. The page is rendered
in a thread and kept for a second: a scrape never stalls the event loop.
"""

from chassis.metrics._decorators import counted, timed
from chassis.metrics._exposition import exposition, render, worker_exited
from chassis.metrics._gauges import register_gauge
from chassis.metrics._instruments import ClientMetrics, ServerMetrics, count_event

__all__ = [
    "ClientMetrics",
    "ServerMetrics",
    "count_event",
    "counted",
    "exposition",
    "register_gauge",
    "render",
    "timed",
    "worker_exited",
]
