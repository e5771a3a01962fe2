"""What the call line asks its driver to do: each effect in both colours, side by side.

The line itself is a plain generator (:mod:`chassis.client._line`); it decides, the effects act.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Callable, Generator, Iterable
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from chassis.client._closing import SlotBody, in_background
from chassis.client._lag import running_loops_lag
from chassis.client._pool import InstancePool
from chassis.client._timeouts import PhaseTimeouts
from chassis.core import Admission, Permit, monotonic

T = TypeVar("T")


class Effect(Protocol):
    async def perform(self) -> Any: ...

    def perform_sync(self) -> Any: ...


Line: TypeAlias = Generator[Effect, Any, T]


class Attempt:
    """Send one request to one instance; the answer's headers are there when it returns.

    :param timeout: seconds until the headers must have arrived.
    :ivar given: how long it was given until it timed out.
    :ivar late: how long after its due time a timeout was noticed.
    :ivar lost: how long of the attempt the event loop did not run what was due, once it timed out.
    """

    __slots__ = ("given", "late", "lost", "pool", "request", "timeout", "timeouts")

    def __init__(self, pool: InstancePool, request: Any, timeout: float, timeouts: PhaseTimeouts) -> None:
        self.pool = pool
        self.request = request
        self.timeout = timeout
        self.timeouts = timeouts
        self.given = timeout
        self.late = 0.0
        self.lost = 0.0

    async def perform(self) -> Any:
        lag = running_loops_lag()
        before = lag.begin()
        try:
            return await self._send()
        except self.pool.http.module.TimeoutException:
            self._note_lateness()
            self.lost = lag.lost() - before
            raise
        finally:
            lag.end()

    async def _send(self) -> Any:
        http = self.pool.http
        waits_for_slot = http.pool_is_fragile
        try:
            async with asyncio.timeout(self.timeout):
                transport = self.pool.async_transport()
                if not waits_for_slot:
                    return await transport.handle_async_request(self.request)
                slots = self.pool.slots()
                await slots.acquire()
                waits_for_slot = False
                return await _finish_even_if_cancelled(self._send_in_slot(transport, slots))
        except TimeoutError as error:
            if waits_for_slot:
                raise http.module.PoolTimeout("no connection became free", request=self.request) from error
            # It may have been sent, so this is a read timeout and never a connect timeout.
            raise http.module.ReadTimeout(
                f"no answer within {self.timeout:.3g} s", request=self.request
            ) from error

    async def _send_in_slot(self, transport: Any, slots: asyncio.Semaphore) -> Any:
        """Send, and give the slot back when the answer's body is closed, or at once if there is none."""
        try:
            response = await transport.handle_async_request(self.request)
        except BaseException:
            slots.release()
            raise
        response.stream = self.pool.http.stream_class(SlotBody)(response.stream, slots)
        return response

    def perform_sync(self) -> Any:
        # The transport's own phase timeouts bound it.
        try:
            return self.pool.sync_transport().handle_request(self.request)
        except self.pool.http.module.TimeoutException:
            self._note_lateness()
            raise

    def _note_lateness(self) -> None:
        due, expires = self.timeouts.due, min(self.timeouts.due, self.timeouts.expires)
        self.given -= due - expires
        self.late = monotonic() - expires


async def _finish_even_if_cancelled(sending: Any) -> Any:
    """Await ``sending``; if the caller is cancelled, let it end on its own and drop its answer."""
    task = asyncio.ensure_future(sending)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.cancelled():
            in_background(_close_answer(task))
        raise
    finally:
        # An error's traceback holds this frame, and the task holds the error.
        del task


async def _close(response: Any) -> None:
    try:
        await response.aclose()
    except Exception:  # noqa: BLE001 - nobody waits for this answer any more
        return


async def _close_answer(task: asyncio.Future[Any]) -> None:
    await asyncio.wait([task])
    if not task.cancelled() and task.exception() is None:
        await _close(task.result())


AttemptT = TypeVar("AttemptT", bound=Attempt)


@dataclass(slots=True)
class Ended(Generic[AttemptT]):
    """An attempt that came to its end: with an answer, or with an error."""

    attempt: AttemptT
    response: Any = None
    error: Exception | None = None


class Race(Generic[AttemptT]):
    """An attempt, and others beside it while it takes long; the first good answer wins.

    An attempt that fails leaves the field to the others; none is begun after that, as a retry comes
    when all have failed. Those under way when there is a winner are cancelled.

    :param context: in which the first one is sent.
    :param delay: seconds after which another one is begun, and again one.
    :param another: begins it: the attempt and its context, or None if there shall be none.
    :param good: whether an answer wins.
    :param grace: seconds to wait, once there is a winner, for those that are cancelled.
    """

    __slots__ = ("_another", "_context", "_delay", "_first", "_good", "_grace")

    def __init__(
        self,
        first: AttemptT,
        context: Context,
        *,
        delay: float,
        another: Callable[[], tuple[AttemptT, Context] | None],
        good: Callable[[Any], bool],
        grace: float,
    ) -> None:
        self._first = first
        self._context = context
        self._delay = delay
        self._another = another
        self._good = good
        self._grace = grace

    async def perform(self) -> list[Ended[AttemptT]]:
        """Those that came to their end, a winner last; whoever is missing was cancelled."""
        ended: list[Ended[AttemptT]] = []
        try:
            await self._run(ended)
        except BaseException:
            # A caller that leaves, in the grace too, takes no answer along.
            for each in ended:
                if each.response is not None:
                    in_background(_close(each.response))
            raise
        return ended

    async def _run(self, ended: list[Ended[AttemptT]]) -> None:
        loop = asyncio.get_running_loop()
        running = {loop.create_task(self._first.perform(), context=self._context): self._first}
        delay: float | None = self._delay
        try:
            while running:
                done, _ = await asyncio.wait(running, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    begun = self._another()
                    if begun is None:
                        delay = None
                    else:
                        attempt, context = begun
                        running[loop.create_task(attempt.perform(), context=context)] = attempt
                for task in done:
                    delay = None
                    end = _end_of(running.pop(task), task)
                    ended.append(end)
                    if end.response is not None and self._good(end.response):
                        return
        finally:
            await self._cancel(running)

    async def _cancel(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        closing = []
        for task in tasks:
            task.cancel()
            closing.append(in_background(_close_answer(task)))
        if closing and self._grace:
            await asyncio.wait(closing, timeout=self._grace)

    def perform_sync(self) -> list[Ended[AttemptT]]:
        raise TypeError("a thread cannot be cancelled: nothing is hedged there")


def _end_of(attempt: AttemptT, task: asyncio.Task[Any]) -> Ended[AttemptT]:
    if task.cancelled():
        # By somebody else than us, a loop that is shutting down: so are we.
        raise asyncio.CancelledError
    error = task.exception()
    if error is None:
        return Ended(attempt, response=task.result())
    if not isinstance(error, Exception):
        raise error
    return Ended(attempt, error=error)


class Discard:
    """Close an answer that will not be given to the caller.

    A task waits for that in its place: a caller that were cancelled here would take along what the
    line holds by then, the next attempt's permit for one.
    """

    __slots__ = ("response",)

    def __init__(self, response: Any) -> None:
        self.response = response

    async def perform(self) -> None:
        in_background(_close(self.response))

    def perform_sync(self) -> None:
        try:
            self.response.close()
        except Exception:  # noqa: BLE001 - nobody waits for this answer any more
            return


class Enter:
    """Acquire a permit of an admission that may let its callers wait."""

    __slots__ = ("admission",)

    def __init__(self, admission: Admission) -> None:
        self.admission = admission

    async def perform(self) -> Permit:
        return await self.admission.acquire_async()

    def perform_sync(self) -> Permit:
        return self.admission.acquire_sync()


class Pause:
    """Wait before a further attempt."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def perform(self) -> None:
        await asyncio.sleep(self.seconds)

    def perform_sync(self) -> None:
        time.sleep(self.seconds)


class Await:
    """Wait for a thread-safe future, at most ``timeout`` seconds; says whether it is done."""

    __slots__ = ("future", "timeout")

    def __init__(self, future: concurrent.futures.Future[Any], timeout: float) -> None:
        self.future = future
        self.timeout = timeout

    async def perform(self) -> bool:
        await asyncio.wait([asyncio.wrap_future(self.future)], timeout=self.timeout)
        return self.future.done()

    def perform_sync(self) -> bool:
        return bool(concurrent.futures.wait([self.future], timeout=self.timeout).done)


async def drive(line: Line[T]) -> T:
    """Run a line in the caller's event loop."""
    value: Any = None
    error: BaseException | None = None
    try:
        while True:
            try:
                effect = line.send(value) if error is None else line.throw(error)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # a generator's value is typed Any
            value = error = None
            try:
                value = await effect.perform()
            except BaseException as raised:  # noqa: BLE001 - thrown into the line, which decides
                error = raised
    finally:
        # The error's traceback holds this frame: were the error held by it, they would form a cycle.
        error = None


def drive_sync(line: Line[T]) -> T:
    """Run a line in the calling thread."""
    value: Any = None
    error: BaseException | None = None
    try:
        while True:
            try:
                effect = line.send(value) if error is None else line.throw(error)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # a generator's value is typed Any
            value = error = None
            try:
                value = effect.perform_sync()
            except BaseException as raised:  # noqa: BLE001 - thrown into the line, which decides
                error = raised
    finally:
        # The error's traceback holds this frame: were the error held by it, they would form a cycle.
        error = None
