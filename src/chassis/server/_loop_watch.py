"""Whether the application's event loop still runs, seen from outside of it.

Heartbeats leave from the background thread, which goes on when the application blocks its own loop:
an instance that answers nobody would stay registered as passing. So the loop is asked to answer, too.
"""

from __future__ import annotations

import asyncio

from chassis.background import Job, background
from chassis.core import Event, Status, events, monotonic
from chassis.server._events import LoopBlocked, LoopRecovered


class LoopLag:
    """How far behind a loop is, from questions put to it and its answers. Takes ``now``, asks nobody.

    :param warn_after: seconds without an answer from which the loop counts as slow.
    :param fail_after: seconds from which it counts as blocked.
    """

    def __init__(self, *, warn_after: float, fail_after: float) -> None:
        self._warn_after = warn_after
        self._fail_after = fail_after
        self._asked_at: float | None = None
        self._last = 0.0
        self._told = False

    @property
    def waiting(self) -> bool:
        """Whether a question is not answered yet: a second one would only queue behind it."""
        return self._asked_at is not None

    def asked(self, now: float) -> None:
        """A question was put to the loop."""
        self._asked_at = now

    def answered(self, now: float) -> None:
        """The loop answered."""
        if self._asked_at is not None:
            self._last = now - self._asked_at
            self._asked_at = None

    def lag(self, now: float) -> float:
        """Seconds for which the loop has not answered; when it has, those its last answer took."""
        asked_at = self._asked_at
        return self._last if asked_at is None else max(self._last, now - asked_at)

    def status(self, now: float) -> Status:
        """What the lag says of the instance: PASSING, WARNING or CRITICAL."""
        lag = self.lag(now)
        if lag < self._warn_after:
            return Status.PASSING
        return Status.WARNING if lag < self._fail_after else Status.CRITICAL

    def news(self, subject: str, now: float) -> Event | None:
        """The event for a loop that has become slow, or is no more; each edge once."""
        slow = self.status(now) is not Status.PASSING
        if slow is self._told:
            return None
        self._told = slow
        return (LoopBlocked if slow else LoopRecovered)(subject=subject, at=now, lag=self.lag(now))


class LoopWatch:
    """Asks a loop to answer, from the background thread, for as long as it is not stopped.

    One callback a second at most (``call_soon_threadsafe``); nothing is added to a request.

    :param subject: the service, for events.
    :param loop: the loop that serves requests.
    :param ttl: seconds without a heartbeat after which a registry would give the instance up: a
        loop that has not answered for as long is reported CRITICAL, for a third of it WARNING.
    """

    def __init__(self, subject: str, loop: asyncio.AbstractEventLoop, *, ttl: float) -> None:
        self._subject = subject
        self._loop = loop
        self._lag = LoopLag(warn_after=ttl / 3, fail_after=ttl)
        self._every = min(1.0, ttl / 15)
        self._job: Job = background.start(self._run, name=f"loop:{subject}")

    def temper(self, status: Status, note: str) -> tuple[Status, str]:
        """``status`` and ``note``, or what the loop's lag says where that is worse."""
        now = monotonic()
        of_loop = self._lag.status(now)
        if status not in (Status.PASSING, Status.WARNING) or of_loop is Status.PASSING:
            return status, note
        return of_loop, f"the event loop has not answered for {self._lag.lag(now):.1f} s"

    def stop(self) -> None:
        """Ask no more."""
        self._job.cancel()

    async def _run(self) -> None:
        while True:
            if not self._lag.waiting:
                self._lag.asked(monotonic())
                try:
                    self._loop.call_soon_threadsafe(self._answer)
                except RuntimeError:
                    return  # the loop is closed: there is nothing more to be told of it
            event = self._lag.news(self._subject, monotonic())
            if event is not None:
                events.emit(event)
            await asyncio.sleep(self._every)

    def _answer(self) -> None:
        self._lag.answered(monotonic())
