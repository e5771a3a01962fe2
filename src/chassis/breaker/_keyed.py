from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import replace
from operator import itemgetter
from typing import Any, TypeVar, Unpack

from chassis.breaker._events import BreakerKeysExhausted
from chassis.breaker._guards import guard, guard_async
from chassis.breaker._options import BreakerFields, BreakerOptions
from chassis.breaker._policy import CircuitBreaker
from chassis.core.clock import Clock, monotonic
from chassis.core.errors import ConfigError
from chassis.core.events import EventBus, events
from chassis.core.forks import tell_after_fork
from chassis.core.options import check_count, check_options
from chassis.core.outcomes import Classifier, classify_error
from chassis.core.permits import Permit
from chassis.core.policies import Admission, Guarded, Operation, Role
from chassis.core.registry import policies
from chassis.core.streams import Stream

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_SHARE_DROPPED = 8
"""One in so many breakers is dropped when the places are taken: looking for them costs as much for one."""
_LOOK_AGAIN = 1.0
"""Seconds for which it is believed that none can be dropped."""


class KeyedBreakers(Admission):
    """One breaker per key: per host, per tenant, per shard. Described and configured as one.

    A key's breaker is made at its first call, and kept while there is a place for it. When there is none, those
    not used for longest are dropped; but never one that is not closed, nor one that was ordered by hand.

    ::

        hosts = KeyedBreakers("hosts", key=lambda host, path: host)

        @hosts
        def fetch(host, path): ...

        hosts.of("api.example").force_open()

    :param name: unique among the live breakers of the process, unless ``register`` is false.
    :param key: tells the key from the arguments of the decorated function; it is called without any
        where there are none (``run``, ``acquire``). Not needed if only :meth:`of` is used.
    :param max_keys: how many breakers are kept. When none of them can be dropped, the calls of further
        keys are not guarded, and an event tells so.
    :param options: the options of each; the other keywords change single fields of it. Their meaning
        and defaults are those of :class:`BreakerOptions`.
    :param classify: judges results and errors, as :class:`CircuitBreaker` has it.
    :param clock: a monotonic clock.
    :param register: makes it known to :data:`chassis.core.registry.policies` as ``breaker:name``.
    :param bus: where the events go, with ``breaker:name/key`` as their subject.
    :raises ConfigError: an option is impossible, or a live breaker has this name.
    """

    kind = "breaker"
    role = Role.BREAKER

    def __init__(
        self,
        name: str,
        *,
        key: Callable[..., Hashable] | None = None,
        max_keys: int = 1024,
        options: BreakerOptions | None = None,
        classify: Classifier = classify_error,
        clock: Clock = monotonic,
        register: bool = True,
        bus: EventBus = events,
        **fields: Unpack[BreakerFields],
    ) -> None:
        check_count("max_keys", max_keys)
        self.name = name
        self.classify = classify
        self._key = key
        self._max_keys = max_keys
        self._defaults = self._options = replace(options or BreakerOptions(), **fields)
        self._clock = clock
        self._bus = bus
        # Read without the lock, changed with it; never replaced.
        self._breakers: dict[Hashable, CircuitBreaker] = {}
        self._next_use = itertools.count().__next__
        self._exhausted = False
        self._full_until = -math.inf
        self._lock = threading.RLock()  # re-entrant: a key's own __eq__ or __hash__ may call it
        tell_after_fork(self)
        self._subject = f"{self.kind}:{name}" if register else name
        if register:
            policies.register(self)  # last, as it may reconfigure

    # ── asking ───────────────────────────────────────────────────────────────────────────────

    @property
    def options(self) -> BreakerOptions:
        """The options they follow now."""
        return self._options

    @property
    def defaults(self) -> BreakerOptions:
        """The options given in code."""
        return self._defaults

    def describe(self) -> Mapping[str, Any]:
        """State and counts of each by its key, and their options, as plain values."""
        with self._lock:
            breakers = list(self._breakers.items())
        return {
            "keys": len(breakers),
            "breakers": {str(key): breaker._describe() for key, breaker in breakers},
            "options": self._options.describe(),
        }

    def reconfigure(self, options: BreakerOptions) -> None:
        """Give all of them, and those to come, other options; see :meth:`CircuitBreaker.reconfigure`."""
        check_options(options, self._defaults)
        with self._lock:
            self._options = options
            breakers = list(self._breakers.values())
        for breaker in breakers:
            breaker.reconfigure(options)

    # ── choosing ─────────────────────────────────────────────────────────────────────────────

    def of(self, key: Hashable) -> CircuitBreaker:
        """The breaker of ``key``, made if there is none."""
        breaker = self._breakers.get(key)
        if breaker is None:
            return self._make(key)
        breaker._last_use = self._next_use()
        return breaker

    def discard(self, key: Hashable) -> None:
        """Forget the breaker of ``key``, whatever its state, for keys that will not come again."""
        with self._lock:
            self._breakers.pop(key, None)
            self._full_until = -math.inf

    def _make(self, key: Hashable) -> CircuitBreaker:
        with self._lock:
            breaker = self._breakers.get(key)
            if breaker is not None:
                return breaker
            breaker = CircuitBreaker(
                f"{self.name}/{key}",
                options=self._options,
                classify=self.classify,
                clock=self._clock,
                register=False,
                bus=self._bus,
            )
            breaker._subject = f"{self._subject}/{key}"
            breaker._last_use = self._next_use()
            if len(self._breakers) < self._max_keys or self._make_place():
                self._breakers[key] = breaker
                return breaker
            told, self._exhausted = self._exhausted, True
        if not told:
            self._bus.emit(BreakerKeysExhausted(subject=self._subject, keys=self._max_keys))
        return breaker

    def _make_place(self) -> bool:
        """Drop those not used for longest, of those that may be dropped."""
        now = self._clock()
        if now < self._full_until:
            return False
        idle = [(each._last_use, key) for key, each in self._breakers.items() if each._droppable]
        if not idle:
            self._full_until = now + _LOOK_AGAIN
            return False
        for _, key in heapq.nsmallest(max(1, self._max_keys // _SHARE_DROPPED), idle, key=itemgetter(0)):
            del self._breakers[key]
        self._exhausted = False
        return True

    # ── guarding ─────────────────────────────────────────────────────────────────────────────

    def __call__(self, function: F) -> F:
        """Decorate a function; each call is guarded by the breaker of its key.

        :raises ConfigError: no ``key`` was given.
        """
        self._key_function()
        return super().__call__(function)

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return guard(function, None, self._finder(), self.classify, self._clock)

    def guard_async(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        return guard_async(function, None, self._finder(), self.classify, self._clock)

    def for_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CircuitBreaker:
        return self.of(self._key_function()(*args, **kwargs))

    def acquire(self) -> Permit:
        """Leave to make one call of the key that the key function tells without arguments.

        :raises CircuitOpen: its breaker refuses.
        """
        return self.for_call((), {}).acquire()

    async def run(self, operation: Operation[T]) -> T:
        return await self.for_call((), {}).run(operation)

    def run_sync(self, operation: Callable[[], T]) -> T:
        return self.for_call((), {}).run_sync(operation)

    def begin(self, start: Callable[[], Stream]) -> Stream:
        return self.for_call((), {}).begin(start)

    async def begin_async(self, start: Operation[Stream]) -> Stream:
        return await self.for_call((), {}).begin_async(start)

    def guarded(self) -> Guarded:
        return self.for_call((), {}).guarded()

    def _key_function(self) -> Callable[..., Hashable]:
        if self._key is None:
            raise ConfigError(
                f"the breakers {self.name!r} were given no key function",
                setting="key",
                remedy="give key=lambda ...: ..., which tells the key from a call's arguments, or use of(key)",
            )
        return self._key

    def _finder(self) -> Callable[[tuple[Any, ...], Mapping[str, Any]], CircuitBreaker]:
        """:meth:`for_call` in one frame, for every call."""
        key, known, next_use, make = self._key_function(), self._breakers, self._next_use, self._make

        def find(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CircuitBreaker:
            wanted = key(*args, **kwargs)
            breaker = known.get(wanted)
            if breaker is None:
                return make(wanted)
            breaker._last_use = next_use()
            return breaker

        return find

    def after_fork_in_child(self) -> None:
        """Another thread may have held the lock."""
        self._lock = threading.RLock()
