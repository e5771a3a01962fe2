"""The end of many calls' time by one timer of each event loop: setting one per call costs microseconds."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Generator
from typing import Any

from chassis.core import deadline as deadlines
from chassis.core.errors import DeadlineExceeded


def under_asyncio() -> bool:
    """Whether an asyncio loop runs here."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class Expiries:
    """Cancels coroutines that are not done in the time that all of them have, in any number of event loops.

    :param message: what a :class:`DeadlineExceeded` says then.
    """

    __slots__ = ("_by_loop", "_message", "_numbers")

    def __init__(self, message: str) -> None:
        self._message = message
        self._numbers = itertools.count()
        self._by_loop: dict[asyncio.AbstractEventLoop, _Expiry] = {}

    async def watch(self, at: float, coroutine: Any, waits_for: Any) -> Any:
        """Run a coroutine that has begun, and waits, to its end; cancel it at ``at``.

        :raises DeadlineExceeded: it was cancelled, and ended so.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            return await _Begun(coroutine, waits_for)  # driven by hand, in a callback of the loop
        expiry = self._by_loop.get(loop) or self._add(loop)
        number = next(self._numbers)
        expiry.begin(number, at, task)
        # As asyncio.timeout does: cancellations from outside are told from our own by their number.
        cancelling = task.cancelling()
        try:
            result = await _Begun(coroutine, waits_for)
            if not expiry.end(number):
                task.uncancel()
            return result
        except BaseException as error:
            if expiry.end(number):
                raise
            if task.uncancel() <= cancelling and isinstance(error, asyncio.CancelledError):
                raise DeadlineExceeded(self._message) from error
            raise
        finally:
            # The error's traceback holds this frame: were the task that ends in it held by it, they would
            # form a cycle, and everything in those frames would wait for the collector.
            del task

    def _add(self, loop: asyncio.AbstractEventLoop) -> _Expiry:
        found = _Expiry(loop)
        # Replaced, never changed: loops of other threads read it meanwhile.
        kept = {each: expiry for each, expiry in self._by_loop.items() if not each.is_closed()}
        self._by_loop = {**kept, loop: found}
        return found


class _Expiry:
    """The calls under way in one event loop.

    All have the same time, so the first to begin is the first to expire, and the timer is set for
    it alone. A timer that finds nothing to do is not set again.
    """

    __slots__ = ("_loop", "_running", "_timed")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._running: dict[int, tuple[float, asyncio.Task[Any]]] = {}
        self._timed = False

    def begin(self, number: int, at: float, task: asyncio.Task[Any]) -> None:
        """Cancel ``task`` at ``at``, unless it has ended."""
        self._running[number] = (at, task)
        if not self._timed:
            self._timed = True
            # From ``at``, as the step up to its first wait may have taken part of the time; and not by
            # the loop's time(), as uvloop's stands still during a step.
            self._loop.call_later(at - deadlines.clock(), self._look, at)

    def end(self, number: int) -> bool:
        """Whether it ended in time; else its task has been cancelled."""
        return self._running.pop(number, None) is not None

    def _look(self, due: float) -> None:
        now = max(due, deadlines.clock())  # a timer may come early by a rounding
        expired = itertools.takewhile(lambda each: each[1][0] <= now, self._running.items())
        for number, (_, task) in list(expired):
            del self._running[number]
            task.cancel()
        self._timed = bool(self._running)
        if self._timed:
            at, _ = next(iter(self._running.values()))
            self._loop.call_later(at - now, self._look, at)


class _Begun:
    """A coroutine that was begun by hand and has said what it waits for; awaiting it goes on with it."""

    __slots__ = ("_coroutine", "_waits_for")

    def __init__(self, coroutine: Any, waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, waits_for = self._coroutine, self._waits_for
        while True:
            try:
                yield waits_for
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # noqa: BLE001 - the coroutine's to handle
                thrown = error
            else:
                return (yield from coroutine.__await__())
            try:
                # Not in the handler, or it would be the context of all that is raised hereafter.
                waits_for = coroutine.throw(thrown)
            except StopIteration as done:
                return done.value
            finally:
                del thrown
