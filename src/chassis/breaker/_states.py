"""The states of a breaker, and its changes from one to another."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class BreakerState(Enum):
    """What a breaker does with calls."""

    CLOSED = "closed"
    """Lets them through and counts how they end."""
    OPEN = "open"
    """Refuses them."""
    HALF_OPEN = "half_open"
    """Lets a few through as probes."""
    FORCED_OPEN = "forced_open"
    """Refuses them until an operator says otherwise."""
    DISABLED = "disabled"
    """Lets them through and counts nothing, until an operator says otherwise."""
    METRICS_ONLY = "metrics_only"
    """Lets them through and counts how they end, but never opens, until an operator says otherwise."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state.

    :param state: the new one; METRICS_ONLY also each time the breaker begins to have reason to open
        and may not: then ``would_open``.
    :param reason: why, as a phrase for an operator.
    :param open_for: seconds it will stay open; 0 unless ``state`` is OPEN.
    :param calls: calls the window held.
    :param failures: how many of them had failed.
    :param slow: how many of them were slow.
    :param last_failure: the failure that counted last.
    """

    state: BreakerState
    at: float
    reason: str
    open_for: float
    calls: int
    failures: int
    slow: int
    last_failure: str | None
    would_open: bool
