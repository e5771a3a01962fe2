from __future__ import annotations

from dataclasses import dataclass

from chassis.core.errors import ConfigError
from chassis.core.options import Seconds, check_count, check_fraction, check_rate, check_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """How often a failed call is tried again, and after what pause.

    :param retries: further attempts after the first.
    :param wait_base: seconds; the pause before retry n is drawn between 0 and
        ``wait_base * 2**(n - 1)``. 0 tries again at once.
    :param wait_max: seconds that the doubling ends at.
    :param retry_after_max: an error that asks for a longer pause than this many seconds (by its
        ``retry_after``) is not tried again.
    :param minimum_attempt_time: seconds that must be left of the deadline when an attempt begins,
        for it to be worth beginning.
    :raises ConfigError: a value is impossible.
    """

    retries: int = 2
    wait_base: Seconds = 0.1
    wait_max: Seconds = 5.0
    retry_after_max: Seconds = 60.0
    minimum_attempt_time: Seconds = 0.0

    def __post_init__(self) -> None:
        check_count("retries", self.retries, least=0)
        check_seconds("wait_base", self.wait_base, zero=True)
        check_seconds("wait_max", self.wait_max, zero=True)
        if self.wait_max < self.wait_base:
            raise ConfigError(
                f"{self.wait_max!r} is below wait_base ({self.wait_base!r})",
                setting="wait_max",
                remedy="give at least wait_base",
            )
        check_seconds("retry_after_max", self.retry_after_max, zero=True)
        check_seconds("minimum_attempt_time", self.minimum_attempt_time, zero=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetOptions:
    """How much extra load retries may make: what Finagle calls a retry budget.

    Within any ``window``, at most ``ratio`` of the first attempts plus ``per_second * window``
    further attempts are made, however many callers fail.

    :param ratio: further attempts per first attempt, above 0 and at most 1.
    :param per_second: a floor for services with little traffic; 0 for none.
    :param window: seconds after which what was put in or taken out no longer counts.
    :raises ConfigError: a value is impossible.
    """

    ratio: float = 0.2
    per_second: float = 10.0
    window: Seconds = 10.0

    def __post_init__(self) -> None:
        check_fraction("ratio", self.ratio)
        check_rate("per_second", self.per_second)
        check_seconds("window", self.window)
