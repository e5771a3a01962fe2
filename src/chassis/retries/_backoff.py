from __future__ import annotations

import random
from collections.abc import Callable

_MOST_DOUBLINGS = 60  # beyond it the float would overflow one day; every cap is reached long before


class Backoff:
    """Pauses that double, drawn between nothing and all of it ("full jitter").

    Callers that failed together must not come back together.

    :param base: seconds; the first pause is at most this long.
    :param cap: seconds; no pause is longer.
    :param draw: draws from [0, 1).
    """

    __slots__ = ("_base", "_cap", "_draw")

    def __init__(
        self, base: float = 0.1, cap: float = 5.0, *, draw: Callable[[], float] = random.random
    ) -> None:
        self._base = base
        self._cap = cap
        self._draw = draw

    def delay(self, n: int) -> float:
        """Seconds to wait before retry ``n``, counted from 0."""
        return self._draw() * min(self._cap, self._base * 2.0 ** min(n, _MOST_DOUBLINGS))
