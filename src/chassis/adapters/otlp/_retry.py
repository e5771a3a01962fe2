"""When to try again: backoff and what a receiver asks for. Pure but for the date in Retry-After."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST = 0.5
"""Seconds at most before the first retry; doubled with each further one."""
LONGEST = 30.0
RETRY_AFTER = 300.0
"""Seconds that are waited at most when a receiver asks for more."""


class Backoff:
    """Exponential, with full jitter: a fleet does not come back all at once.

    :param uniform: returns a number between its two arguments.
    """

    def __init__(self, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._uniform = uniform
        self._longest = FIRST

    def next(self) -> float:
        """Seconds to wait before the next try."""
        longest, self._longest = self._longest, min(LONGEST, self._longest * 2)
        return self._uniform(0.0, longest)

    def reset(self) -> None:
        """Begin again."""
        self._longest = FIRST


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for (RFC 9110, section 10.2.3).

    :returns: at most 300; None if it says nothing that can be used: not a number or date, or past.
    """
    if not value:
        return None
    value = value.strip()
    if value.isdecimal():
        seconds = float(value)
    else:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        seconds = (date - (now or datetime.now(UTC))).total_seconds()
    return min(seconds, RETRY_AFTER) if seconds > 0 else None
