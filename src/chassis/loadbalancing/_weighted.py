from __future__ import annotations

import heapq
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

from chassis.core.contracts import Candidate
from chassis.loadbalancing._candidate import ASKS, C, any_fit


class Weighted:
    """In turn, as often as the weights say: earliest deadline first.

    Each candidate has a deadline; the earliest takes the call, and its next deadline is the inverse
    of its weight later. So the turns are spread as evenly as weights allow, at the cost of a heap.
    Deadlines are kept when the candidates change, and begin at random points, so that many
    processes do not call the same instances together.

    :param draw: draws from [0, 1).
    """

    def __init__(self, *, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._lock = threading.Lock()
        self._candidates: Sequence[Any] = ()
        self._deadlines: list[tuple[float, int, Any]] = []

    def choose(
        self, candidates: Sequence[C], fit: Callable[[C], bool], *, key: str | None, now: float
    ) -> C | None:
        # An unfit one's turn is passed over, as if it had taken it.
        for _ in range(ASKS):
            chosen = self._next(candidates)
            if fit(chosen):
                return chosen
        return any_fit(candidates, fit, self._draw, _weight)

    def _next(self, candidates: Sequence[C]) -> C:
        with self._lock:
            if candidates is not self._candidates:
                self._follow(candidates)
            deadline, number, chosen = self._deadlines[0]
            heapq.heapreplace(self._deadlines, (deadline + 1.0 / chosen.weight, number, chosen))
            return chosen  # type: ignore[no-any-return]  # the deadlines are those of the candidates

    def _follow(self, candidates: Sequence[Any]) -> None:
        start = self._deadlines[0][0] if self._deadlines else 0.0
        known = {id(each): deadline for deadline, _, each in self._deadlines}
        for each in candidates:
            if id(each) not in known:
                known[id(each)] = start + self._draw() / each.weight
        self._deadlines = [(known[id(each)], number, each) for number, each in enumerate(candidates)]
        heapq.heapify(self._deadlines)
        self._candidates = candidates


def _weight(candidate: Candidate) -> float:
    return candidate.weight
