from __future__ import annotations

from dataclasses import dataclass

from chassis.core.options import Seconds, check_count, check_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkheadOptions:
    """How many calls may be in flight at once, and how many more may wait for that.

    :param limit: calls in flight.
    :param queue: callers that may wait for a place, first come, first served; 0 refuses at once.
    :param wait: seconds a caller waits at most, less if its deadline comes sooner.
    :raises ConfigError: a value is impossible.
    """

    limit: int = 64
    queue: int = 0
    wait: Seconds = 1.0

    def __post_init__(self) -> None:
        check_count("limit", self.limit)
        check_count("queue", self.queue, least=0)
        check_seconds("wait", self.wait)
