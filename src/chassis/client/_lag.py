"""Whether this process itself was too slow to see an answer in time.

A timeout says that an instance was silent only if this process was listening meanwhile. One timer
per event loop, set while attempts are under way, measures how late it fires: for as long the loop
ran nothing that was due, and read no answers either.
"""

from __future__ import annotations

import asyncio
import weakref

_EVERY = 0.05
_LATE = 0.1
_SHARE = 0.2


class LoopLag:
    """How much time one event loop has lost. Used in that loop alone."""

    __slots__ = ("__weakref__", "_armed", "_due", "_lost", "_watchers")

    def __init__(self) -> None:
        self._lost = 0.0
        self._due = 0.0
        self._armed = False
        self._watchers = 0

    def begin(self) -> float:
        """Measure until :meth:`end`; returns :meth:`lost` so far."""
        self._watchers += 1
        if not self._armed:
            self._arm(asyncio.get_running_loop())
        return self.lost()

    def end(self) -> None:
        """One measurement less; the timer stops by itself once there is none."""
        self._watchers -= 1

    def lost(self) -> float:
        """Seconds lost while it was measured, the delay under way included."""
        return self._lost + max(0.0, asyncio.get_running_loop().time() - self._due)

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._armed = True
        self._due = loop.time() + _EVERY
        loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._lost = self.lost()
        if self._watchers:
            self._arm(asyncio.get_running_loop())
        else:
            self._armed = False


# The value does not hold its key: a loop that is gone takes its measure with it.
_by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopLag] = weakref.WeakKeyDictionary()


def running_loops_lag() -> LoopLag:
    """The measure of the running loop."""
    loop = asyncio.get_running_loop()
    lag = _by_loop.get(loop)
    if lag is None:
        lag = _by_loop[loop] = LoopLag()
    return lag


def own_lag(timeout: float, *, late: float, lost: float) -> bool:
    """Whether a timeout may be this process's own fault, so that it says nothing of the instance.

    :param timeout: seconds the attempt was given.
    :param late: seconds after its due time at which it was noticed: an answer that came just
        before may lie unread.
    :param lost: seconds of the attempt in which the event loop did not run what was due.
    """
    share = _SHARE * timeout
    return late > min(_LATE, share) or lost > share
