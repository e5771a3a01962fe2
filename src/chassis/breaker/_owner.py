"""A breaker, as its permits and the functions it decorates know it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from chassis.breaker._machine import BreakerMachine
from chassis.breaker._tickets import Generation, Ticket
from chassis.core.errors import CircuitOpen
from chassis.core.outcomes import Outcome
from chassis.core.permits import Permit


class Owner(Protocol):
    """What they ask of it; what each does is said where the breaker does it."""

    _machine: BreakerMachine

    def _refusal(self, now: float, until: float) -> CircuitOpen: ...

    def _call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any: ...

    async def run(self, operation: Callable[[], Awaitable[Any]]) -> Any: ...

    async def run_awaitable(self, first: Awaitable[Any], again: Callable[[], Any]) -> Any: ...

    def settle(self, permit: Permit, result: Any, error: BaseException | None) -> None: ...

    def _judge(self, generation: Generation, result: Any, slow_at: float | None) -> None: ...

    def _settle(
        self, ticket: Ticket, outcome: Outcome, error: BaseException | None, slow_at: float | None
    ) -> None: ...

    def _weigh(self, generation: Generation) -> None: ...
