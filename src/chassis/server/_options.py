from __future__ import annotations

from dataclasses import dataclass, field

from chassis.core import ConfigError
from chassis.core.options import Seconds, check_seconds
from chassis.limits import LoadShedderOptions
from chassis.server._context import GRPC_TIMEOUT


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How requests are served and the process stops.

    :param max_deadline: the longest deadline a request may have, in seconds, whatever its caller
        says.
    :param default_deadline: the deadline of a request whose caller says none, in seconds; None for
        ``max_deadline``.
    :param deadline_headers: headers that tell the deadline beside our own: ``grpc-timeout``, or any
        name that ends in ``-ms`` and holds milliseconds, such as ``x-envoy-expected-rq-timeout-ms``.
        Of several the earliest holds.
    :param shedding: when requests are refused so that others are answered in time.
    :param drain: seconds the process goes on serving after it was deregistered, so that callers
        learn of it before it stops. Raise it for callers that poll their registry.
    :param grace: seconds requests in flight get to finish once draining is over.
    :raises ConfigError: a value is impossible.
    """

    max_deadline: Seconds = 60.0
    default_deadline: Seconds | None = None
    deadline_headers: tuple[str, ...] = ()
    shedding: LoadShedderOptions = field(default_factory=LoadShedderOptions)
    drain: Seconds = 2.0
    grace: Seconds = 30.0

    def __post_init__(self) -> None:
        check_seconds("max_deadline", self.max_deadline)
        if self.default_deadline is not None:
            check_seconds("default_deadline", self.default_deadline)
        for name in self.deadline_headers:
            if name.lower() != GRPC_TIMEOUT.decode() and not name.lower().endswith("-ms"):
                raise ConfigError(
                    f"{name!r} does not tell its unit",
                    setting="deadline_headers",
                    remedy="give grpc-timeout, or headers that end in -ms and hold milliseconds",
                )
        check_seconds("drain", self.drain, zero=True)
        check_seconds("grace", self.grace)

    def deadline(self, told: float | None) -> float:
        """Seconds a request may take whose caller waits for ``told``: a caller shortens, and never extends."""
        seconds = (self.default_deadline or self.max_deadline) if told is None else told
        return min(seconds, self.max_deadline)
