from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from chassis.core.clock import Clock, monotonic
from chassis.core.errors import ConfigError
from chassis.core.events import EventBus, events
from chassis.core.functions import is_awaitable
from chassis.core.options import AS_IN_OPTIONS, check_options, given_fields
from chassis.core.outcomes import Classifier, classify_error
from chassis.core.policies import Operation, Policy, Role
from chassis.core.registry import policies
from chassis.core.streams import Stream
from chassis.retries._attempts import BUDGET_SPENT, DEADLINE_FIRST, Attempts
from chassis.retries._budget import RetryBudget
from chassis.retries._events import RetryGaveUp, RetryScheduled
from chassis.retries._options import RetryOptions
from chassis.retries._strategy import ErrorTypes, Strategy

if TYPE_CHECKING:
    from tenacity.retry import RetryBaseT
    from tenacity.stop import StopBaseT
    from tenacity.wait import WaitBaseT

T = TypeVar("T")


async def _sleep_async(seconds: float) -> None:
    import anyio

    await anyio.sleep(seconds)


class Retry(Policy):
    """Tries a call again that failed in a way that may pass.

    The first attempt costs one count in the budget; all else begins with its failure. No attempt is
    started that could not begin before the current deadline, or that the budget does not allow.
    The caller gets the last real error, with a note of all attempts, or the last result.
    Cancellation and its like are never tried again. A generator is tried again until its first
    item; what it yielded cannot be taken back.

    :param name: given one, it is known to :data:`chassis.core.registry.policies` as ``retry:name``.
    :param on: the errors to try again: a type, a tuple of them, or a function of the error. Default:
        what ``classify`` calls a FAILURE, so no :class:`~chassis.core.errors.Rejected`: it is
        tried again only where ``on`` names it, and then not before its ``retry_after``. A group of
        errors is asked after as a whole, as by ``except``.
    :param options: all options at once; the other keywords change single fields of it. Their
        meaning and defaults are those of :class:`RetryOptions`.
    :param stop: a tenacity stop object, in place of ``retries``.
    :param wait: a tenacity wait object, in place of ``wait_base`` and ``wait_max``.
    :param retry: a tenacity retry object, in place of ``on`` and ``classify``.
    :param classify: judges results, and errors where there is neither ``on`` nor ``retry``, a group of
        them by its members: what is a FAILURE is tried again.
    :param budget: shared with other callers of the same service; default: one of its own.
    :param clock: a monotonic clock.
    :param sleep: how a plain function waits.
    :param sleep_async: how an async function waits; default: asyncio or trio, whichever runs.
    :param bus: where its events go.
    :raises ConfigError: an option is impossible, or a live policy has this name.
    """

    kind = "retry"
    role = Role.RETRY

    def __init__(
        self,
        name: str | None = None,
        *,
        on: ErrorTypes | Callable[[Exception], bool] | None = None,
        retries: int = AS_IN_OPTIONS,
        wait_base: float = AS_IN_OPTIONS,
        wait_max: float = AS_IN_OPTIONS,
        retry_after_max: float = AS_IN_OPTIONS,
        minimum_attempt_time: float = AS_IN_OPTIONS,
        options: RetryOptions | None = None,
        stop: StopBaseT | None = None,
        wait: WaitBaseT | None = None,
        retry: RetryBaseT | None = None,
        classify: Classifier = classify_error,
        budget: RetryBudget | None = None,
        clock: Clock = monotonic,
        sleep: Callable[[float], None] = time.sleep,
        sleep_async: Callable[[float], Awaitable[None]] = _sleep_async,
        bus: EventBus = events,
    ) -> None:
        if name is not None and not isinstance(name, str):
            raise ConfigError(f"{name!r} is not a name", setting="name", remedy="write @retry() around it")
        given = given_fields(
            retries=retries,
            wait_base=wait_base,
            wait_max=wait_max,
            retry_after_max=retry_after_max,
            minimum_attempt_time=minimum_attempt_time,
        )
        self._defaults = replace(options or RetryOptions(), **given)
        self._strategy = Strategy(
            self._defaults, given=set(given), on=on, classify=classify, stop=stop, wait=wait, retry=retry
        )
        self.name = name or "retry"
        self.budget = budget or RetryBudget()
        self._judges_results = self._strategy.judges_results
        self._clock = clock
        self._sleep = sleep
        self._sleep_async = sleep_async
        self._bus = bus
        self._subject = self.name
        if name is not None:
            self._subject = policies.register(self)

    async def run(self, operation: Operation[T]) -> T:
        started = self._begin()
        try:
            result = await operation()
        except Exception as error:
            attempts = self._failed(None, error, started)
            if attempts is None:
                raise
        else:
            attempts = self._failed(result, None, started) if self._may_be_failure(result) else None
            if attempts is None:
                return result
        try:
            return cast(T, await self._go_on(operation, attempts))
        finally:
            # The error's traceback holds this frame: were the error held by it, they would form a
            # cycle, and everything in those frames would wait for the collector.
            del attempts

    def run_sync(self, operation: Callable[[], T]) -> T:
        started = self._begin()
        try:
            result = operation()
        except Exception as error:
            attempts = self._failed(None, error, started)
            if attempts is None:
                raise
        else:
            attempts = self._failed(result, None, started) if self._may_be_failure(result) else None
            if attempts is None:
                return result
        try:
            return cast(T, self._go_on_sync(operation, attempts))
        finally:
            del attempts  # as in run

    async def _go_on(self, operation: Operation[Any], attempts: Attempts) -> Any:
        """Further attempts, for as long as each ends with a pause before the next."""
        try:
            while attempts.pause is not None:
                try:
                    await self._sleep_async(attempts.pause)
                except BaseException:
                    self.budget.release()
                    raise
                if not self._launches(attempts):
                    break
                try:
                    result = await operation()
                except Exception as error:
                    if not self._after(attempts, None, error) and attempts.error is error:
                        raise
                else:
                    if not self._may_be_failure(result):
                        return result
                    self._after(attempts, result, None)
            if attempts.error is not None:
                raise attempts.error
            return attempts.result
        finally:
            del attempts  # as in run

    def _go_on_sync(self, operation: Callable[[], Any], attempts: Attempts) -> Any:
        try:
            while attempts.pause is not None:
                try:
                    self._sleep(attempts.pause)
                except BaseException:
                    self.budget.release()
                    raise
                if not self._launches(attempts):
                    break
                try:
                    result = operation()
                except Exception as error:
                    if not self._after(attempts, None, error) and attempts.error is error:
                        raise
                else:
                    if not self._may_be_failure(result):
                        return result
                    self._after(attempts, result, None)
            if attempts.error is not None:
                raise attempts.error
            return attempts.result
        finally:
            del attempts  # as in run

    # ── decorating ───────────────────────────────────────────────────────────────────────────
    # Nearly all calls succeed at the first attempt. What it does for those stands here in one
    # frame: a number taken from the budget's counter, without clock, lock or call state.

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if self._strategy.uses_tenacity or self._judges_results:
            return super().guard(function)
        deposits, fold, clock = self.budget.deposits, self.budget.fold, self._clock
        plain: type | None = None  # the type of the last result, which is known not to be awaitable

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            nonlocal plain
            try:
                # Unpacking a dictionary into another costs as much as the rest, empty or not.
                result = function(*args, **kwargs) if kwargs else function(*args)
            except Exception as error:
                self._deposit()
                attempts = self._failed(None, error, 0.0)
                if attempts is None:
                    raise
            else:
                if type(result) is not plain:
                    if is_awaitable(result):
                        return self.run_awaitable(result, functools.partial(function, *args, **kwargs))
                    plain = type(result)
                if next(deposits):
                    return result
                fold(clock())
                return result
            try:
                result = self._go_on_sync(functools.partial(function, *args, **kwargs), attempts)
            finally:
                del attempts  # as in run
            if is_awaitable(result):
                return self.run_awaitable(result, functools.partial(function, *args, **kwargs))
            return result

        return guarded

    def guard_async(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        if self._strategy.uses_tenacity or self._judges_results:
            return super().guard_async(function)
        deposits, fold, clock = self.budget.deposits, self.budget.fold, self._clock

        @functools.wraps(function)
        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            try:
                result = await (function(*args, **kwargs) if kwargs else function(*args))
            except Exception as error:
                self._deposit()
                attempts = self._failed(None, error, 0.0)
                if attempts is None:
                    raise
            else:
                if next(deposits):
                    return result
                fold(clock())
                return result
            try:
                return await self._go_on(functools.partial(function, *args, **kwargs), attempts)
            finally:
                del attempts  # as in run

        return guarded_async

    @property
    def options(self) -> RetryOptions:
        """The options it follows now."""
        return self._strategy.options

    @property
    def defaults(self) -> RetryOptions:
        """The options given in code."""
        return self._defaults

    def describe(self) -> Mapping[str, Any]:
        """Options and what is left of the budget, as plain values."""
        return {"budget": self.budget.describe(self._clock()), "options": asdict(self.options)}

    def reconfigure(self, options: RetryOptions) -> None:
        """Follow ``options`` from now on, also for calls that are waiting."""
        check_options(options, self._defaults)
        self._strategy.follow(options)

    # ── what both shells do ──────────────────────────────────────────────────────────────────

    def _begin(self) -> float:
        """Count a first attempt; when it began, if anybody will ask."""
        self._deposit()
        return self._clock() if self._strategy.uses_tenacity else 0.0

    def _deposit(self) -> None:
        if not next(self.budget.deposits):
            self.budget.fold(self._clock())

    def _may_be_failure(self, result: Any) -> bool:
        """Whether a result must be looked at: nobody else's, and no stream that has begun."""
        return self._judges_results and not isinstance(result, Stream)

    def _failed(self, result: Any, error: Exception | None, started: float) -> Attempts | None:
        """What follows a first attempt that ended so; None if the caller gets just that."""
        attempts = Attempts(self._strategy, self.budget, started)
        return attempts if self._after(attempts, result, error) else None

    def _after(self, attempts: Attempts, result: Any, error: Exception | None) -> bool:
        """Let ``attempts`` decide what follows, and tell of it; whether a pause and an attempt do."""
        attempts.after(result, error, self._clock())
        if attempts.pause is None:
            self._tell_gave_up(attempts)
            return False
        if self._bus.listening:
            self._bus.emit(
                RetryScheduled(
                    subject=self._subject,
                    attempt=attempts.made,
                    wait=attempts.pause,
                    failure=attempts.failure,
                )
            )
        return True

    def _launches(self, attempts: Attempts) -> bool:
        """Whether the attempt may be made now that its pause is over."""
        if not attempts.fits(0.0):
            self.budget.release()
            attempts.call_off(DEADLINE_FIRST)
        elif not self.budget.launch(self._clock()):
            attempts.call_off(BUDGET_SPENT)
        else:
            return True
        self._tell_gave_up(attempts)
        return False

    def _tell_gave_up(self, attempts: Attempts) -> None:
        if attempts.reason is not None and self._bus.listening:
            self._bus.emit(
                RetryGaveUp(
                    subject=self._subject,
                    attempts=attempts.made,
                    reason=attempts.reason,
                    failure=attempts.failure,
                )
            )


retry = Retry
"""The decorator's spelling: ``@retry(on=ConnectionError)``."""
