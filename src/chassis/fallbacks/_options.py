from __future__ import annotations

from dataclasses import dataclass

from chassis.core.options import Seconds, check_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackOptions:
    """How long an answer in place of a failed one may take.

    :param timeout: seconds for a replacement that is a function, within the deadline that holds
        anyway. An async one is cancelled then; a plain one finds it as the deadline, which the next
        edge inside heeds. None leaves it to the deadline.
    :raises ConfigError: a value is impossible.
    """

    timeout: Seconds | None = 1.0

    def __post_init__(self) -> None:
        if self.timeout is not None:
            check_seconds("timeout", self.timeout)
