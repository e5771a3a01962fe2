from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from chassis.core.clock import Clock, monotonic
from chassis.core.deadline import PASSED, remaining
from chassis.core.errors import DeadlineExceeded, Overloaded
from chassis.core.events import EventBus, events
from chassis.core.forks import tell_after_fork
from chassis.core.options import AS_IN_OPTIONS, check_options, given_fields
from chassis.core.outcomes import Classifier, Outcome, classify_error
from chassis.core.permits import Permit
from chassis.core.policies import Admission, Role
from chassis.core.registry import policies
from chassis.limits._events import LoadShed
from chassis.limits._load import LoadMachine, Reason
from chassis.limits._options import LoadShedderOptions
from chassis.limits._signals import running_loop


class LoadShedder(Admission):
    """Refuses some work at once when there is more than can be done, so that the rest is done in time.

    A call whose deadline has passed is never begun. What else is refused, the options say. Nobody
    waits: what cannot be served now is better served by another instance.

    :param name: unique among the live load shedders of the process, unless ``register`` is false.
    :param options: all options at once; the other keywords change single fields of it. Their
        meaning and defaults are those of :class:`LoadShedderOptions`.
    :param classify: judges results and errors: only successes tell how long work takes.
    :param clock: a monotonic clock.
    :param register: makes it known to :data:`chassis.core.registry.policies` as ``shedder:name``.
    :param bus: where its events go.
    :raises ConfigError: an option is impossible, or a live load shedder has this name.
    """

    kind = "shedder"
    role = Role.SHEDDING

    def __init__(
        self,
        name: str,
        *,
        max_in_flight: int | None = AS_IN_OPTIONS,
        max_lag: float | None = AS_IN_OPTIONS,
        interval: float = AS_IN_OPTIONS,
        hopeless: bool = AS_IN_OPTIONS,
        hopeless_share: float = AS_IN_OPTIONS,
        options: LoadShedderOptions | None = None,
        classify: Classifier = classify_error,
        clock: Clock = monotonic,
        register: bool = True,
        bus: EventBus = events,
    ) -> None:
        given = given_fields(
            max_in_flight=max_in_flight,
            max_lag=max_lag,
            interval=interval,
            hopeless=hopeless,
            hopeless_share=hopeless_share,
        )
        self.name = name
        self.classify = classify
        self._defaults = self._options = replace(options or LoadShedderOptions(), **given)
        self._machine = LoadMachine(self._options)
        self._clock = clock
        self._bus = bus
        # Re-entrant: a collection that starts inside may close a forgotten generator, whose permit
        # comes back to this very object in this very thread.
        self._lock = threading.RLock()
        self._probed_loop: object = None
        tell_after_fork(self)
        self._subject = name
        if register:
            self._subject = policies.register(self)

    # ── asking ───────────────────────────────────────────────────────────────────────────────

    @property
    def options(self) -> LoadShedderOptions:
        """The options it follows now."""
        return self._options

    @property
    def defaults(self) -> LoadShedderOptions:
        """The options given in code."""
        return self._defaults

    def describe(self) -> Mapping[str, Any]:
        """Calls in flight, calls refused by reason, the loop's lag, and options, as plain values."""
        machine = self._machine
        with self._lock:
            return {
                "in_flight": machine.in_flight,
                "refused": dict(machine.refused),
                "lag": machine.lag,
                "late": machine.late(self._clock()),
                "options": asdict(self._options),
            }

    def reconfigure(self, options: LoadShedderOptions) -> None:
        """Follow ``options`` from now on; nobody who is in is put out."""
        check_options(options, self._defaults)
        with self._lock:
            self._options = options
            self._machine.reconfigure(options, self._clock())

    # ── admitting ────────────────────────────────────────────────────────────────────────────

    def acquire(self) -> Permit:
        """Leave to do one piece of work.

        :raises Overloaded: there is too much of it.
        :raises DeadlineExceeded: nobody waits for it any more.
        """
        left = remaining()
        if left is not None and left <= 0:
            raise DeadlineExceeded(PASSED, conclusive=False)
        now = self._clock()
        machine = self._machine
        with self._lock:
            reason = machine.enter(now, left)
        if reason is not None:
            raise self._refusal(machine, reason, now)
        return _InFlight(self, machine, now)

    async def acquire_async(self) -> Permit:
        """As :meth:`acquire`, and measures how late the running event loop is."""
        if self._options.max_lag is not None:
            self._probe()
        return self.acquire()

    def _probe(self) -> None:
        """Put a step at the end of what the running loop has to do, unless one is there already.

        So there is one at most per loop, and none while nothing comes in: no timer, no task.
        """
        loop, soon = running_loop()
        if self._probed_loop is loop:
            return
        self._probed_loop = loop
        now = self._clock()
        with self._lock:
            self._machine.probe(now)
        soon(functools.partial(self._probed, now))

    def _probed(self, since: float) -> None:
        self._probed_loop = None
        now = self._clock()
        with self._lock:
            self._machine.probed(since, now)

    def _leave(self, machine: LoadMachine, began: float, outcome: Outcome) -> None:
        now = self._clock()
        with self._lock:
            machine.leave(now, now - began if outcome is Outcome.SUCCESS else None)

    def _refusal(self, machine: LoadMachine, reason: Reason, now: float) -> Overloaded:
        with self._lock:
            retry_after = machine.retry_after(reason, now)
            in_flight = machine.in_flight
        if self._bus.listening:
            self._bus.emit(
                LoadShed(subject=self._subject, reason=reason, in_flight=in_flight, retry_after=retry_after)
            )
        return Overloaded(self.name, retry_after=retry_after)

    def after_fork_in_child(self) -> None:
        """The calls of the parent's other threads do not exist in the child."""
        self._lock = threading.RLock()
        self._machine = LoadMachine(self._options)
        self._probed_loop = None


class _InFlight:
    """One piece of work in the machine that let it in, which after a fork is no longer the shedder's."""

    __slots__ = ("_began", "_machine", "_shedder")

    def __init__(self, shedder: LoadShedder, machine: LoadMachine, began: float) -> None:
        self._shedder = shedder
        self._machine: LoadMachine | None = machine
        self._began = began

    def settle(self, outcome: Outcome, error: BaseException | None = None) -> None:
        machine, self._machine = self._machine, None
        if machine is not None:
            self._shedder._leave(machine, self._began, outcome)
