"""Options given as keywords of a policy, in place of or beside the options as one object."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import pytest

from chassis.breaker import BreakerOptions, CircuitBreaker, KeyedBreakers
from chassis.fallbacks import Fallback, FallbackOptions
from chassis.limits import (
    Bulkhead,
    BulkheadOptions,
    LoadShedder,
    LoadShedderOptions,
    RateLimit,
    RateLimitOptions,
)
from chassis.retries import BudgetOptions, Hedge, HedgeOptions, Retry, RetryBudget, RetryOptions

# Every field with a value that no default has.
OTHERS: dict[type, dict[str, Any]] = {
    BulkheadOptions: {"limit": 7, "queue": 3, "wait": 0.5, "order": "lifo"},
    RateLimitOptions: {"rate": 7, "per": 3.0, "burst": 2, "wait": 0.5, "max_keys": 11},
    LoadShedderOptions: {
        "max_in_flight": 7,
        "max_lag": 0.1,
        "interval": 0.7,
        "hopeless": True,
        "hopeless_share": 0.3,
    },
    RetryOptions: {
        "retries": 7,
        "wait_base": 0.2,
        "wait_max": 3.0,
        "retry_after_max": 9.0,
        "minimum_attempt_time": 0.1,
    },
    HedgeOptions: {
        "delay": 0.2,
        "percentile": 0.9,
        "minimum_calls": 7,
        "window": 9.0,
        "extra": 2,
        "extra_load": 0.1,
        "grace": 0.2,
    },
    FallbackOptions: {"timeout": 0.5},
    BudgetOptions: {"ratio": 0.3, "per_second": 7.0, "window": 9.0},
    BreakerOptions: {
        "mode": "metrics_only",
        "failure_rate": 0.4,
        "slow_after": 1.0,
        "slow_rate": 0.3,
        "window": 9.0,
        "minimum_calls": 7,
        "consecutive_failures": None,
        "open_for": 3.0,
        "open_for_max": 9.0,
        "retry_after_max": None,
        "probes": 7,
        "probe_concurrency": 2,
        "probe_failures": 1,
        "probe_timeout": 9.0,
    },
}
POLICIES: list[tuple[type, Callable[..., Any], dict[str, Any]]] = [
    (BulkheadOptions, partial(Bulkhead, "b", register=False), {}),
    (RateLimitOptions, partial(RateLimit, "r", register=False), {"rate": 100}),
    (LoadShedderOptions, partial(LoadShedder, "s", register=False), {}),
    (RetryOptions, Retry, {}),
    (HedgeOptions, partial(Hedge, idempotent=True), {}),
    (BudgetOptions, RetryBudget, {}),
    (FallbackOptions, partial(Fallback, None, on=OSError), {}),
    (BreakerOptions, partial(CircuitBreaker, "c", register=False), {}),
    (BreakerOptions, partial(KeyedBreakers, "k", register=False), {}),
]
each_policy = pytest.mark.parametrize(
    ("options", "make", "needed"),
    POLICIES,
    ids=[getattr(make, "func", make).__name__ for _, make, _ in POLICIES],
)


@each_policy
def test_each_option_may_be_given_by_itself(
    options: type, make: Callable[..., Any], needed: dict[str, Any]
) -> None:
    """It changes that field of the options beside it, and no other one."""
    others = OTHERS[options]
    assert others.keys() >= {each.name for each in fields(options)} - {"window_calls"}
    for name, value in others.items():
        expected = options(**{**needed, name: value})
        assert make(**{**needed, name: value}).options == expected
        beside = options(**needed)
        assert make(options=beside, **{name: value}).options == expected
    assert make(options=options(**{**needed, **others})).options == options(**{**needed, **others})


@each_policy
def test_option_that_is_none_of_its_own_is_a_type_error(
    options: type, make: Callable[..., Any], needed: dict[str, Any]
) -> None:
    """A misspelt option is not taken for nothing."""
    with pytest.raises(TypeError, match="timout"):
        make(timout=1.0, **needed)


@pytest.mark.parametrize("policy", [Bulkhead, RateLimit, LoadShedder, Retry, Hedge, Fallback])
def test_signature_tells_the_options_and_where_their_defaults_are(policy: type) -> None:
    """As ``help()`` shows them."""
    signature = inspect.signature(policy)
    options = next(each for each in OTHERS if each.__name__ == f"{policy.__name__}Options")
    for field in fields(options):
        assert repr(signature.parameters[field.name].default) == "<as in options>"
