from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Job:
    """One coroutine running in the background until it ends or is cancelled."""

    def __init__(self, future: concurrent.futures.Future[Any], name: str) -> None:
        self._future = future
        self.name = name

    @property
    def done(self) -> bool:
        """Whether it has ended, for whatever reason."""
        return self._future.done()

    def cancel(self) -> None:
        """Ask it to stop; returns at once. Safe from any thread, and when it has ended."""
        self._future.cancel()

    async def wait(self) -> Any:
        """Await its end in the caller's loop, and return its result."""
        return await asyncio.wrap_future(self._future)

    def result(self, timeout: float | None = None) -> Any:
        """Block until it ends and return its result. Not for use in the background thread itself.

        :param timeout: seconds to wait; None waits for ever.
        :raises TimeoutError: it had not ended in time.
        """
        return self._future.result(timeout)


class Background:
    """A daemon thread with an asyncio loop, started on first use and again after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self, function: Callable[[], Coroutine[Any, Any, T]], *, name: str) -> Job:
        """Run ``function()`` in the background.

        :param function: called in the background thread, with the loop running.
        :param name: the task's name in diagnostics.
        :raises RuntimeError: the system gives no thread.
        """

        async def main() -> T:
            task = asyncio.current_task()
            if task is not None:
                task.set_name(f"chassis:{name}")
            return await function()

        loop = self._running_loop()
        return Job(asyncio.run_coroutine_threadsafe(main(), loop), name)

    async def run(self, function: Callable[[], Coroutine[Any, Any, T]], *, name: str) -> T:
        """Run ``function()`` in the background and await its result in the caller's loop."""
        result: T = await self.start(function, name=name).wait()
        return result

    def here(self) -> bool:
        """Whether the caller is the background thread."""
        return threading.current_thread() is self._thread

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._thread is None or not self._thread.is_alive():
                ready = threading.Event()
                loop = asyncio.new_event_loop()

                def main() -> None:
                    asyncio.set_event_loop(loop)
                    loop.call_soon(ready.set)
                    loop.run_forever()

                # Daemon: work that must be finished at exit (flush, deregister) is awaited by
                # whoever stops the service, with a time limit of its own.
                thread = threading.Thread(target=main, name="chassis-background", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the system gives no more of them
                    loop.close()
                    raise
                self._thread = thread
                self._loop = loop
                ready.wait()
            return self._loop

    def _after_fork_in_child(self) -> None:
        # Threads do not survive a fork, and the loop's selector is shared with the parent: both
        # are left alone and made anew on the next use.
        self._lock = threading.Lock()
        self._loop = None
        self._thread = None


background = Background()
"""The process-wide background thread."""

os.register_at_fork(after_in_child=background._after_fork_in_child)
