"""Generators under a policy: begun under its guard, their permits held to their end."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from typing import Any, Protocol

from chassis.core.outcomes import Outcome
from chassis.core.permits import Permit


class Settles(Protocol):
    """An admission, as its permits' end is concerned."""

    def settle(self, permit: Permit, result: Any, error: BaseException | None) -> None:
        """Judge how the call ended, and give ``permit`` back."""


class Stream:
    """A generator whose first item has been taken, and the permits that end with it.

    For ``yield from`` it is the generator itself: it yields the first item once more, and forwards
    what the consumer sends, throws and closes.

    :param generator: a sync or async generator; if it ended without an item, only its value counts.
    :param item: the first item.
    :param ended: how it ended, if it had no item.
    """

    __slots__ = ("_fresh", "ended", "generator", "item", "permits")

    def __init__(self, generator: Any, item: Any = None, *, ended: StopIteration | None = None) -> None:
        self.generator = generator
        self.item = item
        self.ended = ended
        self.permits: list[tuple[Settles, Permit]] = []
        self._fresh = True

    @classmethod
    def start(cls, function: Callable[[], Generator[Any, Any, Any]]) -> Stream:
        """Start a sync generator."""
        generator = function()
        try:
            return cls(generator, next(generator))
        except StopIteration as end:
            return cls(generator, ended=StopIteration(end.value))

    @classmethod
    async def start_async(cls, function: Callable[[], AsyncGenerator[Any, Any]]) -> Stream:
        """Start an async generator."""
        generator = function()
        try:
            return cls(generator, await anext(generator))
        except StopAsyncIteration:
            return cls(generator, ended=StopIteration())

    def settle(self, error: BaseException | None) -> None:
        """Give all permits back, innermost first."""
        for admission, permit in self.permits:
            if error is None or isinstance(error, GeneratorExit):
                # Closed by its consumer after an item: the callee did all that was asked of it.
                permit.settle(Outcome.SUCCESS)
            else:
                admission.settle(permit, None, error)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        if self._fresh:
            self._fresh = False
            if self.ended is not None:
                raise self.ended
            return self.item
        return next(self.generator)

    def send(self, value: Any) -> Any:
        return self.generator.send(value)

    def throw(self, *error: Any) -> Any:
        return self.generator.throw(*error)

    def close(self) -> None:
        self.generator.close()


class Begins(Protocol):
    """A policy, as generators are concerned."""

    def for_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Begins:
        """The policy for one call."""
        ...

    def begin(self, start: Callable[[], Stream]) -> Stream:
        """Call ``start()``, which takes the first item, under its guard."""
        ...

    async def begin_async(self, start: Callable[[], Awaitable[Stream]]) -> Stream:
        """As :meth:`begin`, for an async generator."""
        ...


def guard_generator(function: Callable[..., Any], policy: Begins) -> Callable[..., Any]:
    """Decorate a generator function."""

    @functools.wraps(function)
    def guarded_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        start = functools.partial(function, *args, **kwargs)
        stream = policy.for_call(args, kwargs).begin(functools.partial(Stream.start, start))
        try:
            value = yield from stream
        except BaseException as error:
            stream.settle(error)
            raise
        stream.settle(None)
        return value

    return guarded_generator


def guard_async_generator(function: Callable[..., Any], policy: Begins) -> Callable[..., Any]:
    """Decorate an async generator function."""

    @functools.wraps(function)
    async def guarded_async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        start = functools.partial(function, *args, **kwargs)
        stream = await policy.for_call(args, kwargs).begin_async(functools.partial(Stream.start_async, start))
        generator, item = stream.generator, stream.item
        try:
            # ``yield from`` does not exist in async generators; this is what it would do.
            while stream.ended is None:
                try:
                    sent = yield item
                except GeneratorExit:
                    await generator.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - the guarded generator's to handle
                    thrown = error
                else:
                    item = await generator.asend(sent)
                    continue
                try:
                    # Not in the handler, or it would be the context of all that is raised hereafter.
                    item = await generator.athrow(thrown)
                finally:
                    del thrown
        except StopAsyncIteration:
            pass
        except BaseException as error:
            stream.settle(error)
            raise
        stream.settle(None)

    return guarded_async_generator
