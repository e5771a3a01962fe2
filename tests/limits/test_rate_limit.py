"""Rate limits: the pure machine, and threads, tasks, keys and deadlines around it."""

from __future__ import annotations

import asyncio
import gc
import inspect
import pickle
import random
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from chassis.core import (
    ConfigError,
    Deadline,
    Event,
    EventBus,
    Outcome,
    RateLimited,
    classify_error,
    deadline_scope,
    policies,
)
from chassis.limits import RateLimit, RateLimitOptions, RateLimitRejected, rate_limit
from chassis.limits._gcra import RateLimitMachine, Waiter


class ManualClock:
    """A clock that is set by hand."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


# ── the machine ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("now", [0.0, 1e6, 12345.678])
@pytest.mark.parametrize(("rate", "burst"), [(0.001, 1), (3.0, 7), (10_000.0, 1000)])
def test_machine_burst_is_exact(now: float, rate: float, burst: int) -> None:
    """At one instant exactly ``burst`` calls, then one more for each interval; never a hair early."""
    machine = RateLimitMachine(rate, burst, 10)
    assert [machine.take("k", now) for _ in range(burst + 2)] == [True] * burst + [False, False]
    for _ in range(3):
        wait = machine.retry_after("k", now)
        assert wait == pytest.approx(1 / rate, rel=1e-3)
        assert not machine.take("k", now + wait * 0.9)
        now += wait
        assert machine.take("k", now)
        assert not machine.take("k", now)


def test_machine_rest_fills_up_to_the_burst_and_no_further() -> None:
    """However long nobody called."""
    machine = RateLimitMachine(1.0, 3, 10)
    for now in (10.0, 1e6):
        assert [machine.take(None, now) for _ in range(4)] == [True, True, True, False]
    assert machine.available(None, 1e6) == 0
    assert machine.available(None, 1e6 + 2.5) == 2
    assert machine.available(None, 1e6 + 99) == 3


def test_trap_19_machine_whose_clock_steps_back_makes_nobody_wait_longer_than_a_burst() -> None:
    """What was taken is at most a burst, whatever the clock says."""
    machine = RateLimitMachine(1.0, 2, 10)
    assert machine.take(None, 86_400.0)
    assert not machine.take(None, 0.0)
    assert machine.retry_after(None, 0.0) == pytest.approx(1.0)
    assert machine.take(None, 1.0)


def test_machine_counts_each_key_apart_and_forgets_idle_ones() -> None:
    """A key that is as good as new takes no memory; one that is not outlives new ones up to the bound."""
    machine = RateLimitMachine(1.0, 1, 3)
    for key in "abc":
        assert machine.take(key, 0.0)
    assert not machine.take("a", 0.5)
    assert machine.take("d", 0.5)  # beyond the bound: a, not used for longest, goes
    assert machine.keys == 3
    assert not machine.take("b", 0.5)
    for number in range(100):
        assert machine.take(number, 2.0 + 2 * number)
    assert machine.keys == 1


@given(
    burst=st.integers(1, 4),
    steps=st.lists(st.tuples(st.integers(0, 12), st.sampled_from("ab"), st.booleans()), max_size=50),
)
def test_machine_agrees_with_a_leaking_bucket(burst: int, steps: list[tuple[int, str, bool]]) -> None:
    """The textbook's bucket, in exact fractions: it leaks evenly, and a call fits or not."""
    machine, quarter = RateLimitMachine(4.0, burst, 10), Fraction(1, 4)
    now, levels, seen = Fraction(0), dict.fromkeys("ab", Fraction(0)), dict.fromkeys("ab", Fraction(0))
    for wait, key, change in steps:
        now += wait * Fraction(1, 16)
        levels[key] = max(Fraction(0), levels[key] - (now - seen[key]) / quarter)
        seen[key] = now
        if change:
            burst = 1 + burst % 4
            assert machine.reconfigure(4.0, burst, 10, float(now)) == []
            for each in levels:
                levels[each] = max(Fraction(0), levels[each] - (now - seen[each]) / quarter)
                levels[each] = min(levels[each], Fraction(burst))
                seen[each] = now
            continue
        fits = levels[key] + 1 <= burst
        assert machine.available(key, float(now)) == burst - -(-levels[key] // 1)
        assert machine.take(key, float(now)) == fits
        levels[key] += fits


def line_up(machine: RateLimitMachine, now: float, limit: float = 1e9, key: str = "k") -> Waiter:
    waiter = Waiter(key, limit)
    machine.line_up(waiter)
    assert machine.serve(key, now) == []
    machine.sleep(waiter, now)
    return waiter


def test_machine_waiters_get_their_turns_in_order() -> None:
    """Nobody who comes later takes the turn of one who waits."""
    machine = RateLimitMachine(1.0, 1, 10)
    assert machine.take("k", 0.0)
    first, second = line_up(machine, 0.0), line_up(machine, 0.0)
    assert (first.until, second.until) == (1.0, 2.0)
    assert machine.retry_after("k", 0.0) == 3.0
    assert machine.waiting == 2
    assert not machine.take("k", 1.0)  # it belongs to the first
    assert machine.serve("k", 1.0) == [first]
    assert machine.serve("k", 1.9) == []
    assert machine.serve("k", 2.0) == [second]
    assert machine.waiting == 0


def test_machine_that_was_asked_late_admits_no_burst_it_does_not_allow() -> None:
    """After a stop of the event loop the turns that passed are not made up for at once."""
    machine = RateLimitMachine(1.0, 2, 10)
    assert machine.take("k", 0.0)
    assert machine.take("k", 0.0)
    waiters = [line_up(machine, 0.0) for _ in range(4)]
    assert machine.serve("k", 100.0) == waiters[:2]  # the others look by themselves
    assert [each.granted for each in waiters] == [True, True, False, False]
    assert machine.sleep(waiters[2], 100.0) == pytest.approx(1.0)


def test_trap_54_machine_moves_later_waiters_up() -> None:
    """Whoever leaves, waiting or just admitted: all behind it come one turn earlier, at once."""
    machine = RateLimitMachine(1.0, 1, 10)
    assert machine.take("k", 0.0)
    first, second, third = (line_up(machine, 0.0) for _ in range(3))
    assert machine.abandon(second, 0.1) == []  # the third becomes second, and need not know yet
    assert machine.abandon(second, 0.1) == []
    assert machine.retry_after("k", 0.1) == pytest.approx(2.9)
    assert machine.serve("k", 1.0) == [first, third]  # the third is to set its timer to 2, not 3
    assert not third.granted
    assert machine.sleep(third, 1.0) == pytest.approx(1.0)
    assert machine.abandon(first, 1.5) == [third]  # refunded: its turn comes at once
    assert third.granted
    assert machine.abandon(third, 1.5) == []
    assert machine.abandon(third, 1.5) == []  # refunded once
    assert machine.take("k", 1.5)
    assert not machine.take("k", 1.5)


def test_trap_54_machine_refunds_one_call_once() -> None:
    """However often its waiter is given up: by itself, and because its event loop was closed."""
    machine = RateLimitMachine(1.0, 3, 10)
    assert [machine.take("k", 0.0) for _ in range(3)] == [True] * 3
    waiter = line_up(machine, 0.0)
    assert machine.serve("k", 1.5) == [waiter]
    assert machine.retry_after("k", 1.5) == pytest.approx(0.5)
    for _ in range(2):
        assert machine.abandon(waiter, 1.5) == []
        assert not waiter.granted
        assert machine.available("k", 1.5) == 1


def test_machine_a_key_that_is_not_remembered_may_come_at_once() -> None:
    assert RateLimitMachine(1.0, 3, 10).retry_after("new", 5.0) == 0.0


def test_machine_wakes_who_sleeps_too_long_once() -> None:
    """It looks again by itself then, however often others are served meanwhile."""
    machine = RateLimitMachine(1.0, 1, 10)
    assert machine.take("k", 0.0)
    first, second = line_up(machine, 0.0), line_up(machine, 0.0)
    assert machine.abandon(first, 0.1) == [second]
    assert machine.serve("k", 0.2) == []
    assert machine.sleep(second, 0.2) == pytest.approx(0.8)


def test_machine_line_of_one_key_is_no_line_for_another() -> None:
    """Nor is its key forgotten for others' sake; a new rate serves the lines of all keys."""
    machine = RateLimitMachine(1.0, 1, 3)
    waiters = []
    for key in "ab":
        assert machine.take(key, 0.0)
        waiters.append(line_up(machine, 0.0, key=key))
    assert machine.available("a", 0.0) == 0
    for key in "cdef":
        assert machine.take(key, 0.1)
    assert machine.retry_after("a", 0.1) == pytest.approx(1.9)
    assert machine.reconfigure(1000.0, 5, 3, 0.1) == waiters
    assert all(each.granted for each in waiters)
    for key in "cdef":
        machine.take(key, 0.1)
    assert machine.reconfigure(1000.0, 5, 2, 0.1) == []
    assert machine.keys == 2
    assert machine.available("f", 0.1) < 5  # used last, so it stays


def test_machine_new_rate_moves_who_waits() -> None:
    """What was taken stays taken, in calls; what is slower than before waits longer."""
    machine = RateLimitMachine(1.0, 1, 10)
    assert machine.take("k", 0.0)
    first, second = line_up(machine, 0.0), line_up(machine, 0.0)
    assert machine.reconfigure(0.5, 1, 10, 0.5) == [first]
    assert machine.sleep(first, 0.5) == pytest.approx(1.0)  # half a call is left: one second of two
    assert machine.reconfigure(100.0, 3, 10, 0.5) == [first, second]
    assert first.granted
    assert second.granted
    assert machine.reconfigure(100.0, 3, 1, 500.0) == []
    assert machine.keys == 0


@given(
    st.lists(st.tuples(st.sampled_from(["come", "time", "leave", "regret"]), st.integers(0, 7)), max_size=60)
)
def test_machine_with_waiters_keeps_rate_and_order(steps: list[tuple[str, int]]) -> None:
    """Whatever comes and goes: those admitted never exceed burst and rate, turns go in order, and
    nobody sleeps beyond its turn: when each looks again at the time it was told, all are admitted.
    """
    machine, now, burst = RateLimitMachine(1.0, 2, 10), 0.0, 2
    waiting: list[Waiter] = []
    admitted: list[tuple[float, Waiter | None]] = []

    def note(woken: list[Waiter]) -> None:
        for each in woken:
            if each.granted:
                assert each is waiting.pop(0)
                admitted.append((now, each))
            else:
                assert each is waiting[0]
                machine.sleep(each, now)

    for step, number in steps:
        if step == "come":
            if machine.take("k", now):
                assert not waiting
                admitted.append((now, None))
            else:
                waiter = Waiter("k", 1e9)
                machine.line_up(waiter)
                waiting.append(waiter)
                note(machine.serve("k", now))
                machine.sleep(waiter, now)
        elif step == "time":
            now += number / 4
            for each in list(waiting):
                if each.until <= now and not each.granted:
                    note(machine.serve("k", now))
                    machine.sleep(each, now)
        elif step == "leave" and waiting:
            note(machine.abandon(waiting.pop(number % len(waiting)), now))
        elif step == "regret" and admitted and admitted[-1][0] == now and admitted[-1][1] is not None:
            _, waiter = admitted.pop()
            assert waiter is not None
            note(machine.abandon(waiter, now))
        assert machine.waiting == len(waiting)
        for begin in range(len(admitted)):
            for end in range(begin, len(admitted)):
                assert end - begin + 1 <= burst + (admitted[end][0] - admitted[begin][0]) + 1e-6
    for _ in range(200):
        if not waiting:
            break
        now = max(now, min(each.until for each in waiting))
        for each in list(waiting):
            if each.until <= now and not each.granted:
                note(machine.serve("k", now))
                machine.sleep(each, now)
    assert not waiting


# ── admission ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def make() -> Callable[..., RateLimit]:
    def make(name: str = "search", **options: Any) -> RateLimit:
        return RateLimit(name, **{"register": False, "bus": EventBus(), **options})

    return make


async def until_async(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit, "it never came about"
        await asyncio.sleep(0)


def test_refuses_at_once_and_says_when_to_come_back(make: Any) -> None:
    """Every way of asking; who comes back then is admitted. What fails has been made all the same."""
    clock = ManualClock()
    limit = make(rate=2, per=10, clock=clock)

    @limit
    def call() -> None:
        raise LookupError

    for _ in range(2):
        with pytest.raises(LookupError):
            call()
    for refused in (limit.acquire, limit.acquire_sync, call, lambda: limit.run_sync(int)):
        with pytest.raises(RateLimited) as caught:
            refused()
        assert (caught.value.name, caught.value.retry_after) == ("search", pytest.approx(5.0))
    assert "5 s" in str(caught.value)
    assert limit.describe() == {
        "available": 0,
        "waiting": 0,
        "refused": 4,
        "options": {"rate": 2, "per": 10, "burst": None, "wait": 0.0, "max_keys": 10_000},
    }
    clock.now += caught.value.retry_after
    permit = limit.acquire()
    permit.settle(Outcome.SUCCESS)
    with pytest.raises(RateLimited):
        limit.acquire()


def test_trap_15_rate_limit_is_no_failure_of_what_it_guards() -> None:
    """A breaker around it does not count its refusals."""
    assert classify_error(None, RateLimited("search")) is Outcome.IGNORED


@pytest.mark.asyncio
async def test_guards_every_kind_of_function(make: Any) -> None:
    """One call each, however much a stream gives; the signature stays."""
    limit = make(rate=5, per=1000)

    @limit
    def plain(value: int) -> int:
        return value

    @limit
    async def coroutine(value: int) -> int:
        return value

    @limit
    def generator(value: int) -> Generator[int, None, None]:
        yield from range(value)

    @limit
    async def async_generator(value: int) -> AsyncGenerator[int, None]:
        for each in range(value):
            yield each

    awaitable = limit(lambda value: coroutine.__wrapped__(value))
    assert plain(3) == 3
    assert await coroutine(3) == 3
    assert list(generator(3)) == [0, 1, 2]
    assert [each async for each in async_generator(3)] == [0, 1, 2]
    assert await awaitable(3) == 3
    assert limit.describe()["available"] == 0
    assert inspect.iscoroutinefunction(coroutine)
    for refused in (plain, lambda value: list(generator(value)), awaitable):
        with pytest.raises(RateLimited):
            refused(1)
    for refused_async in (coroutine(1), anext(async_generator(1)), limit.run(lambda: coroutine(1))):
        with pytest.raises(RateLimited):
            await refused_async


@pytest.mark.asyncio
async def test_key_function_counts_callers_apart(make: Any) -> None:
    """From the arguments of the decorated function, whatever its kind; or of a key that is named."""
    limit = make(rate=1, per=1000, key=lambda user, *_, **__: user)
    calls: list[str] = []

    @limit
    def plain(user: str) -> None:
        calls.append(user)

    @limit
    async def coroutine(user: str) -> None:
        calls.append(user)

    @limit
    def generator(user: str) -> Generator[int, None, None]:
        calls.append(user)
        yield 1

    @limit
    async def async_generator(user: str) -> AsyncGenerator[int, None]:
        calls.append(user)
        yield 1

    plain("a")
    await coroutine("b")
    assert list(generator("c")) == [1]
    assert [each async for each in async_generator("d")] == [1]
    assert calls == ["a", "b", "c", "d"]
    for user in "abcd":
        with pytest.raises(RateLimited):
            plain(user)
        with pytest.raises(RateLimited):
            await coroutine(user)
        with pytest.raises(RateLimited):
            next(generator(user))
        with pytest.raises(RateLimited):
            await anext(async_generator(user))
    assert calls == ["a", "b", "c", "d"]
    limit.of("e").acquire()
    for refused in (limit.of("e").acquire, limit.of("e").acquire_sync):
        with pytest.raises(RateLimited):
            refused()
    with pytest.raises(RateLimited):
        await limit.of("e").acquire_async()
    assert limit.describe()["keys"] == 5


def test_key_function_without_arguments_serves_run_and_acquire(make: Any) -> None:
    """A key that is read from the context needs no argument."""
    tenant = ["a"]
    limit = make(rate=1, per=1000, key=lambda: tenant[0])
    assert limit.run_sync(lambda: 1) == 1
    with pytest.raises(RateLimited):
        limit.acquire()
    tenant[0] = "b"
    limit.acquire()


# ── waiting ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.asyncio
async def test_tasks_wait_for_their_turn_in_order(make: Any) -> None:
    """As many as may, at the rate; who could not be admitted in time is refused at once."""
    limit, order = make(rate=200, burst=1, wait=0.0475), []

    @limit
    async def call(number: int) -> None:
        order.append(number)

    began = time.monotonic()
    ended = await asyncio.gather(*(call(number) for number in range(15)), return_exceptions=True)
    took = time.monotonic() - began
    assert order == list(range(len(order)))
    assert 2 <= len(order) <= 10
    assert took >= (len(order) - 1) / 200 - 0.001
    refused = [each for each in ended if each is not None]
    assert len(refused) == 15 - len(order)
    assert all(isinstance(each, RateLimited) and each.retry_after is not None for each in refused)
    assert limit.describe()["waiting"] == 0


@pytest.mark.asyncio
async def test_wait_is_bounded_by_the_callers_deadline(make: Any) -> None:
    """A turn that comes after it is not waited for, in tasks and threads; past ones never are."""
    limit = make(rate=1, per=5, wait=60)
    limit.acquire()
    began = time.monotonic()
    for left in (2.0, -1.0):
        with deadline_scope(Deadline.after(left)):
            with pytest.raises(RateLimited) as caught:
                await limit.acquire_async()
            with pytest.raises(RateLimited):
                limit.acquire_sync()
        assert caught.value.retry_after == pytest.approx(5, abs=1)
    assert time.monotonic() - began < 2
    assert limit.describe()["waiting"] == 0


@pytest.mark.asyncio
async def test_trap_54_cancelled_waiter_gives_its_turn_to_those_behind_it(make: Any) -> None:
    """Real move-up: who waits behind is admitted at the turn of the one that left, not at its own."""
    clock = ManualClock()
    limit = make(rate=1, per=10, wait=100, clock=clock)
    limit.acquire()
    order: list[str] = []

    async def call(name: str) -> None:
        await limit.acquire_async()
        order.append(name)

    tasks = {name: asyncio.create_task(call(name)) for name in "abc"}
    await until_async(lambda: limit.describe()["waiting"] == 3)
    tasks["a"].cancel()
    await until_async(lambda: limit.describe()["waiting"] == 2)
    clock.now += 10
    limit.reconfigure(limit.options)  # looks who is next, as the first one's own timer would
    await until_async(lambda: order == ["b"])
    clock.now += 10
    limit.reconfigure(limit.options)
    await until_async(lambda: order == ["b", "c"])
    with pytest.raises(asyncio.CancelledError):
        await tasks["a"]


@pytest.mark.asyncio
async def test_trap_54_waiters_that_moved_up_are_woken_at_their_new_turn(make: Any) -> None:
    """With real time: the one behind a cancelled one does not sleep out its old turn."""
    limit = make(rate=1, per=0.2, wait=60)
    limit.acquire()
    tasks = [asyncio.create_task(limit.acquire_async()) for _ in range(50)]
    await until_async(lambda: limit.describe()["waiting"] == 50)
    began = time.monotonic()
    for each in tasks[:-1]:
        each.cancel()
    await tasks[-1]
    assert time.monotonic() - began < 2  # its old turn came after ten seconds
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.asyncio
async def test_trap_54_grant_and_cancellation_in_the_same_tick(make: Any) -> None:
    """A thousand times: a turn given to one that has just been cancelled is refunded, none is given twice."""
    clock, dice = ManualClock(), random.Random(54)
    limit = make(rate=1, wait=100, clock=clock)
    limit.acquire()
    admitted = 1
    for turn in range(1, 1001):
        tasks = [asyncio.ensure_future(limit.acquire_async()) for _ in range(2)]
        await asyncio.sleep(0)

        def grant() -> None:
            clock.now += 1.0
            limit.reconfigure(limit.options)

        acts = [grant, tasks[0].cancel]
        dice.shuffle(acts)
        for act in acts:
            act()
            if dice.random() < 0.3:
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks[1].cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        admitted += sum(not isinstance(each, BaseException) for each in ended)
        assert limit.describe()["waiting"] == 0
        if limit.describe()["available"]:
            limit.acquire()
            admitted += 1
        assert admitted == turn + 1


def test_trap_54_under_trio(make: Any) -> None:
    """Cancelled by its scope, a waiter leaves the line, and the next is admitted at its turn."""
    limit = make(rate=1, per=0.15, wait=60)
    limit.acquire()
    order: list[int] = []

    async def call(number: int, scope: trio.CancelScope) -> None:
        with scope:
            await limit.acquire_async()
            order.append(number)

    async def main() -> None:
        scopes = [trio.CancelScope() for _ in range(20)]
        async with trio.open_nursery() as nursery:
            for number, scope in enumerate(scopes):
                nursery.start_soon(call, number, scope)
                await trio.testing.wait_all_tasks_blocked()
            for scope in scopes[1:-1]:
                scope.cancel()
            with trio.fail_after(10):
                while len(order) < 2:
                    await trio.sleep(0.001)

    began = time.monotonic()
    trio.run(main)
    assert time.monotonic() - began < 2  # its old turn came after three seconds
    assert order[-1] == 19
    assert limit.describe()["waiting"] == 0


@pytest.mark.asyncio
async def test_reconfigure_moves_who_waits_and_keeps_what_was_taken(make: Any) -> None:
    """A higher rate lets them in at once; the options of code stay known."""
    limit = make(rate=1, per=1000, wait=2000)
    limit.acquire()
    waiting = asyncio.create_task(limit.acquire_async())
    await until_async(lambda: limit.describe()["waiting"] == 1)
    limit.reconfigure(RateLimitOptions(rate=1000, burst=1, wait=1))
    await asyncio.wait_for(waiting, 5)
    assert limit.options == RateLimitOptions(rate=1000, burst=1, wait=1)
    assert limit.defaults == RateLimitOptions(rate=1, per=1000, wait=2000)


@pytest.mark.asyncio
async def test_waiter_whose_turn_was_moved_beyond_its_wait_is_refused_then(make: Any) -> None:
    """A lower rate may do that; it does not wait any longer than it was to."""
    limit = make(rate=1, per=0.3, wait=0.4)
    limit.acquire()
    waiting = asyncio.create_task(limit.acquire_async())
    await until_async(lambda: limit.describe()["waiting"] == 1)
    limit.reconfigure(RateLimitOptions(rate=1, per=1000, wait=0.4))
    began = time.monotonic()
    with pytest.raises(RateLimited):
        await waiting
    assert time.monotonic() - began < 5
    assert limit.describe()["waiting"] == 0


def test_turn_of_a_waiter_whose_loop_is_gone_goes_on(make: Any) -> None:
    """A loop closed under its tasks keeps no turn."""
    clock = ManualClock()
    limit = make(rate=1, wait=60, clock=clock)
    limit.acquire()
    loop = asyncio.new_event_loop()
    task = loop.create_task(limit.acquire_async())
    loop.run_until_complete(asyncio.sleep(0))
    assert limit.describe()["waiting"] == 1
    loop.close()
    clock.now += 1
    limit.reconfigure(limit.options)
    assert limit.describe()["waiting"] == 0
    limit.acquire()
    coroutine = task.get_coro()
    assert coroutine is not None
    coroutine.close()
    task._log_destroy_pending = False  # that loop was never to finish it
    del task, coroutine
    gc.collect()


def test_trap_33_threads_asyncio_and_trio_share_one_rate(make: Any) -> None:
    """Three kinds of callers in line: all are admitted, none twice, and not faster than the rate."""
    limit, made = make(rate=1000, burst=5, wait=30), []

    async def under_asyncio() -> None:
        await asyncio.gather(*(guarded_async() for _ in range(40)))

    async def under_trio() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(guarded_async)

    @limit
    async def guarded_async() -> None:
        made.append(time.monotonic())

    @limit
    def guarded() -> None:
        made.append(time.monotonic())

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        began = time.monotonic()
        with ThreadPoolExecutor(6) as pool:
            jobs = [pool.submit(asyncio.run, under_asyncio()), pool.submit(trio.run, under_trio)]
            jobs += [pool.submit(guarded) for _ in range(40)]
            for each in jobs:
                each.result(60)
        took = time.monotonic() - began
    finally:
        sys.setswitchinterval(before)
    assert len(made) == 120
    assert took >= 115 / 1000 - 0.001
    assert limit.describe()["waiting"] == 0


def test_threads_take_no_more_than_there_is(make: Any) -> None:
    """Eight at once with a tiny switch interval: exactly the burst."""
    limit, admitted, count = make(rate=500, per=10_000), [], threading.Barrier(8)
    before = sys.getswitchinterval()

    def take() -> None:
        count.wait()
        for _ in range(200):
            try:
                limit.acquire_sync()
            except RateLimited:
                continue
            admitted.append(1)

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=take) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(30)
    finally:
        sys.setswitchinterval(before)
    assert len(admitted) == 500
    assert limit.describe()["refused"] == 1100


# ── told to HTTP clients ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ({"rate": 100, "per": 60}, "q=100;w=60"),
        ({"rate": 100, "per": 60, "burst": 10}, "q=100;w=60"),
        ({"rate": 1, "per": 10}, "q=1;w=10"),
        ({"rate": 10, "burst": 50}, "q=50;w=5"),  # never fewer than may come at once
        ({"rate": 50, "per": 0.5}, "q=100;w=1"),  # a window has no fractions
        ({"rate": 10, "per": 1.5}, "q=13;w=2"),
        ({"rate": 3, "per": 0.3}, "q=10;w=1"),
        ({"rate": 1, "per": 1e9, "burst": 10**12}, "q=1000000;w=999999999999999"),  # fifteen digits at most
    ],
)
def test_policy_field_tells_the_rate_in_whole_seconds(make: Any, options: Any, policy: str) -> None:
    """`rate` and `per` where they can be told, else the same rate in the next whole window."""
    assert make(**options).headers()["RateLimit-Policy"] == f'"search";{policy}'


def test_what_is_left_is_told_with_the_seconds_it_should_last(make: Any) -> None:
    """Never more in the time than the rate; none left: until the next one."""
    clock = ManualClock()
    limit = make(rate=10, per=60, clock=clock, key=lambda *_: "ann")
    left = []
    for _ in range(10):
        left.append(limit.headers("ann")["RateLimit"])
        limit.acquire()
    assert left[0] == '"search";r=10;t=60'
    assert left[1] == '"search";r=9;t=54'
    assert left[9] == '"search";r=1;t=6'
    assert limit.headers("ann")["RateLimit"] == '"search";r=0;t=6'
    clock.now += 4.5
    assert limit.headers("ann")["RateLimit"] == '"search";r=0;t=2'
    assert limit.headers("bob")["RateLimit"] == '"search";r=10;t=60'  # and asking took nothing
    limit.reconfigure(RateLimitOptions(rate=20, per=60))
    assert limit.headers("bob")["RateLimit-Policy"] == '"search";q=20;w=60'


@given(
    rate=st.integers(1, 50),
    per=st.sampled_from([0.25, 1.0, 7.0, 60.0]),
    burst=st.integers(1, 80),
    taken=st.integers(0, 200),
    rest=st.floats(0, 100),
)
def test_who_heeds_what_is_told_is_not_refused(
    rate: int, per: float, burst: int, taken: int, rest: float
) -> None:
    """All that is left at once, then wait for the end of the time told, and ask again: three times."""
    clock = ManualClock()
    limit = RateLimit("told", rate=rate, per=per, burst=burst, clock=clock, register=False)
    for _ in range(min(taken, burst)):
        limit.acquire()
    clock.now += rest
    for _ in range(3):
        told = {part[0]: int(part[2:]) for part in limit.headers()["RateLimit"].split(";")[1:]}
        quota = int(limit.headers()["RateLimit-Policy"].split(";")[1][2:])
        assert 0 <= told["r"] <= min(burst, quota)
        assert told["r"] <= told["t"] * rate / per + 1e-6
        for _ in range(told["r"]):
            limit.acquire()
        clock.now += told["t"]
    limit.acquire()


def test_a_refusal_knows_the_quota_and_a_name_of_any_kind_can_be_told(make: Any) -> None:
    """A String of RFC 9651 has printable ASCII only; whatever else is in the name cannot end the field."""
    limit = make('a"b\\c\r\nX: ü', rate=1, per=30, clock=ManualClock())
    limit.acquire()
    with pytest.raises(RateLimited) as caught:
        limit.acquire()
    assert (caught.value.quota, caught.value.window) == (1, 30)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.name, again.quota, again.retry_after) == (limit.name, 1, caught.value.retry_after)
    name = r'"a\"b\\c%0D%0AX: %C3%BC"'
    assert limit.headers() == {"RateLimit-Policy": f"{name};q=1;w=30", "RateLimit": f"{name};r=0;t=30"}


def test_trap_39_forked_child_has_no_waiters_and_owes_what_was_taken(make: Any) -> None:
    """Waiters of the parent do not exist in the child."""
    limit = make(rate=1, per=1000, wait=0)
    limit.acquire()
    limit._machine.line_up(Waiter(None, 1e9))
    limit.after_fork_in_child()
    assert limit.describe()["waiting"] == 0
    with pytest.raises(RateLimited):
        limit.acquire()


# ── being known ──────────────────────────────────────────────────────────────────────────────


def test_registers_by_name_and_tells_refusals() -> None:
    """It is `rate_limit:name` in the registry and in its events; a second of the name is refused."""
    bus, seen, clock = EventBus(), list[Event](), ManualClock()
    limit = rate_limit("registered", options=RateLimitOptions(rate=1), bus=bus, clock=clock)
    assert policies.get("rate_limit:registered") is limit
    with pytest.raises(ConfigError):
        rate_limit("registered", rate=1)
    limit.acquire()
    with pytest.raises(RateLimited):
        limit.acquire()
    bus.subscribe(seen.append)
    assert seen == []
    with pytest.raises(RateLimited):
        limit.acquire()
    [event] = seen
    assert isinstance(event, RateLimitRejected)
    assert (event.name, event.subject) == ("rate_limit.rejected", "rate_limit:registered")
    assert event.retry_after == pytest.approx(1.0)
    assert not event.transition


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rate", 0),
        ("rate", True),
        ("rate", 0.5),
        ("rate", float("nan")),
        ("per", 0),
        ("per", float("inf")),
        ("per", float("nan")),
        ("burst", 0),
        ("burst", True),
        ("wait", -1),
        ("wait", True),
        ("max_keys", 0),
        ("rate", 10**400),
        ("rate", 2 * 10**9),  # a second: that limits nothing
        ("burst", 10**13),
        ("burst", 10**400),
        ("per", 1e-310),
    ],
)
def test_trap_60_impossible_options_are_refused(field: str, value: Any) -> None:
    """At construction, naming the field and the value."""
    with pytest.raises(ConfigError) as caught:
        RateLimitOptions(**{"rate": 1, field: value})
    assert caught.value.setting == field
    assert repr(value) in str(caught.value)


def test_trap_60_rate_must_be_given() -> None:
    """There is no rate that suits all; the error says how to write one."""
    with pytest.raises(ConfigError, match="rate=100, per=60") as caught:
        RateLimit("none")
    assert caught.value.setting == "rate"
