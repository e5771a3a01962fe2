"""An attempt's time: how much of it each phase may take, and what the callee is told of it."""

from __future__ import annotations

from chassis.core import Clock, monotonic

# A phase before anything is sent ends a little before the attempt does, so that its own error, which
# says that nothing was sent, comes first.
_BEFORE_THE_END = 0.95
_LEAST = 0.001
_UNSENT_PHASES = ("pool", "connect")

_WAY_LEAST = 5.0
_WAY_SHARE = 0.05


class PhaseTimeouts(dict[str, "float | None"]):
    """The stock transport's timeouts by phase, which it looks up as each phase begins.

    All phases until the answer's headers share one time, so a slow connection leaves less for the
    answer. Once the headers are there, ``read`` is set to the time between two chunks.

    :param timeout: seconds for all of it.
    :param connect: seconds, at most, to connect.
    :ivar due: when the headers must be there.
    :ivar expires: when the phase that was looked up last runs out.
    """

    def __init__(self, timeout: float, connect: float, *, clock: Clock = monotonic) -> None:
        super().__init__()
        self._connect = connect
        self._clock = clock
        self.due = self.expires = clock() + timeout

    def __missing__(self, phase: str) -> float:
        now = self._clock()
        left = self.due - now
        if phase in _UNSENT_PHASES:
            left *= _BEFORE_THE_END
        if phase == "connect":
            left = min(left, self._connect)
        left = max(left, _LEAST)
        self.expires = now + left
        return left

    def get(self, phase: str, default: float | None = None) -> float | None:  # type: ignore[override]  # a dict's has overloads
        """As ``[]``: every phase has a timeout."""
        return self[phase]


def told_deadline(remaining: float) -> int | None:
    """The milliseconds an attempt tells its callee it has: what remains, less the way there.

    Relative, as no two clocks need agree on it.

    :returns: at least 1; None if nothing remains, so that nothing is to be sent.
    """
    milliseconds = remaining * 1000
    if milliseconds <= 0:
        return None
    return max(1, int(milliseconds - max(_WAY_LEAST, milliseconds * _WAY_SHARE)))
