from __future__ import annotations

import functools
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from chassis.core.clock import Clock, monotonic
from chassis.core.deadline import remaining
from chassis.core.errors import BulkheadFull
from chassis.core.events import EventBus, events
from chassis.core.forks import tell_after_fork
from chassis.core.functions import NEVER_AWAITABLE, is_awaitable
from chassis.core.options import AS_IN_OPTIONS, check_options, given_fields
from chassis.core.outcomes import Outcome, classify_error
from chassis.core.permits import Permit
from chassis.core.policies import Admission, Role
from chassis.core.registry import policies
from chassis.limits._events import BulkheadRejected
from chassis.limits._machine import BulkheadMachine, Waiter
from chassis.limits._options import BulkheadOptions, Order
from chassis.limits._signals import ThreadSignal, async_signal


class Bulkhead(Admission):
    """Lets so many calls in at once, so that one slow dependency cannot take all of a service.

    One bulkhead counts threads, asyncio tasks and trio tasks together. A guarded function that calls
    itself takes a second place.

    :param name: unique among the live bulkheads of the process, unless ``register`` is false.
    :param options: all options at once; the other keywords change single fields of it. Their
        meaning and defaults are those of :class:`BulkheadOptions`.
    :param clock: a monotonic clock.
    :param register: makes it known to :data:`chassis.core.registry.policies` as ``bulkhead:name``.
    :param bus: where its events go.
    :raises ConfigError: an option is impossible, or a live bulkhead has this name.
    """

    kind = "bulkhead"
    role: Role | None = Role.BULKHEAD

    def __init__(
        self,
        name: str,
        *,
        limit: int = AS_IN_OPTIONS,
        queue: int = AS_IN_OPTIONS,
        wait: float = AS_IN_OPTIONS,
        order: Order = AS_IN_OPTIONS,
        options: BulkheadOptions | None = None,
        clock: Clock = monotonic,
        register: bool = True,
        bus: EventBus = events,
    ) -> None:
        given = given_fields(limit=limit, queue=queue, wait=wait, order=order)
        self.name = name
        self.classify = classify_error
        self._defaults = self._options = replace(options or BulkheadOptions(), **given)
        self.role = _role_for(self._options)
        self._clock = clock
        self._machine = _machine_for(self._options)
        self._bus = bus
        # Re-entrant: a collection that starts inside may close a forgotten generator, whose permit
        # comes back to this very bulkhead in this very thread.
        self._lock = threading.RLock()
        tell_after_fork(self)
        self._subject = name
        if register:
            self._subject = policies.register(self)

    # ── asking ───────────────────────────────────────────────────────────────────────────────

    @property
    def options(self) -> BulkheadOptions:
        """The options it follows now."""
        return self._options

    @property
    def defaults(self) -> BulkheadOptions:
        """The options given in code."""
        return self._defaults

    def describe(self) -> Mapping[str, Any]:
        """Calls in flight, waiting and refused, and options, as plain values."""
        machine = self._machine
        with self._lock:
            return {
                "in_flight": machine.in_flight,
                "waiting": machine.waiting,
                "refused": machine.refused,
                "options": asdict(self._options),
            }

    def reconfigure(self, options: BulkheadOptions) -> None:
        """Follow ``options`` from now on. A higher limit lets waiters in; a lower one puts nobody out."""
        check_options(options, self._defaults)
        with self._lock:
            self._options = options
            self.role = _role_for(options)
            lucky = self._machine.resize(
                options.limit, options.queue, lifo=options.order == "lifo", clock=self._clock
            )
        self._wake(self._machine, lucky)

    # ── admitting ────────────────────────────────────────────────────────────────────────────

    def acquire(self) -> Permit:
        """A place, without waiting.

        :raises BulkheadFull: none is free.
        """
        machine = self._machine
        if not self._enter(machine):
            raise self._refusal(machine)
        return _Place(self, machine)

    def acquire_sync(self) -> Permit:
        """A place; blocks the calling thread while it is in the queue.

        :raises BulkheadFull: the queue is full, or the wait or the caller's deadline was up.
        """
        machine = self._machine
        if not self._enter(machine):
            limit = self._wait_until(machine)
            signal = ThreadSignal()
            waiter = self._line_up(machine, signal.wake)
            try:
                if not waiter.granted:
                    signal.wait(limit - self._clock())
            except BaseException:
                self._abandon(machine, waiter)
                raise
            self._end_wait(machine, waiter, limit)
        return _Place(self, machine)

    async def acquire_async(self) -> Permit:
        """A place; waits under asyncio or trio while it is in the queue.

        :raises BulkheadFull: the queue is full, or the wait or the caller's deadline was up.
        """
        machine = self._machine
        if not self._enter(machine):
            limit = self._wait_until(machine)
            signal = async_signal()
            waiter = self._line_up(machine, signal.wake)
            try:
                if not waiter.granted:
                    await signal.wait(limit - self._clock())
            except BaseException:
                # Also where the place was given and the task cancelled in the same instant.
                self._abandon(machine, waiter)
                raise
            self._end_wait(machine, waiter, limit)
        return _Place(self, machine)

    def settle(self, permit: Permit, result: Any, error: BaseException | None) -> None:
        """Give the place back; how the call ended is nothing to a bulkhead."""
        permit.settle(Outcome.IGNORED)

    # While a place is free, a call takes it and gives it back without the lock and without a permit
    # object; everything else takes the general way.

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        general = super().guard(function)

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            machine = self._machine
            try:
                place = machine.free.pop()
            except IndexError:
                pass  # and left, or the call's own errors would bear it as their context
            else:
                try:
                    if not machine.free:
                        machine.pace.filled(self._clock())
                    result = function(*args, **kwargs)
                finally:
                    if machine.free and not machine.attention:
                        machine.free.append(place)
                        if machine.attention:
                            self._settle(machine)  # type: ignore[unreachable]  # by another thread it is not
                    else:
                        self._leave(machine)
                if type(result) not in NEVER_AWAITABLE and is_awaitable(result):
                    return self.run_awaitable(result, functools.partial(function, *args, **kwargs))
                return result
            return general(*args, **kwargs)

        return guarded

    def guard_async(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        general = super().guard_async(function)

        @functools.wraps(function)
        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            machine = self._machine
            try:
                place = machine.free.pop()
            except IndexError:
                pass  # and left, as above
            else:
                try:
                    if not machine.free:
                        machine.pace.filled(self._clock())
                    return await function(*args, **kwargs)
                finally:
                    if machine.free and not machine.attention:
                        machine.free.append(place)
                        if machine.attention:
                            self._settle(machine)  # type: ignore[unreachable]  # by another thread it is not
                    else:
                        self._leave(machine)
            return await general(*args, **kwargs)

        return guarded_async

    def _enter(self, machine: BulkheadMachine) -> bool:
        with self._lock:
            return machine.enter(self._clock)

    def _wait_until(self, machine: BulkheadMachine) -> float:
        """When the caller gives up, on our clock; the caller's deadline is asked how much is left."""
        seconds, left = self._options.wait, remaining()
        if left is not None and left < seconds:
            seconds = left
        if seconds <= 0 or machine.queue == 0:
            raise self._refusal(machine)
        return self._clock() + seconds

    def _line_up(self, machine: BulkheadMachine, wake: Callable[[], object]) -> Waiter:
        waiter = Waiter(wake)
        with self._lock:
            gone = machine.line_up(waiter)
            # A place may have come free since it was first asked for.
            lucky = machine.settled()
        self._wake(machine, lucky)
        if gone is waiter:
            raise self._refusal(machine)
        if gone is not None:
            self._wake(machine, (gone,))
        return waiter

    def _end_wait(self, machine: BulkheadMachine, waiter: Waiter, limit: float) -> None:
        with self._lock:
            granted = waiter.granted
        # Given to it, but seen too late, after a stop of the event loop say: its caller has gone,
        # and no place shall be spent on what nobody waits for.
        if not granted or self._clock() >= limit:
            self._abandon(machine, waiter)
            raise self._refusal(machine)

    def _abandon(self, machine: BulkheadMachine, waiter: Waiter) -> None:
        with self._lock:
            lucky = machine.abandon(waiter, self._clock)
        self._wake(machine, lucky)

    def _leave(self, machine: BulkheadMachine) -> None:
        with self._lock:
            lucky = machine.leave(self._clock)
        self._wake(machine, lucky)

    def _settle(self, machine: BulkheadMachine) -> None:
        """Somebody lined up while a place was given back without the lock."""
        with self._lock:
            lucky = machine.settled()
        self._wake(machine, lucky)

    def _wake(self, machine: BulkheadMachine, lucky: Iterable[Waiter]) -> None:
        for waiter in lucky:
            try:
                waiter.wake()
            except RuntimeError:
                # Its event loop has been closed under it: the place goes on to the next.
                self._abandon(machine, waiter)

    def _refusal(self, machine: BulkheadMachine) -> BulkheadFull:
        now = self._clock()
        with self._lock:
            machine.refused += 1
            limit, waiting = machine.limit, machine.waiting
            retry_after = machine.retry_after(now)
        if self._bus.listening:
            self._bus.emit(
                BulkheadRejected(subject=self._subject, limit=limit, waiting=waiting, retry_after=retry_after)
            )
        return BulkheadFull(self.name, limit=limit, retry_after=retry_after)

    def after_fork_in_child(self) -> None:
        """The calls and waiters of the parent's other threads do not exist in the child."""
        self._lock = threading.RLock()
        self._machine = _machine_for(self._options)


def _role_for(options: BulkheadOptions) -> Role:
    return Role.QUEUE if options.queue else Role.BULKHEAD


def _machine_for(options: BulkheadOptions) -> BulkheadMachine:
    return BulkheadMachine(options.limit, options.queue, lifo=options.order == "lifo")


class _Place:
    """One place in the machine it was taken from, which after a fork is no longer the bulkhead's."""

    __slots__ = ("_bulkhead", "_machine")

    def __init__(self, bulkhead: Bulkhead, machine: BulkheadMachine) -> None:
        self._bulkhead = bulkhead
        self._machine: BulkheadMachine | None = machine

    def settle(self, outcome: Outcome, error: BaseException | None = None) -> None:
        machine, self._machine = self._machine, None
        if machine is not None:
            self._bulkhead._leave(machine)


bulkhead = Bulkhead
"""The decorator's spelling: ``@bulkhead("payments", limit=10)``."""
