"""Bodies under way: the answer's, with which the call ends, and a request's that can be read once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from chassis.client._ending import Ending
from chassis.core import Deadline, DeadlineExceeded, Outcome, classify_error

if TYPE_CHECKING:
    from chassis.client._info import CallInfo
    from chassis.client._module import HTTPModule


class _Body:
    """State shared by both colours.

    :param stream: the transport's body.
    :param http: whose error a :class:`DeadlineExceeded` is to be, too.
    :param ending: closed with ``outcome`` when the body ends well or the caller closes it early
        (it wanted no more, which says nothing against the instance), with a failure when it breaks.
    :param deadline: the caller's own deadline, which bounds the body too. A default deadline never
        cuts a body whose headers have arrived.
    :param timeouts: the transport's own timeout table, read anew for every chunk.
    :param info: of the call, for its errors.
    """

    def __init__(
        self,
        stream: Any,
        http: HTTPModule,
        request: Any,
        *,
        ending: Ending,
        outcome: Outcome,
        deadline: Deadline | None,
        timeouts: dict[str, float | None],
        info: CallInfo,
    ) -> None:
        self._stream = stream
        self._http = http
        self._request = request
        self._ending = ending
        self._outcome = outcome
        self._deadline = deadline
        self._timeouts = timeouts
        self._info = info

    def _broke(self, error: BaseException) -> BaseException:
        """End the call; returns what is told to the reader."""
        # An impatient caller is no word about the instance.
        outcome = Outcome.IGNORED if self._is_late() else classify_error(None, error)
        self._ending.close(outcome, error)
        return self._http.edge_error(error, self._request, self._info)

    def _is_late(self) -> bool:
        return self._deadline is not None and self._deadline.remaining() <= 0

    @staticmethod
    def _too_late() -> DeadlineExceeded:
        return DeadlineExceeded("the caller's deadline passed while the body was read")

    def _closed(self) -> None:
        self._ending.close(self._outcome)


class AsyncBody(_Body):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            if self._deadline is None:
                async for chunk in self._stream:
                    yield chunk
                return
            chunks = self._stream.__aiter__()
            while True:
                try:
                    async with asyncio.timeout(self._deadline.remaining()):
                        chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    raise self._too_late() from error
                yield chunk
        except GeneratorExit:
            raise
        except self._http.told_errors as error:
            raise self._broke(error) from error.__cause__
        except BaseException as error:
            self._broke(error)
            raise

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        except self._http.told_errors as error:
            raise self._broke(error) from error.__cause__
        except BaseException as error:
            self._broke(error)
            raise
        self._closed()


class SyncBody(_Body):
    def __iter__(self) -> Iterator[bytes]:
        try:
            chunks = iter(self._stream)
            while True:
                if self._deadline is not None:
                    if self._is_late():
                        raise self._too_late()
                    # A thread cannot be interrupted: the socket's own timeout keeps the deadline.
                    idle = self._timeouts["read"]
                    remaining = self._deadline.remaining()
                    self._timeouts["read"] = remaining if idle is None else min(idle, remaining)
                try:
                    chunk = next(chunks)
                except StopIteration:
                    return
                except self._http.module.TimeoutException as error:
                    if self._is_late():
                        raise self._too_late() from error
                    raise
                yield chunk
        except GeneratorExit:
            raise
        except self._http.told_errors as error:
            raise self._broke(error) from error.__cause__
        except BaseException as error:
            self._broke(error)
            raise

    def close(self) -> None:
        try:
            self._stream.close()
        except self._http.told_errors as error:
            raise self._broke(error) from error.__cause__
        except BaseException as error:
            self._broke(error)
            raise
        self._closed()


class Upload:
    """A request's body that can be read once, and tells whether it was begun.

    Until then it can still be sent to another instance.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.begun = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.begun = True
        async for chunk in self._stream:
            yield chunk

    def __iter__(self) -> Iterator[bytes]:
        self.begun = True
        yield from self._stream

    async def aclose(self) -> None:
        await self._stream.aclose()

    def close(self) -> None:
        self._stream.close()
