from __future__ import annotations

from dataclasses import dataclass

from chassis.core.errors import ConfigError
from chassis.core.options import Seconds, check_count, check_fraction, check_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOptions:
    """When a circuit breaker opens, and how it finds its way back.

    :param failure_rate: opens when at least this fraction of the window's calls failed.
    :param window: seconds of calls that are looked at.
    :param minimum_calls: the rate says nothing before the window holds this many calls.
    :param consecutive_failures: opens after this many failures in a row; None leaves it to the rate.
    :param open_for: seconds it stays open the first time; doubled after each failed round of
        probes, and drawn within 10 % at each opening so that replicas do not probe together.
    :param open_for_max: seconds the doubling ends at.
    :param probes: probes that must succeed, none failing, before it closes.
    :param probe_concurrency: probes in flight at once.
    :param probe_timeout: seconds after which a probe without a result counts as failed.
    :raises ConfigError: a value is impossible.
    """

    failure_rate: float = 0.5
    window: Seconds = 30.0
    minimum_calls: int = 20
    consecutive_failures: int | None = 5
    open_for: Seconds = 5.0
    open_for_max: Seconds = 60.0
    probes: int = 3
    probe_concurrency: int = 1
    probe_timeout: Seconds = 30.0

    def __post_init__(self) -> None:
        check_fraction("failure_rate", self.failure_rate)
        check_seconds("window", self.window)
        check_count("minimum_calls", self.minimum_calls)
        if self.consecutive_failures is not None:
            check_count("consecutive_failures", self.consecutive_failures)
        check_seconds("open_for", self.open_for)
        check_seconds("open_for_max", self.open_for_max)
        if self.open_for_max < self.open_for:
            raise ConfigError(
                f"{self.open_for_max!r} is below open_for ({self.open_for!r})",
                setting="open_for_max",
                remedy="give at least open_for",
            )
        check_count("probes", self.probes)
        check_count("probe_concurrency", self.probe_concurrency)
        if self.probe_concurrency > self.probes:
            raise ConfigError(
                f"{self.probe_concurrency!r} is more than the {self.probes!r} probes of a round",
                setting="probe_concurrency",
                remedy="give at most probes",
            )
        check_seconds("probe_timeout", self.probe_timeout)
