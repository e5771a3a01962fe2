from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from chassis.core.deadline import deadlines_go_by
from chassis.core.options import check_seconds

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Sleeper:
    """One sleeping caller: when it is due, and what wakes it."""

    due: float
    wake: Callable[[], object]


class ManualClock:
    """A clock that goes only when it is told to, in place of ``clock=``, ``sleep=`` and ``sleep_async=``.

    Sleeping takes no time: by default it advances the clock and returns, so that a retry's pauses
    are over at once and can be read in :attr:`slept`. With ``auto_advance=False`` a sleeper sleeps
    until the test advances the clock to the end of its sleep; :attr:`sleepers` tells how many do.

    :param start: what it shows at first, in seconds; not 0, as real clocks have no origin either.
    :param auto_advance: whether sleeping moves the clock.
    :raises ConfigError: ``start`` is no number of seconds.
    """

    def __init__(self, start: float = 1_000.0, *, auto_advance: bool = True) -> None:
        check_seconds("start", start, zero=True)
        self.slept: list[float] = []
        """How long each sleep so far was to be, in seconds."""
        self._now = float(start)
        self._auto_advance = auto_advance
        self._lock = threading.Lock()
        self._sleepers: list[_Sleeper] = []
        self._runs = False

    def __call__(self) -> float:
        """What it shows, in seconds."""
        return self._now

    def __repr__(self) -> str:
        return f"ManualClock({self._now!r})"

    @property
    def sleepers(self) -> int:
        """How many callers are asleep."""
        return len(self._sleepers)

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass, and wake whoever slept until then, the earliest first.

        Async sleepers are woken in the thread of their event loop: advance it there.

        :raises ConfigError: ``seconds`` is negative or no number.
        """
        _check(seconds)
        with self._lock:
            self._now += seconds
            due = [each for each in self._sleepers if each.due <= self._now]
            self._sleepers = [each for each in self._sleepers if each.due > self._now]
        for sleeper in sorted(due, key=lambda each: each.due):
            sleeper.wake()

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run ``main`` as ``asyncio.run`` does, in an event loop whose time is this clock's.

        When all its tasks wait, the clock goes on to what the first of them waits for, and no time is
        spent. That holds for whatever waits by the loop: pauses, places in a queue, a hedge's delay,
        timeouts. Deadlines are counted by it too, in the whole process. It is for tasks that wait for time
        and for each other. While they wait for a thread or a socket the clock goes on as well.

        :raises RuntimeError: it runs one already, or another manual clock does, or another event loop
            runs in this thread.
        """
        import asyncio

        from chassis.testing._manual_loop import ManualLoop

        if self._runs:
            raise RuntimeError("this clock runs an event loop already: await what is to run in it")
        if asyncio.events._get_running_loop() is not None:
            # Before a loop is made, for it could not even be closed.
            raise RuntimeError("an event loop runs in this thread: call this outside of it")
        with (
            deadlines_go_by(self),
            asyncio.Runner(loop_factory=lambda: ManualLoop(self, self.advance)) as runner,
        ):
            self._runs = True
            try:
                return runner.run(main)
            finally:
                self._runs = False

    def sleep(self, seconds: float) -> None:
        """Sleep in this thread, as ``time.sleep`` does."""
        self._fall_asleep(seconds)
        if self._auto_advance:
            self.advance(seconds)
        elif seconds > 0:
            woken = threading.Event()
            self._sleep_until(self._now + seconds, woken.set)
            woken.wait()

    async def sleep_async(self, seconds: float) -> None:
        """Sleep in this task, as ``asyncio.sleep`` and ``trio.sleep`` do; other tasks get their turn."""
        import anyio
        import anyio.lowlevel

        self._fall_asleep(seconds)
        if self._runs:
            await anyio.sleep(seconds)  # by the loop's time, so that others may be due before
            return
        if self._auto_advance or seconds <= 0:
            self.advance(max(seconds, 0))
            await anyio.lowlevel.checkpoint()
            return
        woken = anyio.Event()
        sleeper = self._sleep_until(self._now + seconds, woken.set)
        try:
            await woken.wait()
        finally:
            # Cancelled in its sleep: there is nobody to wake.
            with self._lock:
                self._sleepers = [each for each in self._sleepers if each is not sleeper]

    def _fall_asleep(self, seconds: float) -> None:
        _check(seconds)
        self.slept.append(seconds)

    def _sleep_until(self, due: float, wake: Callable[[], object]) -> _Sleeper:
        sleeper = _Sleeper(due, wake)
        with self._lock:
            self._sleepers.append(sleeper)
        return sleeper


def _check(seconds: Any) -> None:
    # Less than options may say is a time here: what is left of another one.
    if isinstance(seconds, int | float) and 0 < seconds < 1:
        return
    check_seconds("seconds", seconds, zero=True)
