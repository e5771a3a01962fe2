"""Telling user code of a change, where that code lives, without waiting for it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

from chassis.background import background
from chassis.config._events import ConfigCallbackFailed
from chassis.core.events import events


class Subscriber:
    """One callback: called in the event loop it was registered in, else in a thread of its own.

    It is never called twice at once. Changes that come while it runs are told as one, from the
    oldest value it has not seen to the newest; so one that hangs hurts nobody else.
    """

    def __init__(
        self,
        callback: Callable[..., Any],
        arguments: Callable[[Any, Any], tuple[Any, ...] | None],
        subject: str,
    ) -> None:
        self._callback = callback
        self._arguments = arguments
        self._subject = subject
        self._lock = threading.Lock()
        self._untold: tuple[Any, Any] | None = None
        self._running = False
        self._closed = False
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop: asyncio.AbstractEventLoop | None = None
        else:
            self._loop = None if background.here() else loop
        self._task: asyncio.Task[None] | None = None

    @property
    def in_loop(self) -> bool:
        """Whether it belongs to an event loop of the user's."""
        return self._loop is not None

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._closed

    def close(self) -> None:
        """End it; no call begins afterwards."""
        self._closed = True

    def tell(self, old: Any, new: Any) -> None:
        """Have the callback called soon. Runs on the background loop."""
        with self._lock:
            self._untold = (self._untold[0] if self._untold else old, new)
            if self._running or self._closed:
                return
            self._running = True
        if self._loop is None:
            # A daemon thread: one whose callback hangs must not keep the process from ending.
            threading.Thread(target=self._run, name=f"settings {self._subject}", daemon=True).start()
            return
        try:
            self._loop.call_soon_threadsafe(self._start)
        except RuntimeError:  # its loop has been closed: there is nobody left to tell
            self._closed = True

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run_async())

    def _next(self) -> tuple[Any, ...] | None:
        """The arguments of the next call; None ends the run."""
        while True:
            with self._lock:
                untold, self._untold = self._untold, None
                if untold is None or self._closed:
                    self._running = False
                    return None
            arguments = self._arguments(*untold)
            if arguments is not None:
                return arguments

    def _run(self) -> None:
        while (arguments := self._next()) is not None:
            try:
                result = self._callback(*arguments)
                if inspect.isawaitable(result):
                    asyncio.run(_wait(result))
            except Exception as error:  # noqa: BLE001 - the user's own code may raise anything
                self._failed(error)

    async def _run_async(self) -> None:
        while (arguments := self._next()) is not None:
            try:
                result = self._callback(*arguments)
                if inspect.isawaitable(result):
                    await result
            except Exception as error:  # noqa: BLE001 - the user's own code may raise anything
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        name = getattr(self._callback, "__qualname__", type(self._callback).__name__)
        events.emit(ConfigCallbackFailed(subject=self._subject, callback=name, error=type(error).__name__))


async def _wait(awaitable: Any) -> None:
    await awaitable
