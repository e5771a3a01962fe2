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
        size, draw = len(candidates), self._draw
        if self._choices == 2 and size > 2:
            # The usual case, without a list: only the better one is asked whether it is fit.
            first = int(draw() * size)
            second = int(draw() * (size - 1))
            one, other = candidates[first], candidates[second + (second >= first)]
            if (one.share >= 1.0 or draw() < one.share) and (other.share >= 1.0 or draw() < other.share):
                if self.load(other, now) < self.load(one, now):
                    one = other
                if fit(one):
                    return one
        drawn = self._draw_some(candidates, fit)
        if not drawn:
            return any_fit(candidates, fit, draw, share_of)
        # Of equal ones the first, which is random already.
        return min(drawn, key=lambda each: self.load(each, now))

    def _draw_some(self, candidates: Sequence[C], fit: Callable[[C], bool]) -> list[C]:
        size, draw, choices = len(candidates), self._draw, self._choices
        if size <= choices:
            start = int(draw() * size)
            all_of_them = (*candidates[start:], *candidates[:start])
            return [one for one in all_of_them if (one.share >= 1.0 or draw() < one.share) and fit(one)]
        drawn: list[C] = []
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
