"""The inbound edge: context, telemetry, health endpoints and a stop that loses no request.

:class:`ServerEdge` wraps any ASGI application and works under any ASGI server; :class:`WSGIEdge` is
its twin for WSGI.
"""

from chassis.server._edge import ServerEdge
from chassis.server._endpoints import Endpoints
from chassis.server._events import (
    AnnouncementFailed,
    DeadlineMalformed,
    Draining,
    LoopBlocked,
    LoopRecovered,
    Stopping,
)
from chassis.server._lifecycle import Hooks, Lifecycle
from chassis.server._listen import Address
from chassis.server._loop_watch import LoopWatch
from chassis.server._options import ServerOptions
from chassis.server._problem import ANSWERABLE, Answerable, answerable, problem_for, status_for
from chassis.server._problem import CONTENT_TYPE as PROBLEM_TYPE
from chassis.server._wsgi import ROUTE, WSGIEdge
from chassis.server._wsgi_lifecycle import WSGILifecycle

__all__ = [
    "ANSWERABLE",
    "PROBLEM_TYPE",
    "ROUTE",
    "Address",
    "AnnouncementFailed",
    "Answerable",
    "DeadlineMalformed",
    "Draining",
    "Endpoints",
    "Hooks",
    "Lifecycle",
    "LoopBlocked",
    "LoopRecovered",
    "LoopWatch",
    "ServerEdge",
    "ServerOptions",
    "Stopping",
    "WSGIEdge",
    "WSGILifecycle",
    "answerable",
    "problem_for",
    "status_for",
]
