from __future__ import annotations

import functools
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import asdict, replace
from typing import Any

from chassis.breaker._events import BreakerClosed, BreakerHalfOpen, BreakerOpened, BreakerRejected
from chassis.breaker._machine import BreakerMachine, BreakerState, Transition
from chassis.breaker._options import BreakerOptions
from chassis.core.clock import Clock, monotonic
from chassis.core.errors import CircuitOpen
from chassis.core.events import Event, EventBus, events
from chassis.core.forks import tell_after_fork
from chassis.core.outcomes import Classifier, Outcome, classify_error
from chassis.core.policies import Admission, Permit, Role, is_awaitable
from chassis.core.registry import policies

_GIVEN_BY_OPTIONS: Any = type("Default", (), {"__repr__": lambda _: "<as in options>"})()
_LONGEST_FAILURE = 200


class CircuitBreaker(Admission):
    """Stops calling what keeps failing, and finds out by a few probes when it works again.

    One breaker may guard plain, async, generator and async generator functions, from any number of
    threads and event loops (asyncio or trio) at once. It holds its lock for no call.

    :param name: unique among the live breakers of the process, unless ``register`` is false.
    :param options: all options at once; the other keywords change single fields of it. Their
        meaning and defaults are those of :class:`BreakerOptions`.
    :param classify: judges results and errors. Cancellation and its like are never judged.
    :param clock: a monotonic clock.
    :param register: makes it known to :data:`chassis.core.registry.policies` as ``breaker:name``.
    :param bus: where its events go.
    :raises ConfigError: an option is impossible, or a live breaker has this name.
    """

    kind = "breaker"
    role = Role.BREAKER

    def __init__(
        self,
        name: str,
        *,
        failure_rate: float = _GIVEN_BY_OPTIONS,
        window: float = _GIVEN_BY_OPTIONS,
        minimum_calls: int = _GIVEN_BY_OPTIONS,
        consecutive_failures: int | None = _GIVEN_BY_OPTIONS,
        open_for: float = _GIVEN_BY_OPTIONS,
        open_for_max: float = _GIVEN_BY_OPTIONS,
        probes: int = _GIVEN_BY_OPTIONS,
        probe_concurrency: int = _GIVEN_BY_OPTIONS,
        probe_timeout: float = _GIVEN_BY_OPTIONS,
        options: BreakerOptions | None = None,
        classify: Classifier = classify_error,
        clock: Clock = monotonic,
        register: bool = True,
        bus: EventBus = events,
    ) -> None:
        fields = {
            "failure_rate": failure_rate,
            "window": window,
            "minimum_calls": minimum_calls,
            "consecutive_failures": consecutive_failures,
            "open_for": open_for,
            "open_for_max": open_for_max,
            "probes": probes,
            "probe_concurrency": probe_concurrency,
            "probe_timeout": probe_timeout,
        }
        given: dict[str, Any] = {
            field: value for field, value in fields.items() if value is not _GIVEN_BY_OPTIONS
        }
        self.name = name
        self.classify = classify
        self._defaults = replace(options or BreakerOptions(), **given)
        self._machine = BreakerMachine(self._defaults)
        self._clock = clock
        self._bus = bus
        self._telling = False
        # Re-entrant: a collection that starts inside may close a forgotten generator, whose permit
        # comes back to this very breaker in this very thread.
        self._lock = threading.RLock()
        tell_after_fork(self)
        self._subject = name
        if register:
            self._subject = policies.register(self)

    # ── asking ───────────────────────────────────────────────────────────────────────────────

    @property
    def state(self) -> BreakerState:
        """The state at this moment."""
        self._poll()
        return self._machine.state

    @property
    def ready(self) -> bool:
        """Whether a call would be admitted now. Asking takes nothing."""
        return self.retry_after == 0.0

    @property
    def retry_after(self) -> float:
        """Seconds until a call has a chance, 0 if it would be admitted now."""
        if self._machine.closed:
            return 0.0
        with self._lock:
            retry_after = self._machine.retry_after(self._clock())
        self._tell()
        return retry_after

    @property
    def options(self) -> BreakerOptions:
        """The options it follows now."""
        return self._machine.options

    @property
    def defaults(self) -> BreakerOptions:
        """The options given in code."""
        return self._defaults

    def describe(self) -> Mapping[str, Any]:
        """State, counts and options, as plain values."""
        self._poll()
        machine = self._machine
        with self._lock:
            now = self._clock()
            calls, failures = machine.counts(now)
            return {
                "state": machine.state.value,
                "retry_after": machine.retry_after(now),
                "calls": calls,
                "failures": failures,
                "refused": machine.refused,
                "last_failure": machine.last_failure,
                "options": asdict(machine.options),
            }

    def reconfigure(self, options: BreakerOptions) -> None:
        """Follow ``options`` from now on. What was counted stays, calls in flight end as they began."""
        with self._lock:
            self._machine.reconfigure(options, self._clock())
        self._tell()

    # ── admitting ────────────────────────────────────────────────────────────────────────────

    def acquire(self) -> Permit:
        """Leave to make one call, without waiting.

        :raises CircuitOpen: the breaker is open, or as many probes as allowed are in flight.
        """
        ticket = self._machine.closed
        return _BreakerPermit(self, ticket) if ticket else self._acquire_probe()

    def _acquire_probe(self) -> Permit:
        holding = _held.get()
        with self._lock:
            if holding is not None and holding.is_probe_of(self):
                # The probe's own work calls this breaker again: the probe's end judges both.
                return _RIDING
            ticket, retry_after = self._machine.admit(self._clock())
        if self._machine.transitions:
            self._tell()
        if not ticket:
            if self._bus.listening:
                self._bus.emit(BreakerRejected(subject=self._subject, retry_after=retry_after))
            raise CircuitOpen(self.name, retry_after=retry_after, last_failure=self._machine.last_failure)
        while holding is not None and holding.settled:
            holding = holding.outer  # or the chain would grow with every probe of a long-lived thread
        permit = _BreakerPermit(self, ticket, outer=holding)
        _held.set(permit)
        return permit

    def _settle(self, ticket: int, outcome: Outcome, error: BaseException | None) -> None:
        # Text, as the error itself would keep frames and request bodies alive; and made before the
        # lock is taken, as it runs the error's own code.
        failure = _failure_text(error) if outcome is Outcome.FAILURE else None
        now = self._clock()
        machine = self._machine
        with self._lock:
            machine.settle(ticket, outcome, now, failure)
        if machine.transitions:
            self._tell()

    # ── decorating ───────────────────────────────────────────────────────────────────────────
    # Nearly all calls succeed while the breaker is closed. What it does for those stands here in
    # one frame, without a permit object; everything else takes the general way. The clock is read
    # and the lock taken by hand, as a with statement would double the time the lock costs; it is
    # taken inside the try, as a signal handler that raises may run right after it.

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        general = super().guard(function)
        machine = self._machine

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            ticket = machine.closed
            if not ticket or self.classify is not classify_error:
                return general(*args, **kwargs)
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                self.settle(_BreakerPermit(self, ticket), None, error)
                raise
            if is_awaitable(result):
                return self.run_awaitable(result, functools.partial(function, *args, **kwargs))
            now = self._clock()
            lock = self._lock
            try:
                lock.acquire()
                machine.succeed(ticket, now)
            finally:
                lock.release()
            if machine.transitions:
                self._tell()
            return result

        return guarded

    def guard_async(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        general = super().guard_async(function)
        machine = self._machine

        @functools.wraps(function)
        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            ticket = machine.closed
            if not ticket or self.classify is not classify_error:
                return await general(*args, **kwargs)
            try:
                result = await function(*args, **kwargs)
            except BaseException as error:
                self.settle(_BreakerPermit(self, ticket), None, error)
                raise
            now = self._clock()
            lock = self._lock
            try:
                lock.acquire()
                machine.succeed(ticket, now)
            finally:
                lock.release()
            if machine.transitions:
                self._tell()
            return result

        return guarded_async

    # ── telling ──────────────────────────────────────────────────────────────────────────────

    def _poll(self) -> None:
        with self._lock:
            self._machine.poll(self._clock())
        self._tell()

    def _tell(self) -> None:
        """Emit the transitions in their order, outside the lock.

        Whoever is telling also tells what happens meanwhile, in other threads or by a listener's
        own doing; so nobody is told of a closing before the opening.
        """
        machine = self._machine
        while machine.transitions:
            with self._lock:
                if self._telling:
                    return
                self._telling = True
                waiting, machine.transitions = machine.transitions, []
            try:
                for transition in waiting:
                    self._bus.emit(self._event(transition))
            finally:
                self._telling = False

    def _event(self, transition: Transition) -> Event:
        if transition.state is BreakerState.OPEN:
            return BreakerOpened(
                subject=self._subject,
                reason=transition.reason,
                open_for=transition.open_for,
                calls=transition.calls,
                failures=transition.failures,
                last_failure=transition.last_failure,
            )
        if transition.state is BreakerState.HALF_OPEN:
            return BreakerHalfOpen(subject=self._subject)
        return BreakerClosed(subject=self._subject, reason=transition.reason)

    def after_fork_in_child(self) -> None:
        """Another thread may have held the lock; counts and state go on, per process."""
        self._lock = threading.RLock()
        self._telling = False


class _BreakerPermit:
    """One admission; ``outer`` is the permit this context held before it."""

    __slots__ = ("_breaker", "_ticket", "outer")

    def __init__(self, breaker: CircuitBreaker, ticket: int, *, outer: _BreakerPermit | None = None) -> None:
        self._breaker: CircuitBreaker | None = breaker
        self._ticket = ticket
        self.outer = outer

    def settle(self, outcome: Outcome, error: BaseException | None = None) -> None:
        breaker = self._breaker
        if breaker is not None:
            # Let go of the breaker: this permit may stay behind in a context variable.
            self._breaker = None
            breaker._settle(self._ticket, outcome, error)

    @property
    def settled(self) -> bool:
        """Whether it has been given back."""
        return self._breaker is None

    def is_probe_of(self, breaker: CircuitBreaker) -> bool:
        """Whether this permit, or one held around it, is a probe of ``breaker`` still in flight."""
        permit: _BreakerPermit | None = self
        while permit is not None:
            if permit._breaker is breaker and permit._ticket in breaker._machine.probes:
                return True
            permit = permit.outer
        return False


class _RidingPermit:
    """Leave within a probe in flight: nothing to give back."""

    def settle(self, outcome: Outcome, error: BaseException | None = None) -> None:
        """The probe's own outcome counts."""


_RIDING = _RidingPermit()
_held: ContextVar[_BreakerPermit | None] = ContextVar("chassis_breaker_probe", default=None)
"""The innermost probe of this context, so that its own nested calls are not refused."""


def _failure_text(error: BaseException | None) -> str:
    if error is None:
        return "its result was judged a failure"
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - an error that cannot be printed is still a failure
        text = type(error).__name__
    return text[:_LONGEST_FAILURE]
