from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar, Unpack

from chassis.breaker._events import BreakerRejected, event_of
from chassis.breaker._guards import guard, guard_async
from chassis.breaker._machine import BreakerMachine
from chassis.breaker._options import BreakerFields, BreakerOptions, Mode
from chassis.breaker._permit import UNCOUNTED, BreakerPermit, Lent, held
from chassis.breaker._states import BreakerState
from chassis.breaker._tickets import Generation, Ticket
from chassis.core.clock import Clock, monotonic
from chassis.core.errors import CircuitOpen
from chassis.core.events import EventBus, events
from chassis.core.failures import failure_text, told_wait
from chassis.core.forks import tell_after_fork
from chassis.core.functions import is_awaitable
from chassis.core.options import check_options
from chassis.core.outcomes import Classifier, Outcome, classify_error
from chassis.core.permits import Permit
from chassis.core.policies import Admission, Role
from chassis.core.registry import policies

T = TypeVar("T")

_INFINITY = float("inf")
_SUCCESS, _FAILURE, _IGNORED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED  # slow to find in 3.11

# Neither goes through a constructor: see _refusal.
_new_event = object.__new__
_new_error = BaseException.__new__


class CircuitBreaker(Admission):
    """Stops calling what keeps failing, and finds out by a few probes when it works again.

    One breaker may guard plain, async, generator and async generator functions, from any number of
    threads and event loops (asyncio or trio) at once. It holds its lock for no call. Blocks of code it
    guards by ``with breaker.guarded():``, in ``async`` code too.

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
        options: BreakerOptions | None = None,
        classify: Classifier = classify_error,
        clock: Clock = monotonic,
        register: bool = True,
        bus: EventBus = events,
        **fields: Unpack[BreakerFields],
    ) -> None:
        self.name = name
        self.classify = classify
        self._defaults = replace(options or BreakerOptions(), **fields)
        self._machine = BreakerMachine(self._defaults)
        self._clock = clock
        self._bus = bus
        self._telling = False
        self._last_use = 0  # for a family of them
        # Re-entrant: a collection that starts inside may close a forgotten generator, whose permit
        # comes back to this very breaker in this very thread.
        self._lock = threading.RLock()
        tell_after_fork(self)
        self._subject = f"{self.kind}:{name}" if register else name
        if register:
            policies.register(self)  # last, as it may reconfigure

    # ── asking ───────────────────────────────────────────────────────────────────────────────

    @property
    def state(self) -> BreakerState:
        """The state at this moment."""
        if self._machine.closed is None:  # else time alone brings about nothing
            with self._lock:
                self._machine.poll(self._clock())
            self._tell()
        return self._machine.state

    @property
    def ready(self) -> bool:
        """Whether a call would be admitted now. Asking takes nothing."""
        return self.retry_after == 0.0

    @property
    def retry_after(self) -> float | None:
        """Seconds until a call has a chance, 0 if it would be admitted now, None if an operator decides."""
        if self._machine.closed is not None:
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
        return {**self._describe(), "options": self.options.describe()}

    def _describe(self) -> dict[str, Any]:
        machine = self._machine
        with self._lock:
            now = self._clock()
            retry_after = machine.retry_after(now)  # first, as it follows what time has brought about
            calls, failures, slow = machine.counts(now)
            described = {
                "state": machine.state.value,
                "ordered": machine.ordered,
                "retry_after": retry_after,
                "calls": calls,
                "failures": failures,
                "slow": slow,
                "refused": machine.refused(),
                "last_failure": machine.last_failure,
            }
        self._tell()
        return described

    @property
    def _droppable(self) -> bool:
        """Whether another key may have its place: failures have not opened it, nor is it ordered by hand."""
        machine = self._machine
        return machine.ordered is None and machine.state not in (BreakerState.OPEN, BreakerState.HALF_OPEN)

    # ── orders ───────────────────────────────────────────────────────────────────────────────

    def reconfigure(self, options: BreakerOptions) -> None:
        """Follow ``options`` from now on. What was counted stays, calls in flight end as they began.

        Another ``mode`` begins with nothing counted, once no order by hand stands against it.
        """
        check_options(options, self._defaults)
        with self._lock:
            self._machine.reconfigure(options, self._clock())
        self._tell()

    def trip(self, reason: str, *, permit: Permit | None = None) -> None:
        """Open for a reason of the caller's own, as if enough calls had failed, and find back as ever.

        Nothing happens where it is open already, or an operator decides; ``metrics_only`` tells that
        it would have opened.

        :param reason: a phrase for the event.
        :param permit: that of the call which showed it. Then nothing happens either if the state has
            changed since that call was let in: it speaks of another time.
        """
        ticket = None
        if permit is not None:
            if not isinstance(permit, BreakerPermit):
                return  # it is not counted, whatever it shows
            ticket = permit.ticket
        with self._lock:
            self._machine.trip(reason, self._clock(), ticket)
        self._tell()

    def retry_now(self) -> None:
        """If it is open, let the next call be a probe: something says that the dependency is back.

        Nothing happens where an operator decides. Should the probe fail it opens for longer, as ever.
        """
        with self._lock:
            self._machine.retry_now(self._clock())

    def force_open(self) -> None:
        """Refuse every call until :meth:`reset`, whatever the options say: isolate the dependency."""
        self._order("forced_open")

    def disable(self) -> None:
        """Let every call through and count nothing until :meth:`reset`, whatever the options say."""
        self._order("disabled")

    def metrics_only(self) -> None:
        """Let every call through and only count until :meth:`reset`, whatever the options say."""
        self._order("metrics_only")

    def reset(self) -> None:
        """Forget what was counted and ordered by hand, and begin anew in the mode of the options."""
        self._order(None)

    def _order(self, mode: Mode | None) -> None:
        with self._lock:
            self._machine.order(mode, self._clock())
        self._tell()

    # ── admitting ────────────────────────────────────────────────────────────────────────────

    def acquire(self) -> Permit:
        """Leave to make one call, without waiting.

        :raises CircuitOpen: the breaker is open, or as many probes as allowed are in flight.
        """
        generation = self._machine.closed
        if generation is None:
            return self._acquire_probe()
        slow_after = generation.slow_after
        return BreakerPermit(self, generation, None if slow_after is None else self._clock() + slow_after)

    def _acquire_probe(self) -> Permit:
        machine = self._machine
        now, until = self._clock(), machine.until
        if now < until:
            raise self._refusal(now, until)
        holding = held.get()
        with self._lock:
            if holding is not None:
                # A probe that is never given back carries its context no longer than its time.
                machine.poll(now)
                if holding.is_probe_of(self):
                    # The probe's own work calls this breaker again: the probe's end judges both.
                    return UNCOUNTED
            ticket, retry_after = machine.admit(now)
        if machine.transitions:
            self._tell()
        if ticket is None:
            if retry_after == 0.0:
                return UNCOUNTED
            raise self._probe_refusal(now, retry_after)
        slow_after = machine.options.slow_after
        slow_at = None if slow_after is None else now + slow_after
        if isinstance(ticket, Generation):  # it closed meanwhile
            return BreakerPermit(self, ticket, slow_at)
        while holding is not None and holding.settled:
            holding = holding.outer  # or the chain would grow with every probe of a long-lived thread
        permit = BreakerPermit(self, ticket, slow_at, holding)
        held.set(permit)
        return permit

    def _refusal(self, now: float, until: float) -> CircuitOpen:
        """What to raise while open, which is before ``until``. Takes no lock and reads no context.

        ``until`` was read once and is not read again: meanwhile another thread may have ended it.
        Written out, as a breaker that is open does this on every call, and should cost its callers
        no more than one that is closed.
        """
        machine, bus = self._machine, self._bus
        retry_after, state = None, "forced_open"
        if until != _INFINITY:
            retry_after, state = until - now, "open"
            if retry_after > machine.length:  # noqa: PLR1730 - min() is dear; the clock stepped back
                retry_after = machine.length
        machine.refusals.add()
        if bus.listening:
            event = _new_event(BreakerRejected)
            fields = event.__dict__
            fields["subject"] = self._subject
            fields["at"] = now
            fields["retry_after"] = retry_after
            bus.emit(event)
        error = _new_error(CircuitOpen, self.name)
        error.name = self.name
        error.retry_after = retry_after
        error.last_failure = machine.last_failure
        error.state = state
        return error

    def _probe_refusal(self, now: float, retry_after: float | None) -> CircuitOpen:
        machine, bus = self._machine, self._bus
        machine.refusals.add()
        if bus.listening:
            bus.emit(BreakerRejected(subject=self._subject, at=now, retry_after=retry_after))
        return CircuitOpen(
            self.name,
            retry_after=retry_after,
            last_failure=machine.last_failure,
            state=machine.state.value,
        )

    def answered(self, permit: Permit) -> None:
        """What is waited for has come, so whether it was slow is decided; the rest is the consumer's pace."""
        if isinstance(permit, BreakerPermit):
            permit.answered(self._clock())

    def settle(self, permit: Permit, result: Any, error: BaseException | None) -> None:
        if error is not None and isinstance(error, CircuitOpen) and error.name == self.name:
            # Its own refusal of a call further in, whatever the classifier makes of refusals.
            permit.settle(_IGNORED, error)
        else:
            Admission.settle(self, permit, result, error)

    def _judge(self, generation: Generation, result: Any, slow_at: float | None) -> None:
        """As :meth:`settle`, for a result and without a permit."""
        try:
            outcome = self.classify(result, None)
        except Exception as broken:  # noqa: BLE001 - the guarded call's own result must stand
            self._settle(generation, _FAILURE, broken, slow_at)
        else:
            self._settle(generation, outcome, None, slow_at)

    def _settle(
        self, ticket: Ticket, outcome: Outcome, error: BaseException | None, slow_at: float | None
    ) -> None:
        machine = self._machine
        now = self._clock()
        slow = slow_at is not None and now > slow_at
        if type(ticket) is Generation:
            if outcome is _IGNORED:
                return
            if outcome is _SUCCESS and not slow and now < ticket.edge:
                ticket.add()
                if now >= ticket.edge:
                    self._weigh(ticket)
                return
        failure = told = None
        if outcome is _FAILURE:
            # Before the lock is taken, as it runs the error's own code.
            failure, told = failure_text(error), told_wait(error)
        elif outcome is not _SUCCESS and outcome is not _IGNORED:
            # A classifier that says True for good would else make a breaker that never opens.
            failure = f"its classifier gave {type(outcome).__name__}, which is no Outcome"
            outcome = _FAILURE
        with self._lock:
            machine.settle(ticket, outcome, now, slow=slow, failure=failure, told=told)
        if machine.transitions:
            self._tell()

    def _weigh(self, generation: Generation) -> None:
        with self._lock:
            self._machine.weigh(generation, self._clock())
        if self._machine.transitions:
            self._tell()

    # ── decorating ───────────────────────────────────────────────────────────────────────────

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return guard(function, self, self._find, self.classify, self._clock)

    def guard_async(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        return guard_async(function, self, self._find, self.classify, self._clock)

    def _find(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CircuitBreaker:
        return self

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """A plain function's call under a permit, which goes with the awaitable if there comes one."""
        permit = self.acquire()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            self.settle(permit, None, error)
            raise
        if is_awaitable(result):
            holding = held.get()
            if holding is not None and holding is permit:
                # It is whoever awaits it that is inside the probe, not whoever made it.
                held.set(holding.outer)
            return self._await(Lent(permit), result)
        self.settle(permit, result, None)
        return result

    async def _await(self, lent: Lent, awaitable: Awaitable[T]) -> T:
        permit = lent.take()
        if isinstance(permit, BreakerPermit) and permit.is_probe_of(self):
            held.set(permit)
        try:
            result = await awaitable
        except BaseException as error:
            self.settle(permit, None, error)
            raise
        self.settle(permit, result, None)
        return result

    # ── telling ──────────────────────────────────────────────────────────────────────────────

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
                waiting, machine.transitions = machine.transitions, ()
            try:
                for transition in waiting:
                    self._bus.emit(event_of(self._subject, transition))
            finally:
                self._telling = False

    def after_fork_in_child(self) -> None:
        """Another thread may have held the lock; counts and state go on, per process."""
        self._lock = threading.RLock()
        self._telling = False
