"""Start and stop of a WSGI process, where nobody tells the application of either."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import weakref
from collections.abc import Callable
from typing import Any

from chassis.background import Job, background
from chassis.core import events
from chassis.server._drain import Drain
from chassis.server._events import AnnouncementFailed
from chassis.server._lifecycle import Hooks
from chassis.server._listen import Address, find_own_address


class WSGILifecycle:
    """Watches for the process's own listener, registers it, and drains on SIGTERM.

    A server forks its workers before or after the application is imported; either way the watch
    runs in the process that serves. Without a listener (a script, a test) it changes nothing.

    :param service: the name the process answers to when it probes itself.
    :param drain: returns the seconds to go on serving after deregistration.
    :param stop_within: seconds the stop hook gets at exit.
    """

    def __init__(
        self,
        service: str,
        hooks: Hooks,
        *,
        drain: Callable[[], float],
        stop_within: float = 10.0,
    ) -> None:
        self._service = service
        self._hooks = hooks
        self._drain_seconds = drain
        self._stop_within = stop_within
        self._lock = threading.Lock()
        self._started: Job | None = None
        self._announcing: Job | None = None
        self._previous: Any = None
        self.draining = False
        """True from the moment the process is told to stop."""
        self.address: Address | None = None
        _alive.add(self)
        self._arm()

    @property
    def handles_sigterm(self) -> bool:
        """Whether SIGTERM drains before it stops; false where the server has put its own handler over ours."""
        return bool(signal.getsignal(signal.SIGTERM) == self._on_sigterm)

    def ensure_started(self) -> None:
        """Start what serves requests; at the first request at the latest.

        :raises Exception: what the start hook raised.
        """
        with self._lock:
            if self._started is None:
                self._started = background.start(self._hooks.start, name="start")
                atexit.register(self._at_exit, os.getpid())
        self._started.result()

    def retire(self) -> None:
        """Leave start and stop to somebody else: the application is served through the ASGI edge."""
        _alive.discard(self)
        if self._announcing is not None:
            self._announcing.cancel()
        if self.handles_sigterm:
            signal.signal(signal.SIGTERM, self._previous)

    def _arm(self) -> None:
        self._started = None
        self._drain = Drain(self._service, self._hooks.drain)
        self._drained = False
        self.draining = False
        self.address = None
        self._take_sigterm()
        self._announcing = background.start(self._announce, name="listen")

    async def _announce(self) -> None:
        try:
            # The probe's answer starts what serves it, like any other request: so an import alone,
            # in a shell, a test or a server's parent process, starts nothing.
            self.address = await find_own_address(self._service)
            await self._hooks.listening(self.address)
        except Exception as error:  # noqa: BLE001 - it serves all the same; somebody has to hear of it
            events.emit(AnnouncementFailed(subject=self._service, error=f"{type(error).__name__}: {error}"))

    def _take_sigterm(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        previous = signal.getsignal(signal.SIGTERM)
        if previous != self._on_sigterm:
            self._previous = previous
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, number: int, frame: Any) -> None:
        if self._drained or self._started is None:
            self._hand_over(number, frame)
        elif self.draining:
            # Asked a second time: no more waiting.
            background.start(self._hurry, name="hurry")
        else:
            self.draining = True
            # Not in the handler: the worker goes on serving while it drains.
            background.start(self._drain_and_stop, name="drain")

    async def _drain_and_stop(self) -> None:
        await self._drain.run(self._drain_seconds())
        self._drained = True
        os.kill(os.getpid(), signal.SIGTERM)

    async def _hurry(self) -> None:
        self._drain.hurry()

    def _hand_over(self, number: int, frame: Any) -> None:
        if callable(self._previous):
            self._previous(number, frame)
        elif self._previous != signal.SIG_IGN:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    def _at_exit(self, pid: int) -> None:
        if pid != os.getpid() or self._started is None:
            return
        if self._announcing is not None:
            self._announcing.cancel()

        async def stop() -> None:
            self.draining = True
            await self._drain.left()
            await self._hooks.stop()

        try:
            background.start(stop, name="stop").result(self._stop_within)
        except TimeoutError:
            # The interpreter must end; what was not flushed in time is counted by its owner.
            return


_alive: weakref.WeakSet[WSGILifecycle] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for lifecycle in list(_alive):
        lifecycle._lock = threading.Lock()
        lifecycle._arm()


os.register_at_fork(after_in_child=_after_fork_in_child)
