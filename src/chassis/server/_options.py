from __future__ import annotations

from dataclasses import dataclass

from chassis.core.options import Seconds, check_seconds


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How requests are served and the process stops.

    :param max_deadline: the longest deadline a caller may set, in seconds; also holds for callers
        that set none.
    :param drain: seconds the process goes on serving after it was deregistered, so that callers
        learn of it before it stops. Raise it for callers that poll their registry.
    :param grace: seconds requests in flight get to finish once draining is over.
    """

    max_deadline: Seconds = 60.0
    drain: Seconds = 2.0
    grace: Seconds = 30.0

    def __post_init__(self) -> None:
        check_seconds("max_deadline", self.max_deadline)
        check_seconds("drain", self.drain, zero=True)
        check_seconds("grace", self.grace)
