"""Structured logs: every record one line of JSON, with the ids of the request and trace it belongs to.

loguru is the front: use :data:`log`, or ``from loguru import logger``. The standard library's logging
goes the same way without passing through loguru. All of it meets in one place that redacts, writes
the line in the caller's thread, and hands the record to a sink that ships it. Logging never raises,
never waits for a network, and may be used from signal handlers and finalisers.
"""

from chassis.logs._configure import LogOptions, Logs, configure
from chassis.logs._context import log_context
from chassis.logs._front import Log, log
from chassis.logs._pipeline import access, emit
from chassis.logs._record import ExceptionText, Record, severity_number

__all__ = [
    "ExceptionText",
    "Log",
    "LogOptions",
    "Logs",
    "Record",
    "access",
    "configure",
    "emit",
    "log",
    "log_context",
    "severity_number",
]
