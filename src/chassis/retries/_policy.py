from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from chassis.core.clock import Clock, monotonic
from chassis.core.errors import ConfigError
from chassis.core.events import EventBus, events
from chassis.core.outcomes import Classifier, Outcome, classify_error
from chassis.core.policies import Operation, Policy, Role, Stream, is_async_callable
from chassis.core.registry import policies
from chassis.retries._attempts import Attempts, failure_text
from chassis.retries._backoff import Backoff
from chassis.retries._budget import RetryBudget
from chassis.retries._events import RetryGaveUp, RetryScheduled
from chassis.retries._options import RetryOptions

if TYPE_CHECKING:
    from tenacity import RetryCallState
    from tenacity.retry import RetryBaseT
    from tenacity.stop import StopBaseT
    from tenacity.wait import WaitBaseT

T = TypeVar("T")
ErrorTypes: TypeAlias = type[Exception] | tuple[type[Exception], ...]

_GIVEN_BY_OPTIONS: Any = type("Default", (), {"__repr__": lambda _: "<as in options>"})()


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
        tried again only where ``on`` names it, and then not before its ``retry_after``.
    :param options: all options at once; the other keywords change single fields of it. Their
        meaning and defaults are those of :class:`RetryOptions`.
    :param stop: a tenacity stop object, in place of ``retries``.
    :param wait: a tenacity wait object, in place of ``wait_base`` and ``wait_max``.
    :param retry: a tenacity retry object, in place of ``on`` and ``classify``.
    :param classify: judges results: one that is a FAILURE is tried again.
    :param budget: shared with other callers of the same service; default: one of its own.
    :param clock: a monotonic clock.
    :param sleep: how a plain function waits.
    :param sleep_async: how an async function waits; default: asyncio or trio, whichever runs.
    :raises ConfigError: an option is impossible, or a live policy has this name.
    """

    kind = "retry"
    role = Role.RETRY

    def __init__(
        self,
        name: str | None = None,
        *,
        on: ErrorTypes | Callable[[Exception], bool] | None = None,
        retries: int = _GIVEN_BY_OPTIONS,
        wait_base: float = _GIVEN_BY_OPTIONS,
        wait_max: float = _GIVEN_BY_OPTIONS,
        retry_after_max: float = _GIVEN_BY_OPTIONS,
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
        fields = {
            "retries": retries,
            "wait_base": wait_base,
            "wait_max": wait_max,
            "retry_after_max": retry_after_max,
        }
        given: dict[str, Any] = {
            key: value for key, value in fields.items() if value is not _GIVEN_BY_OPTIONS
        }
        for instead, strategy, replaced in (
            ("stop", stop, given.keys() & {"retries"}),
            ("wait", wait, given.keys() & {"wait_base", "wait_max"}),
            ("retry", retry, {"on"} if on is not None else set()),
        ):
            if strategy is not None and replaced:
                raise ConfigError(
                    f"takes the place of {', '.join(sorted(replaced))}",
                    setting=instead,
                    remedy="give one of them",
                )
            if strategy is not None and is_async_callable(strategy):
                raise ConfigError("is async", setting=instead, remedy="give one of tenacity's plain objects")
        self.name = name or "retry"
        self.classify = classify
        self.budget = budget or RetryBudget()
        self.uses_tenacity = any(each is not None for each in (stop, wait, retry))
        self._on = on
        self._stop = stop
        self._wait = wait
        self._retry = retry
        self._defaults = self._options = replace(options or RetryOptions(), **given)
        self._backoff = Backoff(self._options.wait_base, self._options.wait_max)
        self._clock = clock
        self._sleep = sleep
        self._sleep_async = sleep_async
        self._bus = bus
        self._subject = self.name
        if name is not None:
            self._subject = policies.register(self)

    async def run(self, operation: Operation[T]) -> T:
        started = self._clock()
        self.budget.deposit(started)
        attempts: Attempts | None = None
        try:
            while True:
                try:
                    result = await operation()
                except Exception as error:
                    attempts = attempts or Attempts(self, started)
                    pause = self._next(attempts, None, error)
                    if pause is None and attempts.last_error is error:
                        raise
                else:
                    if not self._may_be_failure(result):
                        return result
                    attempts = attempts or Attempts(self, started)
                    pause = self._next(attempts, result, None)
                    if pause is None:
                        return result
                if pause is None:
                    raise attempts.last_error
                await self._sleep_async(pause)
        finally:
            # The error's traceback holds this frame: were the error held by it, they would form a
            # cycle, and everything in those frames would wait for the collector.
            attempts = None

    def run_sync(self, operation: Callable[[], T]) -> T:
        started = self._clock()
        self.budget.deposit(started)
        attempts: Attempts | None = None
        try:
            while True:
                try:
                    result = operation()
                except Exception as error:
                    attempts = attempts or Attempts(self, started)
                    pause = self._next(attempts, None, error)
                    if pause is None and attempts.last_error is error:
                        raise
                else:
                    if not self._may_be_failure(result):
                        return result
                    attempts = attempts or Attempts(self, started)
                    pause = self._next(attempts, result, None)
                    if pause is None:
                        return result
                if pause is None:
                    raise attempts.last_error
                self._sleep(pause)
        finally:
            attempts = None  # as in run

    @property
    def options(self) -> RetryOptions:
        """The options it follows now."""
        return self._options

    @property
    def defaults(self) -> RetryOptions:
        """The options given in code."""
        return self._defaults

    def describe(self) -> Mapping[str, Any]:
        """Options and what is left of the budget, as plain values."""
        return {
            "budget": {
                "available": self.budget.available(self._clock()),
                "refused": self.budget.refused,
                **asdict(self.budget.options),
            },
            "options": asdict(self._options),
        }

    def reconfigure(self, options: RetryOptions) -> None:
        """Follow ``options`` from now on, also for calls that are waiting."""
        self._options = options
        self._backoff = Backoff(options.wait_base, options.wait_max)

    # ── what Attempts asks ───────────────────────────────────────────────────────────────────

    def tries_again(self, result: Any, error: Exception | None, state: RetryCallState | None) -> bool:
        """Whether this is a failure of a kind that may pass."""
        if self._retry is not None:
            return bool(self._retry(state)) if state is not None else False
        if error is None or self._on is None:
            return self.classify(result, error) is Outcome.FAILURE
        if isinstance(self._on, type | tuple):
            return isinstance(error, self._on)
        return self._on(error)

    def pause(self, made: int, state: RetryCallState | None) -> float:
        """Seconds to wait after ``made`` attempts."""
        if self._wait is not None and state is not None:
            return float(self._wait(state))
        return self._backoff.delay(made - 1)

    def stops(self, made: int, state: RetryCallState | None) -> bool:
        """Whether ``made`` attempts are all there may be."""
        if self._stop is not None and state is not None:
            return bool(self._stop(state))
        return made > self._options.retries

    # ── what both shells do ──────────────────────────────────────────────────────────────────

    def _may_be_failure(self, result: Any) -> bool:
        """Whether a result must be looked at: nobody else's, and no stream that has begun."""
        judged = self._retry is not None or self.classify is not classify_error
        return judged and not isinstance(result, Stream)

    def _next(self, attempts: Attempts, result: Any, error: Exception | None) -> float | None:
        """Seconds until the next attempt, or None if the caller gets what there is."""
        verdict = attempts.after(result, error, self._clock())
        if verdict.wait is None and verdict.reason is None and error is None:
            return None  # a good result
        failure = failure_text(error)
        listening = self._bus.listening
        if verdict.wait is not None:
            attempts.go_on(failure, error, verdict.wait)
            if listening:
                self._bus.emit(
                    RetryScheduled(
                        subject=self._subject, attempt=attempts.made, wait=verdict.wait, failure=failure
                    )
                )
            return verdict.wait
        if error is not None:
            attempts.give_up(error, failure, verdict.reason)
        if listening and verdict.reason is not None:
            self._bus.emit(
                RetryGaveUp(
                    subject=self._subject, attempts=attempts.made, reason=verdict.reason, failure=failure
                )
            )
        return None


retry = Retry
"""The decorator's spelling: ``@retry(on=ConnectionError)``."""
