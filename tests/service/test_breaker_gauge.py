"""What the metrics page says of breakers that an operator has taken out of their own hands."""

from __future__ import annotations

import pytest

from chassis.breaker import CircuitBreaker, KeyedBreakers
from chassis.metrics import render
from chassis.service import Chassis
from tests.support.waiting import eventually


def gauge(name: str) -> float | None:
    """The value of ``chassis_breaker_open`` for one breaker, or None if it is not on the page."""
    start = f'chassis_breaker_open{{breaker="{name}"}} '
    lines = [line for line in render().body.decode().splitlines() if line.startswith(start)]
    return float(lines[0].removeprefix(start)) if lines else None


@pytest.mark.asyncio
async def test_only_breakers_that_refuse_count_as_open() -> None:
    """Forced open counts, disabled and metrics-only let calls through; a family is one series."""
    forced, disabled, shadow = (CircuitBreaker(f"gauge-{each}") for each in ("forced", "off", "shadow"))
    forced.force_open()
    disabled.disable()
    shadow.metrics_only()
    family = KeyedBreakers("gauge-hosts")
    for host in ("a", "b", "c"):
        family.of(host)
    family.of("a").force_open()
    family.of("b").force_open()
    async with Chassis("shop", environment={}):
        await eventually(lambda: gauge("breaker:gauge-forced") == 1.0, 5, "the page, kept for a second")
        assert gauge("breaker:gauge-off") == 0.0
        assert gauge("breaker:gauge-shadow") == 0.0
        assert gauge("breaker:gauge-hosts") == 2.0
