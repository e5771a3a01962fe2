from __future__ import annotations

import math


class Latency:
    """An instance's latency as its callers should fear it: up at once, down slowly.

    A sample above the estimate replaces it; one below pulls it down by the weight that time has
    taken from what was known, ``1 - exp(-dt / decay)``; and by time alone it fades, so that an
    instance that was slow once is tried again. This is Finagle's and Linkerd's peak EWMA. Not
    thread-safe: its owner holds the lock.

    :param decay: seconds.
    """

    __slots__ = ("_at", "_seconds", "decay")

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._seconds = 0.0
        self._at = 0.0

    def observe(self, seconds: float, now: float) -> None:
        """Take one sample."""
        if seconds >= self._seconds:
            self._seconds = seconds
        else:
            kept = math.exp((self._at - now) / self.decay) if now > self._at else 1.0
            # What fades alone would reach the sample is where it ends: see ``at``.
            self._seconds = max(self._seconds * kept + seconds * (1.0 - kept), seconds)
        self._at = now

    def at(self, now: float) -> float:
        """The estimate in seconds; 0 while nothing is known."""
        if self._seconds == 0.0 or now <= self._at:
            return self._seconds
        return self._seconds * math.exp((self._at - now) / self.decay)

    def forget(self) -> None:
        """Know nothing again."""
        self._seconds = 0.0
