from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from chassis.core.contracts import Candidate
from chassis.loadbalancing._candidate import ASKS, C, any_fit, share_of


class LeastLoaded(ABC):
    """Of a few drawn at random, the one with the least load.

    Two choices keep the longest queue nearly as short as asking all would, at a cost that does not
    grow, and without the herd that runs to the one idle instance. One that warms up is drawn as
    rarely as its share says.

    :param choices: how many are drawn.
    :param draw: draws from [0, 1).
    """

    def __init__(self, *, choices: int = 2, draw: Callable[[], float] = random.random) -> None:
        self._choices = choices
        self._draw = draw

    def choose(
        self, candidates: Sequence[C], fit: Callable[[C], bool], *, key: str | None, now: float
    ) -> C | None:
        drawn = self._draw_some(candidates, fit)
        if not drawn:
            return any_fit(candidates, fit, self._draw, share_of)
        best = drawn[0]
        if len(drawn) > 1:
            least = self.load(best, now)
            for one in drawn[1:]:
                load = self.load(one, now)
                # Equal ones stay in the order they were drawn in, which is random already.
                if load < least:
                    best, least = one, load
        return best

    def _draw_some(self, candidates: Sequence[C], fit: Callable[[C], bool]) -> list[C]:
        size, draw, choices = len(candidates), self._draw, self._choices
        drawn: list[C] = []
        if size <= choices:
            start = int(draw() * size)
            for one in (*candidates[start:], *candidates[:start]):
                if (one.share >= 1.0 or draw() < one.share) and fit(one):
                    drawn.append(one)
            return drawn
        for _ in range(ASKS + 2 * choices):
            one = candidates[int(draw() * size)]
            if one not in drawn and (one.share >= 1.0 or draw() < one.share) and fit(one):
                drawn.append(one)
                if len(drawn) == choices:
                    break
        return drawn

    @abstractmethod
    def load(self, candidate: Candidate, now: float) -> float:
        """What is compared."""


class LeastRequest(LeastLoaded):
    """By calls in flight, for the weight: an instance of weight 2 is as busy with 4 as one of 1 with 2."""

    def load(self, candidate: Candidate, now: float) -> float:
        return (candidate.in_flight + 1) / candidate.instance.weight


class PeakEwma(LeastLoaded):
    """By the time a call would take: latency times the calls before it, for the weight.

    :param failure_cost: seconds assumed of one that has calls in flight and never answered yet;
        without calls in flight it is tried first.
    """

    def __init__(
        self, *, failure_cost: float = 1.0, choices: int = 2, draw: Callable[[], float] = random.random
    ) -> None:
        super().__init__(choices=choices, draw=draw)
        self._failure_cost = failure_cost

    def load(self, candidate: Candidate, now: float) -> float:
        pending = candidate.in_flight
        seconds = candidate.latency_at(now)
        if seconds == 0.0 and pending:
            seconds = self._failure_cost
        return seconds * (pending + 1) / candidate.instance.weight
