from __future__ import annotations

import copy
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, cast

from chassis.core.errors import ConfigError
from chassis.core.events import Event, EventBus, Level, events
from chassis.core.policies import Operation, Policy, Role, Stream, is_awaitable

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class FallbackUsed(Event):
    """A call was answered by its fallback; told only while somebody listens.

    :param error: type name of the error it took the place of.
    """

    name: ClassVar[str] = "fallback.used"
    level: ClassVar[Level] = "warning"
    transition: ClassVar[bool] = False

    error: str


class Fallback(Policy):
    """Answers in place of a call that failed.

    Only what is listed in ``on`` is answered for; cancellation and its like never are. On a
    generator, a failure before the first item is answered by the items of the replacement.

    :param replacement: what to answer. A function (or class) is called without arguments, each
        time; it may be async where the guarded call is, and finds the error in ``sys.exception()``.
        Anything else is copied when given and copied deeply for each caller, so that none can
        change what the next one gets.
    :param on: the errors to answer for: a type or a tuple of types.
    :param name: the subject of its events.
    :param bus: where its events go.
    :raises ConfigError: ``on`` names what is no ``Exception``, or the value cannot be copied.
    """

    role = Role.FALLBACK

    def __init__(
        self,
        replacement: Any,
        *,
        on: type[Exception] | tuple[type[Exception], ...],
        name: str = "fallback",
        bus: EventBus = events,
    ) -> None:
        types: tuple[Any, ...] = on if isinstance(on, tuple) else (on,)
        if not types or not all(isinstance(each, type) and issubclass(each, Exception) for each in types):
            raise ConfigError(
                f"{on!r} names no types of Exception",
                setting="on",
                remedy="give exception types; cancellation cannot be answered for",
            )
        self.name = name
        self._on = types
        self._bus = bus
        self._replacement: Callable[[], Any] = replacement if callable(replacement) else _copies(replacement)

    async def run(self, operation: Operation[T]) -> T:
        try:
            return await operation()
        except self._on as error:
            self._tell(error)
            try:
                answer = self._replacement()
                return cast(T, await answer if is_awaitable(answer) else answer)
            except Exception as own:
                _chain(own, error)
                raise

    def run_sync(self, operation: Callable[[], T]) -> T:
        try:
            return operation()
        except self._on as error:
            self._tell(error)
            try:
                return cast(T, self._answer())
            except Exception as own:
                _chain(own, error)
                raise

    def begin(self, start: Callable[[], Stream]) -> Stream:
        try:
            return start()
        except self._on as error:
            self._tell(error)
            items = self._answer()
            return Stream.start(lambda: _items(items))

    async def begin_async(self, start: Operation[Stream]) -> Stream:
        try:
            return await start()
        except self._on as error:
            self._tell(error)
            answer = self._replacement()
            items = await answer if is_awaitable(answer) else answer
            return await Stream.start_async(lambda: _items_async(items))

    def _answer(self) -> Any:
        answer = self._replacement()
        if is_awaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise ConfigError(
                "an async function cannot answer for a plain one",
                setting="replacement",
                remedy="give a plain function or a value",
            )
        return answer

    def _tell(self, error: BaseException) -> None:
        if self._bus.listening:
            self._bus.emit(FallbackUsed(subject=self.name, error=type(error).__name__))


def _copies(value: Any) -> Callable[[], Any]:
    try:
        kept = copy.deepcopy(value)
    except Exception as error:
        raise ConfigError(
            f"a {type(value).__name__} cannot be copied for each caller",
            setting="replacement",
            remedy="give a function that makes one",
        ) from error
    return lambda: copy.deepcopy(kept)


def _chain(own: Exception, error: BaseException) -> None:
    """Say that ``own`` came of answering for ``error``, as ``raise own from error`` does."""
    if own is not error and own.__cause__ is None:
        own.__cause__ = error


def _items(answer: Iterable[Any]) -> Generator[Any, Any, Any]:
    return (yield from answer)


async def _items_async(answer: Any) -> AsyncGenerator[Any, Any]:
    if hasattr(answer, "__aiter__"):
        async for each in answer:
            yield each
    else:
        for each in answer:
            yield each


fallback = Fallback
"""The decorator's spelling: ``@fallback([], on=ConnectionError)``."""
