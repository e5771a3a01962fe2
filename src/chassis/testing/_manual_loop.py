"""An asyncio event loop that goes by a manual clock."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable


class ManualLoop(asyncio.SelectorEventLoop):
    """Its time is the clock's, and where it would wait for a time, the clock goes on to it at once.

    :param now: what the clock shows.
    :param advance: has it go on.
    """

    def __init__(self, now: Callable[[], float], advance: Callable[[float], None]) -> None:
        self._now = now
        super().__init__(_Jumping(advance))

    def time(self) -> float:
        """What the clock shows."""
        return self._now()

    monotonic = time
    """Asked by what would go by the system's clock elsewhere."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for its threads. However long that may take: by this loop's time, any limit is past at once."""
        await super().shutdown_default_executor()


class _Jumping(selectors.DefaultSelector):
    def __init__(self, advance: Callable[[float], None]) -> None:
        super().__init__()
        self._advance = advance

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(None)  # no task waits for a time, so for a thread or a signal
        self._advance(max(0.0, timeout))
        return []
