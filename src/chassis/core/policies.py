"""Guards of an operation: what they have in common, and how they become decorators.

Two kinds. An :class:`Admission` gives leave to call and takes it back with an outcome (breaker,
bulkhead); edges hold its permit until a body is closed. A wrapper (retry, timeout, fallback) runs
the operation itself and has only :meth:`Policy.run` and :meth:`Policy.run_sync`.
"""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from chassis.core.outcomes import Classifier, Outcome

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

Operation: TypeAlias = Callable[[], Awaitable[T]]
"""What a policy guards: called once per attempt, awaited inside the guard."""


class Policy(ABC):
    """Guards any operation; on a function it is a decorator that keeps the signature.

    State of one call lives in a local of that call, never on the policy: one object may guard any
    number of concurrent calls, from several threads and event loops.
    """

    name: str

    @abstractmethod
    async def run(self, operation: Operation[T]) -> T:
        """Await ``operation()`` under this guard and return its result."""

    @abstractmethod
    def run_sync(self, operation: Callable[[], T]) -> T:
        """Call ``operation()`` under this guard and return its result."""

    def __call__(self, function: F) -> F:
        """Decorate a plain, async, generator or async generator function."""
        return cast(F, _decorate(function, self))

    # A generator's guard ends with its first item unless the policy can do better: that much can
    # still be tried again or replaced, the rest is the consumer's already.

    def guard_generator(self, start: Callable[[], Generator[Any, Any, T]]) -> Generator[Any, Any, T]:
        """Run a sync generator under this guard. Default: the guard covers up to the first item."""

        def first() -> tuple[Generator[Any, Any, T], Any]:
            generator = start()
            return generator, next(generator, _END)

        generator, item = self.run_sync(first)
        if item is _END:
            return cast(T, None)
        sent = yield item
        return (yield from _resume(generator, sent))

    async def guard_async_generator(
        self, start: Callable[[], AsyncGenerator[Any, Any]]
    ) -> AsyncGenerator[Any, Any]:
        """Run an async generator under this guard. Default: the guard covers up to the first item."""

        async def first() -> tuple[AsyncGenerator[Any, Any], Any]:
            generator = start()
            return generator, await anext(generator, _END)

        generator, item = await self.run(first)
        if item is _END:
            return
        async for each in _resume_async(generator, item):
            yield each


_END: Any = object()


def _resume(generator: Generator[Any, Any, T], sent: Any) -> Generator[Any, Any, T]:
    """Go on with a generator whose first item is out, forwarding send, throw and close."""
    try:
        item = generator.send(sent)
    except StopIteration as end:
        return cast(T, end.value)
    while True:
        try:
            sent = yield item
        except GeneratorExit:
            generator.close()
            raise
        except BaseException as error:  # noqa: BLE001 - forwarded, as ``yield from`` does
            try:
                item = generator.throw(error)
            except StopIteration as end:
                return cast(T, end.value)
        else:
            try:
                item = generator.send(sent)
            except StopIteration as end:
                return cast(T, end.value)


async def _resume_async(generator: AsyncGenerator[Any, Any], item: Any) -> AsyncGenerator[Any, Any]:
    """Yield ``item`` and then the rest, forwarding asend, athrow and aclose."""
    try:
        while True:
            try:
                sent = yield item
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - forwarded to the guarded generator
                item = await generator.athrow(error)
            else:
                item = await generator.asend(sent)
    except StopAsyncIteration:
        return
    finally:
        await generator.aclose()


class Permit(Protocol):
    """Leave to make one call; given back once, with how the call ended."""

    def settle(self, outcome: Outcome, error: BaseException | None = None) -> None:
        """Give the permit back. A second call, or one from an earlier generation, does nothing.

        :param error: the error behind a FAILURE, kept as type name and message only.
        """


class Admission(Policy):
    """A policy that gives leave to call.

    Subclasses implement :meth:`acquire`, and the waiting forms if a caller can usefully wait.
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
            permit.settle(self.classify(None, error), error)
            raise
        permit.settle(self.classify(result, None))
        return result

    def run_sync(self, operation: Callable[[], T]) -> T:
        permit = self.acquire_sync()
        try:
            result = operation()
        except BaseException as error:
            permit.settle(self.classify(None, error), error)
            raise
        if inspect.isawaitable(result):
            # A plain callable that returns an awaitable: the call is only made when it is awaited.
            return cast(T, self._await_under(permit, result))
        permit.settle(self.classify(result, None))
        return result

    async def _await_under(self, permit: Permit, awaitable: Awaitable[Any]) -> Any:
        try:
            result = await awaitable
        except BaseException as error:
            permit.settle(self.classify(None, error), error)
            raise
        permit.settle(self.classify(result, None))
        return result

    def guard_generator(self, start: Callable[[], Generator[Any, Any, T]]) -> Generator[Any, Any, T]:
        """One permit from the first ``next`` to the end.

        Exhausted, or closed by the consumer after an item: SUCCESS; closed before any item:
        IGNORED; an error is classified.
        """
        permit = self.acquire_sync()
        yielded = False
        try:
            generator = start()
            item = next(generator, _END)
            if item is _END:
                permit.settle(Outcome.SUCCESS)
                return cast(T, None)
            yielded = True
            sent = yield item
            result = yield from _resume(generator, sent)
        except GeneratorExit as error:
            permit.settle(Outcome.SUCCESS if yielded else Outcome.IGNORED, error)
            raise
        except BaseException as error:
            permit.settle(self.classify(None, error), error)
            raise
        permit.settle(Outcome.SUCCESS)
        return result

    async def guard_async_generator(
        self, start: Callable[[], AsyncGenerator[Any, Any]]
    ) -> AsyncGenerator[Any, Any]:
        """As :meth:`guard_generator`."""
        permit = await self.acquire_async()
        yielded = False
        try:
            generator = start()
            item = await anext(generator, _END)
            if item is not _END:
                yielded = True
                async for each in _resume_async(generator, item):
                    yield each
        except GeneratorExit as error:
            permit.settle(Outcome.SUCCESS if yielded else Outcome.IGNORED, error)
            raise
        except BaseException as error:
            permit.settle(self.classify(None, error), error)
            raise
        permit.settle(Outcome.SUCCESS)


class Pipeline(Policy):
    """Policies around one operation, outermost first; itself a policy.

    :param policies: in the order a call meets them.
    """

    def __init__(self, *policies: Policy, name: str = "pipeline") -> None:
        self.name = name
        self.policies = policies

    def order(self) -> list[str]:
        """The policies as a call meets them, e.g. ``["Retry(payments)", "CircuitBreaker(payments)"]``."""
        return [f"{type(each).__name__}({each.name})" for each in self.policies]

    async def run(self, operation: Operation[T]) -> T:
        for policy in reversed(self.policies):
            operation = functools.partial(policy.run, operation)
        return await operation()

    def run_sync(self, operation: Callable[[], T]) -> T:
        for policy in reversed(self.policies):
            operation = functools.partial(policy.run_sync, operation)
        return operation()

    def guard_generator(self, start: Callable[[], Generator[Any, Any, T]]) -> Generator[Any, Any, T]:
        for policy in reversed(self.policies):
            start = functools.partial(policy.guard_generator, start)
        return start()

    def guard_async_generator(
        self, start: Callable[[], AsyncGenerator[Any, Any]]
    ) -> AsyncGenerator[Any, Any]:
        for policy in reversed(self.policies):
            start = functools.partial(policy.guard_async_generator, start)
        return start()


def is_async_callable(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: ``async def``, partials of one, async ``__call__``."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - the method is looked at, not tested for
    )


def _decorate(function: Callable[..., Any], policy: Policy) -> Callable[..., Any]:
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    if inspect.isasyncgenfunction(inner):

        @functools.wraps(function)
        async def guarded_async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            guarded = policy.guard_async_generator(functools.partial(function, *args, **kwargs))
            async for each in _delegate(guarded):
                yield each

        return guarded_async_generator
    if inspect.isgeneratorfunction(inner):

        @functools.wraps(function)
        def guarded_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            return (yield from policy.guard_generator(functools.partial(function, *args, **kwargs)))

        return guarded_generator
    if is_async_callable(function):

        @functools.wraps(function)
        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            return await policy.run(functools.partial(function, *args, **kwargs))

        return guarded_async

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        return policy.run_sync(functools.partial(function, *args, **kwargs))

    return guarded


async def _delegate(generator: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
    """``yield from`` for async generators."""
    item = await anext(generator, _END)
    if item is _END:
        return
    async for each in _resume_async(generator, item):
        yield each
