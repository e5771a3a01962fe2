"""The shell around the board: runs checks, answers probes."""

from __future__ import annotations

import json
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from chassis.core.clock import Clock, monotonic
from chassis.core.errors import ChassisError, ConfigError
from chassis.core.events import EventBus, events
from chassis.core.functions import is_async_callable
from chassis.core.instances import Status
from chassis.core.options import Seconds, check_seconds
from chassis.health._events import CheckFailed, CheckRecovered
from chassis.health._machine import Board, Check, Result, State

CheckFunction: TypeAlias = Callable[[], bool | None] | Callable[[], Awaitable[bool | None]]
"""Healthy if it returns None or True; failed if it returns False or raises."""

CONTENT_TYPE = "application/health+json"


class Unhealthy(ChassisError):
    """Raised by a check to say why: its text is shown to who may see details.

    Of any other error only the type is shown, since messages carry addresses and secrets.
    """


@dataclass(frozen=True, slots=True)
class Answer:
    """What a probe is answered.

    :param status: the HTTP status.
    :param body: JSON, of the content type ``application/health+json``.
    """

    status: int
    body: bytes


class Health:
    """Checks, lifecycle state and the answers to probes; safe to use from any thread.

    Answers come from the results kept, at once. :meth:`run` keeps those fresh; whoever does not run
    it calls :meth:`refresh` before asking.

    :param clock: monotonic seconds.
    :param bus: told of checks that fail and recover.
    """

    def __init__(self, clock: Clock = monotonic, *, bus: EventBus = events) -> None:
        self._clock = clock
        self._bus = bus
        self._lock = threading.Lock()
        self._board = Board()
        self._functions: dict[str, CheckFunction] = {}
        self._in_threads: set[str] = set()
        self.loop_lag = 0.0
        """Seconds by which the event loop of :meth:`run` woke up late the last time."""

    @property
    def state(self) -> State:
        """Where the process is in its life; set by whoever runs the lifecycle."""
        return self._board.state

    @state.setter
    def state(self, state: State) -> None:
        self._board.state = state

    def check(
        self,
        name: str,
        function: CheckFunction,
        *,
        critical: bool = True,
        ttl: Seconds = 5.0,
        timeout: Seconds = 2.0,
    ) -> Callable[[], None]:
        """Add a check.

        :param name: shown in answers and events; unique.
        :param function: ``async``, or plain and run in a thread of its own. Healthy if it returns
            None or True, failed if it returns False or raises.
        :param critical: whether readiness depends on it. Let that be so only for what every answer
            needs and no other instance could have: a database that is down is down for all of
            them, and taking all of them away helps nobody.
        :param ttl: seconds a result is good for.
        :param timeout: seconds a run may take before it counts as failed.
        :returns: a function that takes the check away again.
        :raises ConfigError: the name is taken, or a duration is none.
        """
        check_seconds("ttl", ttl)
        check_seconds("timeout", timeout)
        check = Check(name, critical=critical, ttl=ttl, timeout=timeout)
        with self._lock:
            if name in self._board.checks:
                raise ConfigError(f"there is a check {name!r} already", setting=name, remedy="rename one")
            self._board.checks[name] = check
            self._functions[name] = function

        def remove() -> None:
            with self._lock:
                if self._board.checks.get(name) is check:
                    del self._board.checks[name], self._functions[name]

        return remove

    # Answers

    def live(self) -> Answer:
        """The answer of ``/livez``: 200 whenever it can be given at all."""
        return _answer(200, {"status": "pass"})

    def ready(self) -> Answer:
        """The answer of ``/readyz``: 200 if traffic is wanted, else 503. Degraded is ready."""
        with self._lock:
            ready, _ = self._board.ready(self._clock())
        return _answer(200 if ready else 503, {"status": "pass" if ready else "fail"})

    def readiness(self) -> tuple[Status, str]:
        """The same for a registry's heartbeat: status and note. Never blocks.

        Degraded is PASSING: discovery takes instances that warn out of the rotation.
        """
        with self._lock:
            ready, note = self._board.ready(self._clock())
        return (Status.PASSING if ready else Status.CRITICAL), note

    def report(self, *, details: bool, more: Mapping[str, Any] | None = None) -> Answer:
        """The answer of ``/health``: 503 if not ready, else 200 with ``pass`` or ``warn``.

        :param details: whether the asker may see more than the status: checks with their notes,
            the lifecycle's state and ``more``.
        :param more: further members of the body, as plain values.
        """
        now = self._clock()
        with self._lock:
            status = self._board.status(now)
            body: dict[str, Any] = {"status": status}
            if details:
                body["state"] = self._board.state.value
                body["checks"] = {name: _details(each, now) for name, each in self._board.checks.items()}
                body["loop_lag_ms"] = round(self.loop_lag * 1000, 1)
        if details and more:
            body |= more
        return _answer(503 if status == "fail" else 200, body)

    # Runs

    async def run(self) -> None:
        """Keep all results fresh until cancelled; where an async check's own resources live."""
        import anyio

        while True:
            await self.refresh()
            with self._lock:
                wait = self._board.wait(self._clock())
            # At most a second, so that a check added meanwhile is not kept waiting.
            pause = 1.0 if wait is None else min(1.0, wait)
            before = self._clock()
            await anyio.sleep(pause)
            self.loop_lag = max(0.0, self._clock() - before - pause)

    async def refresh(self) -> None:
        """Run, all at once, the checks whose results are old, and wait for their ends.

        A check that is running already is not run again, and not waited for.
        """
        import anyio

        with self._lock:
            due = [(check, self._functions[check.name]) for check in self._board.due(self._clock())]
        if due:
            async with anyio.create_task_group() as group:
                for check, function in due:
                    group.start_soon(self._run_one, check, function)

    async def _run_one(self, check: Check, function: CheckFunction) -> None:
        import anyio

        begun = self._clock()
        healthy, note = False, "timed out"
        try:
            with anyio.move_on_after(check.timeout):
                healthy, note = await self._ask(check.name, function)
        except BaseException:
            # Cancelled: that says nothing of the dependency, but the check must be run again.
            check.running = False
            raise
        now = self._clock()
        with self._lock:
            changed = check.settle(Result(now, healthy, note, now - begun))
        if changed and check.failed:
            self._bus.emit(CheckFailed(subject=check.name, critical=check.critical, reason=note))
        elif changed:
            self._bus.emit(CheckRecovered(subject=check.name))

    async def _ask(self, name: str, function: CheckFunction) -> tuple[bool, str]:
        try:
            if is_async_callable(function):
                result = await cast(Callable[[], Awaitable[Any]], function)()
            else:
                result = await self._in_thread(name, cast(Callable[[], Any], function))
        except Unhealthy as error:
            return False, str(error)
        except Exception as error:  # noqa: BLE001 - whatever a check raises, it failed
            return False, type(error).__name__
        return (False, "failed") if result is False else (True, "")

    async def _in_thread(self, name: str, function: Callable[[], Any]) -> Any:
        import anyio.to_thread

        if name in self._in_threads:
            raise Unhealthy("timed out, and is still running")

        def call() -> Any:
            self._in_threads.add(name)
            try:
                return function()
            finally:
                self._in_threads.discard(name)

        # A limiter of its own: neither busy worker threads nor another check's hang delay it. A
        # thread cannot be stopped: past the timeout it is left behind, and waited for before the
        # next run.
        return await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))


def _details(check: Check, now: float) -> dict[str, Any]:
    status, note = check.verdict(now)
    details: dict[str, Any] = {"status": status, "critical": check.critical}
    if note:
        details["note"] = note
    if check.result is not None:
        details["latency_ms"] = round(check.result.seconds * 1000, 1)
        details["age_s"] = round(now - check.result.at, 1)
    return details


def _answer(status: int, body: Mapping[str, Any]) -> Answer:
    return Answer(status, json.dumps(body, default=str).encode())
