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
    :param http_check: path that the agent itself is to ask of the instance, e.g. ``/readyz``, beside the
        heartbeat: it finds an instance that lives and cannot be reached. "" for none.
    :param http_check_interval: seconds between two such questions.
    :param http_check_timeout: seconds the agent waits for an answer.
    :raises ConfigError: a value cannot be used.
    """

    ttl: Seconds = 15.0
    deregister_after: Seconds = 600.0
    http_check: str = ""
    http_check_interval: Seconds = 10.0
    http_check_timeout: Seconds = 2.0

    def __post_init__(self) -> None:
        check_seconds("ttl", self.ttl)
        check_seconds("deregister_after", self.deregister_after)
        check_seconds("http_check_interval", self.http_check_interval)
        check_seconds("http_check_timeout", self.http_check_timeout)
        if self.http_check and not self.http_check.startswith("/"):
            raise ConfigError(
                f"{self.http_check!r} is no path", setting="http_check", remedy="write /readyz, or the like"
            )
        if self.deregister_after < 60:
            raise ConfigError(
                f"{self.deregister_after!r} is too short",
                setting="deregister_after",
                remedy="give at least 60 seconds, which is Consul's own least",
            )
