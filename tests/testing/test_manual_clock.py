"""The manual clock: time passes when the test says so, for machines, threads and tasks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import tenacity
import trio

from chassis import (
    CircuitBreaker,
    ConfigError,
    DeadlineExceeded,
    Rejected,
    bulkhead,
    hedge,
    rate_limit,
    remaining,
    retry,
    timeout,
)
from chassis.retries import Retry
from chassis.testing import Delay, Hang, ManualClock, ScriptedDependency, assert_state
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


# ── an event loop that goes by it ────────────────────────────────────────────────────────────────


def test_a_hedge_goes_by_the_loops_time(chassis_clock: ManualClock) -> None:
    """Its delay and what the dependency takes lie on one line: whichever is due first happens first."""
    search = ScriptedDependency(Delay(30.0, then="slow"), Delay(1.0, then="quick"), clock=chassis_clock)
    find = hedge(idempotent=True, delay=5.0, extra_load=1.0, clock=chassis_clock)(search.call_async)
    began = chassis_clock()
    assert chassis_clock.run(find()) == "quick"
    assert chassis_clock() - began == pytest.approx(6.0)


@pytest.mark.parametrize("limit", ["bulkhead", "rate limit"])
def test_a_place_in_a_queue_goes_by_the_loops_time(limit: str, chassis_clock: ManualClock) -> None:
    """One waits its turn, the other as long as it may and no longer."""
    policy = (
        bulkhead("reports", limit=1, queue=5, wait=100.0, clock=chassis_clock, register=False)
        if limit == "bulkhead"
        else rate_limit("reports", rate=1, per=80.0, wait=100.0, clock=chassis_clock, register=False)
    )
    render = policy(ScriptedDependency(Delay(80.0), repeat=True, clock=chassis_clock).call_async)

    async def main() -> list[float]:
        began, ends = chassis_clock(), list[float]()

        async def one() -> None:
            try:
                await render()
            finally:
                ends.append(chassis_clock() - began)

        answers = await asyncio.gather(*(one() for _ in range(3)), return_exceptions=True)
        assert [isinstance(each, Rejected) for each in answers] == [False, False, True]
        return sorted(ends)

    expected = [80.0, 100.0, 160.0] if limit == "bulkhead" else [0.0, 80.0, 160.0]
    assert chassis_clock.run(main()) == pytest.approx(expected)


def test_timeouts_cancel_by_the_loops_time(chassis_clock: ManualClock) -> None:
    """Decorated and as a block, each call at its own."""
    never = ScriptedDependency(Hang(), repeat=True, clock=chassis_clock)
    ask = timeout(100.0)(never.call_async)

    async def block() -> None:
        async with timeout(250.0):
            await never.call_async()

    async def ends(call: Callable[[], Awaitable[Any]], after: float) -> float:
        began = chassis_clock()
        await asyncio.sleep(after)
        with pytest.raises(DeadlineExceeded):
            await call()
        return chassis_clock() - began

    async def main() -> list[float]:
        return list(await asyncio.gather(ends(ask, 0.0), ends(ask, 70.0), ends(block, 0.0)))

    assert chassis_clock.run(main()) == pytest.approx([100.0, 170.0, 250.0])


def test_what_is_left_of_a_deadline_goes_by_the_loops_time(chassis_clock: ManualClock) -> None:
    """In its threads too; a retry sees that no attempt fits any more; and held outside, a deadline goes on inside."""
    down = ScriptedDependency(ConnectionError, repeat=True, clock=chassis_clock)
    ask = retry(retries=9, wait=tenacity.wait_fixed(30.0), clock=chassis_clock)(down.call_async)

    async def main() -> None:
        before = remaining() or 0.0
        await asyncio.sleep(40.0)
        assert remaining() == pytest.approx(before - 40.0)
        async with timeout(50.0) as deadline:
            assert deadline.remaining() == pytest.approx(50.0)
            await asyncio.sleep(20.0)
            assert deadline.remaining() == pytest.approx(30.0)
            assert await asyncio.to_thread(remaining) == pytest.approx(30.0)
        with pytest.raises(ConnectionError) as failed:
            await ask()
        assert "the deadline comes first" in failed.value.__notes__[0]
        assert len(down.calls) == 2
        await asyncio.sleep(20.0)
        assert (remaining() or 0) < 0

    with timeout(100.0) as outside:
        chassis_clock.run(main())
        assert outside.remaining() > 50.0  # real seconds again


def test_deadlines_go_by_one_clock(chassis_clock: ManualClock) -> None:
    """They are the process's: two at once would each be wrong for the other's tasks."""

    async def main() -> None:
        refused = asyncio.sleep(1.0)

        def begin() -> None:
            with pytest.raises(RuntimeError, match="another clock"):
                ManualClock().run(refused)
            refused.close()

        await asyncio.to_thread(begin)

    chassis_clock.run(main())
    ManualClock().run(asyncio.sleep(1.0))


def test_a_task_that_is_cancelled_at_the_end_still_goes_by_it(chassis_clock: ManualClock) -> None:
    left = []

    async def left_behind() -> None:
        with timeout(100.0) as scope:
            try:
                await asyncio.sleep(1000.0)
            finally:
                left.append(scope.remaining())

    async def main() -> None:
        tasks.append(asyncio.create_task(left_behind()))
        await asyncio.sleep(60.0)

    tasks: list[asyncio.Task[None]] = []
    chassis_clock.run(main())
    assert left == [pytest.approx(40.0)]


@pytest.mark.parametrize("start", [0.0, 1e7, 1.8e9, 3e9])
def test_it_may_show_the_seconds_of_a_century(start: float) -> None:
    """Such as those of a wall clock, where a nanosecond is less than a float can tell."""
    clock = ManualClock(start)
    limit = rate_limit("dated", rate=3, per=0.7, burst=1, wait=1e6, clock=clock, register=False)

    async def wait_its_turn() -> None:
        await limit.acquire_async()
        with pytest.raises(DeadlineExceeded):
            await timeout(0.1)(asyncio.sleep)(1.0)

    async def main() -> None:
        await asyncio.gather(*(wait_its_turn() for _ in range(20)))
        await asyncio.sleep(86_400.0 * 365)

    # In a thread, as a loop whose timers never come runs for ever.
    running = threading.Thread(target=clock.run, args=(main(),), daemon=True)
    running.start()
    running.join(10)
    assert not running.is_alive()
    assert clock() - start == pytest.approx(86_400.0 * 365, abs=10.0)


def test_no_time_is_too_short_to_pass(chassis_clock: ManualClock) -> None:
    """What is left of another one may be as short as a rounding."""
    chassis_clock.run(asyncio.sleep(1e-12))
    chassis_clock.sleep(1e-12)
    assert chassis_clock.slept == [1e-12]


def test_pauses_of_a_retry_go_by_the_loops_time(chassis_clock: ManualClock) -> None:
    """Also where nothing but the clock is given: others are due meanwhile."""
    flaky = ScriptedDependency(ConnectionError, ConnectionError, "answer", clock=chassis_clock)
    ask = retry(wait=tenacity.wait_fixed(30.0), clock=chassis_clock)(flaky.call_async)

    began, between = chassis_clock(), list[float]()

    async def main() -> Any:
        asyncio.get_running_loop().call_later(45.0, lambda: between.append(chassis_clock()))
        return await ask()

    assert chassis_clock.run(main()) == "answer"
    assert between == [pytest.approx(began + 45.0)]
    assert [call.at - flaky.calls[0].at for call in flaky.calls] == pytest.approx([0.0, 30.0, 60.0])


def test_one_loop_at_a_time(chassis_clock: ManualClock) -> None:
    async def main() -> None:
        nested = asyncio.sleep(1)
        with pytest.raises(RuntimeError):
            chassis_clock.run(nested)
        nested.close()
        await chassis_clock.sleep_async(5.0)

    chassis_clock.run(main())
    assert chassis_clock.slept == [5.0]


@pytest.mark.asyncio
@pytest.mark.filterwarnings("error")
async def test_within_another_loop_it_does_not_begin(chassis_clock: ManualClock) -> None:
    nested = asyncio.sleep(1)
    with pytest.raises(RuntimeError, match="outside of it"):
        chassis_clock.run(nested)
    nested.close()


@pytest.mark.filterwarnings("error")
def test_threads_that_still_work_at_its_end_are_waited_for(chassis_clock: ManualClock) -> None:
    """Python limits that wait to five minutes, which pass at once by this clock."""
    began = chassis_clock()

    async def main() -> bool:
        loop: Any = asyncio.get_running_loop()
        released = threading.Event()
        working = loop.run_in_executor(None, released.wait, 10.0)
        threading.Timer(0.02, released.set).start()
        await loop.shutdown_default_executor(300.0)
        return bool(await working)

    assert chassis_clock.run(main())
    assert chassis_clock() == began
