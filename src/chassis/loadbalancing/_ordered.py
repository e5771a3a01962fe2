from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from chassis.loadbalancing._candidate import C


class Ordered:
    """The first that is fit: the heaviest, then by id. The others stand by.

    As soon as an earlier one is fit again it takes over again.
    """

    def __init__(self) -> None:
        self._order: tuple[Sequence[Any], list[Any]] = ((), [])

    def choose(
        self, candidates: Sequence[C], fit: Callable[[C], bool], *, key: str | None, now: float
    ) -> C | None:
        order = self._order
        if order[0] is not candidates:
            by_weight = sorted(candidates, key=lambda each: -each.instance.weight)
            order = self._order = (candidates, by_weight)
        for each in order[1]:
            if fit(each):
                return each  # type: ignore[no-any-return]  # the order is that of the candidates
        return None
