from __future__ import annotations

from dataclasses import dataclass

from chassis.core.options import Seconds, check_count, check_seconds


@dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """How a client calls one service.

    :param timeout: seconds one attempt may take until the answer's headers are there.
    :param retries: further attempts that may be sent after the first.
    :param deadline: seconds the whole call may take until the answer's headers are there, when
        the caller has set no deadline of its own.
    :param idle_timeout: seconds between two chunks of the answer's body.
    :param connect_timeout: seconds to establish a connection.
    :param max_connections: connections per instance; a call that finds none free waits for one
        within its attempt's time.
    :param max_in_flight: calls to the service at once, further ones are refused (``BulkheadFull``);
        None for no limit.
    :param discovery_timeout: seconds the very first call waits for discovery to answer.
    """

    timeout: Seconds = 3.0
    retries: int = 2
    deadline: Seconds = 10.0
    idle_timeout: Seconds = 60.0
    connect_timeout: Seconds = 1.0
    max_connections: int = 100
    max_in_flight: int | None = None
    discovery_timeout: Seconds = 2.0

    def __post_init__(self) -> None:
        for field in ("timeout", "deadline", "idle_timeout", "connect_timeout", "discovery_timeout"):
            check_seconds(field, getattr(self, field))
        check_count("retries", self.retries, least=0)
        check_count("max_connections", self.max_connections)
        if self.max_in_flight is not None:
            check_count("max_in_flight", self.max_in_flight)
