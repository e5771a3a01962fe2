"""The manual clock: time passes when the test says so, for machines, threads and tasks."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import trio

from chassis import CircuitBreaker, ConfigError
from chassis.retries import Retry
from chassis.testing import ManualClock, ScriptedDependency, assert_state
from tests.support.waiting import wait_until


async def turns() -> None:
    """Let every task go on until it waits for something."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_it_goes_only_when_told_to() -> None:
    """Two looks without an advance between them show the same."""
    clock = ManualClock(50.0)
    assert clock() == clock() == 50.0
    clock.advance(1.5)
    assert clock() == 51.5


def test_a_policy_follows_it() -> None:
    """A breaker that stays open for a minute is half open at once, if the test says a minute has passed."""
    clock = ManualClock()
    breaker = CircuitBreaker("clocked", consecutive_failures=1, open_for=60.0, clock=clock)
    with pytest.raises(ConnectionError):
        breaker.run_sync(ScriptedDependency(ConnectionError).call)
    assert_state(breaker, "open")
    clock.advance(67.0)
    assert_state(breaker, "half_open")


def test_sleeping_takes_no_time_and_can_be_read() -> None:
    """A retry's pauses are over at once, and the clock has gone on by their sum."""
    clock = ManualClock()
    retry = Retry(on=ConnectionError, clock=clock, sleep=clock.sleep, sleep_async=clock.sleep_async)
    began = clock()
    assert retry.run_sync(ScriptedDependency(ConnectionError, ConnectionError, "ok").call) == "ok"
    assert len(clock.slept) == 2
    assert clock() == pytest.approx(began + sum(clock.slept))


@pytest.mark.parametrize("run", [asyncio.run, trio.run], ids=["asyncio", "trio"])
def test_async_sleeping_advances_and_gives_others_a_turn(run: Any) -> None:
    """As a real sleep does: who sleeps in a loop starves nobody, and is cancelled in time."""
    clock = ManualClock()
    seen: list[float] = []

    async def main() -> None:
        await clock.sleep_async(2.0)
        seen.append(clock())

    async def under(function: Any) -> None:
        await function()

    run(under, main) if run is trio.run else run(main())
    assert seen == [1_002.0]
    assert clock.slept == [2.0]


@pytest.mark.asyncio
async def test_a_cancelled_task_does_not_sleep_on() -> None:
    """Sleeping is a place where cancellation arrives, also when the clock advances by itself."""
    clock = ManualClock()

    async def sleep_for_ever() -> None:
        while True:
            await clock.sleep_async(1.0)

    task = asyncio.create_task(sleep_for_ever())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.asyncio
async def test_without_auto_advance_a_task_sleeps_until_its_time_has_come() -> None:
    """The test decides what happens first; the earliest wakes first."""
    clock = ManualClock(auto_advance=False)
    woken: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep_async(seconds)
        woken.append(name)

    tasks = [asyncio.create_task(sleeper("late", 2.0)), asyncio.create_task(sleeper("early", 1.0))]
    await turns()
    assert clock.sleepers == 2
    clock.advance(0.5)
    await turns()
    assert woken == []
    clock.advance(5.0)
    await asyncio.gather(*tasks)
    assert woken == ["early", "late"]
    assert clock.sleepers == 0


@pytest.mark.asyncio
async def test_a_sleeper_that_was_cancelled_is_no_sleeper() -> None:
    """Nothing is left behind to be woken."""
    clock = ManualClock(auto_advance=False)
    task = asyncio.create_task(clock.sleep_async(1.0))
    await turns()
    assert clock.sleepers == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.sleepers == 0


def test_without_auto_advance_a_thread_sleeps_until_its_time_has_come() -> None:
    """The same for plain functions."""
    clock = ManualClock(auto_advance=False)
    thread = threading.Thread(target=clock.sleep, args=(3.0,), daemon=True)
    thread.start()
    wait_until(lambda: clock.sleepers == 1)
    clock.advance(2.9)
    assert clock.sleepers == 1
    clock.advance(0.2)
    thread.join(5.0)
    assert not thread.is_alive()


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), True, "1"])
def test_it_refuses_what_is_no_time(seconds: Any) -> None:
    """It never steps back, as no monotonic clock does, and a mistake in a test is told."""
    clock = ManualClock()
    for use in (clock.advance, clock.sleep, ManualClock):
        with pytest.raises(ConfigError):
            use(seconds)
    assert clock() == 1_000.0
