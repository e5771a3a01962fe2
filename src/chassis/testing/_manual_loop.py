"""An asyncio event loop that goes by a manual clock."""

from __future__ import annotations

import asyncio
import math
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

    @property
    def _clock_resolution(self) -> float:
        """What asyncio takes for the same time: a timer is due within it.

        That of the system's clock is nothing beside a clock that shows a year: added to its time it would
        be rounded away, and no timer were ever due.
        """
        return max(1e-9, 2 * math.ulp(self._now()))

    @_clock_resolution.setter
    def _clock_resolution(self, of_the_system: float) -> None:
        """Asyncio's own constructor sets it."""

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
