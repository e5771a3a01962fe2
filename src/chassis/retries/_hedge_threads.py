"""How attempts run beside each other in threads."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any

from chassis.core.forks import tell_after_fork
from chassis.retries._hedge_call import Ended

MOST = 64
"""Threads, at most. Who comes when all of them are busy calls in its own thread, alone."""
KEPT = 60.0
"""Seconds that a thread waits for its next job."""


class Workers:
    """Threads that are kept for the next call, and do not keep the process from ending.

    The standard library's executor waits at exit for calls that hang; but a call that was left
    behind may hang for ever.
    """

    def __init__(self, most: int = MOST, kept: float = KEPT) -> None:
        self._most = most
        self._kept = kept
        self.after_fork_in_child()
        tell_after_fork(self)

    @property
    def busy(self) -> int:
        """How many threads run a job now."""
        return self._threads - self._idle

    def run(self, job: Callable[[], None]) -> bool:
        """Run ``job``, which does not raise, in a thread; False if none is free."""
        with self._lock:
            if self._idle:
                self._idle -= 1
                self._jobs.put(job)
                return True
            if self._threads == self._most:
                return False
            self._threads += 1
        try:
            threading.Thread(target=self._work, args=(job,), name="chassis-hedge", daemon=True).start()
        except RuntimeError:  # the system gives no more of them
            with self._lock:
                self._threads -= 1
            return False
        return True

    def _work(self, first: Callable[[], None]) -> None:
        job: Callable[[], None] | None = first
        del first
        while job is not None:
            job()
            del job  # or what it holds would live until the next one
            with self._lock:
                self._idle += 1
            job = self._next()

    def _next(self) -> Callable[[], None] | None:
        """The next job for this thread; None if it is to end."""
        while True:
            try:
                return self._jobs.get(timeout=self._kept)
            except queue.Empty:
                with self._lock:
                    if self._idle:
                        self._idle -= 1
                        self._threads -= 1
                        return None
                # Every thread that waits is spoken for, this one too: its job is on the way.

    def after_fork_in_child(self) -> None:
        """Threads do not survive a fork."""
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads = 0
        self._idle = 0


_workers = Workers()


class Threads:
    """The attempts of one call. None of them can be cancelled: what comes too late is dropped."""

    def __init__(self, workers: Workers = _workers) -> None:
        self._workers = workers
        self._ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()

    def start(self, number: int, operation: Callable[[], Any]) -> bool:
        """Begin an attempt in a copy of the caller's context; False if no thread is free."""
        context, ended = contextvars.copy_context(), self._ended

        def attempt() -> None:
            try:
                ended.put(Ended(number, context.run(operation), None))
            except BaseException as error:  # noqa: BLE001 - raised in the caller
                ended.put(Ended(number, None, error))

        return self._workers.run(attempt)

    def wait(self, seconds: float | None) -> Ended | None:
        """The next attempt that has ended; None if none did within ``seconds``."""
        try:
            return self._ended.get(timeout=seconds)
        except queue.Empty:
            return None
