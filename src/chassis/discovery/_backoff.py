from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Growing delays between tries of one thing: exponential, with full jitter.

    The n-th delay, counted from 0, is drawn evenly from 0 to ``base * 2**n``, at most ``cap``: many processes
    that lost the same registry do not return to it together.

    :param base: seconds, the most the first delay can be.
    :param cap: seconds, the most any delay can be.
    :param draw: draws from [0, 1).
    """

    def __init__(
        self,
        *,
        base: float = 0.1,
        cap: float = 10.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._base = base
        self._cap = cap
        self._draw = draw
        self._ceiling = base

    def delay(self) -> float:
        """Seconds to wait before the next try."""
        ceiling = min(self._ceiling, self._cap)
        self._ceiling = ceiling * 2
        return self._draw() * ceiling

    def reset(self) -> None:
        """It went well: the next delay is a first one."""
        self._ceiling = self._base
