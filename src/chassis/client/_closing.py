"""What is closed even if nobody waits for it any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

_closing: set[asyncio.Task[None]] = set()
"""Strong references: the loop keeps only weak ones to its tasks."""


def in_background(closing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Close an answer, whatever becomes of the caller meanwhile."""
    task = asyncio.get_running_loop().create_task(closing)
    _closing.add(task)
    task.add_done_callback(_closing.discard)
    return task


class SlotBody:
    """A transport's body that gives a connection's slot back when it is closed."""

    def __init__(self, stream: Any, slots: asyncio.Semaphore) -> None:
        self._stream = stream
        self._slots: asyncio.Semaphore | None = slots

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk

    async def aclose(self) -> None:
        # Such a pool loses a connection for ever when its closing is cancelled.
        await asyncio.shield(in_background(self._close()))

    async def _close(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            slots, self._slots = self._slots, None
            if slots is not None:
                slots.release()
