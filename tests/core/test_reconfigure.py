"""Options given at run time: what is none leaves a policy with its own."""

from __future__ import annotations

from typing import Any

import pytest

from chassis.breaker import CircuitBreaker, KeyedBreakers
from chassis.core import ConfigError
from chassis.fallbacks import Fallback
from chassis.limits import Bulkhead, BulkheadOptions, LoadShedder, RateLimit
from chassis.retries import Hedge, Retry, RetryBudget, RetryOptions

POLICIES = [
    CircuitBreaker("a", register=False),
    KeyedBreakers("a", register=False),
    Bulkhead("a", register=False),
    RateLimit("a", rate=1, register=False),
    LoadShedder("a", register=False),
    Retry(),
    RetryBudget(),
    Hedge(idempotent=True),
    Fallback(None, on=OSError),
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
@pytest.mark.parametrize("given", [{"limit": 3}, None, "others"])
def test_what_is_no_options_of_it_changes_nothing(policy: Any, given: Any) -> None:
    """A dictionary, say, would else be found out by the next call, or by /health."""
    if given == "others":
        given = RetryOptions() if isinstance(policy, Bulkhead) else BulkheadOptions()
    kept, told = policy.options, policy.describe()
    with pytest.raises(ConfigError) as refused:
        policy.reconfigure(given)
    assert str(refused.value).startswith(
        f"options: {type(given).__name__} is not {type(kept).__name__}; give"
    )
    assert policy.options is kept
    assert policy.describe() == told
