from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from chassis.loadbalancing._candidate import ASKS, C, any_fit, share_of


class Random:
    """Any candidate, whatever its weight; one that warms up as rarely as its share says.

    :param draw: draws from [0, 1).
    """

    def __init__(self, *, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw

    def choose(
        self, candidates: Sequence[C], fit: Callable[[C], bool], *, key: str | None, now: float
    ) -> C | None:
        size, draw = len(candidates), self._draw
        for _ in range(ASKS):
            chosen = candidates[int(draw() * size)]
            if (chosen.share >= 1.0 or draw() < chosen.share) and fit(chosen):
                return chosen
        return any_fit(candidates, fit, draw, share_of)
