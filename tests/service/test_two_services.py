"""Two services in one process share its policies, logs and metrics page, and leave them to each other."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from prometheus_client import generate_latest

from chassis.breaker import CircuitBreaker
from chassis.core import ConfigError
from chassis.service import Chassis


def service(name: str, **policies: Any) -> Chassis:
    return Chassis(name, environment={"CHASSIS_POLICIES": json.dumps(policies)})


def lines(start: str) -> list[str]:
    """Of the page, made anew: ours is kept for a second."""
    return [each for each in generate_latest().decode().splitlines() if each.startswith(start)]


@pytest.mark.asyncio
async def test_one_takes_nothing_back_that_another_ones_settings_say() -> None:
    """A second service whose settings name other policies, or none, leaves the first one's as they are."""
    shared, own = CircuitBreaker("two-shared"), CircuitBreaker("two-own")
    first = {"breaker:two-shared": {"failure_rate": 0.3}}
    async with service("first", **first):
        assert shared.options.failure_rate == 0.3
        async with service("second", **{"breaker:two-own": {"failure_rate": 0.2}}):
            assert (shared.options.failure_rate, own.options.failure_rate) == (0.3, 0.2)
        assert (shared.options.failure_rate, own.options.failure_rate) == (0.3, 0.5)
    assert shared.options.failure_rate == 0.5, "and who has stopped says nothing any more"


@pytest.mark.asyncio
async def test_of_two_settings_for_one_policy_those_of_who_came_later_hold() -> None:
    breaker = CircuitBreaker("two-both")
    async with service("first", **{"breaker:two-both": {"failure_rate": 0.3}}):
        async with service("second", **{"breaker:two-both": {"failure_rate": 0.2}}):
            assert breaker.options.failure_rate == 0.2
        assert breaker.options.failure_rate == 0.3


@pytest.mark.asyncio
async def test_an_event_is_told_and_counted_once_and_until_the_last_has_stopped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Logs and counters are the process's: with two services a transition is still one line and one count."""
    breaker = CircuitBreaker("two-told")
    event = 'chassis_events_total{event="breaker.forced_open"} '
    before = sum(float(each.removeprefix(event)) for each in lines(event))
    async with service("first"):
        async with service("second"):
            breaker.force_open()
            assert capsys.readouterr().err.count("breaker.forced_open") == 1
        capsys.readouterr()
        breaker.reset()
        breaker.force_open()
        told = [line for line in capsys.readouterr().err.splitlines() if "breaker.forced_open" in line]
        assert [json.loads(line)["service"] for line in told] == ["first"]
    assert sum(float(each.removeprefix(event)) for each in lines(event)) == before + 2


@pytest.mark.asyncio
async def test_the_metrics_page_has_one_sample_for_each_set_of_labels() -> None:
    """A page that has the same sample twice is refused by those who collect it."""
    kept = CircuitBreaker("two-kept")
    async with service("first"), service("second"):
        assert len(lines(f'chassis_breaker_open{{breaker="breaker:{kept.name}"}}')) == 1


@pytest.mark.asyncio
async def test_a_service_that_cannot_start_leaves_telemetry_to_who_starts_next(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What a failed start had begun is ended, so that the next service's lines bear its own name."""
    with pytest.raises(ConfigError):
        async with Chassis("broken", environment={"CHASSIS_SERVICES__CATALOG": "nowhere"}):
            pass
    async with service("next"):
        CircuitBreaker("two-next").force_open()
    assert '"service":"next"' in capsys.readouterr().err


FORKED = """
import asyncio, os
from chassis import Chassis, CircuitBreaker

chassis, breaker = Chassis("shop", environment={}), CircuitBreaker("told-in-a-child")

async def in_child():
    async with chassis:
        breaker.force_open()

asyncio.run(chassis.start())
child = os.fork()
if child == 0:
    asyncio.run(in_child())
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_service_forked_after_its_start_starts_anew_and_tells_events_once() -> None:
    """What the parent had begun came along; the child takes it back before it begins its own."""
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count('"message":"breaker.forced_open"') == 1
