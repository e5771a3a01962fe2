from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class RoundRobin:
    """Each candidate in turn.

    It starts at a random one, so that many processes started together do not all call the same
    instance first, and goes on counting when the candidates change.

    :param start: the first turn; None for a random one.
    """

    def __init__(self, *, start: int | None = None) -> None:
        # No secret depends on it: any spread will do.
        first = random.randrange(1 << 16) if start is None else start
        self._turns = itertools.count(first)

    def choose(self, candidates: Sequence[T]) -> T:
        """The candidate whose turn it is; ``candidates`` is not empty."""
        return candidates[next(self._turns) % len(candidates)]
