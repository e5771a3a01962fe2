"""How attempts run beside each other as tasks, of asyncio or of trio."""

from __future__ import annotations

import contextvars
import math
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from chassis.core.policies import Operation
from chassis.retries._hedge_call import Ended

if TYPE_CHECKING:
    import asyncio

    import trio


class Tasks(Protocol):
    """The attempts of one call. An attempt has a task of its own, so that it can be left behind."""

    def start(self, number: int, operation: Operation[Any]) -> None:
        """Begin an attempt, in a copy of the caller's context."""

    async def wait(self, seconds: float | None) -> Ended | None:
        """The next attempt that has ended; None if none did within ``seconds``."""
        ...

    async def stop(self, grace: float) -> None:
        """Cancel those that run, wait ``grace`` seconds for them, and leave the rest to end alone."""


def in_event_loop() -> bool:
    """Whether a loop of asyncio or trio runs in this thread; loads neither."""
    asyncio, trio = sys.modules.get("asyncio"), sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return True
    return asyncio is not None and _in_asyncio()


def _in_asyncio() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def tasks() -> Tasks:
    """Tasks of whatever runs the caller."""
    return AsyncioTasks() if _in_asyncio() else TrioTasks()


_alive: set[asyncio.Task[Any]] = set()
"""A loop holds its tasks weakly; one that was left behind would be collected before its end."""


class AsyncioTasks:
    """Tasks of the running asyncio loop."""

    def __init__(self) -> None:
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._numbers: dict[asyncio.Task[Any], int] = {}
        self._ended: deque[Ended] = deque()
        self._news: asyncio.Future[None] | None = None

    def start(self, number: int, operation: Operation[Any]) -> None:
        async def attempt() -> Any:
            return await operation()

        task = self._loop.create_task(attempt(), name=f"chassis:hedge:{number}")
        _alive.add(task)
        self._numbers[task] = number
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Any]) -> None:
        import asyncio

        _alive.discard(task)
        # Asked for its error, so that nobody is told that it was never retrieved.
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        result = None if error is not None else task.result()
        self._ended.append(Ended(self._numbers.pop(task), result, error))
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _listen(self, seconds: float | None) -> None:
        """Until an attempt ends, for ``seconds`` at most."""
        news = self._news = self._loop.create_future()
        timer = None if seconds is None else self._loop.call_later(seconds, self._wake)
        try:
            await news
        finally:
            if timer is not None:
                timer.cancel()

    async def wait(self, seconds: float | None) -> Ended | None:
        if not self._ended:
            await self._listen(seconds)
        return self._ended.popleft() if self._ended else None

    async def stop(self, grace: float) -> None:
        for task in self._numbers:
            task.cancel()
        until = self._loop.time() + grace
        while self._numbers and (left := until - self._loop.time()) > 0:
            await self._listen(left)


class TrioTasks:
    """System tasks of the running trio loop: no nursery of the caller's waits for them."""

    def __init__(self) -> None:
        import trio

        self._scopes: dict[int, trio.CancelScope] = {}
        self._ended: deque[Ended] = deque()
        self._news = trio.Event()

    def start(self, number: int, operation: Operation[Any]) -> None:
        import trio

        self._scopes[number] = trio.CancelScope()
        trio.lowlevel.spawn_system_task(
            self._attempt,
            number,
            operation,
            name=f"chassis:hedge:{number}",
            context=contextvars.copy_context(),
        )

    async def _attempt(self, number: int, operation: Operation[Any]) -> None:
        import trio

        try:
            with self._scopes[number]:
                try:
                    self._ended.append(Ended(number, await operation(), None))
                except trio.Cancelled:
                    raise
                except BaseException as error:  # noqa: BLE001 - raised in the caller; here it would end trio
                    self._ended.append(Ended(number, None, error))
        finally:
            del self._scopes[number]
            self._news.set()

    async def wait(self, seconds: float | None) -> Ended | None:
        import trio

        with trio.move_on_after(math.inf if seconds is None else seconds):
            while not self._ended:
                self._news = trio.Event()
                await self._news.wait()
        return self._ended.popleft() if self._ended else None

    async def stop(self, grace: float) -> None:
        import trio

        for scope in self._scopes.values():
            scope.cancel()
        with trio.move_on_after(grace, shield=True):
            while self._scopes:
                self._news = trio.Event()
                await self._news.wait()
