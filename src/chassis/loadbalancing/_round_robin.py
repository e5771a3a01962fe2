from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

from chassis.loadbalancing._candidate import ASKS, C, any_fit, share_of


class RoundRobin:
    """Each candidate in turn, whatever its weight.

    It starts at a random one, so that many processes started together do not all call the same
    instance first, and goes on counting when the candidates change. Who is unfit has its turn
    passed over, so that all others keep equal shares; and one that warms up takes each of its turns
    only as probably as its share says.

    :param draw: draws from [0, 1).
    """

    def __init__(self, *, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._turns = itertools.count(int(draw() * (1 << 16)))

    def choose(
        self, candidates: Sequence[C], fit: Callable[[C], bool], *, key: str | None, now: float
    ) -> C | None:
        size = len(candidates)
        # More often than others do: of few, so all are asked, and a list would shift everybody's turns.
        for _ in range(2 * ASKS):
            chosen = candidates[next(self._turns) % size]
            if (chosen.share >= 1.0 or self._draw() < chosen.share) and fit(chosen):
                return chosen
        return any_fit(candidates, fit, self._draw, share_of)
