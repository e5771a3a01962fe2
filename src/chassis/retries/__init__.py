"""Retry: try again what failed in a way that may pass, without making an outage worse.

:class:`Retry` (as a decorator :data:`retry`) is a policy, and so is :class:`Hedge` (:data:`hedge`),
which does not wait for the failure of what is merely slow. Their parts serve others too: a
:class:`RetryBudget` shared by all who call one service, :class:`Backoff`, and
:func:`retry_after_seconds` for what a server asks.
"""

from chassis.retries._backoff import Backoff
from chassis.retries._budget import RetryBudget
from chassis.retries._events import HedgeSent, HedgeWon, RetryGaveUp, RetryScheduled
from chassis.retries._hedge_machine import HedgeMachine
from chassis.retries._hedge_options import HedgeOptions
from chassis.retries._hedge_policy import Hedge, hedge
from chassis.retries._options import BudgetOptions, RetryOptions
from chassis.retries._policy import Retry, retry
from chassis.retries._retry_after import retry_after_seconds

__all__ = [
    "Backoff",
    "BudgetOptions",
    "Hedge",
    "HedgeMachine",
    "HedgeOptions",
    "HedgeSent",
    "HedgeWon",
    "Retry",
    "RetryBudget",
    "RetryGaveUp",
    "RetryOptions",
    "RetryScheduled",
    "hedge",
    "retry",
    "retry_after_seconds",
]
