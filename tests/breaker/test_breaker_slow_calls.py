"""Slow calls, and the time a server told: what the breaker reads of clock and error, and when."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest

from chassis.breaker import BreakerOpened, BreakerState
from chassis.core.events import Event, EventBus
from chassis.core.outcomes import Outcome
from tests.breaker.breaking import Clock, fail

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
SLOW: dict[str, Any] = {
    "consecutive_failures": None,
    "slow_after": 1.0,
    "minimum_calls": 2,
    "window": 3_600.0,
}


def slow_of(breaker: Any) -> tuple[int, int, int]:
    counts = breaker.describe()
    return counts["calls"], counts["failures"], counts["slow"]


def test_trap_24_slow_calls_open_after_a_success(make: Any, clock: Clock, bus: EventBus) -> None:
    """The last success opens it when half of the calls took too long; just in time is in time."""
    breaker, seen = make(**SLOW), []
    bus.subscribe(seen.append)

    @breaker
    def call(seconds: float) -> str:
        clock.now += seconds
        return "answer"

    assert call(1.0) == "answer"
    assert slow_of(breaker) == (1, 0, 0)
    assert call(1.25) == "answer"
    assert breaker.state is OPEN
    [opened] = seen
    assert isinstance(opened, BreakerOpened)
    assert opened.reason == "50% of 2 calls were slow"
    assert (opened.calls, opened.failures, opened.slow) == (2, 0, 1)


@pytest.mark.asyncio
async def test_slow_async_calls_and_blocks_count(make: Any, clock: Clock) -> None:
    """`async def`, blocks, permits and `run` are judged by the same clock."""
    breaker = make(**{**SLOW, "minimum_calls": 100})

    @breaker
    async def call() -> None:
        await asyncio.sleep(0)
        clock.now += 2

    await call()
    await breaker.run(lambda: call.__wrapped__())  # type: ignore[attr-defined]  # the bare function
    async with breaker.guarded():
        clock.now += 2
    permit = breaker.acquire()
    clock.now += 2
    permit.settle(Outcome.SUCCESS)
    assert slow_of(breaker) == (4, 0, 4)


def test_trap_23_slow_call_that_fails_counts_once_in_each(make: Any, clock: Clock) -> None:
    """One call, one failure, one slow call."""
    breaker = make(**{**SLOW, "minimum_calls": 100})

    @breaker
    def call() -> None:
        clock.now += 2
        raise OSError

    with pytest.raises(OSError):
        call()
    assert slow_of(breaker) == (1, 1, 1)


@pytest.mark.asyncio
async def test_streams_are_judged_by_the_time_to_their_first_item(make: Any, clock: Clock) -> None:
    """What comes after it is the consumer's pace; a late first item is slow, even if a failure follows."""
    breaker = make(**{**SLOW, "minimum_calls": 100})

    @breaker
    def stream(first: float, broken: bool) -> Generator[int, None, None]:
        clock.now += first
        yield 1
        clock.now += 100
        if broken:
            raise ConnectionError

    @breaker
    async def astream(first: float) -> AsyncGenerator[int, None]:
        clock.now += first
        yield 1
        clock.now += 100
        yield 2

    assert list(stream(0.5, broken=False)) == [1]
    assert [item async for item in astream(0.5)] == [1, 2]
    assert slow_of(breaker) == (2, 0, 0)
    with pytest.raises(ConnectionError):
        list(stream(2.0, broken=True))
    assert [item async for item in astream(2.0)] == [1, 2]
    assert slow_of(breaker) == (4, 1, 2)


def test_edge_that_holds_a_permit_says_when_the_answer_began(make: Any, clock: Clock) -> None:
    """After the headers the time is the reader's."""
    breaker = make(**{**SLOW, "minimum_calls": 100})
    for until_headers in (0.5, 2.0):
        permit = breaker.acquire()
        clock.now += until_headers
        breaker.answered(permit)
        clock.now += 60
        permit.settle(Outcome.SUCCESS)
    assert slow_of(breaker) == (2, 0, 1)


def test_slow_probe_opens_again(make: Any, clock: Clock) -> None:
    """Half open, too, an answer that comes late is no good one."""
    breaker = make(slow_after=1.0, probes=1)
    fail(breaker)
    clock.now += 10

    @breaker
    def call(seconds: float) -> None:
        clock.now += seconds

    call(2.0)
    assert breaker.state is OPEN
    clock.now += 20
    call(0.5)
    assert breaker.state is CLOSED


@pytest.mark.parametrize(
    ("options", "reads"),
    [
        ({"window_calls": 50}, 0),
        ({}, 1),
        ({"slow_after": 1.0}, 2),
        ({"slow_after": 1.0, "window_calls": 50}, 2),
    ],
    ids=["calls", "time", "slow", "slow calls"],
)
@pytest.mark.asyncio
async def test_clock_is_read_no_more_than_needed(
    make: Any, clock: Clock, options: dict[str, Any], reads: int
) -> None:
    """A success costs no reading where no time is asked for, one for the window, one more to be timed."""
    breaker = make(**options)
    call = breaker(lambda: None)

    @breaker
    async def acall() -> None:
        return None

    call()  # the first of a generation is looked at with more care
    before = clock.reads
    for _ in range(3):
        call()
        await acall()
    assert clock.reads - before == 6 * reads


def test_call_that_was_under_way_ends_by_the_options_it_began_with(make: Any, clock: Clock) -> None:
    """A limit that is lowered meanwhile, or set at all, is for the calls to come."""
    breaker = make(consecutive_failures=None, minimum_calls=100)
    before, timed = breaker.acquire(), make(**{**SLOW, "minimum_calls": 100})
    begun = timed.acquire()
    from dataclasses import replace

    breaker.reconfigure(replace(breaker.options, slow_after=1.0))
    timed.reconfigure(replace(timed.options, slow_after=10.0))
    clock.now += 5
    before.settle(Outcome.SUCCESS)
    begun.settle(Outcome.SUCCESS)
    assert slow_of(breaker) == (1, 0, 0)
    assert slow_of(timed) == (1, 0, 1)


# ── the time a server told ───────────────────────────────────────────────────────────────────


class Unavailable(Exception):
    def __init__(self, retry_after: Any) -> None:
        self.retry_after = retry_after


@pytest.mark.parametrize(
    ("told", "least"),
    [
        (42, 42.0),
        (42.5, 42.5),
        (10**400, 300.0),
        (3600, 300.0),
        (0, 4.5),
        (True, 4.5),
        (-1, 4.5),
        (math.nan, 4.5),
        (math.inf, 4.5),
        ("60", 4.5),
        (None, 4.5),
    ],
)
def test_failure_that_bears_a_wait_opens_for_that_long(make: Any, told: Any, least: float) -> None:
    """Any finite number of seconds that is at least 0, and nothing else; up to the cap."""
    breaker = make()

    @breaker
    def call() -> None:
        raise Unavailable(told)

    with pytest.raises(Unavailable):
        call()
    assert least <= breaker.retry_after <= max(least, 5.5)


def test_flag_is_no_number_of_seconds(make: Any) -> None:
    """`retry_after = True` says that it may be tried again, not when."""
    breaker = make(open_for=0.1)
    breaker.acquire().settle(Outcome.FAILURE, Unavailable(True))
    assert breaker.retry_after < 0.2


def test_failure_whose_wait_cannot_be_read_is_a_failure(make: Any) -> None:
    """A property that raises costs the wait alone."""
    breaker = make()

    class Broken(Exception):
        @property
        def retry_after(self) -> float:
            raise RuntimeError("no header")

    fail(breaker, error=Broken)
    assert breaker.state is OPEN


def test_told_wait_stands_in_the_event(make: Any, bus: EventBus) -> None:
    """`open_for` is what it will be, with the server's word in it."""
    seen: list[Event] = []
    bus.subscribe(seen.append)
    permit = make().acquire()
    permit.settle(Outcome.FAILURE, Unavailable(120))
    assert seen[0].details()["open_for"] == 120.0
