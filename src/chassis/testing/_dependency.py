from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from chassis.testing._clock import ManualClock
from chassis.testing._script import Call, Delay, Hang, Items, ScriptExhausted

_HANGS_AT_MOST = 30.0  # real seconds a thread waits for a release that never comes

_Pause: TypeAlias = "float | None"
"""Seconds to sleep, or None to wait for the release."""


class ScriptedDependency:
    """A dependency that does what its script says, call by call, and remembers how it was called.

    One script, four faces: :meth:`call`, :meth:`call_async`, :meth:`stream` and :meth:`stream_async`
    are what a policy decorates or a client is given.

    A step of the script is a value, which is returned; an exception or its class, which is raised; a
    :class:`Delay` or a :class:`Hang` before either; or :class:`Items` for a stream.

    :param script: the steps, one for each call.
    :param repeat: the last step answers all further calls. Otherwise one call too many raises
        :class:`ScriptExhausted`.
    :param clock: on which delays pass and calls are dated; default: a clock of its own.
    :param name: what it is called in messages.
    """

    def __init__(
        self,
        *script: Any,
        repeat: bool = False,
        clock: ManualClock | None = None,
        name: str = "dependency",
    ) -> None:
        self.name = name
        self.clock = clock if clock is not None else ManualClock()
        self.calls: list[Call] = []
        """All calls so far, in the order they came."""
        self.most_in_flight = 0
        """The most calls that were running at once."""
        self._script = script
        self._repeat = repeat
        self._lock = threading.Lock()
        self._hanging: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        return f"ScriptedDependency({self.name!r}, {len(self.calls)} calls, {self.remaining} steps left)"

    @property
    def remaining(self) -> int:
        """How many steps of the script no call has come for."""
        return max(0, len(self._script) - len(self.calls))

    @property
    def in_flight(self) -> int:
        """How many calls are running."""
        return sum(call.ended_at is None for call in self.calls)

    @property
    def hanging(self) -> int:
        """How many calls wait for :meth:`release`."""
        return len(self._hanging)

    def release(self) -> None:
        """Let all calls go on that hang now; async ones in the thread of their event loop."""
        with self._lock:
            hanging, self._hanging = self._hanging, []
        for wake in hanging:
            wake()

    # ── the four faces ───────────────────────────────────────────────────────────────────────

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Do the next step as a plain function."""
        with self._recorded(args, kwargs) as step:
            return self._drive(step)

    async def call_async(self, *args: Any, **kwargs: Any) -> Any:
        """Do the next step as a coroutine function."""
        with self._recorded(args, kwargs) as step:
            return await self._drive_async(step)

    def stream(self, *args: Any, **kwargs: Any) -> Generator[Any, None, None]:
        """Do the next step as a generator function; a step that is no :class:`Items` is one item."""
        with self._recorded(args, kwargs) as step:
            for item in _items(step):
                yield self._drive(item)

    async def stream_async(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """Do the next step as an async generator function."""
        with self._recorded(args, kwargs) as step:
            for item in _items(step):
                yield await self._drive_async(item)

    # ── playing ──────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _recorded(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
        call = Call(args, kwargs, at=self.clock())
        with self._lock:
            number = len(self.calls)
            self.calls.append(call)
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if number >= len(self._script) and not (self._repeat and self._script):
                raise ScriptExhausted(
                    f"the script of {self.name!r} has {len(self._script)} steps, and this is call "
                    f"{number + 1}: {call}; add a step, or give repeat=True to repeat the last one"
                )
            yield self._script[min(number, len(self._script) - 1)]
        except BaseException as error:
            call.error = error
            call.outcome = _outcome(error)
            raise
        else:
            call.outcome = "returned"
        finally:
            call.ended_at = self.clock()

    def _drive(self, step: Any) -> Any:
        play = _play(step)
        while True:
            try:
                pause = next(play)
            except StopIteration as end:
                return end.value
            if pause is not None:
                self.clock.sleep(pause)
                continue
            released = threading.Event()
            self._wait_for_release(released.set)
            if not released.wait(_HANGS_AT_MOST):
                raise ScriptExhausted(
                    f"{self.name!r} has hung for {_HANGS_AT_MOST:g} s; call release() from another thread"
                )

    async def _drive_async(self, step: Any) -> Any:
        import anyio

        play = _play(step)
        while True:
            try:
                pause = next(play)
            except StopIteration as end:
                return end.value
            if pause is not None:
                await self.clock.sleep_async(pause)
                continue
            released = anyio.Event()
            wake = self._wait_for_release(released.set)
            try:
                await released.wait()
            finally:
                with self._lock:
                    self._hanging = [each for each in self._hanging if each is not wake]

    def _wait_for_release(self, wake: Callable[[], object]) -> Callable[[], object]:
        with self._lock:
            self._hanging.append(wake)
        return wake


def _play(step: Any) -> Generator[_Pause, None, Any]:
    """Yield the pauses of a step, then return its value or raise its error."""
    while isinstance(step, Delay | Hang):
        yield step.seconds if isinstance(step, Delay) else None
        step = step.then
    if isinstance(step, BaseException) or (isinstance(step, type) and issubclass(step, BaseException)):
        raise step
    return step


def _items(step: Any) -> Iterator[Any]:
    return iter(step.items) if isinstance(step, Items) else iter((step,))


def _outcome(error: BaseException) -> str:
    if isinstance(error, GeneratorExit):
        return "closed"
    return "raised" if isinstance(error, Exception) else "cancelled"
