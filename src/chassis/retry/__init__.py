"""Retry: try again what failed in a way that may pass, without making an outage worse.

:class:`Retry` (as a decorator :data:`retry`) is a policy. Its parts serve others too: a
:class:`RetryBudget` shared by all who call one service, :class:`Backoff`, and
:func:`retry_after_seconds` for what a server asks.
"""

from chassis.retry._backoff import Backoff
from chassis.retry._budget import RetryBudget
from chassis.retry._events import RetryGaveUp, RetryScheduled
from chassis.retry._options import BudgetOptions, RetryOptions
from chassis.retry._policy import Retry, retry
from chassis.retry._retry_after import retry_after_seconds

__all__ = [
    "Backoff",
    "BudgetOptions",
    "Retry",
    "RetryBudget",
    "RetryGaveUp",
    "RetryOptions",
    "RetryScheduled",
    "retry",
    "retry_after_seconds",
]
