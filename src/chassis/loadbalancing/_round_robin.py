from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class RoundRobin:
    """Each candidate in turn.

    It starts at a random one, so that many processes started together do not all call the same
    instance first, and goes on counting when the candidates change.

    :param draw: draws from [0, 1); once, for the start.
    """

    def __init__(self, *, draw: Callable[[], float] = random.random) -> None:
        self._turns = itertools.count(int(draw() * (1 << 16)))

    def choose(self, candidates: Sequence[T]) -> T:
        """The candidate whose turn it is; ``candidates`` is not empty."""
        return candidates[next(self._turns) % len(candidates)]
