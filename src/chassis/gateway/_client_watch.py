"""The client's side of one exchange: its body as it comes, and the moment it leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import NoReturn, Self

from chassis.gateway._asgi import Receive
from chassis.gateway._refusal import ClientGone, Refusal

_BUFFERED = 64 * 1024


class ClientWatch:
    """Owns ``receive``, and ends the exchange when the client is gone or sends too much.

    Servers do not tell an application that its client has left unless it asks: ``send`` stays
    silent. So whenever the body is not being read, a task waits for the disconnect, and what
    happens inside ``async with`` is then cancelled, which closes the upstream's connection.

    :param length: the body's declared length, or None.
    :param limit: bytes of body that are accepted.
    """

    def __init__(self, receive: Receive, *, length: int | None, limit: int) -> None:
        self._receive = receive
        self._length = length
        self._limit = limit
        self._received = 0
        self._more = True
        self._first = b""
        self._end: Exception | None = None
        self._scope = asyncio.timeout(None)
        self._inside = False
        self._watcher: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Read the first of the body. The server sends ``100 Continue`` now if it was asked to.

        A small body is read whole, so that it can be sent again if an instance refuses it.

        :raises Refusal: 413.
        :raises ClientGone: it left.
        """
        if self._length is not None and self._length > self._limit:
            raise self._too_large()
        chunks = [await self._next()]
        while self._more and self._length is not None and self._length <= _BUFFERED:
            chunks.append(await self._next())
        self._first = b"".join(chunks)

    @property
    def whole_body(self) -> bytes | None:
        """The body if it has been read to its end; None if more is to come."""
        return None if self._more else self._first

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes; read once."""
        if self._first:
            yield self._first
        while self._more:
            try:
                chunk = await self._next()
            except (Refusal, ClientGone) as end:
                await self._interrupt_here(end)
            if chunk:
                yield chunk
        self.watch()

    def watch(self) -> None:
        """From here on only the client's leaving matters; what is left of the body is let go."""
        if self._watcher is None:
            self._watcher = asyncio.get_running_loop().create_task(self._wait_until_gone())

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        self._inside = True
        if not self._more:
            self.watch()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._inside = False
        if self._watcher is not None:
            self._watcher.cancel()
        try:
            await self._scope.__aexit__(kind, error, traceback)
        except TimeoutError:
            # Not a timeout: the scope is cancelled by _interrupt alone.
            assert self._end is not None  # noqa: S101 - set before the scope is
            raise self._end from None

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        self._more = message.get("more_body", False)
        body: bytes = message.get("body", b"")
        self._received += len(body)
        if self._received > self._limit:
            raise self._too_large()
        return body

    async def _wait_until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._interrupt(ClientGone())

    def _interrupt(self, end: Exception) -> None:
        if self._inside and self._end is None:
            self._end = end
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def _interrupt_here(self, end: Exception) -> NoReturn:
        # Raising through the upstream's client would count against an innocent instance; a
        # cancellation counts against nobody. It arrives while we wait.
        self._interrupt(end)
        await asyncio.get_running_loop().create_future()
        raise AssertionError("a future that nobody has was completed")

    def _too_large(self) -> Refusal:
        # The rest of the body is not read, so the connection cannot be used again.
        return Refusal(
            413, f"the body is larger than {self._limit} bytes", headers=((b"connection", b"close"),)
        )
