from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn, TypeVar, cast

from chassis.core.clock import Clock, monotonic
from chassis.core.errors import ConfigError
from chassis.core.events import EventBus, events
from chassis.core.options import AS_IN_OPTIONS, check_options, given_fields
from chassis.core.outcomes import Classifier, classify_error
from chassis.core.policies import Operation, Policy, Role
from chassis.core.registry import policies
from chassis.core.streams import Stream
from chassis.retries._budget import RetryBudget
from chassis.retries._events import HedgeSent, HedgeWon
from chassis.retries._hedge_call import HedgedCall, is_good
from chassis.retries._hedge_machine import HedgeMachine
from chassis.retries._hedge_options import HedgeOptions
from chassis.retries._hedge_tasks import Tasks, in_event_loop, tasks
from chassis.retries._hedge_threads import Threads
from chassis.retries._strategy import ErrorTypes, check_errors

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class Hedge(Policy):
    """Sends a call that is slow once more, and takes the answer that comes first.

    It cuts off the slow tail of what is quick as a rule, for a few per cent of further load. The
    first success wins and the others are cancelled, which is no failure of theirs; a failure waits
    for the others. While no hedge may be sent, a call runs in its caller's own task or thread, as
    if it were not guarded. Otherwise each attempt has a task (asyncio, trio) or a thread of its own
    and a copy of the caller's context, the deadline in it; what it changes there stays there.
    Cancelling the caller cancels all.

    A thread cannot be cancelled: the attempts of a plain function that are overtaken run to their
    end, and their results are dropped. A generator cannot be hedged.

    :param name: given one, it is known to :data:`chassis.core.registry.policies` as ``hedge:name``.
    :param idempotent: must be True: it says that doing twice what is guarded does no harm.
    :param options: all options at once; the other keywords change single fields of it. Their
        meaning and defaults are those of :class:`HedgeOptions`.
    :param permanent: errors that end the call at once, as every attempt would meet them: a type, a
        tuple of them, or a function of the error.
    :param classify: judges results: one that is a FAILURE waits for the other attempts.
    :param budget: that of the retries around it, so that both together stay within it. It is not
        paid in here: first attempts are counted by the retry.
    :param clock: a monotonic clock.
    :param bus: where its events go.
    :raises ConfigError: an option is impossible, ``idempotent`` is not True, or a live policy has
        this name.
    """

    kind = "hedge"
    role = Role.HEDGE

    def __init__(
        self,
        name: str | None = None,
        *,
        idempotent: bool = False,
        delay: float | None = AS_IN_OPTIONS,
        percentile: float = AS_IN_OPTIONS,
        minimum_calls: int = AS_IN_OPTIONS,
        window: float = AS_IN_OPTIONS,
        extra: int = AS_IN_OPTIONS,
        extra_load: float = AS_IN_OPTIONS,
        grace: float = AS_IN_OPTIONS,
        options: HedgeOptions | None = None,
        permanent: ErrorTypes | Callable[[Exception], bool] = (),
        classify: Classifier = classify_error,
        budget: RetryBudget | None = None,
        clock: Clock = monotonic,
        bus: EventBus = events,
    ) -> None:
        if name is not None and not isinstance(name, str):
            raise ConfigError(
                f"{name!r} is not a name", setting="name", remedy="write @hedge(idempotent=True) around it"
            )
        if idempotent is not True:
            raise ConfigError(
                "a hedge sends a call twice",
                setting="idempotent",
                remedy="give idempotent=True where doing it twice does no harm",
            )
        check_errors("permanent", permanent)
        given = given_fields(
            delay=delay,
            percentile=percentile,
            minimum_calls=minimum_calls,
            window=window,
            extra=extra,
            extra_load=extra_load,
            grace=grace,
        )
        self.name = name or "hedge"
        self.classify = classify
        self.budget = budget
        self._permanent: Callable[[Exception], bool] = (
            (lambda error: isinstance(error, permanent)) if isinstance(permanent, type | tuple) else permanent
        )
        self._defaults = replace(options or HedgeOptions(), **given)
        self._machine = HedgeMachine(self._defaults)
        self._clock = clock
        self._bus = bus
        self._subject = self.name
        if name is not None:
            self._subject = policies.register(self)

    async def run(self, operation: Operation[T]) -> T:
        began = self._clock()
        delay = self._machine.begin(began)
        if delay is None:
            result = await operation()
            self._observe(result, began)
            return result
        call = self._call(delay, began)
        try:
            await self._race(call, operation, tasks())
            if call.error is not None:
                raise call.error
            return cast(T, call.result)
        finally:
            # The error's traceback holds this frame: were the error held by it, they would form a
            # cycle, and everything in those frames would wait for the collector.
            del call

    def run_sync(self, operation: Callable[[], T]) -> T:
        if in_event_loop():
            # The loop must not stand still for what other threads do; and what a plain function
            # returns here is to be awaited, most likely: that is guarded when it is.
            return operation()
        began = self._clock()
        delay = self._machine.begin(began)
        if delay is None or not (threads := Threads()).start(0, operation):
            result = operation()
            self._observe(result, began)
            return result
        call = self._call(delay, began)
        try:
            self._race_sync(call, operation, threads)
            if call.error is not None:
                raise call.error
            return cast(T, call.result)
        finally:
            del call  # as in run

    async def _race(self, call: HedgedCall, operation: Operation[Any], attempts: Tasks) -> None:
        try:
            attempts.start(0, operation)
            while True:
                ended = await attempts.wait(call.wait(self._clock()))
                if ended is None:
                    number = call.send(self._clock())
                    if number is not None:
                        attempts.start(number, operation)
                        self._tell_sent(call, number)
                elif call.over(ended, self._clock()):
                    break
        finally:
            await attempts.stop(self._machine.options.grace)
        self._tell_won(call)

    def _race_sync(self, call: HedgedCall, operation: Callable[[], Any], attempts: Threads) -> None:
        while True:
            ended = attempts.wait(call.wait(self._clock()))
            if ended is None:
                number = call.send(self._clock())
                if number is None:
                    continue
                if attempts.start(number, operation):
                    self._tell_sent(call, number)
                else:
                    call.unsent(number)
            elif call.over(ended, self._clock()):
                break
        self._tell_won(call)

    # ── what cannot be hedged ────────────────────────────────────────────────────────────────
    # A stream that is overtaken would have to be closed by whoever knows how, and an item may
    # have been taken from it.

    def __call__(self, function: F) -> F:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            _refuse_stream()
        return super().__call__(function)

    def begin(self, start: Callable[[], Stream]) -> Stream:
        _refuse_stream()

    async def begin_async(self, start: Operation[Stream]) -> Stream:
        _refuse_stream()

    # ── being known ──────────────────────────────────────────────────────────────────────────

    @property
    def options(self) -> HedgeOptions:
        """The options it follows now."""
        return self._machine.options

    @property
    def defaults(self) -> HedgeOptions:
        """The options given in code."""
        return self._defaults

    def describe(self) -> Mapping[str, Any]:
        """The delay of now, what was sent and what was refused, and the options, as plain values."""
        return self._machine.describe(self._clock())

    def reconfigure(self, options: HedgeOptions) -> None:
        """Follow ``options`` from now on; what was seen is kept."""
        check_options(options, self._defaults)
        self._machine.reconfigure(options, self._clock())

    # ── what both shells do ──────────────────────────────────────────────────────────────────

    def _call(self, delay: float, began: float) -> HedgedCall:
        return HedgedCall(
            self._machine,
            self.budget,
            classify=self.classify,
            permanent=self._permanent,
            delay=delay,
            now=began,
        )

    def _observe(self, result: Any, began: float) -> None:
        if is_good(result, self.classify):
            now = self._clock()
            self._machine.observe(now - began, now)

    def _tell_sent(self, call: HedgedCall, number: int) -> None:
        if self._bus.listening:
            self._bus.emit(HedgeSent(subject=self._subject, number=number, delay=call.delay))

    def _tell_won(self, call: HedgedCall) -> None:
        if call.winner and self._bus.listening:
            self._bus.emit(HedgeWon(subject=self._subject, number=call.winner))


def _refuse_stream() -> NoReturn:
    raise ConfigError(
        "a generator cannot be hedged",
        setting="hedge",
        remedy="hedge the call that gets the items, or leave the hedge out",
    )


hedge = Hedge
"""The decorator's spelling: ``@hedge(idempotent=True)``."""
