from __future__ import annotations

from dataclasses import dataclass

from chassis.core.errors import ConfigError
from chassis.core.options import Seconds, check_seconds


@dataclass(frozen=True, kw_only=True)
class ConsulRegistrarOptions:
    """How a registration is kept alive.

    :param ttl: seconds without a heartbeat after which Consul calls the instance critical; a
        heartbeat is sent every third of it.
    :param deregister_after: seconds of being critical after which Consul forgets the instance; it
        is for ghosts of processes that were killed. Consul takes no less than 60.
    :raises ConfigError: a value cannot be used.
    """

    ttl: Seconds = 15.0
    deregister_after: Seconds = 600.0

    def __post_init__(self) -> None:
        check_seconds("ttl", self.ttl)
        check_seconds("deregister_after", self.deregister_after)
        if self.deregister_after < 60:
            raise ConfigError(
                f"{self.deregister_after!r} is too short",
                setting="deregister_after",
                remedy="give at least 60 seconds, which is Consul's own least",
            )
