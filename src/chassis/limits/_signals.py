"""How a waiter in a thread, an asyncio task or a trio task is woken from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio


class AsyncSignal(Protocol):
    """A signal for the task that made it."""

    def wake(self) -> None:
        """End the wait, from any thread.

        :raises RuntimeError: the task's event loop is closed.
        """

    async def wait(self, seconds: float) -> None:
        """Until woken, ``seconds`` at most."""


class ThreadSignal:
    """A signal for the thread that made it."""

    __slots__ = ("_event", "wake")

    def __init__(self) -> None:
        self._event = threading.Event()
        self.wake = self._event.set

    def wait(self, seconds: float) -> None:
        """Until woken, ``seconds`` at most."""
        self._event.wait(seconds)


class _AsyncioSignal:
    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future = loop.create_future()

    def wake(self) -> None:
        self._loop.call_soon_threadsafe(self._end)

    async def wait(self, seconds: float) -> None:
        timer = self._loop.call_later(seconds, self._end)
        try:
            await self._future
        finally:
            timer.cancel()

    def _end(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class _TrioSignal:
    __slots__ = ("_event", "_token")

    def __init__(self) -> None:
        import trio

        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()

    def wake(self) -> None:
        self._token.run_sync_soon(self._event.set)

    async def wait(self, seconds: float) -> None:
        import trio

        with trio.move_on_after(seconds):
            await self._event.wait()


def async_signal() -> AsyncSignal:
    """A signal for the running task, of whatever runs it."""
    import asyncio

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return _TrioSignal()
    return _AsyncioSignal(loop)


def running_loop() -> tuple[object, Callable[[Callable[[], object]], object]]:
    """What runs the current task, and how a function is put behind all that it has to do."""
    import asyncio

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        import trio

        token = trio.lowlevel.current_trio_token()
        return token, token.run_sync_soon
    return loop, loop.call_soon
