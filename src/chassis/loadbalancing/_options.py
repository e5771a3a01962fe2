from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chassis.core.errors import ConfigError
from chassis.core.options import Seconds, check_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancingOptions:
    """Which instance of a service takes the next call.

    :param policy: ``round_robin``: each in turn.
    :param latency_decay: seconds in which an old latency loses about two thirds of its say.
    :raises ConfigError: a value is impossible.
    """

    policy: Literal["round_robin"] = "round_robin"
    latency_decay: Seconds = 10.0

    def __post_init__(self) -> None:
        if self.policy != "round_robin":
            raise ConfigError(
                f"{self.policy!r} is no balancing policy", setting="policy", remedy="use round_robin"
            )
        check_seconds("latency_decay", self.latency_decay)
