"""What the policies share: how one is drawn, and what is done when the first few are unfit."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TypeVar

from chassis.core.contracts import Candidate

C = TypeVar("C", bound=Candidate)

ASKS = 8
"""How often a policy makes its usual choice before a list of the fit is made for it. With a thousand
candidates that list costs more than all the rest."""


def any_fit(
    candidates: Sequence[C],
    fit: Callable[[C], bool],
    draw: Callable[[], float],
    weight: Callable[[C], float],
) -> C | None:
    """One of the fit, as often as its weight says, by asking all of them; None if there is none."""
    left = [each for each in candidates if fit(each)]
    if not left:
        return None
    sums = list(accumulate(weight(each) for each in left))
    # Rounding may take the point to the very end.
    return left[min(bisect_right(sums, draw() * sums[-1]), len(left) - 1)]


def share_of(candidate: Candidate) -> float:
    """How much of its full traffic it should get now, whatever its weight."""
    return candidate.share
