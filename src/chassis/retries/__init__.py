"""Retry: try again what failed in a way that may pass, without making an outage worse.

:class:`Retry` (as a decorator :data:`retry`) is a policy. Its parts serve others too: a
:class:`RetryBudget` shared by all who call one service, :class:`Backoff`, and
:func:`retry_after_seconds` for what a server asks.
"""

from chassis.retries._backoff import Backoff
from chassis.retries._budget import RetryBudget
from chassis.retries._events import RetryGaveUp, RetryScheduled
from chassis.retries._hedge_machine import HedgeMachine
from chassis.retries._hedge_options import HedgeOptions
from chassis.retries._options import BudgetOptions, RetryOptions
from chassis.retries._policy import Retry, retry
from chassis.retries._retry_after import retry_after_seconds

__all__ = [
    "Backoff",
    "BudgetOptions",
    "HedgeMachine",
    "HedgeOptions",
    "Retry",
    "RetryBudget",
    "RetryGaveUp",
    "RetryOptions",
    "RetryScheduled",
    "retry",
    "retry_after_seconds",
]
