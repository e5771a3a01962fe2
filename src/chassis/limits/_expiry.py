"""The end of many calls' time by one timer of each event loop: setting one per call costs microseconds."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from chassis.core.clock import monotonic


class Expiry:
    """Cancels tasks of one event loop that are not done within ``seconds``.

    All have the same time, so the first to begin is the first to expire, and the timer is set for
    it alone. A timer that finds nothing to do is not set again.

    Who begins puts its end and its task into ``running`` under a number of its own, and calls
    :meth:`watch` unless ``watched``; who ends takes them out. If they are gone, the task has been
    cancelled. All of it happens within the loop.
    """

    __slots__ = ("_loop", "_seconds", "running", "watched")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self.running: dict[int, tuple[float, asyncio.Task[Any]]] = {}
        self.watched = False

    def watch(self) -> None:
        """Set the timer for the first that begins."""
        self.watched = True
        self._loop.call_later(self._seconds, self._look)

    def _look(self) -> None:
        now = monotonic()
        expired = itertools.takewhile(lambda each: each[1][0] <= now, self.running.items())
        for number, (_, task) in list(expired):
            del self.running[number]
            task.cancel()
        self.watched = bool(self.running)
        if self.watched:
            at, _ = next(iter(self.running.values()))
            self._loop.call_later(at - now, self._look)


class Expiries:
    """The :class:`Expiry` of each event loop that is used with one timeout."""

    __slots__ = ("_seconds", "by_loop")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.by_loop: dict[asyncio.AbstractEventLoop, Expiry] = {}

    def add(self, loop: asyncio.AbstractEventLoop) -> Expiry:
        """The one of a loop that has none yet."""
        found = Expiry(loop, self._seconds)
        # Replaced, never changed: loops of other threads read it meanwhile.
        kept = {each: expiry for each, expiry in self.by_loop.items() if not each.is_closed()}
        self.by_loop = {**kept, loop: found}
        return found
