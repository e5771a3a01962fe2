from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chassis.breaker import CircuitBreaker
from chassis.core.events import EventBus
from tests.breaker.breaking import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bus() -> EventBus:
    return EventBus()


@pytest.fixture
def make(clock: Clock, bus: EventBus) -> Callable[..., CircuitBreaker]:
    """Makes a breaker that opens at the first failure, with the clock and the bus of the test."""

    def make(name: str = "payments", **options: Any) -> CircuitBreaker:
        options = {"consecutive_failures": 1, "clock": clock, "bus": bus, "register": False, **options}
        return CircuitBreaker(name, **options)

    return make
