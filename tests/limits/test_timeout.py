"""Timeouts as blocks, decorators and policies."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import pickle
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any

import pytest
import trio

from chassis.breaker import BreakerState, CircuitBreaker
from chassis.core.deadline import Deadline, current_deadline, deadline_scope
from chassis.core.errors import ConfigError, DeadlineExceeded
from chassis.core.outcomes import Outcome, classify_error
from chassis.core.pipeline import Pipeline
from chassis.limits import LoadShedder, Timeout, timeout


def left() -> float:
    deadline = current_deadline()
    assert deadline is not None
    return deadline.remaining()


def test_with_sets_the_deadline_and_interrupts_nothing() -> None:
    """Inside, what is left can be asked; outside nothing is left behind; lateness is not punished."""
    with timeout(0.01) as deadline:
        assert current_deadline() == deadline
        assert 0 < left() <= 0.01
        time.sleep(0.02)
        assert left() < 0
    assert current_deadline() is None


@pytest.mark.asyncio
async def test_async_with_cancels_and_raises_deadline_exceeded() -> None:
    """The block is cancelled at its deadline; the error is a TimeoutError, chained from asyncio's own."""
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        async with timeout(0.05):
            await asyncio.sleep(10)
    assert time.monotonic() - started < 5
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert isinstance(caught.value.__cause__.__cause__, asyncio.CancelledError)
    assert "0.05 s" in str(caught.value)
    assert current_deadline() is None
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.asyncio
async def test_async_with_in_time_changes_nothing() -> None:
    """Result, own errors and own TimeoutErrors come through; the deadline is gone afterwards."""
    async with timeout(10) as deadline:
        assert current_deadline() == deadline
    for error in (ValueError("mine"), TimeoutError("mine")):
        with pytest.raises(type(error)) as caught:
            async with timeout(10):
                raise error
        assert caught.value is error
    assert current_deadline() is None


@pytest.mark.asyncio
async def test_decorated_async_function_is_cancelled() -> None:
    """As with ``async with``, per call."""

    @timeout(0.05)
    async def call(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return left()

    with pytest.raises(DeadlineExceeded):
        await call(10)
    assert await call(0) <= 0.05


def test_decorated_function_has_a_deadline() -> None:
    """A plain function is not interrupted; it is told how much is left, and the next edge raises."""

    @timeout(0.01)
    def call() -> str:
        assert left() <= 0.01
        time.sleep(0.02)
        with pytest.raises(DeadlineExceeded), timeout(60) as deadline:
            deadline.check()
        return "done"

    assert call() == "done"
    assert current_deadline() is None


def test_trap_48_nested_deadlines_take_the_earliest() -> None:
    """Five seconds within one are one, and leaving restores the outer one."""
    with timeout(1):
        outer = current_deadline()
        with timeout(5):
            assert current_deadline() == outer
        with timeout(0.5):
            assert left() <= 0.5
        assert current_deadline() == outer
    assert current_deadline() is None


@pytest.mark.asyncio
async def test_trap_48_an_earlier_outer_deadline_cancels_the_inner_block() -> None:
    """Also where the outer one was set by a plain ``with``, which cancels nothing itself."""
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded), timeout(0.05):
        async with timeout(60):
            await asyncio.sleep(60)
    with pytest.raises(DeadlineExceeded):
        async with timeout(0.05), timeout(60):
            await asyncio.sleep(60)
    with pytest.raises(DeadlineExceeded):
        async with timeout(60), timeout(0.05):
            await asyncio.sleep(60)
    assert time.monotonic() - started < 10


@pytest.mark.asyncio
async def test_a_deadline_that_has_passed_starts_nothing() -> None:
    """Decorated functions and async blocks raise on entering."""
    calls: list[int] = []

    async def later() -> None:
        calls.append(1)

    with deadline_scope(Deadline.after(-1)):
        with pytest.raises(DeadlineExceeded):
            await timeout(5)(later)()
        with pytest.raises(DeadlineExceeded):
            timeout(5)(calls.append)(1)
        with pytest.raises(DeadlineExceeded):
            timeout(5).run_sync(lambda: calls.append(1))
        with pytest.raises(DeadlineExceeded):
            await timeout(5).run(later)
        with pytest.raises(DeadlineExceeded):
            async with timeout(5):
                calls.append(1)
        with timeout(5):
            assert left() < 0
        assert left() < 0
    assert calls == []


@pytest.mark.asyncio
async def test_the_callers_own_timeout_is_never_swallowed() -> None:
    """An outer asyncio.timeout that expires first is the caller's TimeoutError, not ours."""
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.02):
            async with timeout(60):
                await asyncio.sleep(60)
    assert not isinstance(caught.value, DeadlineExceeded)


@pytest.mark.asyncio
async def test_cancellation_from_outside_stays_cancellation() -> None:
    """It is no DeadlineExceeded."""
    started = asyncio.Event()

    @timeout(60)
    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.asyncio
async def test_one_object_nested_and_shared_between_tasks() -> None:
    """Each use has a deadline of its own, whatever order they end in."""
    shared = timeout(0.5)

    async def use(pause: float) -> float:
        async with shared:
            before = current_deadline()
            with shared:
                await asyncio.sleep(pause)
            async with shared:
                pass
            assert current_deadline() == before
            return left()

    first = asyncio.create_task(use(0.05))
    await asyncio.sleep(0.02)
    second = asyncio.create_task(use(0.0))
    with pytest.raises(DeadlineExceeded):
        await use(10)
    assert await first < await second
    assert current_deadline() is None


@pytest.mark.asyncio
async def test_child_tasks_inherit_the_deadline_and_use_the_object_on_their_own() -> None:
    """A task begun inside a block has its deadline, and may enter and leave the same object."""
    shared = timeout(5)
    with shared:
        outer = current_deadline()

        async def child() -> None:
            assert current_deadline() == outer
            async with shared:
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(child()) for _ in range(3)]
    await asyncio.gather(*tasks)


@pytest.mark.asyncio
async def test_trap_51_background_work_may_lift_the_deadline() -> None:
    """A spawned task inherits it, unless it detaches: then it outlives what began it."""

    async def detached() -> str:
        with deadline_scope(None):
            async with timeout(60):
                await asyncio.sleep(0.03)
                return "done"

    with timeout(0.01):
        task = asyncio.create_task(detached())
    assert await task == "done"


def test_one_object_in_many_threads() -> None:
    """Threads have contexts of their own."""
    shared = timeout(5)
    together = threading.Barrier(4)
    failures: list[BaseException] = []

    def use() -> None:
        try:
            assert current_deadline() is None
            with shared:
                together.wait(10)
                assert 0 < left() <= 5
                together.wait(10)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(10)
    assert failures == []


def test_generator_that_ends_inside_its_consumers_block() -> None:
    """Each block is left as its own, in whatever order; no deadline stays behind."""
    one = timeout(5)

    def numbers() -> Generator[int, None, None]:
        with one, one:
            yield 1

    for consumer in (timeout(7), timeout(3), one):
        generator = numbers()
        next(generator)
        with consumer as deadline:
            generator.close()
            assert current_deadline() == deadline
        assert current_deadline() is None


def test_leaving_what_was_not_entered_here_says_so() -> None:
    """A block entered in one task cannot be left in another."""
    with pytest.raises(RuntimeError, match="another task or context"):
        timeout(5).__exit__(None, None, None)


def test_under_trio() -> None:
    """The same under trio: cancelled at the deadline, outer cancellation left alone."""

    async def main() -> None:
        with pytest.raises(DeadlineExceeded) as caught:
            async with timeout(0.05):
                await trio.sleep(60)
        assert isinstance(caught.value.__cause__, trio.Cancelled)
        async with timeout(5):
            await trio.sleep(0)
        with pytest.raises(ValueError):
            async with timeout(5):
                raise ValueError
        with trio.move_on_after(0.02) as scope:
            await timeout(60)(trio.sleep)(60)
        assert scope.cancelled_caught
        with pytest.raises(DeadlineExceeded):
            await timeout(0.02)(trio.sleep)(60)

    trio.run(main)


@pytest.mark.asyncio
async def test_generators_have_the_time_until_their_first_item() -> None:
    """The rest is the consumer's own pace."""

    @timeout(0.05)
    async def stream(pause: float) -> AsyncGenerator[int, None]:
        await asyncio.sleep(pause)
        yield 1
        await asyncio.sleep(0.1)
        yield 2

    assert [each async for each in stream(0)] == [1, 2]
    with pytest.raises(DeadlineExceeded):
        await anext(stream(10))


@pytest.mark.asyncio
async def test_in_a_pipeline() -> None:
    """A policy among others, which says its order."""
    pipeline = Pipeline(timeout(60), timeout(0.02))
    assert pipeline.order() == ["Timeout(60 s)", "Timeout(0.02 s)"]
    with pytest.raises(DeadlineExceeded):
        await pipeline(asyncio.sleep)(10)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), True, "2", None])
def test_trap_60_impossible_durations_are_refused(seconds: Any) -> None:
    """At construction, with what to write instead."""
    with pytest.raises(ConfigError) as caught:
        Timeout(seconds)
    assert caught.value.setting == "seconds"


# ── many calls, one timer ────────────────────────────────────────────────────────────────────────


@pytest.mark.asyncio
async def test_each_call_of_a_decorated_function_has_its_own_time() -> None:
    """They share one timer of the loop; each ends at its own, early ones before late ones."""
    ended: list[tuple[int, float]] = []

    @timeout(0.1)
    async def call(number: int, seconds: float, began: float) -> int:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            ended.append((number, time.monotonic() - began))
            raise
        return number

    async def begin(number: int) -> Any:
        await asyncio.sleep(number * 0.01)
        return await call(number, 60 if number % 2 else 0, time.monotonic())

    results = await asyncio.gather(*(begin(number) for number in range(8)), return_exceptions=True)
    assert results[::2] == [0, 2, 4, 6]
    assert all(isinstance(each, DeadlineExceeded) for each in results[1::2])
    assert [number for number, _ in ended] == [1, 3, 5, 7]
    assert all(0.09 <= took < 5 for _, took in ended)
    assert all(isinstance(each.__cause__, asyncio.CancelledError) for each in results[1::2])


@pytest.mark.asyncio
async def test_expired_call_that_ends_otherwise_ends_as_it_does() -> None:
    """A result in spite of the cancellation stands, so does an error of its own; the task is as before."""

    @timeout(0.02)
    async def call(error: Exception | None) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if error is not None:
                raise error from None
        return "kept"

    assert await call(None) == "kept"
    with pytest.raises(LookupError):
        await call(LookupError())
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_cancellation_from_outside_at_the_same_time_stays_cancellation() -> None:
    """Both arrive: the one from outside counts, as with asyncio's own timeout."""
    entered = asyncio.Event()

    @timeout(0.05)
    async def call() -> None:
        entered.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            time.sleep(0.1)  # its own time is up as well now
            await asyncio.sleep(0.01)
            raise

    task = asyncio.create_task(call())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_decorated_function_in_one_loop_after_another_and_under_trio() -> None:
    """Each loop has a timer of its own; a closed one is forgotten."""

    @timeout(0.02)
    async def call(sleep: Any, seconds: float) -> float:
        await sleep(seconds)
        return left()

    for run, sleep in ((asyncio.run, asyncio.sleep), (trio_run, trio.sleep), (asyncio.run, asyncio.sleep)):
        assert run(call(sleep, 0)) <= 0.02
        with pytest.raises(DeadlineExceeded):
            run(call(sleep, 60))


def trio_run(coroutine: Any) -> Any:
    """As ``asyncio.run``."""

    async def main() -> Any:
        return await coroutine

    return trio.run(main)


@pytest.mark.asyncio
async def test_trap_48_decorated_function_inside_an_earlier_deadline_has_no_more_than_that() -> None:
    """Whether it was set by a block or by the server."""

    @timeout(60)
    async def call() -> None:
        assert left() <= 0.05
        await asyncio.sleep(60)

    with deadline_scope(Deadline.after(0.05)), pytest.raises(DeadlineExceeded):
        await call()
    with deadline_scope(Deadline.after(-1)), pytest.raises(DeadlineExceeded):
        await call()

    @timeout(60)
    def plain() -> float:
        return left()

    with deadline_scope(Deadline.after(0.05)):
        assert plain() <= 0.05
    with deadline_scope(Deadline.after(-1)), pytest.raises(DeadlineExceeded):
        plain()


@pytest.mark.parametrize("seconds", [30.0, 0.002], ids=["failed", "too late"])
@pytest.mark.asyncio
async def test_a_task_that_fails_under_a_timeout_is_gone_at_once(seconds: float) -> None:
    """No reference cycle holds it and all that its frames hold until the collector comes."""

    @timeout(seconds)
    async def call() -> None:
        await asyncio.sleep(0.01)
        raise OSError

    gc.disable()
    try:
        task = asyncio.create_task(call())
        with contextlib.suppress(OSError, DeadlineExceeded):
            await task
        gone = weakref.ref(task)
        del task
        await asyncio.sleep(0)  # the loop's own step that told of its end holds it
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.asyncio
async def test_what_a_decorated_function_raises_later_does_not_bear_the_cancellation_it_dealt_with() -> None:
    """Its next error did not come of handling that one."""

    @timeout(30)
    async def call() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        raise OSError("the next")

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(OSError, match="next") as failed:
        await task
    assert failed.value.__context__ is None


@pytest.mark.asyncio
async def test_decorated_function_that_waits_again_and_again_gets_what_is_thrown_and_closed() -> None:
    """Cancellations and ends reach the function wherever it waits, at the first time as at the others."""
    seen: list[str] = []

    @timeout(30)
    async def call(swallowed: int) -> str:
        for _ in range(swallowed):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                seen.append("cancelled")
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        except GeneratorExit:
            seen.append("closed")
            raise
        return "done"

    for swallowed in (0, 1, 2):
        task = asyncio.create_task(call(swallowed))
        for _ in range(swallowed):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
        assert await task == "done"
    assert seen == ["cancelled"] * 3
    for steps in (1, 2):
        coroutine: Any = call(0)
        for _ in range(steps):
            coroutine.send(None)
        coroutine.close()
    assert seen[3:] == ["closed"] * 2
    assert current_deadline() is None


@pytest.mark.asyncio
async def test_decorated_function_that_fails_at_once_fails_as_it_does() -> None:
    """Before it waited for anything: no timer is set, and its own error comes out."""

    @timeout(30)
    async def call() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await call()
    assert current_deadline() is None


def test_decorated_function_driven_outside_any_task_runs() -> None:
    """By a callback of a loop, say: there is no task to cancel, so the deadline only tells."""
    loop = asyncio.new_event_loop()
    got: list[Any] = []

    @timeout(30)
    async def call() -> float:
        await asyncio.sleep(0)
        return left()

    def drive() -> None:
        coroutine: Any = call()
        try:
            while True:
                coroutine.send(None)
        except StopIteration as done:
            got.append(done.value)
        loop.stop()

    loop.call_soon(drive)
    loop.run_forever()
    loop.close()
    assert 29 < got[0] <= 30


def run_under(event_loop: str, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(main()) if event_loop == "asyncio" else trio.run(main)


@pytest.mark.parametrize("decorated", [True, False])
@pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("callers", "own", "judged"),
    [
        pytest.param(-1.0, 10.0, Outcome.IGNORED, id="nothing-was-begun"),
        pytest.param(0.15, 10.0, Outcome.IGNORED, id="an-impatient-caller"),
        pytest.param(0.15, 0.16, Outcome.FAILURE, id="more-than-half-of-its-time"),
        pytest.param(10.0, 0.03, Outcome.FAILURE, id="all-of-its-time"),
    ],
)
def test_what_a_timeout_ends_is_a_failure_only_if_the_callee_had_a_fair_chance(
    callers: float, own: float, judged: Outcome, event_loop: str, decorated: bool
) -> None:
    """Else callers whose own time is nearly spent would open the breaker for all."""

    async def hangs() -> None:
        await (asyncio.sleep(10) if event_loop == "asyncio" else trio.sleep(10))

    async def main() -> None:
        guarded = timeout(own)
        with deadline_scope(Deadline.after(callers)), pytest.raises(DeadlineExceeded) as caught:
            await (guarded(hangs)() if decorated else guarded.run(hangs))
        assert classify_error(None, caught.value) is judged

    run_under(event_loop, main)


def test_trap_50_a_deadline_that_had_passed_is_nothing_to_the_breaker_around() -> None:
    """Plain functions, decorated or run, under a timeout or a load shedder: nothing was begun."""
    breaker = CircuitBreaker("payments", consecutive_failures=1, register=False)
    shedder = LoadShedder("in", register=False)

    def work() -> None:
        raise AssertionError("begun")

    with deadline_scope(Deadline.after(-1)):
        for inner in (timeout(1), shedder):
            for call in (
                breaker(inner(work)),
                lambda inner=inner: breaker.run_sync(lambda: inner.run_sync(work)),
            ):
                with pytest.raises(DeadlineExceeded) as caught:
                    call()
                assert not caught.value.conclusive
                assert breaker.state is BreakerState.CLOSED
                assert breaker.describe()["calls"] == 0


def test_whether_it_was_conclusive_survives_copies() -> None:
    error = DeadlineExceeded("late", conclusive=False)
    for each in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (str(each), each.conclusive) == ("late", False)
    assert DeadlineExceeded("late").conclusive


@pytest.mark.asyncio
async def test_the_time_runs_from_the_call_not_from_its_first_wait() -> None:
    """A function whose time is up before it waits may not even wait for a moment."""
    turns = 0

    @timeout(0.1)
    async def works_then_waits() -> None:
        nonlocal turns
        time.sleep(0.11)
        while turns < 1_000_000:
            await asyncio.sleep(0)
            turns += 1

    with pytest.raises(DeadlineExceeded):
        await works_then_waits()
    assert turns < 10  # a tenth of a second were a thousand
