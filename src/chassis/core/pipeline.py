"""Several policies around one operation, in an order that can be told."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

from chassis.core.policies import Operation, Policy, Stream

T = TypeVar("T")


class Pipeline(Policy):
    """Policies around one operation, outermost first; itself a policy.

    :param policies: in the order a call meets them.
    """

    def __init__(self, *policies: Policy, name: str = "pipeline") -> None:
        self.name = name
        self.policies = policies

    def order(self) -> list[str]:
        """The policies as a call meets them, e.g. ``["Retry(payments)", "CircuitBreaker(payments)"]``."""
        return [f"{type(each).__name__}({each.name})" for each in self.policies]

    async def run(self, operation: Operation[T]) -> T:
        for policy in reversed(self.policies):
            operation = functools.partial(policy.run, operation)
        return await operation()

    def run_sync(self, operation: Callable[[], T]) -> T:
        for policy in reversed(self.policies):
            operation = functools.partial(policy.run_sync, operation)
        return operation()

    def begin(self, start: Callable[[], Stream]) -> Stream:
        for policy in reversed(self.policies):
            start = functools.partial(policy.begin, start)
        return start()

    async def begin_async(self, start: Operation[Stream]) -> Stream:
        for policy in reversed(self.policies):
            start = functools.partial(policy.begin_async, start)
        return await start()
