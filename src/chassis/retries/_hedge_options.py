from __future__ import annotations

from dataclasses import dataclass

from chassis.core.options import Seconds, check_count, check_fraction, check_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeOptions:
    """When a call that is slow is sent once more, and how much load that may add.

    :param delay: seconds after which a call counts as slow; None for what ``percentile`` of the
        recent calls stayed below, but at least a millisecond.
    :param percentile: the fraction of calls that are quick enough to be left alone.
    :param minimum_calls: there is no estimate before the window holds this many calls.
    :param window: seconds of calls that estimate and load are taken from.
    :param extra: further calls beside one, each after another ``delay``; 0 hedges nothing, so that
        settings can switch off a hedge given in code.
    :param extra_load: further calls per call within the window, at most.
    :param grace: seconds that the caller waits, once there is an answer, for the calls that are
        cancelled; 0 leaves them at once.
    :raises ConfigError: a value is impossible.
    """

    delay: Seconds | None = None
    percentile: float = 0.95
    minimum_calls: int = 100
    window: Seconds = 30.0
    extra: int = 1
    extra_load: float = 0.05
    grace: Seconds = 0.1

    def __post_init__(self) -> None:
        if self.delay is not None:
            check_seconds("delay", self.delay)
        check_fraction("percentile", self.percentile)
        check_count("minimum_calls", self.minimum_calls)
        check_seconds("window", self.window)
        check_count("extra", self.extra, least=0)
        check_fraction("extra_load", self.extra_load)
        check_seconds("grace", self.grace, zero=True)
