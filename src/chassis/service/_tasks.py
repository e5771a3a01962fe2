"""Functions that run again and again while the service does."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from chassis.core import Event, Level, events
from chassis.core.options import Seconds, check_seconds

TaskFunction: TypeAlias = Callable[[], Awaitable[None]] | Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class TaskFailed(Event):
    """A run of a task raised; the next one comes as planned.

    :param error: the type of what it raised.
    """

    name: ClassVar[str] = "task.failed"
    level: ClassVar[Level] = "error"

    error: str


@dataclass(frozen=True)
class _Task:
    function: TaskFunction
    every: float

    @property
    def name(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__name__)

    async def run(self, stopping: asyncio.Event) -> None:
        """Run it now and every ``every`` seconds, one run after the other, until ``stopping``."""
        while not stopping.is_set():
            try:
                if inspect.iscoroutinefunction(self.function):
                    await self.function()
                else:
                    await asyncio.to_thread(self.function)
            except Exception as error:  # noqa: BLE001 - one failed run must not end the task
                events.emit(TaskFailed(subject=self.name, error=type(error).__name__))
            try:
                async with asyncio.timeout(self.every):
                    await stopping.wait()
            except TimeoutError:
                continue


class Tasks:
    """The tasks of one service; they run in the event loop that starts them."""

    def __init__(self) -> None:
        self._tasks: list[_Task] = []
        self._running: set[asyncio.Task[None]] = set()
        self._stopping: asyncio.Event | None = None

    def add(self, function: TaskFunction, every: Seconds) -> None:
        """Run ``function`` every ``every`` seconds, counted from the end of the run before."""
        check_seconds("every", every)
        self._tasks.append(_Task(function, every))

    def start(self) -> None:
        """Begin, in the running loop."""
        self._stopping = asyncio.Event()
        for each in self._tasks:
            self._running.add(asyncio.create_task(each.run(self._stopping), name=f"chassis:{each.name}"))

    async def stop(self, grace: float) -> None:
        """Begin no further run; give those under way ``grace`` seconds, then cancel them."""
        if self._stopping is None:
            return
        self._stopping.set()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=grace)
            for each in late:
                each.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._running.clear()
