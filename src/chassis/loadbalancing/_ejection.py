"""Ejection: passing over an instance that fails where its peers do not.

What an instance does by itself, failures in a row above all, is its circuit breaker's matter. Here
it is compared with the others, so an outage that hits all alike ejects nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from chassis.loadbalancing._options import BalancingOptions

PROBE_LEASE = 30.0
"""Seconds after which a probe without a result no longer keeps others from being made."""
CLEARLY = 0.2
"""How far below the mean success rate an outlier is at least. Deviations alone are no measure: among
five instances of which one has failed once, that one is always two of them away."""
_FEWEST = 5  # instances without which a deviation says nothing (Envoy)
_MOST_DOUBLINGS = 30


class Ejection:
    """Whether one instance is ejected, and its way back: by one call that succeeds.

    :ivar active: whether it is ejected.
    :ivar until: when the next call may probe it; 0 while it is not ejected.
    :ivar times: how often it was ejected without good time between.
    :ivar probe: the call that is finding out whether it works again.
    """

    __slots__ = ("_ended_at", "active", "probe", "times", "until")

    def __init__(self) -> None:
        self.active = False
        self.until = 0.0
        self.times = 0
        self.probe: object | None = None
        self._ended_at = 0.0

    def begin(self, now: float, options: BalancingOptions, draw: Callable[[], float]) -> float:
        """Eject it, or go on after a probe that failed.

        :returns: for how many seconds.
        """
        if not self.active:
            # Each window that went well takes one doubling back.
            self.times = max(0, self.times - int((now - self._ended_at) / options.ejection_window))
        length = options.ejection_time * 2.0 ** min(self.times, _MOST_DOUBLINGS)
        length = min(length, options.ejection_time_max) * (0.8 + 0.4 * draw())
        self.times += 1
        self.active = True
        self.until = now + length
        self.probe = None
        return length

    def due(self, now: float) -> bool:
        """Whether the next call is to be its probe."""
        return self.active and now >= self.until

    def probed_by(self, probe: object, now: float) -> None:
        """Let ``probe`` find out, and nobody else meanwhile."""
        self.probe = probe
        self.until = now + PROBE_LEASE

    def probe_again(self, now: float) -> None:
        """The probe said nothing: the next call may."""
        self.probe = None
        self.until = now

    def end(self, now: float) -> None:
        """Let it back."""
        self.active = False
        self.until = 0.0
        self.probe = None
        self._ended_at = now


NEVER_EJECTED = Ejection()
"""Stands for the ejection of all that were never ejected, and must not be changed: most instances
never are, and looking at one object costs less than looking at a thousand."""


def suspicious(calls: int, failures: int, options: BalancingOptions) -> bool:
    """Whether its own counts are worth a look at those of its peers, which costs more."""
    return calls >= options.ejection_minimum and failures >= min(CLEARLY, options.ejection_rate) * calls


def outliers(counts: Sequence[tuple[int, int]], options: BalancingOptions) -> list[tuple[int, str]]:
    """Which of several instances stand out by their failures.

    :param counts: per instance, calls and failures of the window.
    :returns: positions and reasons, the worst first.
    """
    judged = [
        (failures / calls, position)
        for position, (calls, failures) in enumerate(counts)
        if calls >= options.ejection_minimum
    ]
    if not judged:
        return []
    calls_of_all = sum(calls for calls, _ in counts)
    failures_of_all = sum(failures for _, failures in counts)
    mean = sum(rate for rate, _ in judged) / len(judged)
    deviation = math.sqrt(sum((rate - mean) ** 2 for rate, _ in judged) / len(judged))
    found = []
    for rate, position in sorted(judged, key=lambda each: -each[0]):
        calls, failures = counts[position]
        peers_calls = calls_of_all - calls
        if rate > options.ejection_rate and peers_calls >= options.ejection_minimum:
            peers_rate = (failures_of_all - failures) / peers_calls
            if peers_rate <= rate / 2:
                found.append(
                    (position, f"{rate:.0%} of its {calls} calls failed, {peers_rate:.0%} elsewhere")
                )
                continue
        if (
            options.ejection_deviations is not None
            and len(judged) >= _FEWEST
            and rate - mean > options.ejection_deviations * deviation
            and rate - mean >= CLEARLY
        ):
            found.append((position, f"{rate:.0%} of its {calls} calls failed, {mean:.0%} is the mean"))
    return found
