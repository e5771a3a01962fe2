from __future__ import annotations

import copy
import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, TypeVar, cast

from chassis.core.deadline import Deadline, current_deadline, deadline_scope
from chassis.core.errors import ConfigError, DeadlineExceeded
from chassis.core.events import Event, EventBus, Level, events
from chassis.core.forks import tell_after_fork
from chassis.core.functions import is_awaitable
from chassis.core.options import AS_IN_OPTIONS, check_options, given_fields
from chassis.core.policies import Operation, Policy, Role
from chassis.core.registry import policies
from chassis.core.streams import Stream
from chassis.fallbacks._options import FallbackOptions

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
    :param name: given one, it is known to :data:`chassis.core.registry.policies` as ``fallback:name``.
    :param timeout: seconds the replacement may take, see :class:`FallbackOptions`.
    :param options: the same, as an object.
    :param bus: where its events go.
    :raises ConfigError: ``on`` names what is no ``Exception``, the value cannot be copied, an option
        is impossible, or a live policy has this name.
    :raises DeadlineExceeded: the replacement was not done in time; its cause is the error that it
        was to answer for, as for every error of the replacement itself.
    """

    kind = "fallback"
    role = Role.FALLBACK

    def __init__(
        self,
        replacement: Any,
        *,
        on: type[Exception] | tuple[type[Exception], ...],
        name: str | None = None,
        timeout: float | None = AS_IN_OPTIONS,
        options: FallbackOptions | None = None,
        bus: EventBus = events,
    ) -> None:
        types: tuple[Any, ...] = on if isinstance(on, tuple) else (on,)
        if not types or not all(isinstance(each, type) and issubclass(each, Exception) for each in types):
            raise ConfigError(
                f"{on!r} names no types of Exception",
                setting="on",
                remedy="give exception types; cancellation cannot be answered for",
            )
        self.name = name or "fallback"
        self._on = types
        self._bus = bus
        self._defaults = self._options = replace(
            options or FallbackOptions(), **given_fields(timeout=timeout)
        )
        self._works = callable(replacement)
        self._replacement: Callable[[], Any] = replacement if self._works else _copies(replacement)
        self._lock = threading.Lock()
        self._used = 0
        self._failed = 0
        tell_after_fork(self)
        self._subject = self.name
        if name is not None:
            self._subject = policies.register(self)

    async def run(self, operation: Operation[T]) -> T:
        try:
            return await operation()
        except self._on as error:
            return cast(T, await self._answer_async(error, _as_it_is_async))

    def run_sync(self, operation: Callable[[], T]) -> T:
        try:
            return operation()
        except self._on as error:
            return cast(T, self._answer(error, _as_it_is))

    def begin(self, start: Callable[[], Stream]) -> Stream:
        try:
            return start()
        except self._on as error:
            return cast(Stream, self._answer(error, _stream))

    async def begin_async(self, start: Operation[Stream]) -> Stream:
        try:
            return await start()
        except self._on as error:
            return cast(Stream, await self._answer_async(error, _stream_async))

    # ── decorating ───────────────────────────────────────────────────────────────────────────
    # One frame, and nothing else, for a call that succeeds.

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        on = self._on
        plain: type | None = None  # the type of the last result, which is known not to be awaitable

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            nonlocal plain
            try:
                result = function(*args, **kwargs) if kwargs else function(*args)
            except on as error:
                return self._answer(error, _as_it_is)
            if type(result) is not plain:
                if is_awaitable(result):
                    return self.run_awaitable(result, functools.partial(function, *args, **kwargs))
                plain = type(result)
            return result

        return guarded

    def guard_async(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        on = self._on

        @functools.wraps(function)
        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            try:
                return await (function(*args, **kwargs) if kwargs else function(*args))
            except on as error:
                return await self._answer_async(error, _as_it_is_async)

        return guarded_async

    # ── being known ──────────────────────────────────────────────────────────────────────────

    @property
    def options(self) -> FallbackOptions:
        """The options it follows now."""
        return self._options

    @property
    def defaults(self) -> FallbackOptions:
        """The options given in code."""
        return self._defaults

    def describe(self) -> Mapping[str, Any]:
        """How often it answered, how often it failed itself, what it answers for, and the options."""
        return {
            "used": self._used,
            "failed": self._failed,
            "on": [each.__name__ for each in self._on],
            "options": asdict(self._options),
        }

    def reconfigure(self, options: FallbackOptions) -> None:
        """Follow ``options`` from the next answer on."""
        check_options(options, self._defaults)
        self._options = options

    # ── answering ────────────────────────────────────────────────────────────────────────────
    # Called while ``error`` is being handled, so that the replacement finds it.

    def _answer(self, error: BaseException, finish: Callable[[Any], Any]) -> Any:
        self._tell(error)
        try:
            if not self._works:
                return finish(self._replacement())
            with deadline_scope(self._deadline()):
                return finish(self._replacement())
        except Exception as own:
            self._note_failure(own, error)
            raise

    async def _answer_async(self, error: BaseException, finish: Callable[[Any], Awaitable[Any]]) -> Any:
        self._tell(error)
        try:
            if not self._works:
                return await finish(self._replacement())
            with deadline_scope(self._deadline()) as deadline:
                if deadline is None:
                    return await finish(self._replacement())
                import anyio

                with anyio.move_on_after(max(0.0, deadline.remaining())):
                    return await finish(self._replacement())
                raise DeadlineExceeded(f"fallback {self.name!r} was not done within the time it was given")
        except Exception as own:
            self._note_failure(own, error)
            raise

    def _deadline(self) -> Deadline | None:
        timeout = self._options.timeout
        return current_deadline() if timeout is None else Deadline.after(timeout)

    def _tell(self, error: BaseException) -> None:
        with self._lock:
            self._used += 1
        if self._bus.listening:
            self._bus.emit(FallbackUsed(subject=self._subject, error=type(error).__name__))

    def _note_failure(self, own: Exception, error: BaseException) -> None:
        """Count it, and say that it came of answering for ``error``, as ``raise own from error`` does."""
        with self._lock:
            self._failed += 1
        if own is not error and own.__cause__ is None:
            # Not by the error's own __setattr__: frozen dataclasses are raised too.
            BaseException.__setattr__(own, "__cause__", error)

    def after_fork_in_child(self) -> None:
        """Another thread may have held the lock; the counts go on, per process."""
        self._lock = threading.Lock()


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


# ── what is made of an answer ────────────────────────────────────────────────────────────────────


def _as_it_is(answer: Any) -> Any:
    if is_awaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise ConfigError(
            "an async function cannot answer for a plain one",
            setting="replacement",
            remedy="give a plain function or a value",
        )
    return answer


async def _as_it_is_async(answer: Any) -> Any:
    return await answer if is_awaitable(answer) else answer


def _stream(answer: Any) -> Stream:
    items = _as_it_is(answer)
    return Stream.start(lambda: _items(items))


async def _stream_async(answer: Any) -> Stream:
    items = await _as_it_is_async(answer)
    return await Stream.start_async(lambda: _items_async(items))


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
