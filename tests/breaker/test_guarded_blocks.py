"""`with breaker.guarded():` is one call, whatever else goes on in the same thread, task or generator."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest
import trio

from chassis.breaker import BreakerState
from chassis.core.errors import CircuitOpen
from chassis.core.outcomes import Outcome
from tests.breaker.breaking import Clock, fail, in_threads

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def test_block_counts_by_how_it_ends(make: Any) -> None:
    """A block that ends is a success, one that raises a failure, and the error goes on as it is."""
    breaker, error = make(consecutive_failures=2), ConnectionError("mine")
    with breaker.guarded():
        pass
    with pytest.raises(ConnectionError) as caught, breaker.guarded():
        raise error
    assert caught.value is error
    with pytest.raises(KeyboardInterrupt), breaker.guarded():
        raise KeyboardInterrupt
    assert (breaker.describe()["calls"], breaker.describe()["failures"]) == (2, 1)
    fail(breaker)
    inside = False
    with pytest.raises(CircuitOpen), breaker.guarded():
        inside = True
    assert not inside


def test_result_is_judged_if_one_is_given(make: Any) -> None:
    """Without one there is nothing for a classifier of results to stumble over."""

    def by_status(result: Any, error: BaseException | None) -> Outcome:
        return Outcome.FAILURE if error or result["status"] >= 500 else Outcome.SUCCESS

    breaker = make(classify=by_status)
    with breaker.guarded() as call:
        call.result = {"status": 200}
    with breaker.guarded():
        pass
    assert breaker.state is CLOSED
    assert breaker.describe()["calls"] == 2
    with breaker.guarded() as call:
        call.result = {"status": 503}
    assert breaker.state is OPEN


def test_block_that_raises_is_judged_by_its_error_alone(make: Any) -> None:
    """The classifier sees one of the two, as everywhere."""
    seen: list[tuple[Any, BaseException | None]] = []

    def classify(result: Any, error: BaseException | None) -> Outcome:
        seen.append((result, error))
        return Outcome.IGNORED

    error = OSError()
    for result in ((), ("half a result",)):
        with pytest.raises(OSError), make(classify=classify).guarded() as call:
            if result:
                call.result = result
            raise error
    assert seen == [(None, error), (None, error)]


def test_block_is_not_entered_twice(make: Any) -> None:
    """One object is one call: used again it would give the same permit back twice."""
    breaker = make()
    block = breaker.guarded()
    with block, pytest.raises(RuntimeError, match="another guarded"), block:
        pass
    with pytest.raises(RuntimeError, match="another guarded"), block:
        pass
    assert breaker.describe()["calls"] == 1


@pytest.mark.asyncio
async def test_blocks_of_many_tasks_do_not_mix(make: Any) -> None:
    """Each has its own outcome, in whatever order they end."""
    breaker = make(consecutive_failures=None, minimum_calls=100)
    gates = [asyncio.Event() for _ in range(6)]

    async def work(number: int) -> None:
        async with breaker.guarded():
            await gates[number].wait()
            if number % 3 == 0:
                raise OSError(number)

    tasks = [asyncio.create_task(work(number)) for number in range(6)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    for number in (4, 0, 5, 3, 2):
        gates[number].set()
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each).__name__ for each in results] == [
        "OSError",
        "CancelledError",
        "NoneType",
        "OSError",
        "NoneType",
        "NoneType",
    ]
    assert (breaker.describe()["calls"], breaker.describe()["failures"]) == (5, 2)


def test_blocks_in_generators_end_in_any_order(make: Any) -> None:
    """A block in a generator ends when that does, not when the innermost one of its consumer ends."""
    breaker = make(consecutive_failures=None, minimum_calls=100)

    def work(bad: bool) -> Generator[int, None, None]:
        with breaker.guarded():
            yield 1
            if bad:
                raise OSError

    good, bad, closed = work(bad=False), work(bad=True), work(bad=True)
    for each in (bad, good, closed):
        next(each)
    with breaker.guarded():
        with pytest.raises(OSError):
            next(bad)
        closed.close()  # as its consumer's own will
    assert list(good) == []
    assert (breaker.describe()["calls"], breaker.describe()["failures"]) == (3, 1)


def test_blocks_of_many_threads_do_not_mix(make: Any) -> None:
    """One breaker, eight threads, one failure each."""
    breaker = make(consecutive_failures=None, minimum_calls=100_000)

    def work() -> None:
        for number in range(100):
            try:
                with breaker.guarded():
                    if number == 50:
                        raise OSError
            except OSError:
                pass

    assert in_threads(8, work) == [None] * 8
    assert (breaker.describe()["calls"], breaker.describe()["failures"]) == (800, 8)


def test_blocks_under_trio(make: Any) -> None:
    """`async with` needs no particular event loop."""
    breaker = make()

    async def work() -> None:
        async with breaker.guarded():
            await trio.sleep(0)

    trio.run(work)
    assert breaker.describe()["calls"] == 1


def test_probe_block_may_call_its_own_breaker(make: Any, clock: Clock) -> None:
    """As a probe that is a function may."""
    breaker = make(probes=1)
    fail(breaker)
    clock.now += 10
    with breaker.guarded(), breaker.guarded():
        assert breaker(lambda: "ok")() == "ok"
        assert breaker.state is HALF_OPEN
    assert breaker.state is CLOSED
