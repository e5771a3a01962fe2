from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chassis.core import Event, Level


@dataclass(frozen=True, kw_only=True)
class RetryBudgetExhausted(Event):
    """A retry was not made because the service's retry budget was spent."""

    name: ClassVar[str] = "client.retry_budget_exhausted"
    level: ClassVar[Level] = "warning"
    transition: ClassVar[bool] = False
