from __future__ import annotations

import functools
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from chassis.core import deadline as deadlines
from chassis.core.deadline import PASSED, Deadline, deadline_at, deadline_scope
from chassis.core.errors import DeadlineExceeded
from chassis.core.functions import NEVER_AWAITABLE, is_awaitable
from chassis.core.options import check_seconds
from chassis.core.policies import Operation, Policy, Role

if TYPE_CHECKING:
    import asyncio

    import anyio

T = TypeVar("T")

_FAIR_SHARE = 0.5
"""Who had less than this part of its time, as the caller's deadline came sooner, was given no fair chance."""


class Timeout(Policy):
    """Gives a block or function ``seconds``, and tells everything below how much is left.

    - ``with timeout(2):`` sets the deadline that every edge below heeds, and interrupts nothing.
    - ``async with timeout(2):`` also cancels the block, under asyncio and trio.
    - On an ``async def`` it does the same.
    - On a ``def`` it sets the deadline; the next edge inside raises.
    - On a generator it holds until the first item.

    Of nested deadlines the earliest holds. One object may be used any number of times, nested and
    at once, from several tasks and threads.

    :param seconds: above 0.
    :raises ConfigError: ``seconds`` is no duration.
    :raises DeadlineExceeded: on entering (but for ``with``) if an outer deadline has passed
        already; on leaving if the block was cancelled. It is not ``conclusive`` on entering, and where
        an outer deadline left less than half of ``seconds``: a breaker around it then counts nothing.
    """

    role = Role.TIMEOUT

    def __init__(self, seconds: float) -> None:
        check_seconds("seconds", seconds)
        self.seconds = seconds
        self.name = f"{seconds:g} s"
        self._not_in_time = f"not done within the time it was given (at most {self.name})"

    async def run(self, operation: Operation[T]) -> T:
        async with _Use(self):
            return await operation()

    def run_sync(self, operation: Callable[[], T]) -> T:
        with _Use(self) as deadline:
            deadline.check(begun=False)
            return operation()

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        seconds = self.seconds
        hold, leave, held = deadline_at.set, deadline_at.reset, deadline_at.get

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            now = deadlines.clock()
            at = now + seconds
            outer = held()
            if outer is not None and outer < at:
                if outer <= now:
                    raise DeadlineExceeded(PASSED, conclusive=False)
                at = outer
            token = hold(at)
            try:
                result = function(*args, **kwargs)
            finally:
                leave(token)
            if type(result) not in NEVER_AWAITABLE and is_awaitable(result):
                return self.run_awaitable(result, functools.partial(function, *args, **kwargs))
            return result

        return guarded

    def guard_async(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        # Only here, as plain functions need no event loop.
        from chassis.limits._expiry import Expiries, under_asyncio

        general = super().guard_async(function)
        expiries = Expiries(self._not_in_time)
        seconds, modules = self.seconds, sys.modules
        hold, leave, held = deadline_at.set, deadline_at.reset, deadline_at.get

        @functools.wraps(function)
        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            at = deadlines.clock() + seconds
            outer = held()
            if (outer is not None and outer < at) or ("trio" in modules and not under_asyncio()):
                return await general(*args, **kwargs)
            token = hold(at)
            try:
                coroutine: Any = function(*args, **kwargs)
                # What never waits cannot be late: it needs no timer, nor to know its task.
                try:
                    waits_for = coroutine.send(None)
                except StopIteration as done:
                    return done.value
                return await expiries.watch(at, coroutine, waits_for)
            finally:
                leave(token)

        return guarded_async

    def __enter__(self) -> Deadline:
        use = _Use(self)
        deadline = use.__enter__()
        use.push()
        return deadline

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _Use.pop(self).__exit__(kind, error, traceback)

    async def __aenter__(self) -> Deadline:
        use = _Use(self)
        deadline = await use.__aenter__()
        use.push()
        return deadline

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await _Use.pop(self).__aexit__(kind, error, traceback)


class _Use:
    """One use of a timeout: what a local of the call would hold, if a with statement had one."""

    __slots__ = ("_anyio", "_asyncio", "_conclusive", "_outer", "_scopes", "_timeout")

    def __init__(self, timeout: Timeout) -> None:
        self._timeout = timeout
        self._scopes = [deadline_scope(Deadline.after(timeout.seconds))]
        self._asyncio: asyncio.Timeout | None = None
        self._anyio: anyio.CancelScope | None = None
        self._conclusive = True
        self._outer: _Use | None = None

    def push(self) -> None:
        """Remember it for the way out, in this context alone: each task has a stack of its own."""
        self._outer = _uses.get()
        _uses.set(self)

    @staticmethod
    def pop(timeout: Timeout) -> _Use:
        """The innermost use of ``timeout`` in this context."""
        above, use = None, _uses.get()
        while use is not None and use._timeout is not timeout:
            above, use = use, use._outer
        if use is None:
            raise RuntimeError(
                f"timeout({timeout.name}) was entered in another task or context than it is left"
            )
        if above is None:
            _uses.set(use._outer)
        else:
            # A generator ends inside a block that its consumer entered later. Its deadline is left
            # together with that block: left now, it would come back when the block is left.
            above._outer = use._outer
            above._scopes += use._scopes
            use._scopes = []
        return use

    def __enter__(self) -> Deadline:
        return cast(Deadline, self._scopes[0].__enter__())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for scope in self._scopes:
            scope.__exit__(None, None, None)

    async def __aenter__(self) -> Deadline:
        deadline = self.__enter__()
        try:
            deadline.check(begun=False)
            await self._cancel_at(deadline)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return deadline

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(None, None, None)
        message = self._timeout._not_in_time
        if self._asyncio is not None:
            try:
                await self._asyncio.__aexit__(kind, error, traceback)
            except TimeoutError as expired:
                # It raises for its own expiry only: what the block raised, or a cancellation from
                # outside, goes on as it came.
                raise DeadlineExceeded(message, conclusive=self._conclusive) from expired
        elif self._anyio is not None:
            self._anyio.__exit__(kind, error, traceback)
            if self._anyio.cancelled_caught:
                raise DeadlineExceeded(message, conclusive=self._conclusive) from error

    async def _cancel_at(self, deadline: Deadline) -> None:
        """Cancel the running task at ``deadline``, by the means of whatever runs it."""
        import asyncio

        left = deadline.remaining()
        self._conclusive = left >= self._timeout.seconds * _FAIR_SHARE

        try:
            running = asyncio.current_task()
        except RuntimeError:
            running = None
        if running is not None:
            self._asyncio = await asyncio.timeout(left).__aenter__()
        else:
            import anyio

            at = anyio.current_time() + left
            self._anyio = anyio.CancelScope(deadline=at).__enter__()


_uses: ContextVar[_Use | None] = ContextVar("chassis_timeouts", default=None)

timeout = Timeout
"""The spelling for ``with`` and decorators: ``timeout(2.0)``."""
