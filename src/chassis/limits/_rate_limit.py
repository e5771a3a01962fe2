from __future__ import annotations

import functools
import threading
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any, TypeVar

from chassis.core.clock import Clock, monotonic
from chassis.core.deadline import remaining
from chassis.core.errors import ConfigError, RateLimited
from chassis.core.events import EventBus, events
from chassis.core.forks import tell_after_fork
from chassis.core.options import AS_IN_OPTIONS, check_options, given_fields
from chassis.core.outcomes import Outcome, classify_error
from chassis.core.permits import Permit
from chassis.core.policies import Admission, Operation, Role
from chassis.core.registry import policies
from chassis.limits._events import RateLimitRejected
from chassis.limits._fields import quota_and_window, rate_limit_fields
from chassis.limits._gcra import RateLimitMachine, Waiter
from chassis.limits._options import RateLimitOptions
from chassis.limits._signals import ThreadSignal, async_signal

T = TypeVar("T")


class RateLimit(Admission):
    """Admits so many calls in so much time, evenly but for a burst.

    Calls are counted when they begin; how they end changes nothing. Callers that may wait get their
    turn in the order they came, in threads, asyncio and trio alike. It keeps no timer and no task.

    :param name: unique among the live rate limits of the process, unless ``register`` is false.
    :param key: makes it one limit for each key: called with the arguments of the decorated
        function, and without any where there are none (``run``, ``acquire``); see also :meth:`of`.
    :param options: all options at once; the other keywords change single fields of it. Their
        meaning and defaults are those of :class:`RateLimitOptions`.
    :param clock: a monotonic clock.
    :param register: makes it known to :data:`chassis.core.registry.policies` as ``rate_limit:name``.
    :param bus: where its events go.
    :raises ConfigError: an option is impossible, or a live rate limit has this name.
    """

    kind = "rate_limit"
    role = Role.RATE_LIMIT

    def __init__(
        self,
        name: str,
        *,
        rate: int = AS_IN_OPTIONS,
        per: float = AS_IN_OPTIONS,
        burst: int | None = AS_IN_OPTIONS,
        wait: float = AS_IN_OPTIONS,
        max_keys: int = AS_IN_OPTIONS,
        key: Callable[..., Hashable] | None = None,
        options: RateLimitOptions | None = None,
        clock: Clock = monotonic,
        register: bool = True,
        bus: EventBus = events,
    ) -> None:
        given = given_fields(rate=rate, per=per, burst=burst, wait=wait, max_keys=max_keys)
        if options is None and "rate" not in given:
            raise ConfigError(
                "no rate is given",
                setting="rate",
                remedy=f"write RateLimit({name!r}, rate=100, per=60) for a hundred calls a minute",
            )
        self.name = name
        self.classify = classify_error
        self._key = key
        self._defaults = self._options = (
            RateLimitOptions(**given) if options is None else replace(options, **given)
        )
        self._machine = RateLimitMachine(*_limits(self._options))
        self._told = quota_and_window(self._options)
        self._clock = clock
        self._bus = bus
        self._lock = threading.RLock()  # re-entrant: a key's own __eq__ or __hash__ may call it
        tell_after_fork(self)
        self._subject = name
        if register:
            self._subject = policies.register(self)

    # ── asking ───────────────────────────────────────────────────────────────────────────────

    @property
    def options(self) -> RateLimitOptions:
        """The options it follows now."""
        return self._options

    @property
    def defaults(self) -> RateLimitOptions:
        """The options given in code."""
        return self._defaults

    def describe(self) -> Mapping[str, Any]:
        """Calls available now (or keys counted), waiting and refused, and options, as plain values."""
        machine = self._machine
        with self._lock:
            state = (
                {"available": machine.available(None, self._clock())}
                if self._key is None
                else {"keys": machine.keys}
            )
            return {
                **state,
                "waiting": machine.waiting,
                "refused": machine.refused,
                "options": asdict(self._options),
            }

    def reconfigure(self, options: RateLimitOptions) -> None:
        """Follow ``options`` from now on. What was taken stays taken; callers that wait go by the new rate."""
        check_options(options, self._defaults)
        with self._lock:
            self._options = options
            self._told = quota_and_window(options)
            woken = self._machine.reconfigure(*_limits(options), self._clock())
        self._wake(woken)

    def headers(self, key: Hashable = None) -> dict[str, str]:
        """What is left now, as the HTTP fields ``RateLimit-Policy`` and ``RateLimit`` for an answer.

        Whoever spreads the calls that are left over the seconds told, and then asks again, is not
        refused. An answer to a refusal has the fields already; the key is never told.

        :param key: where calls are counted by key: which one.
        """
        now = self._clock()
        with self._lock:
            remaining = self._machine.available(key, now)
            options, (quota, window) = self._options, self._told
            seconds = (
                remaining * options.per / options.rate if remaining else self._machine.retry_after(key, now)
            )
        return rate_limit_fields(self.name, quota, window, remaining=remaining, seconds=seconds)

    # ── admitting ────────────────────────────────────────────────────────────────────────────

    def of(self, key: Hashable) -> Admission:
        """The limit of one key, whatever the key function says."""
        return _OfKey(self, key)

    def acquire(self) -> Permit:
        """Leave for one call, without waiting.

        :raises RateLimited: the limit is reached, or others wait for their turn.
        """
        self._take(None if self._key is None else self._key())
        return SPENT

    def acquire_sync(self) -> Permit:
        """Leave for one call; blocks the calling thread until its turn, if it may wait.

        :raises RateLimited: its turn does not come within ``wait`` and the caller's deadline.
        """
        self._take_sync(None if self._key is None else self._key())
        return SPENT

    async def acquire_async(self) -> Permit:
        """Leave for one call; waits under asyncio or trio until its turn, if it may wait.

        :raises RateLimited: its turn does not come within ``wait`` and the caller's deadline.
        """
        await self._take_async(None if self._key is None else self._key())
        return SPENT

    async def run(self, operation: Operation[T]) -> T:
        await self.acquire_async()
        return await operation()

    def run_sync(self, operation: Callable[[], T]) -> T:
        self.acquire_sync()
        return operation()

    def settle(self, permit: Permit, result: Any, error: BaseException | None) -> None:
        """Nothing comes back: a call that was begun has been made."""

    def for_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Admission:
        return self if self._key is None else self.of(self._key(*args, **kwargs))

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        take, key = self._take_sync, self._key

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            take(None if key is None else key(*args, **kwargs))
            # Should it be awaitable, its call has been paid for all the same.
            return function(*args, **kwargs)

        return guarded

    def guard_async(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        take, key = self._take_async, self._key

        @functools.wraps(function)
        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            await take(None if key is None else key(*args, **kwargs))
            return await function(*args, **kwargs)

        return guarded_async

    def _take(self, key: Hashable) -> None:
        now = self._clock()
        with self._lock:
            taken = self._machine.take(key, now)
        if not taken:
            raise self._refusal(key, now)

    def _take_sync(self, key: Hashable) -> None:
        now = self._clock()
        with self._lock:
            taken = self._machine.take(key, now)
        if taken:
            return
        waiter = self._line_up(key, now)
        try:
            while not waiter.granted:
                signal = ThreadSignal()
                seconds = self._look(waiter, signal.wake)
                if seconds > 0:
                    signal.wait(seconds)
        except BaseException:
            self._abandon(waiter)
            raise

    async def _take_async(self, key: Hashable) -> None:
        now = self._clock()
        with self._lock:
            taken = self._machine.take(key, now)
        if taken:
            return
        waiter = self._line_up(key, now)
        try:
            while not waiter.granted:
                signal = async_signal()
                seconds = self._look(waiter, signal.wake)
                if seconds > 0:
                    await signal.wait(seconds)
        except BaseException:
            # Also where leave was given and the task cancelled in the same instant: it is refunded,
            # and those behind move up.
            self._abandon(waiter)
            raise

    def _line_up(self, key: Hashable, now: float) -> Waiter:
        patience = self._options.wait
        left = remaining()
        if left is not None and left < patience:
            patience = left
        waiter = Waiter(key, now + patience)
        with self._lock:
            comes = self._machine.retry_after(key, now) <= patience and patience > 0
            if comes:
                self._machine.line_up(waiter)
        if not comes:
            raise self._refusal(key, now)
        return waiter

    def _look(self, waiter: Waiter, wake: Callable[[], object]) -> float:
        """See whose turn has come; seconds until ``waiter`` should look again."""
        now = self._clock()
        with self._lock:
            woken = self._machine.serve(waiter.key, now)
            seconds = self._machine.sleep(waiter, now)
            waiter.wake = wake
            given_up = not waiter.granted and now >= waiter.limit
        self._wake(each for each in woken if each is not waiter)
        if given_up:
            raise self._refusal(waiter.key, now)
        return seconds

    def _abandon(self, waiter: Waiter) -> None:
        with self._lock:
            woken = self._machine.abandon(waiter, self._clock())
        self._wake(woken)

    def _wake(self, woken: Iterable[Waiter]) -> None:
        for waiter in woken:
            try:
                waiter.wake()
            except RuntimeError:
                # Its event loop has been closed under it: its turn goes on to the next.
                self._abandon(waiter)

    def _refusal(self, key: Hashable, now: float) -> RateLimited:
        machine = self._machine
        with self._lock:
            machine.refused += 1
            retry_after = machine.retry_after(key, now)
            quota, window = self._told
        if self._bus.listening:
            self._bus.emit(RateLimitRejected(subject=self._subject, retry_after=retry_after))
        return RateLimited(self.name, retry_after=retry_after, quota=quota, window=window)

    def after_fork_in_child(self) -> None:
        """The parent's waiters do not exist in the child; what was taken stays taken, per process."""
        self._lock = threading.RLock()
        self._machine.forget_waiters()


class _OfKey(Admission):
    """The limit of one key."""

    def __init__(self, limit: RateLimit, key: Hashable) -> None:
        self.name = limit.name
        self.classify = limit.classify
        self._limit = limit
        self._key = key

    def acquire(self) -> Permit:
        self._limit._take(self._key)
        return SPENT

    def acquire_sync(self) -> Permit:
        self._limit._take_sync(self._key)
        return SPENT

    async def acquire_async(self) -> Permit:
        await self._limit._take_async(self._key)
        return SPENT


class _Spent:
    """Leave that nobody wants back."""

    def settle(self, outcome: Outcome, error: BaseException | None = None) -> None:
        """Nothing comes back: a call that was begun has been made."""


SPENT = _Spent()


def _limits(options: RateLimitOptions) -> tuple[float, int, int]:
    return options.rate / options.per, options.calls_at_once, options.max_keys


rate_limit = RateLimit
"""The decorator's spelling: ``@rate_limit("search", rate=10)``."""
