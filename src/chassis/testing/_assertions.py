from __future__ import annotations

import itertools
from collections.abc import Sequence

from chassis.breaker import BreakerState, CircuitBreaker
from chassis.core import Pipeline


def assert_order(pipeline: Pipeline, *names: str) -> None:
    """See that a pipeline has just these policies, outermost first.

    :param names: class names, or with the policy's own name: ``"Retry"`` or ``"Retry(payments)"``.
    :raises AssertionError: it has others, or another order; the message says which.
    """
    order = pipeline.order()
    if len(order) == len(names) and all(map(_names, names, order)):
        return
    faults = [f"{name} is missing" for name in names if not any(_names(name, each) for each in order)]
    faults += [f"{each} is not expected" for each in order if not any(_names(name, each) for name in names)]
    if not faults:
        faults = [
            f"{outer} stands inside {inner}"
            for outer, inner in itertools.combinations(names, 2)
            if _place(outer, order) > _place(inner, order)
        ]
    faults = faults or [f"it has {len(order)} policies, not {len(names)}"]
    raise AssertionError(f"the pipeline is {_arrows(order)}, not {_arrows(names)}: {'; '.join(faults)}")


def assert_state(breaker: CircuitBreaker, state: BreakerState | str) -> None:
    """See that a breaker is in this state now.

    :param state: a :class:`~chassis.breaker.BreakerState` or its value, e.g. ``"open"``.
    :raises AssertionError: it is in another; the message says what it has counted.
    :raises ValueError: there is no such state.
    """
    expected = BreakerState(state)
    if breaker.state is expected:
        return
    told = breaker.describe()
    last = f"; the last failure was {told['last_failure']}" if told["last_failure"] else ""
    raise AssertionError(
        f"circuit breaker {breaker.name!r} is {told['state']}, not {expected.value}: "
        f"{told['failures']} of {told['calls']} calls in its window failed{last}"
    )


def _names(name: str, policy: str) -> bool:
    return name in (policy, policy.partition("(")[0])


def _place(name: str, order: Sequence[str]) -> int:
    return next(place for place, policy in enumerate(order) if _names(name, policy))


def _arrows(names: Sequence[str]) -> str:
    return " > ".join(names) or "empty"
