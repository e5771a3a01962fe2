"""Guards of an operation: what they have in common, and how they become decorators.

Two kinds. An :class:`Admission` gives leave to call and takes it back with an outcome (breaker,
bulkhead); edges hold its permit until a body is closed. A wrapper (retry, timeout, fallback) runs
the operation itself and has only :meth:`Policy.run` and :meth:`Policy.run_sync`.
"""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Any, Self, TypeAlias, TypeVar, cast

from chassis.core.functions import innermost, is_awaitable
from chassis.core.outcomes import Classifier, Outcome, judge_error
from chassis.core.permits import Permit
from chassis.core.streams import Stream, guard_async_generator, guard_generator

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

Operation: TypeAlias = Callable[[], Awaitable[T]]
"""What a policy guards: called once per attempt, awaited inside the guard."""


class Role(Enum):
    """What a policy does, as far as its place among others is concerned."""

    FALLBACK = "fallback"
    TIMEOUT = "timeout"
    SHEDDING = "shedding"
    RATE_LIMIT = "rate limit"
    BULKHEAD = "bulkhead"
    QUEUE = "queue"
    """A bulkhead in which callers wait."""
    RETRY = "retry"
    HEDGE = "hedge"
    BREAKER = "breaker"


class Policy(ABC):
    """Guards any operation; on a function it is a decorator that keeps the signature.

    State of one call lives in a local of that call, never on the policy: one object may guard any
    number of concurrent calls, from several threads and event loops.
    """

    name: str
    role: Role | None = None
    """What a pipeline goes by when it judges its order; None where any place will do."""

    def __repr__(self) -> str:
        # One of the user's own may be shown before it has its name.
        return f"{type(self).__name__}({getattr(self, 'name', '')!r})"

    @abstractmethod
    async def run(self, operation: Operation[T]) -> T:
        """Await ``operation()`` under this guard and return its result."""

    @abstractmethod
    def run_sync(self, operation: Callable[[], T]) -> T:
        """Call ``operation()`` under this guard and return its result."""

    def __call__(self, function: F) -> F:
        """Decorate a plain, async, generator or async generator function, or a class or static method.

        A plain function whose result turns out to be awaitable is guarded until it was awaited.

        :raises TypeError: it is something that cannot be called, such as a property.
        """
        return cast(F, _decorate(function, self))

    # The two commonest kinds of function have a method each, which a policy may do in fewer frames.

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate a plain function."""

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            def call() -> Any:
                result = function(*args, **kwargs)
                if is_awaitable(result):
                    raise _GotAwaitable(result)
                return result

            try:
                return self.run_sync(call)
            except _GotAwaitable as got:
                return self.run_awaitable(got.awaitable, functools.partial(function, *args, **kwargs))

        return guarded

    def guard_async(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Decorate a coroutine function."""

        @functools.wraps(function)
        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            return await self.run(functools.partial(function, *args, **kwargs))

        return guarded_async

    async def run_awaitable(self, first: Awaitable[Any], again: Callable[[], Any]) -> Any:
        """Run what a plain function returned as the first attempt, and new calls as the others."""
        ready = [first]

        async def operation() -> Any:
            return await (ready.pop() if ready else again())

        try:
            return await self.run(operation)
        finally:
            # Refused: a coroutine nobody will await is closed, or Python warns of it.
            if ready and inspect.iscoroutine(first):
                first.close()

    def for_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Policy:
        """The policy for one call of a decorated generator function.

        A policy that depends on the arguments of a call overrides it, beside the two above.
        """
        return self

    # A generator's guard ends with its first item unless the policy can do better: that much can
    # still be tried again or replaced, the rest is the consumer's already.

    def begin(self, start: Callable[[], Stream]) -> Stream:
        """Call ``start()``, which takes a generator's first item, under this guard."""
        return self.run_sync(start)

    async def begin_async(self, start: Operation[Stream]) -> Stream:
        """As :meth:`begin`, for an async generator."""
        return await self.run(start)


class Admission(Policy):
    """A policy that gives leave: :meth:`acquire` is all there is, running is sugar over it.

    Subclasses implement :meth:`acquire`, and the waiting forms if a caller can usefully wait.
    A generator holds its permit from the first item's request to its end: exhausted, or closed by
    the consumer, is a SUCCESS; an error is classified.
    """

    classify: Classifier

    @abstractmethod
    def acquire(self) -> Permit:
        """Leave to make one call, without waiting.

        :raises Rejected: the call is refused.
        """

    async def acquire_async(self) -> Permit:
        """As :meth:`acquire`, but may wait in an async caller."""
        return self.acquire()

    def acquire_sync(self) -> Permit:
        """As :meth:`acquire`, but may block the calling thread."""
        return self.acquire()

    async def run(self, operation: Operation[T]) -> T:
        permit = await self.acquire_async()
        try:
            result = await operation()
        except BaseException as error:
            self.settle(permit, None, error)
            raise
        self.settle(permit, result, None)
        return result

    def run_sync(self, operation: Callable[[], T]) -> T:
        permit = self.acquire_sync()
        try:
            result = operation()
        except BaseException as error:
            self.settle(permit, None, error)
            raise
        self.settle(permit, result, None)
        return result

    def settle(self, permit: Permit, result: Any, error: BaseException | None) -> None:
        """Give ``permit`` back with the classifier's judgement; never raises on its account.

        Cancellation and its like are IGNORED whatever the classifier is, and a group of errors is
        judged by its members, see :func:`~chassis.core.outcomes.judge_error`. A classifier that raises makes
        a FAILURE of its own error, so that the permit is not lost and the mistake is seen.
        """
        try:
            outcome = self.classify(result, None) if error is None else judge_error(self.classify, error)
        except Exception as broken:  # noqa: BLE001 - the guarded call's own result must stand
            permit.settle(Outcome.FAILURE, broken)
        else:
            permit.settle(outcome, error)

    def answered(self, permit: Permit) -> None:
        """What the call was made for has begun to come, and ``permit`` is held on to its end.

        For whoever judges how long the callee took: the rest of the time is the consumer's. Told of
        the first item of a generator, and by an edge when the headers have come.
        """

    def guarded(self) -> Guarded:
        """For ``with`` and ``async with``: the block is one call. Made anew for each of them.

        An error that leaves the block is judged by the classifier, and so is what was given as its
        ``result``; a block that ends without either is a SUCCESS.

        :raises Rejected: on entering, if the call is refused.
        """
        return Guarded(self)

    def begin(self, start: Callable[[], Stream]) -> Stream:
        permit = self.acquire_sync()
        try:
            stream = start()
        except BaseException as error:
            self.settle(permit, None, error)
            raise
        self.answered(permit)
        stream.permits.append((self, permit))
        return stream

    async def begin_async(self, start: Operation[Stream]) -> Stream:
        permit = await self.acquire_async()
        try:
            stream = await start()
        except BaseException as error:
            self.settle(permit, None, error)
            raise
        self.answered(permit)
        stream.permits.append((self, permit))
        return stream


_SUCCESS = Outcome.SUCCESS  # slow to find in Python 3.11
_NO_RESULT: Any = object()


class Guarded:
    """One guarded block, see :meth:`Admission.guarded`.

    An object of each block's own, as blocks in generators and tasks do not end in the order they began.
    """

    __slots__ = ("_admission", "_permit", "result")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._permit: Permit | None = None
        self.result: Any = _NO_RESULT
        """Give it what the call returned, if the classifier shall judge that."""

    def __enter__(self) -> Self:
        self._begin(self._admission.acquire_sync() if self._permit is None else None)
        return self

    async def __aenter__(self) -> Self:
        self._begin(await self._admission.acquire_async() if self._permit is None else None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        permit = self._permit
        if permit is None:
            return
        if error is not None:
            self._admission.settle(permit, None, error)
        elif self.result is _NO_RESULT:
            permit.settle(_SUCCESS)
        else:
            self._admission.settle(permit, self.result, None)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self.__exit__(kind, error, trace)

    def _begin(self, permit: Permit | None) -> None:
        if permit is None:
            raise RuntimeError("a guarded block is one call: ask for another guarded() for the next one")
        self._permit = permit


class _GotAwaitable(BaseException):
    """Carries an awaitable out through policies that were told of a plain call.

    Not an ``Exception``, so every policy takes it as neither success nor failure.
    """

    def __init__(self, awaitable: Awaitable[Any]) -> None:
        self.awaitable = awaitable


def _decorate(function: Any, policy: Policy) -> Any:
    if isinstance(function, classmethod | staticmethod):
        return type(function)(_decorate(function.__func__, policy))
    if not callable(function):
        raise TypeError(
            f"{function!r} cannot be called, so it cannot be guarded; write {type(policy).__name__}(...) right "
            "above the function, below @property and its like"
        )
    inner = innermost(function)
    if inspect.isasyncgenfunction(inner):
        return guard_async_generator(function, policy)
    if inspect.isgeneratorfunction(inner):
        return guard_generator(function, policy)
    if inspect.iscoroutinefunction(inner):
        return policy.guard_async(cast(Callable[..., Awaitable[Any]], function))
    return policy.guard(function)
