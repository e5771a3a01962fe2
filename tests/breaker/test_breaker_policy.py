"""The circuit breaker around real calls: tasks, threads, generators, events."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest
import trio
import uvloop

from chassis.breaker import (
    BreakerClosed,
    BreakerHalfOpen,
    BreakerOpened,
    BreakerOptions,
    BreakerRejected,
    BreakerState,
    CircuitBreaker,
)
from chassis.core.errors import BulkheadFull, CircuitOpen, ConfigError, Overloaded, RateLimited
from chassis.core.events import Event, EventBus
from chassis.core.outcomes import Outcome, classify_error
from chassis.core.registry import policies
from tests.breaker.breaking import Clock, fail, in_threads

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


# ── calls ────────────────────────────────────────────────────────────────────────────────────


def test_trap_16_the_tripping_call_gets_its_own_error(make: Any) -> None:
    """The original exception object comes through, also from the call that opens the breaker."""
    breaker, error = make(), ValueError("mine")

    @breaker
    def call() -> None:
        raise error

    with pytest.raises(ValueError) as caught:
        call()
    assert caught.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
    assert breaker.state is OPEN


def test_refusal_says_who_why_and_when(make: Any, clock: Clock) -> None:
    """CircuitOpen carries name, retry_after and the last failure as text; nothing is called."""
    breaker = make()
    fail(breaker)
    calls: list[int] = []
    with pytest.raises(CircuitOpen) as caught:
        breaker(calls.append)(1)
    assert not calls
    assert caught.value.name == "payments"
    assert caught.value.retry_after == pytest.approx(5.0, rel=0.1)
    assert caught.value.last_failure == "ConnectionError: refused"
    assert breaker.describe()["refused"] == 1


@pytest.mark.asyncio
async def test_async_functions_open_probe_and_close(make: Any, clock: Clock) -> None:
    """The whole way round with `async def`."""
    breaker, down = make(probes=2), True

    @breaker
    async def call() -> str:
        await asyncio.sleep(0)
        if down:
            raise ConnectionError
        return "ok"

    with pytest.raises(ConnectionError):
        await call()
    with pytest.raises(CircuitOpen):
        await call()
    clock.now += 10
    down = False
    assert await call() == "ok"
    assert breaker.state is HALF_OPEN
    assert await call() == "ok"
    assert breaker.state is CLOSED
    assert await call() == "ok"
    assert breaker.describe()["calls"] == 1


def test_results_are_judged_by_the_classifier(make: Any) -> None:
    """A result may be a failure; the caller gets it all the same."""

    def by_status(result: Any, error: BaseException | None) -> Outcome:
        return Outcome.FAILURE if error or result >= 500 else Outcome.SUCCESS

    breaker = make(classify=by_status)
    assert breaker(lambda: 200)() == 200
    assert breaker.state is CLOSED
    assert breaker(lambda: 503)() == 503
    assert breaker.state is OPEN
    assert breaker.describe()["last_failure"] == "its result was judged a failure"


def test_trap_17_classifier_that_raises_is_a_failure_and_the_result_stands(make: Any) -> None:
    """The text of the failure says that the classifier broke."""

    def broken(result: Any, error: BaseException | None) -> Outcome:
        raise AttributeError("no status")

    breaker = make(classify=broken)
    assert breaker(lambda: "answer")() == "answer"
    assert breaker.describe()["last_failure"] == "AttributeError: no status"
    assert breaker.state is OPEN


@pytest.mark.parametrize("given", [None, True, False, "failure"])
@pytest.mark.parametrize("fails", [False, True])
def test_trap_17_classifier_that_gives_no_outcome_is_a_failure(make: Any, given: Any, fails: bool) -> None:
    """One that says True for good is a mistake to be seen, not a breaker that never opens."""
    breaker = make(classify=lambda result, error: given)

    @breaker
    def call() -> str:
        if fails:
            raise OSError
        return "answer"

    with pytest.raises(OSError) if fails else contextlib.nullcontext():
        assert call() == "answer"
    assert breaker.state is OPEN
    told = f"its classifier gave {type(given).__name__}, which is no Outcome"
    assert breaker.describe()["last_failure"] == told


@pytest.mark.asyncio
async def test_trap_09_cancelled_call_while_closed_leaves_no_trace(make: Any) -> None:
    """Neither the window nor the streak hears of it."""
    breaker = make(consecutive_failures=2)
    fail(breaker)

    @breaker
    async def hang() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert breaker.describe()["calls"] == 1
    fail(breaker)
    assert breaker.state is OPEN


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, trio.Cancelled._create],
)
def test_trap_10_what_the_caller_wills_is_neutral(make: Any, error: Any) -> None:
    """KeyboardInterrupt and its like pass through and count for nothing."""
    breaker = make()
    raised = error(source="nursery") if error is trio.Cancelled._create else error()

    @breaker
    def call() -> None:
        raise raised

    with pytest.raises(type(raised)) as caught:
        call()
    assert caught.value is raised
    assert breaker.state is CLOSED
    assert breaker.describe()["calls"] == 0


@pytest.mark.asyncio
async def test_trap_11_exception_groups_are_judged_by_their_members(make: Any) -> None:
    """A task group that only passes on refusals is neutral; one that holds a failure is one."""
    breaker = make()

    @breaker
    async def call(*errors: Exception) -> None:
        async def leave(error: Exception) -> None:
            raise error

        async with asyncio.TaskGroup() as group:
            for each in errors:
                group.create_task(leave(each))

    with pytest.raises(ExceptionGroup):
        await call(CircuitOpen("other"))
    assert breaker.describe()["calls"] == 0
    with pytest.raises(ExceptionGroup):
        await call(CircuitOpen("other"), OSError())
    assert breaker.state is OPEN


def test_trap_14_refusal_of_another_breaker_is_neutral_unless_the_classifier_says_otherwise(
    make: Any,
) -> None:
    """An open breaker further in says nothing of this dependency; who thinks it does may count it."""
    breaker = make()

    @breaker
    def call() -> None:
        raise CircuitOpen("other")

    with pytest.raises(CircuitOpen):
        call()
    assert breaker.state is CLOSED
    assert breaker.describe()["calls"] == 0

    def all_errors(result: Any, error: BaseException | None) -> Outcome:
        return Outcome.FAILURE if error else Outcome.SUCCESS

    strict = make(classify=all_errors)

    @strict
    def counted() -> None:
        raise CircuitOpen("other")

    with pytest.raises(CircuitOpen):
        counted()
    assert strict.state is OPEN


@pytest.mark.parametrize(
    "refusal", [BulkheadFull("pool", limit=1), RateLimited("api"), Overloaded("this process")]
)
def test_trap_15_what_was_refused_on_the_way_is_neutral(make: Any, refusal: Exception) -> None:
    """A full bulkhead or a rate limit inside the call never reached the dependency."""
    breaker = make()

    @breaker
    def call() -> None:
        raise refusal

    with pytest.raises(type(refusal)):
        call()
    assert breaker.state is CLOSED
    assert breaker.describe()["calls"] == 0


def test_trap_12_ignored_error_as_the_only_probe_decides_nothing(make: Any, clock: Clock) -> None:
    """It is still half open, and the next probe is admitted and decides."""

    def only_server_errors(result: Any, error: BaseException | None) -> Outcome:
        return Outcome.IGNORED if isinstance(error, KeyError) else classify_error(result, error)

    breaker = make(classify=only_server_errors, probes=1)
    fail(breaker)
    clock.now += 10

    @breaker
    def call(key: str) -> str:
        return {"known": "value"}[key]

    with pytest.raises(KeyError):
        call("unknown")
    assert breaker.state is HALF_OPEN
    assert breaker.ready
    assert call("known") == "value"
    assert breaker.state is CLOSED


def test_trap_25_streams_count_once(make: Any, clock: Clock) -> None:
    """A stream that breaks is one failure, one closed after an item is a success."""
    breaker = make(consecutive_failures=None, minimum_calls=100)

    @breaker
    def stream(items: int) -> Generator[int, None, None]:
        yield from range(items)
        raise ConnectionError("cut")

    with pytest.raises(ConnectionError):
        list(stream(3))
    half_read = stream(3)
    next(half_read)
    half_read.close()
    stream(3).close()
    counts = breaker.describe()
    assert (counts["calls"], counts["failures"]) == (2, 1)


@pytest.mark.asyncio
async def test_trap_25_async_streams_count_once_and_hold_the_probe(make: Any, clock: Clock) -> None:
    """A stream is a probe until it ends."""
    breaker = make(probes=1)
    fail(breaker)
    clock.now += 10

    @breaker
    async def stream() -> AsyncGenerator[int, None]:
        yield 1
        yield 2

    running = stream()
    assert await anext(running) == 1
    assert not breaker.ready
    await running.aclose()
    assert breaker.state is CLOSED


@pytest.mark.asyncio
async def test_trap_28_plain_function_that_returns_a_coroutine_is_guarded(make: Any) -> None:
    """Its failures open the breaker: making the coroutine object is no success."""
    breaker = make(consecutive_failures=2)
    calls: list[int] = []

    async def fetch(number: int) -> int:
        calls.append(number)
        raise ConnectionError

    guarded = breaker(lambda number: fetch(number))
    for number in range(6):
        with pytest.raises((ConnectionError, CircuitOpen)):
            await guarded(number)
    assert calls == [0, 1]
    assert breaker.describe()["calls"] == 2


@pytest.mark.asyncio
async def test_trap_28_coroutine_of_a_plain_function_is_one_probe_to_its_end(make: Any, clock: Clock) -> None:
    """Its permit is taken with the call and given back when it was awaited."""
    breaker = make(probes=1)
    fail(breaker)
    clock.now += 10
    release = asyncio.Event()

    async def fetch() -> str:
        await release.wait()
        return "ok"

    waiting = asyncio.ensure_future(breaker(lambda: fetch())())
    await asyncio.sleep(0)
    assert not breaker.ready
    with pytest.raises(CircuitOpen):
        breaker(lambda: fetch())()
    release.set()
    assert await waiting == "ok"
    assert breaker.state is CLOSED

    async def broken() -> None:
        raise ConnectionError

    fail(breaker)
    clock.now += 10
    with pytest.raises(ConnectionError):
        await breaker(lambda: broken())()
    assert breaker.state is OPEN


@pytest.mark.asyncio
async def test_trap_29_refused_coroutine_object_is_closed(make: Any) -> None:
    """A breaker that opens between making and awaiting it leaves no "never awaited" warning."""
    breaker = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        waiting = breaker(lambda: asyncio.sleep(0))()
        fail(breaker)
        with pytest.raises(CircuitOpen):
            await waiting
        gc.collect()


def test_trap_30_decorated_functions_look_as_before(make: Any) -> None:
    """Signature and kind are the bare function's: frameworks ask for both."""

    def plain(a: int, *, b: str = "x") -> str:
        """Doc."""
        return b * a

    async def later(a: int) -> int:
        return a

    def items(a: int) -> Generator[int, None, None]:
        yield a

    async def items_later(a: int) -> AsyncGenerator[int, None]:
        yield a

    for function in (plain, later, items, items_later):
        guarded = make()(function)
        assert inspect.signature(guarded) == inspect.signature(function)
        assert (guarded.__name__, guarded.__doc__) == (function.__name__, function.__doc__)
        for kind in (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction):
            assert kind(guarded) == kind(function)


def test_trap_35_permit_of_a_forgotten_breaker_is_given_back_without_error(make: Any) -> None:
    """Whoever holds a permit may settle it whatever became of the breaker."""
    breaker = make()
    permit = breaker.acquire()
    del breaker
    gc.collect()
    permit.settle(Outcome.FAILURE, OSError())


def test_trap_35_calls_in_flight_at_a_reset_change_nothing_later(make: Any) -> None:
    """Their results belong to what was forgotten."""
    breaker = make(consecutive_failures=1)
    late = [breaker.acquire() for _ in range(3)]
    breaker.reset()
    for permit in late:
        permit.settle(Outcome.FAILURE, OSError())
    assert breaker.state is CLOSED
    assert breaker.describe()["calls"] == 0


def test_trap_19_refusal_by_a_clock_that_stepped_back_promises_no_longer_wait(
    make: Any, clock: Clock
) -> None:
    """No more than the opening was to last, never less than nothing, and nothing closes early."""
    breaker = make(open_for=5.0)
    fail(breaker)
    call = breaker(lambda: None)
    for now in (1_000.0, 10.0, -1e6, 1_004.0):
        clock.now = now
        with pytest.raises(CircuitOpen) as caught:
            call()
        assert 0 < caught.value.retry_after <= 5.5
    clock.now = 1_000.0 + 86_400
    assert call() is None


# ── half open ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.asyncio
async def test_trap_01_two_hundred_tasks_at_the_half_open_instant(make: Any, clock: Clock) -> None:
    """Exactly the allowed probes enter; the others are refused with a time."""
    breaker = make(probes=5, probe_concurrency=2)
    fail(breaker)
    clock.now += 10
    inside, release = 0, asyncio.Event()

    @breaker
    async def call() -> None:
        nonlocal inside
        inside += 1
        await release.wait()

    tasks = [asyncio.create_task(call()) for _ in range(200)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert inside == 2
    release.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [each for each in results if isinstance(each, CircuitOpen)]
    assert len(refused) == 198
    assert all(each.retry_after > 0 for each in refused)


def test_trap_02_fifty_threads_at_the_half_open_instant(make: Any, clock: Clock) -> None:
    """Exactly one probe enters."""
    breaker = make()
    fail(breaker)
    clock.now += 10
    entered, refused = [], threading.Semaphore(0)

    @breaker
    def call() -> str:
        entered.append(1)
        for _ in range(49):
            assert refused.acquire(timeout=3)
        return "ok"

    def attempt() -> str:
        try:
            return call()
        finally:
            refused.release()

    results = in_threads(50, attempt)
    assert results.count("ok") == len(entered) == 1
    assert sum(isinstance(each, CircuitOpen) for each in results) == 49


@pytest.mark.asyncio
async def test_trap_03_cancelled_probe_frees_its_slot(make: Any, clock: Clock) -> None:
    """At once, with nothing recorded, and the cancellation reaches the caller."""
    breaker = make(probes=1)
    fail(breaker)
    clock.now += 10

    @breaker
    async def hang() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await asyncio.sleep(0)
    assert not breaker.ready
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert breaker.state is HALF_OPEN
    assert breaker.ready


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("how", ["its task is cancelled before it begins", "it is forgotten"])
@pytest.mark.asyncio
async def test_trap_03_probe_that_nobody_awaits_frees_its_slot(how: str, make: Any, clock: Clock) -> None:
    """A plain function has been called, but what it returned is never awaited."""
    breaker = make(probes=1)
    fail(breaker)
    clock.now += 10
    waiting = breaker(lambda: asyncio.sleep(0))()
    assert not breaker.ready
    if how == "it is forgotten":
        del waiting
    else:
        task = asyncio.create_task(waiting)
        del waiting
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        await asyncio.sleep(0)  # the loop's own step that told of its end holds it
    assert breaker.state is HALF_OPEN
    assert breaker.ready


def test_trap_04_hung_probe_is_noticed_by_asking_alone(make: Any, clock: Clock) -> None:
    """A balancer that only ever asks `ready` must not leave the instance out for ever."""
    breaker = make(probes=1, probe_timeout=30.0)
    fail(breaker)
    clock.now += 10
    hung = breaker.acquire()
    assert not breaker.ready
    clock.now += 30
    assert not breaker.ready
    assert breaker.state is OPEN
    clock.now += 20
    assert breaker.ready
    hung.settle(Outcome.SUCCESS)
    assert breaker.state is HALF_OPEN


def test_trap_04_hung_probe_carries_its_own_context_no_longer_than_its_time(make: Any, clock: Clock) -> None:
    """A worker that lost its probe's permit would else call for ever, uncounted, while it is half open."""
    breaker = make(probes=1, probe_timeout=30.0)
    fail(breaker)
    clock.now += 10
    hung = breaker.acquire()
    clock.now += 29
    assert breaker(lambda: "rides")() == "rides"
    clock.now += 1
    with pytest.raises(CircuitOpen, match="gave no result within 30 s"):
        breaker(lambda: "rides")()
    clock.now += 20
    assert breaker(lambda: "probe")() == "probe"
    assert breaker.state is CLOSED
    hung.settle(Outcome.FAILURE, OSError())
    assert breaker.describe()["calls"] == 0


def test_permit_is_given_back_once(make: Any) -> None:
    """A second settle of one permit changes nothing."""
    breaker = make(consecutive_failures=2)
    permit = breaker.acquire()
    for _ in range(3):
        permit.settle(Outcome.FAILURE, OSError())
    assert breaker.state is CLOSED
    assert breaker.describe()["failures"] == 1


def test_trap_13_probe_that_calls_its_own_breaker(make: Any, clock: Clock) -> None:
    """Nested calls of the probe ride on it, also through another breaker's probe; then it closes."""
    breaker, other = make(probes=1), make("other", probes=1)
    fail(breaker)
    fail(other)
    clock.now += 10

    @breaker
    def sibling() -> str:
        return "sibling"

    @other
    def between() -> str:
        return sibling()

    @breaker
    def outer(depth: int) -> str:
        return outer(depth - 1) if depth else between() + sibling()

    assert outer(3) == "siblingsibling"
    assert breaker.state is CLOSED
    assert other.state is CLOSED


@pytest.mark.asyncio
async def test_trap_13_probe_whose_child_tasks_call_its_own_breaker(make: Any, clock: Clock) -> None:
    """Tasks begun by the probe ride on it; an unrelated task is refused meanwhile."""
    breaker = make(probes=1)
    fail(breaker)
    clock.now += 10
    begin = asyncio.Event()

    @breaker
    async def part() -> int:
        return 1

    @breaker
    async def outer() -> int:
        begin.set()
        return sum(await asyncio.gather(part(), part()))

    async def stranger() -> int:
        await begin.wait()
        return await part()

    task = asyncio.create_task(stranger())
    await asyncio.sleep(0)
    assert await outer() == 2
    assert breaker.state is CLOSED
    with pytest.raises(CircuitOpen):
        await task


def test_trap_13_own_refusal_further_in_is_no_failure_of_the_probe(make: Any, clock: Clock) -> None:
    """A thread that the probe begins has no part in its context: its refusal says nothing, to any classifier."""

    def all_errors(result: Any, error: BaseException | None) -> Outcome:
        return Outcome.FAILURE if error else Outcome.SUCCESS

    breaker = make(classify=all_errors, probes=1)
    fail(breaker)
    clock.now += 10
    part = breaker(lambda: "part")

    @breaker
    def outer(*, in_a_thread: bool) -> Any:
        [result] = in_threads(1, part) if in_a_thread else [part()]
        if isinstance(result, Exception):
            raise result
        return result

    with pytest.raises(CircuitOpen):
        outer(in_a_thread=True)
    assert breaker.state is HALF_OPEN
    assert outer(in_a_thread=False) == "part"
    assert breaker.state is CLOSED


def test_trap_13_the_ride_ends_with_the_probe(make: Any, clock: Clock) -> None:
    """Once the probe was given back, its context is admitted or refused as any other."""
    breaker = make(probes=2)
    fail(breaker)
    clock.now += 10
    breaker.acquire().settle(Outcome.SUCCESS)
    second = breaker.acquire()
    second.settle(Outcome.FAILURE, OSError())
    with pytest.raises(CircuitOpen):
        breaker.acquire()


def test_forgotten_breakers_are_not_kept_by_their_probes(make: Any, clock: Clock) -> None:
    """A settled permit left in a context keeps no breaker alive, so its name is free again."""
    breaker = make()
    fail(breaker)
    clock.now += 10
    breaker.acquire().settle(Outcome.SUCCESS)
    gone = weakref.ref(breaker)
    del breaker
    gc.collect()
    assert gone() is None


# ── threads and loops ────────────────────────────────────────────────────────────────────────


def test_trap_31_counts_are_exact_under_threads(make: Any) -> None:
    """8 threads x 250 failures: the 2000th opens, and none is lost."""
    breaker = make(consecutive_failures=2_000, minimum_calls=10_000)

    @breaker
    def call() -> None:
        raise OSError

    def many() -> None:
        for _ in range(250):
            with pytest.raises(OSError):
                call()

    results = in_threads(8, many)
    assert results == [None] * 8
    assert breaker.state is OPEN
    with pytest.raises(CircuitOpen):
        call()


def test_successes_are_exact_under_threads(make: Any) -> None:
    """The short way of a success loses no count either."""
    breaker = make()
    call = breaker(lambda: None)
    in_threads(8, lambda: [call() for _ in range(500)])
    assert breaker.describe()["calls"] == 4_000


def test_trap_32_calls_run_in_parallel(make: Any) -> None:
    """Four threads are inside at once: no lock is held across a call."""
    together = threading.Barrier(4)
    call = make()(lambda: together.wait(3))
    assert sorted(in_threads(4, call)) == [0, 1, 2, 3]


def test_trap_33_one_breaker_for_trio_asyncio_uvloop_two_loops_and_none(make: Any) -> None:
    """All share its counts."""
    breaker = make()

    @breaker
    async def call() -> str:
        return "ok"

    async def under_trio() -> str:
        await trio.sleep(0)
        return await call()

    def under_uvloop() -> str:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(call())

    assert trio.run(under_trio) == "ok"
    assert in_threads(2, lambda: asyncio.run(call())) == ["ok", "ok"]
    assert in_threads(2, under_uvloop) == ["ok", "ok"]
    assert breaker(lambda: "ok")() == "ok"
    assert breaker.describe()["calls"] == 6


def test_trap_38_last_failure_keeps_no_frame_alive(make: Any) -> None:
    """The error, its traceback and their locals go once the caller is done with them."""

    class Body:
        pass

    breaker, bodies = make(), []

    @breaker
    def call() -> None:
        body = Body()
        bodies.append(weakref.ref(body))
        raise ValueError("x" * 10_000)

    with pytest.raises(ValueError):
        call()
    gc.collect()
    assert bodies[0]() is None
    assert len(breaker.describe()["last_failure"]) == 200


def test_error_that_cannot_be_printed_is_still_a_failure(make: Any) -> None:
    """A broken __str__ costs the text, not the count; it may even ask the breaker."""
    breaker = make()

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError(breaker.state)

    @breaker
    def call() -> None:
        raise Broken

    with pytest.raises(Broken):
        call()
    assert breaker.describe()["last_failure"] == "Broken"


def test_permit_that_comes_back_during_a_collection_does_not_block(make: Any) -> None:
    """A forgotten stream in a reference cycle may be closed by the collector inside the lock."""
    breaker = make()

    @breaker
    def stream() -> Generator[int, None, None]:
        yield 1

    class Cycle:
        pass

    def clock_that_collects() -> float:
        with breaker._lock:  # as if the collection had begun inside
            gc.collect()
        return 1_000.0

    gc.disable()
    try:
        cycle: Any = Cycle()
        cycle.me, cycle.stream = cycle, stream()
        next(cycle.stream)
        del cycle
        thread = threading.Thread(target=clock_that_collects, daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
    finally:
        gc.enable()
    assert breaker.describe()["calls"] == 1


_FORKS_WHILE_LOCKED = """
import os, signal, threading, warnings
from chassis.breaker import CircuitBreaker, KeyedBreakers

breaker, family = CircuitBreaker("payments", consecutive_failures=2), KeyedBreakers("hosts")

@breaker
def call(bad):
    if bad:
        raise OSError

def attempt(bad):
    try:
        call(bad)
    except OSError:
        pass

attempt(True)
held, done = threading.Event(), threading.Event()

def hold():
    with breaker._lock, family._lock:
        held.set()
        done.wait(20)

threading.Thread(target=hold).start()
held.wait(20)
warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads
child = os.fork()
if child == 0:
    signal.alarm(5)  # or it would wait for ever
    family.of("a")
    attempt(True)  # the second in a row: what was counted before the fork goes on
    os._exit(0 if breaker.state.value == "open" else 1)
status = os.waitpid(child, 0)[1]
done.set()
raise SystemExit(os.waitstatus_to_exitcode(status) or breaker.state.value != "closed")
"""


def test_trap_39_child_forked_while_the_lock_was_held_goes_on() -> None:
    """It has locks of its own, starts from what was counted, and its state is its own."""
    command = [sys.executable, "-c", _FORKS_WHILE_LOCKED]
    assert subprocess.run(command, timeout=30, check=False).returncode == 0


# ── events ───────────────────────────────────────────────────────────────────────────────────


def test_transitions_are_events_in_order(make: Any, clock: Clock, bus: EventBus) -> None:
    """Opened, half open, closed; refusals only while somebody listens."""
    breaker = make(probes=1)
    fail(breaker)
    seen: list[Event] = []
    unsubscribe = bus.subscribe(seen.append)
    with pytest.raises(CircuitOpen):
        breaker.acquire()
    clock.now += 10
    breaker.acquire().settle(Outcome.SUCCESS)
    assert [each.name for each in seen] == [
        "breaker.opened",
        "breaker.rejected",
        "breaker.half_open",
        "breaker.closed",
    ]
    assert {each.subject for each in seen} == {"payments"}
    opened, rejected, half_open, closed = seen
    assert isinstance(opened, BreakerOpened)
    assert opened.level == "warning"
    details = opened.details()
    assert details.pop("open_for") == pytest.approx(5.0, rel=0.1)
    assert details == {
        "reason": "1 consecutive failures",
        "calls": 1,
        "failures": 1,
        "slow": 0,
        "last_failure": "ConnectionError: refused",
    }
    assert {each.at for each in seen[:2]} == {1_000.0}, "by the breaker's own clock"
    assert isinstance(rejected, BreakerRejected)
    assert not rejected.transition
    assert rejected.retry_after == pytest.approx(5.0, rel=0.1)
    assert isinstance(half_open, BreakerHalfOpen)
    assert isinstance(closed, BreakerClosed)
    assert closed.reason == "1 probes succeeded"
    unsubscribe()


def test_asking_tells_what_time_has_brought_about(make: Any, clock: Clock, bus: EventBus) -> None:
    """However it is asked, a transition that the question finds is told at once."""
    questions = [
        lambda breaker: breaker.state,
        lambda breaker: breaker.ready,
        lambda breaker: breaker.retry_after,
        lambda breaker: breaker.describe(),
    ]
    for ask in questions:
        breaker, seen = make(), []
        fail(breaker)
        clock.now += 10
        unsubscribe = bus.subscribe(seen.append)
        seen.clear()
        ask(breaker)
        unsubscribe()
        assert [event.name for event in seen] == ["breaker.half_open"]


def test_trap_18_listener_that_raises_or_asks(make: Any, clock: Clock, bus: EventBus) -> None:
    """The call is unaffected, nothing blocks, and the order of events holds."""
    breaker = make(probes=1)
    states = []

    def nosy(event: Event) -> None:
        states.append((event.name, breaker.state, breaker.ready, breaker.describe()["state"]))
        if event.name == "breaker.opened":
            clock.now += 10  # asking again makes it half open while the listener still runs
            states.append(("asked", breaker.state, breaker.ready, ""))
        raise RuntimeError("listener")

    bus.subscribe(nosy)
    fail(breaker)
    assert bus.listener_errors == 2
    assert states == [
        ("breaker.opened", OPEN, False, "open"),
        ("asked", HALF_OPEN, True, ""),
        ("breaker.half_open", HALF_OPEN, True, "half_open"),
    ]


def test_events_come_in_order_from_many_threads(make: Any, clock: Clock, bus: EventBus) -> None:
    """While one thread tells, what others bring about waits its turn."""
    breaker = make(probes=1)
    seen: list[str] = []
    told, go_on = threading.Event(), threading.Event()

    def slow(event: Event) -> None:
        seen.append(event.name)
        if len(seen) == 1:
            told.set()
            go_on.wait(10)

    bus.subscribe(slow)
    thread = threading.Thread(target=fail, args=(breaker,))
    thread.start()
    told.wait(10)
    clock.now += 10
    breaker.acquire().settle(Outcome.SUCCESS)
    assert seen == ["breaker.opened"]
    go_on.set()
    thread.join(10)
    assert seen == ["breaker.opened", "breaker.half_open", "breaker.closed"]


# ── being known ──────────────────────────────────────────────────────────────────────────────


def test_registers_by_name_and_frees_it(bus: EventBus) -> None:
    """It is `breaker:name` in the registry and in its events; the name is free once it is gone."""
    breaker = CircuitBreaker("registered", consecutive_failures=1, bus=bus)
    assert policies.get("breaker:registered") is breaker
    with pytest.raises(ConfigError, match="breaker:registered"):
        CircuitBreaker("registered")
    fail(breaker)
    seen: list[Event] = []
    bus.subscribe(seen.append)
    assert seen[0].subject == "breaker:registered"
    del breaker
    gc.collect()
    CircuitBreaker("registered")


def test_overrides_reach_it(bus: EventBus) -> None:
    """A setting that waits for its name is applied when it registers; `defaults` stay the code's."""
    from dataclasses import replace

    policies.override({"breaker:configured": lambda defaults: replace(defaults, probes=7)})
    try:
        breaker = CircuitBreaker("configured", failure_rate=0.25, bus=bus)
        assert breaker.options == BreakerOptions(failure_rate=0.25, probes=7)
        assert breaker.defaults == BreakerOptions(failure_rate=0.25)
    finally:
        policies.override({})
    assert breaker.options == breaker.defaults


def test_keywords_change_single_options(make: Any) -> None:
    """`options` gives all, keywords win; None means off where the field knows it."""
    breaker = make(options=BreakerOptions(window=7.0, probes=2), probes=4, consecutive_failures=None)
    assert breaker.options == BreakerOptions(window=7.0, probes=4, consecutive_failures=None)
    every = BreakerOptions(
        mode="metrics_only",
        failure_rate=0.9,
        slow_after=0.5,
        slow_rate=0.7,
        window=1.0,
        minimum_calls=2,
        consecutive_failures=3,
        open_for=4.0,
        open_for_max=5.0,
        retry_after_max=9.0,
        probes=6,
        probe_concurrency=5,
        probe_failures=2,
        probe_timeout=8.0,
    )
    from dataclasses import asdict

    assert make(**asdict(every)).options == every


def test_reconfigure_takes_effect_at_once(make: Any, clock: Clock) -> None:
    """A lower limit applies to the next failure; an ended round is told as an event."""
    breaker = make(consecutive_failures=10)
    fail(breaker, 2)
    breaker.reconfigure(BreakerOptions(consecutive_failures=3))
    fail(breaker)
    assert breaker.state is OPEN
    clock.now += 10
    breaker.acquire().settle(Outcome.SUCCESS)
    assert breaker.state is HALF_OPEN
    breaker.reconfigure(BreakerOptions(probes=1))
    assert breaker.state is CLOSED


def test_describe_tells_state_and_options_as_plain_values(make: Any, clock: Clock) -> None:
    """Everything a dashboard shows, without objects."""
    breaker = make(open_for=4.0)
    assert breaker.describe() == {
        "state": "closed",
        "ordered": None,
        "retry_after": 0.0,
        "calls": 0,
        "failures": 0,
        "slow": 0,
        "refused": 0,
        "last_failure": None,
        "options": {
            "mode": "automatic",
            "failure_rate": 0.5,
            "slow_after": None,
            "slow_rate": 0.5,
            "window": 30.0,
            "window_calls": None,
            "minimum_calls": 20,
            "consecutive_failures": 1,
            "open_for": 4.0,
            "open_for_max": 60.0,
            "retry_after_max": 300.0,
            "probes": 3,
            "probe_concurrency": 1,
            "probe_failures": 0,
            "probe_timeout": 30.0,
        },
    }
    fail(breaker)
    assert breaker.describe()["retry_after"] == pytest.approx(4.0, rel=0.1)
    clock.now += 5
    assert breaker.describe()["state"] == "half_open"
    assert breaker.retry_after == 0.0


def test_default_clock_is_real(bus: EventBus) -> None:
    """Without a clock of one's own the monotonic one is used."""
    breaker = CircuitBreaker("real", consecutive_failures=1, open_for=0.05, bus=bus, register=False)
    fail(breaker)
    assert not breaker.ready
    limit = time.monotonic() + 5
    while not breaker.ready and time.monotonic() < limit:
        time.sleep(0.005)
    assert breaker.state is HALF_OPEN
