"""How a registry with blocking queries is asked: with which index, and how often at most.

Source: Consul's documentation of blocking queries, "Implementation details".
"""

from __future__ import annotations

from enum import Enum


class Wake(Enum):
    """What an answer's index tells of it."""

    FIRST = "first"
    """It answers a question without an index, so it shows how things stand, not that they changed."""
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    WENT_BACK = "went back"
    """The registry has lost its past: it was restored or began anew."""


class WatchIndex:
    """The index a watcher asks with next.

    :ivar index: 0 asks for an answer at once, anything above for one when something has changed.
    """

    __slots__ = ("_seen", "index")

    def __init__(self) -> None:
        self.index = 0
        self._seen = 0

    def answered(self, index: int) -> Wake:
        """Take an answer's index; 0 stands for none."""
        # An index of 0 would make the next question return at once, again and again.
        index = max(1, index)
        before, self._seen = self._seen, index
        # Also after an error: a registry that begins anew is mostly unreachable before that.
        if index < before:
            # Waiting for the old index to come round again would miss every change until then.
            self.index = 0
            return Wake.WENT_BACK
        last, self.index = self.index, index
        if last == 0:
            return Wake.FIRST
        return Wake.UNCHANGED if self.index == last else Wake.CHANGED

    def failed(self) -> None:
        """No answer, or none to be trusted: ask anew how things stand.

        What happened meanwhile may have brought the index back to where it was.
        """
        self.index = 0


class ChurnLimit:
    """How often a watcher asks at most: a burst, then at a steady rate, always for the newest.

    :param burst: how many questions may follow each other at once.
    :param per_second: how many a second after that.
    """

    def __init__(self, *, burst: int = 3, per_second: float = 1.0) -> None:
        self._burst = float(burst)
        self._rate = per_second
        self._tokens = float(burst)
        self._at: float | None = None

    def delay(self, now: float) -> float:
        """Take leave for one question; seconds to wait before asking it."""
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        self._tokens -= 1
        # Below zero the question is taken on credit, and waits until the credit is paid.
        return max(0.0, -self._tokens / self._rate)
