from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from chassis.core import events
from chassis.server._events import Draining, Stopping


class Drain:
    """How a process leaves: out of the registry first, then serving on until callers know. One loop.

    :param leave: leaves the registry; takes a bounded time and raises nothing.
    """

    def __init__(self, service: str, leave: Callable[[], Awaitable[None]]) -> None:
        self._service = service
        self._leave = leave
        self._leaving: asyncio.Future[None] | None = None
        self._hurried = asyncio.Event()

    async def run(self, seconds: float) -> None:
        """Leave the registry, and go on for ``seconds`` or until hurried."""
        events.emit(Draining(subject=self._service, drain=seconds))
        self._leaving = asyncio.ensure_future(self._leave())
        hurried = asyncio.ensure_future(self._hurried.wait())
        await asyncio.wait({self._leaving, hurried}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({hurried}, timeout=seconds)
        hurried.cancel()
        events.emit(Stopping(subject=self._service, skipped=self._hurried.is_set()))

    def hurry(self) -> None:
        """Wait no more, neither for the registry nor for callers."""
        self._hurried.set()

    async def left(self) -> None:
        """Wait until the registry was left: a deregistration that is cut off would leave a ghost.

        Where nobody drained (Ctrl-C, a test client) it is left now.
        """
        if self._leaving is None:
            self._leaving = asyncio.ensure_future(self._leave())
        await self._leaving
