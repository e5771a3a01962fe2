"""What the call line asks its driver to do: each effect in both colours, side by side.

The line itself is a plain generator (:mod:`chassis.client._line`); it decides, the effects act.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Generator
from typing import Any, Protocol, TypeAlias, TypeVar

from chassis.client._pool import InstancePool
from chassis.core import Admission, Permit

T = TypeVar("T")


class Effect(Protocol):
    async def perform(self) -> Any: ...

    def perform_sync(self) -> Any: ...


Line: TypeAlias = Generator[Effect, Any, T]


class Attempt:
    """Send one request to one instance; the answer's headers are there when it returns.

    :param timeout: seconds until the headers must have arrived.
    """

    __slots__ = ("pool", "request", "timeout")

    def __init__(self, pool: InstancePool, request: Any, timeout: float) -> None:
        self.pool = pool
        self.request = request
        self.timeout = timeout

    async def perform(self) -> Any:
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
        response.stream = self.pool.http.slot_body(response.stream, slots)
        return response

    def perform_sync(self) -> Any:
        # The transport's own phase timeouts bound it; see ``_line.timeout_table``.
        return self.pool.sync_transport().handle_request(self.request)


async def _finish_even_if_cancelled(sending: Any) -> Any:
    """Await ``sending``; if the caller is cancelled, let it end on its own and drop its answer."""
    task = asyncio.ensure_future(sending)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.cancelled():
            closing = asyncio.ensure_future(_drop(task))
            _dropping.add(closing)
            closing.add_done_callback(_dropping.discard)
        raise


_dropping: set[asyncio.Future[None]] = set()
"""Strong references: the loop keeps only weak ones to its tasks."""


async def _drop(task: asyncio.Future[Any]) -> None:
    try:
        response = await task
    except Exception:  # noqa: BLE001 - nobody waits for this answer any more
        return
    await response.aclose()


class Discard:
    """Close an answer that will not be given to the caller."""

    __slots__ = ("response",)

    def __init__(self, response: Any) -> None:
        self.response = response

    async def perform(self) -> None:
        await self.response.aclose()

    def perform_sync(self) -> None:
        self.response.close()


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


def drive_sync(line: Line[T]) -> T:
    """Run a line in the calling thread."""
    value: Any = None
    error: BaseException | None = None
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
