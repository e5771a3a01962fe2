"""Start and stop under any ASGI server.

Servers start the application before they listen and tell nobody when they do; on SIGTERM they
close their listeners before the application hears of it. So the edge finds its own socket after
start-up, and takes SIGTERM first: it drains while the server still serves, then hands the signal
on to the server's own handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from chassis.core import events
from chassis.server._asgi_types import ASGIApp, Message, Receive, Scope, Send
from chassis.server._drain import Drain
from chassis.server._events import AnnouncementFailed
from chassis.server._listen import Address, find_own_address

_ONE_ORDER = 0.5
"""Seconds within which a further SIGTERM is the same order by another way."""


class EventStream(Protocol):
    async def end(self) -> None: ...


class Hooks(Protocol):
    """What is done at each step; implemented by the composition root."""

    async def start(self) -> None:
        """Before the application starts."""

    async def listening(self, address: Address) -> None:
        """The process serves on ``address``; register it."""

    async def drain(self) -> None:
        """The process is about to stop; deregister it. Takes a bounded time and raises nothing."""

    async def stop(self) -> None:
        """The last request has been answered and the application has stopped."""


class Lifecycle:
    """One process's way from start to stop.

    :param service: the name the process answers to when it probes itself.
    :param drain: returns the seconds to go on serving after deregistration.
    """

    def __init__(
        self,
        service: str,
        hooks: Hooks,
        *,
        drain: Callable[[], float],
    ) -> None:
        self._service = service
        self._hooks = hooks
        self._drain_seconds = drain
        self.draining = False
        """True from the moment the process is told to stop: answers close their connections."""
        self.handles_sigterm = False
        """Whether SIGTERM drains before it stops. False in a thread, where signals cannot be taken."""
        self.address: Address | None = None
        self.event_streams: set[EventStream] = set()
        self.stopping = asyncio.Event()
        """Set when draining is over; handlers of long streams may wait for it."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._told_at = 0.0
        self._drain = Drain(service, hooks.drain)

    def _anew(self) -> None:
        """A test client serves the same application's lifespan more than once."""
        self.draining = False
        self.stopping = asyncio.Event()
        self._drain = Drain(self._service, self._hooks.drain)

    async def lifespan(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the server's lifespan, with the application's own inside."""
        await receive()
        self._anew()
        inner = _InnerLifespan(app, scope)
        try:
            await self._hooks.start()
            await inner.start()
        except Exception as error:
            await self._hooks.stop()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        self._await_listener()
        await send({"type": "lifespan.startup.complete"})

        await receive()
        await self._end_serving()
        try:
            await inner.stop()
        finally:
            await self._hooks.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def begin(self) -> None:
        """Start, for a framework that serves the lifespan itself."""
        self._anew()
        await self._hooks.start()
        self._await_listener()

    async def end(self) -> None:
        """Stop, for a framework that serves the lifespan itself."""
        await self._end_serving()
        await self._hooks.stop()

    def _await_listener(self) -> None:
        self._take_sigterm()
        self._spawn(self._announce())

    async def _end_serving(self) -> None:
        # A server that was not stopped by SIGTERM (Ctrl-C, a test client) comes here undrained.
        self.draining = True
        await self._drain.left()
        self.stopping.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _announce(self) -> None:
        try:
            self.address = await find_own_address(self._service)
            await self._hooks.listening(self.address)
        except Exception as error:  # noqa: BLE001 - it serves all the same; somebody has to hear of it
            events.emit(AnnouncementFailed(subject=self._service, error=f"{type(error).__name__}: {error}"))

    def _take_sigterm(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        previous = signal.getsignal(signal.SIGTERM)
        try:
            # Through the loop and not signal.signal: a loop handler that a server has set would
            # still be called from the loop's wake-up descriptor.
            loop.add_signal_handler(signal.SIGTERM, self._on_sigterm, previous)
        except (NotImplementedError, RuntimeError):  # a loop without signals
            return
        self.handles_sigterm = True

    def _on_sigterm(self, previous: Any) -> None:
        now = asyncio.get_running_loop().time()
        if self.draining:
            # Asked a second time: no more waiting. A third time changes nothing, as what is in flight
            # is finished in any case. systemd and a shell's `kill %1` tell each process of a group, so
            # a worker hears of one order from them and from its parent: that is no second time.
            if now - self._told_at >= _ONE_ORDER:
                self._drain.hurry()
            return
        self.draining, self._told_at = True, now
        self._spawn(self._drain_and_stop(previous))

    async def _drain_and_stop(self, previous: Any) -> None:
        await self._drain.run(self._drain_seconds())
        self.stopping.set()
        for stream in list(self.event_streams):
            # The client may be gone already; the others still want their end.
            with contextlib.suppress(Exception):
                await stream.end()
        _hand_over(previous)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _hand_over(previous: Any) -> None:
    """Let the server stop itself.

    Our handler stays where it is: a further SIGTERM must not end the process by its default action
    while requests are in flight.
    """
    if hasattr(getattr(previous, "__self__", None), "should_exit"):
        previous(signal.SIGTERM, None)  # uvicorn's own handler
        return
    # granian has the same handler on SIGINT, so its own need not be known.
    signal.raise_signal(signal.SIGINT)


class _InnerLifespan:
    """The application's own lifespan, run in a task of its own as a server would."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self._app = app
        self._scope = scope
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._supported = True

    async def start(self) -> None:
        """Start it; an application without lifespan is fine.

        :raises RuntimeError: the application says that its start-up failed.
        """
        self._task = asyncio.create_task(self._run())
        await self._to_app.put({"type": "lifespan.startup"})
        answer = await self._from_app.get()
        if answer["type"] == "lifespan.startup.failed":
            raise RuntimeError(answer.get("message") or "the application's start-up failed")
        self._supported = answer["type"] == "lifespan.startup.complete"

    async def stop(self) -> None:
        """Stop it."""
        if self._task is None or not self._supported:
            return
        await self._to_app.put({"type": "lifespan.shutdown"})
        answer = await self._from_app.get()
        if answer["type"] == "lifespan.shutdown.failed":
            raise RuntimeError(answer.get("message") or "the application's shutdown failed")

    async def _run(self) -> None:
        # An application may refuse the lifespan by any error.
        with contextlib.suppress(Exception):
            await self._app(self._scope, self._to_app.get, self._from_app.put)
        # Ended without an answer: the application knows no lifespan (ASGI lifespan protocol 2.0).
        await self._from_app.put({"type": "lifespan.unsupported"})
