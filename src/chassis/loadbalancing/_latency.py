from __future__ import annotations

import math


class Latency:
    """An instance's latency as its callers should fear it: up at once, down slowly.

    A sample above the estimate replaces it; one below pulls it down by the time that has passed,
    as ``exp(-dt / decay)``; and with time alone it fades, so that an instance that was slow once
    is tried again. Finagle's and Linkerd's peak EWMA. Not thread-safe: its owner holds the lock.
    """

    __slots__ = ("_at", "_cost")

    def __init__(self) -> None:
        self._cost = 0.0
        self._at = 0.0

    def observe(self, seconds: float, now: float, decay: float) -> None:
        """Take one sample."""
        cost = self.at(now, decay)
        if seconds >= cost:
            self._cost = seconds
        else:
            share = self.at(now, decay) / self._cost if self._cost else 0.0
            self._cost = self._cost * share + seconds * (1.0 - share)
        self._at = now

    def at(self, now: float, decay: float) -> float:
        """The estimate in seconds; 0 while nothing is known."""
        if self._cost == 0.0 or now <= self._at:
            return self._cost
        return self._cost * math.exp((self._at - now) / decay)

    def forget(self) -> None:
        """Know nothing again."""
        self._cost = 0.0
