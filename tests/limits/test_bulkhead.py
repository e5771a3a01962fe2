"""Bulkheads: the pure machine, and threads, tasks and deadlines around it."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from chassis.core.deadline import Deadline, deadline_scope
from chassis.core.errors import BulkheadFull, ConfigError
from chassis.core.events import Event, EventBus
from chassis.core.outcomes import Outcome
from chassis.core.pipeline import Pipeline, PipelineWarning
from chassis.core.registry import policies
from chassis.limits import Bulkhead, BulkheadOptions, BulkheadRejected, bulkhead
from chassis.limits._machine import BulkheadMachine, Waiter
from chassis.retries import Hedge
from tests.support.waiting import wait_until

# ── the machine ──────────────────────────────────────────────────────────────────────────────


def waiter() -> Waiter:
    return Waiter(lambda: None)


def still() -> float:
    """A clock that stands."""
    return 0.0


def test_machine_has_as_many_places_as_its_limit() -> None:
    """Not one more; one that is given back is free again."""
    machine = BulkheadMachine(2, 0)
    assert [machine.enter(still) for _ in range(3)] == [True, True, False]
    assert machine.in_flight == 2
    assert machine.leave(still) == []
    assert machine.in_flight == 1
    assert machine.enter(still)
    late = waiter()
    assert machine.line_up(late) is late


def test_machine_hands_places_on_first_come_first_served() -> None:
    """A place given back belongs to the first waiter at once: nobody can take it in between."""
    machine = BulkheadMachine(1, 2)
    assert machine.enter(still)
    first, second, third = waiter(), waiter(), waiter()
    assert machine.line_up(first) is None
    assert machine.line_up(second) is None
    assert machine.waiting == 2
    assert machine.line_up(third) is third
    assert machine.leave(still) == [first]
    assert (first.granted, second.granted) == (True, False)
    assert machine.in_flight == 1
    assert not machine.enter(still)
    assert machine.attention  # what is given back belongs to the second
    assert machine.leave(still) == [second]
    assert machine.waiting == 0
    assert not machine.attention  # calls need the lock no longer


def test_machine_waiter_that_leaves() -> None:
    """Before its turn it leaves the queue; after, its place goes on to the next, once."""
    machine = BulkheadMachine(1, 3)
    machine.enter(still)
    first, second, third = waiter(), waiter(), waiter()
    for each in (first, second, third):
        machine.line_up(each)
    assert machine.abandon(second, still) == []
    assert machine.waiting == 2
    assert machine.leave(still) == [first]
    assert machine.abandon(first, still) == [third]
    assert machine.abandon(first, still) == []
    assert machine.abandon(second, still) == []
    assert machine.in_flight == 1
    assert machine.leave(still) == []
    assert machine.in_flight == 0


def test_machine_resize() -> None:
    """More places let waiters in, in order; fewer put nobody out."""
    machine = BulkheadMachine(1, 3)
    machine.enter(still)
    waiters = [waiter() for _ in range(3)]
    for each in waiters:
        machine.line_up(each)
    assert machine.resize(3, 1, lifo=False, clock=still) == waiters[:2]
    assert machine.in_flight == 3
    late = waiter()
    assert machine.line_up(late) is late
    assert machine.resize(1, 2, lifo=False, clock=still) == []
    assert machine.leave(still) == []
    assert machine.leave(still) == []
    assert machine.leave(still) == [waiters[2]]
    assert machine.in_flight == 1
    assert (machine.limit, machine.queue) == (1, 2)


def test_machine_that_shrinks_twice_waits_for_all_above_its_limit() -> None:
    """Whatever is still out of the first time counts in the second, and if it grows again."""
    machine = BulkheadMachine(5, 0)
    for _ in range(5):
        assert machine.enter(still)
    machine.resize(3, 0, lifo=False, clock=still)
    machine.resize(2, 0, lifo=False, clock=still)
    for left in (4, 3, 2):
        machine.leave(still)
        assert (machine.in_flight, machine.enter(still)) == (left, False)
    machine.leave(still)
    machine.resize(3, 0, lifo=False, clock=still)
    assert [machine.enter(still) for _ in range(3)] == [True, True, False]


def test_machine_last_come_first_served() -> None:
    """Under ``lifo`` the newest is next, and a full queue gives up its oldest."""
    machine = BulkheadMachine(1, 2, lifo=True)
    machine.enter(still)
    first, second, third = waiter(), waiter(), waiter()
    assert machine.line_up(first) is None
    assert machine.line_up(second) is None
    assert machine.line_up(third) is first
    assert machine.leave(still) == [third]
    assert machine.leave(still) == [second]
    assert machine.resize(1, 0, lifo=True, clock=still) == []
    assert machine.line_up(first) is first


def test_machine_knows_how_fast_places_come_free() -> None:
    """Nothing measured: as long again as it has been full. Then the usual gap, times who waits already."""
    now = [100.0]

    def clock() -> float:
        return now[0]

    machine = BulkheadMachine(2, 5)
    assert machine.retry_after(100.0) == 0.0
    machine.enter(clock)
    machine.enter(clock)
    assert machine.retry_after(103.0) == 3.0
    assert machine.retry_after(97.0) == 0.0
    for gap in (2.0, 2.0, 10.0):
        now[0] += gap
        machine.leave(clock)
        now[0] += 50  # while a place is free nothing is measured
        machine.enter(clock)
    assert machine.retry_after(now[0]) == pytest.approx(3.0)  # 2 + (10 - 2) / 8
    machine.line_up(waiter())
    assert machine.retry_after(now[0]) == pytest.approx(6.0)
    machine.resize(2, 5, lifo=False, clock=clock)
    assert machine.retry_after(now[0] + 1) == pytest.approx(2.0)


@given(
    st.booleans(),
    st.lists(
        st.tuples(st.sampled_from(["come", "leave", "give up", "resize"]), st.integers(0, 9)), max_size=60
    ),
)
def test_machine_agrees_with_two_lists(lifo: bool, steps: list[tuple[str, int]]) -> None:
    """Who is in, and who waits in which order, as a list each."""
    machine, limit, queue = BulkheadMachine(2, 2, lifo=lifo), 2, 2
    inside: list[Waiter] = []
    waiting: list[Waiter] = []

    def move() -> list[Waiter]:
        moved = []
        while waiting and len(inside) < limit:
            moved.append(waiting.pop(-1 if lifo else 0))
            inside.append(moved[-1])
        return moved

    for step, number in steps:
        if step == "come":
            new = waiter()
            if machine.enter(still):
                assert len(inside) < limit
                inside.append(new)
                continue
            assert len(inside) >= limit
            gone = machine.line_up(new)
            if len(waiting) < queue:
                assert gone is None
                waiting.append(new)
            elif lifo and waiting:
                assert gone is waiting.pop(0)
                waiting.append(new)
            else:
                assert gone is new
        elif step == "leave" and inside:
            inside.pop(number % len(inside))
            assert machine.leave(still) == move()
        elif step == "give up" and waiting:
            assert machine.abandon(waiting.pop(number % len(waiting)), still) == []
        elif step == "resize":
            limit, queue = 1 + number % 4, number % 3
            assert machine.resize(limit, queue, lifo=lifo, clock=still) == move()
        assert (machine.in_flight, machine.waiting) == (len(inside), len(waiting))


# ── admission ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def make() -> Callable[..., Bulkhead]:
    def make(name: str = "payments", **options: Any) -> Bulkhead:
        return Bulkhead(name, **{"register": False, "bus": EventBus(), **options})

    return make


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit, "it never came about"
        time.sleep(0.001)


async def until_async(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit, "it never came about"
        await asyncio.sleep(0)


@contextmanager
def switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_refuses_at_once_without_a_queue(make: Any) -> None:
    """The error says who, how many, and when to come back: as long again as it has been full."""
    now = [0.0]
    gate = make(limit=2, clock=lambda: now[0])
    permits = [gate.acquire(), gate.acquire_sync()]
    now[0] = 0.25
    for acquire in (gate.acquire, gate.acquire_sync, gate(lambda: None)):
        with pytest.raises(BulkheadFull) as caught:
            acquire()
        assert (caught.value.name, caught.value.limit, caught.value.retry_after) == ("payments", 2, 0.25)
    assert gate.describe()["refused"] == 3
    for each in permits:
        each.settle(Outcome.SUCCESS)
        each.settle(Outcome.SUCCESS)
    assert gate.describe()["in_flight"] == 0


def test_every_way_out_gives_the_place_back(make: Any) -> None:
    """Results, errors and BaseExceptions alike."""
    gate = make(limit=1)

    @gate
    def call(error: BaseException | None) -> int:
        assert gate.describe()["in_flight"] == 1
        if error:
            raise error
        return 1

    assert call(None) == 1
    for error in (ValueError(), KeyboardInterrupt(), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            call(error)
    assert gate.describe()["in_flight"] == 0


@pytest.mark.asyncio
async def test_streams_hold_their_place_to_the_end(make: Any) -> None:
    """Until they are exhausted or closed."""
    gate = make(limit=1)

    @gate
    async def stream() -> AsyncGenerator[int, None]:
        yield 1
        yield 2

    running = stream()
    await anext(running)
    with pytest.raises(BulkheadFull):
        await anext(stream())
    await running.aclose()
    assert [each async for each in stream()] == [1, 2]


@pytest.mark.asyncio
async def test_tasks_wait_in_the_order_they_came(make: Any) -> None:
    """And never are more inside than may be."""
    gate, inside, most, order = make(limit=2, queue=20, wait=10), 0, 0, []

    @gate
    async def call(number: int) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        order.append(number)
        await asyncio.sleep(0)
        inside -= 1

    await asyncio.gather(*(call(number) for number in range(20)))
    assert order == list(range(20))
    assert most == 2


@pytest.mark.asyncio
async def test_last_come_first_served(make: Any) -> None:
    """Under ``lifo`` the newest caller gets the place; the oldest of a full queue is refused at once."""
    gate, order = make(limit=1, queue=2, wait=30, order="lifo"), []
    permit = gate.acquire()

    async def call(number: int) -> None:
        try:
            place = await gate.acquire_async()
        except BulkheadFull:
            order.append(-number)
        else:
            order.append(number)
            place.settle(Outcome.SUCCESS)

    tasks = []
    for number in (1, 2, 3):
        tasks.append(asyncio.create_task(call(number)))
        await asyncio.sleep(0)
    await until_async(lambda: order == [-1])
    permit.settle(Outcome.SUCCESS)
    await asyncio.gather(*tasks)
    assert order == [-1, 3, 2]
    gate.reconfigure(BulkheadOptions(limit=1, queue=1, wait=30))
    permit = gate.acquire()
    tasks = [asyncio.create_task(call(number)) for number in (4, 5)]
    await until_async(lambda: order[3:] == [-5])
    permit.settle(Outcome.SUCCESS)
    await asyncio.gather(*tasks)


@pytest.mark.asyncio
async def test_queue_is_bounded(make: Any) -> None:
    """Who finds it full is refused at once."""
    gate = make(limit=1, queue=1, wait=10)
    permit = gate.acquire()
    task = asyncio.create_task(gate.acquire_async())
    await until_async(lambda: gate.describe()["waiting"] == 1)
    with pytest.raises(BulkheadFull):
        await gate.acquire_async()
    permit.settle(Outcome.SUCCESS)
    (await task).settle(Outcome.SUCCESS)


@pytest.mark.asyncio
async def test_wait_is_bounded(make: Any) -> None:
    """Who has waited long enough is refused and leaves the queue, in tasks and threads."""
    gate = make(limit=1, queue=5, wait=0.02)
    gate.acquire()
    with pytest.raises(BulkheadFull):
        await gate.acquire_async()
    with pytest.raises(BulkheadFull):
        await asyncio.to_thread(gate.acquire_sync)
    assert gate.describe()["waiting"] == 0
    assert gate.describe()["in_flight"] == 1


@pytest.mark.asyncio
async def test_trap_53_waiter_whose_deadline_passes_is_refused_then(make: Any) -> None:
    """At its deadline, long before the wait is up; no place is used; past deadlines do not line up."""
    gate = make(limit=1, queue=5, wait=60)
    gate.acquire()
    started = time.monotonic()
    with deadline_scope(Deadline.after(0.02)):
        with pytest.raises(BulkheadFull):
            await gate.acquire_async()
        with pytest.raises(BulkheadFull):
            gate.acquire_sync()
    with deadline_scope(Deadline.after(0.02)), pytest.raises(BulkheadFull):
        gate.acquire_sync()
    assert time.monotonic() - started < 30
    assert gate.describe()["waiting"] == 0
    assert gate.describe()["in_flight"] == 1


@pytest.mark.asyncio
async def test_trap_53_place_given_too_late_is_passed_on(make: Any) -> None:
    """The loop stood still beyond the wait: the place given meanwhile is not spent on who has gone."""
    now = [0.0]
    gate = make(limit=1, queue=2, wait=5.0, clock=lambda: now[0])
    permit = gate.acquire()
    late = asyncio.create_task(gate.acquire_async())
    await until_async(lambda: gate.describe()["waiting"] == 1)
    now[0] = 4.0
    next_one = asyncio.create_task(gate.acquire_async())
    await until_async(lambda: gate.describe()["waiting"] == 2)
    now[0] = 6.0
    permit.settle(Outcome.SUCCESS)
    with pytest.raises(BulkheadFull):
        await late
    (await next_one).settle(Outcome.SUCCESS)
    assert gate.describe()["in_flight"] == 0


@pytest.mark.asyncio
async def test_trap_52_grant_and_cancellation_in_the_same_tick(make: Any) -> None:
    """Ten thousand times: no place is lost and none is given twice."""
    gate = make(limit=1, queue=4, wait=60)
    dice = random.Random(52)
    for _ in range(10_000):
        permit = gate.acquire()
        tasks = [asyncio.ensure_future(gate.acquire_async()) for _ in range(2)]
        await asyncio.sleep(0)
        acts = [lambda permit=permit: permit.settle(Outcome.SUCCESS), tasks[0].cancel]
        dice.shuffle(acts)
        for act in acts:
            act()
            if dice.random() < 0.3:
                await asyncio.sleep(0)
        for got in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(got, BaseException):
                got.settle(Outcome.SUCCESS)
    assert gate.describe()["in_flight"] == 0
    assert gate.describe()["waiting"] == 0
    gate.acquire()


def test_trap_52_under_trio(make: Any) -> None:
    """Cancelled waiters leave the queue, granted ones pass their place on."""
    gate = make(limit=1, queue=4, wait=60)

    async def wait(got: list[Any]) -> None:
        got.append(await gate.acquire_async())

    async def main() -> None:
        for grant_first in (True, False):
            permit, got = gate.acquire(), []
            async with trio.open_nursery() as nursery:
                scope = trio.CancelScope()

                async def cancelled(scope: trio.CancelScope = scope, got: list[Any] = got) -> None:
                    with scope:
                        got.append(await gate.acquire_async())

                nursery.start_soon(cancelled)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(wait, got)
                await trio.testing.wait_all_tasks_blocked()
                assert gate.describe()["waiting"] == 2
                if grant_first:
                    permit.settle(Outcome.SUCCESS)
                    scope.cancel()
                else:
                    scope.cancel()
                    permit.settle(Outcome.SUCCESS)
                with trio.fail_after(10):
                    while not got:
                        await trio.sleep(0)
                assert len(got) == 1
                got[0].settle(Outcome.SUCCESS)
        with pytest.raises(BulkheadFull):
            gate.reconfigure(BulkheadOptions(limit=1, queue=1, wait=0.01))
            gate.acquire()
            await gate.acquire_async()

    trio.run(main)
    assert gate.describe()["in_flight"] == 1


def test_threads_wait_in_the_order_they_came(make: Any) -> None:
    """And each gets its place."""
    gate, order = make(limit=1, queue=5, wait=30), []
    permit = gate.acquire()
    threads = []
    for number in range(5):

        def call(number: int = number) -> None:
            place = gate.acquire_sync()
            order.append(number)
            place.settle(Outcome.SUCCESS)

        threads.append(threading.Thread(target=call))
        threads[-1].start()
        until(lambda number=number: gate.describe()["waiting"] == number + 1)
    permit.settle(Outcome.SUCCESS)
    for each in threads:
        each.join(10)
    assert order == list(range(5))


def test_trap_33_threads_asyncio_and_trio_share_its_places(make: Any) -> None:
    """Three kinds of callers, three at a time, none lost, none too many."""
    gate, inside, most = make(limit=3, queue=100, wait=30), 0, 0
    count = threading.Lock()

    def enter() -> None:
        nonlocal inside, most
        with count:
            inside += 1
            most = max(most, inside)

    def leave() -> None:
        nonlocal inside
        with count:
            inside -= 1

    @gate
    def call() -> None:
        enter()
        time.sleep(0.001)
        leave()

    @gate
    async def call_async(sleep: Callable[[float], Any]) -> None:
        enter()
        await sleep(0.001)
        leave()

    async def under_asyncio() -> None:
        await asyncio.gather(*(call_async(asyncio.sleep) for _ in range(30)))

    async def under_trio() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(call_async, trio.sleep)

    with switching_often(), ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(asyncio.run, under_asyncio()), pool.submit(trio.run, under_trio)]
        jobs += [pool.submit(call) for _ in range(60)]
        for each in jobs:
            each.result(60)
    assert most == 3
    assert gate.describe()["in_flight"] == 0


def test_place_given_back_while_somebody_lines_up_is_seen(make: Any) -> None:
    """Places are given back without the lock: one that comes free in that very moment is not overlooked."""
    gate, waited = make(limit=2, queue=1, wait=30), []
    threads: list[threading.Thread] = []

    class Watched(list[None]):
        def append(self, place: None) -> None:
            # Between the look for waiters and the giving back: the other place goes, one lines up.
            gate.acquire()
            threads.append(threading.Thread(target=lambda: waited.append(gate.acquire_sync())))
            threads[0].start()
            until(lambda: gate.describe()["waiting"] == 1)
            super().append(place)

    gate._machine.free = Watched([None, None])
    gate(lambda: None)()
    threads[0].join(5)
    assert len(waited) == 1
    assert gate.describe()["in_flight"] == 2


def test_place_of_a_waiter_whose_loop_is_gone_goes_on(make: Any) -> None:
    """A loop closed under its tasks must not keep a place for ever."""
    gate = make(limit=1, queue=5, wait=60)
    permit = gate.acquire()
    loop = asyncio.new_event_loop()
    task = loop.create_task(gate.acquire_async())
    loop.run_until_complete(asyncio.sleep(0))
    assert gate.describe()["waiting"] == 1
    loop.close()
    permit.settle(Outcome.SUCCESS)
    assert gate.describe()["in_flight"] == 0
    gate.acquire()
    coroutine = task.get_coro()
    assert coroutine is not None
    coroutine.close()
    assert gate.describe()["in_flight"] == 1
    task._log_destroy_pending = False  # that loop was never to finish it
    del task, coroutine
    gc.collect()


def test_trap_39_forked_child_begins_empty(make: Any) -> None:
    """The parent's calls are not the child's; one given back there changes nothing."""
    gate = make(limit=1)
    permit = gate.acquire()
    gate.after_fork_in_child()
    assert gate.describe()["in_flight"] == 0
    mine = gate.acquire()
    permit.settle(Outcome.SUCCESS)
    assert gate.describe()["in_flight"] == 1
    mine.settle(Outcome.SUCCESS)


# ── being known ──────────────────────────────────────────────────────────────────────────────


def test_a_queue_given_at_run_time_changes_its_place_in_a_pipeline(make: Any) -> None:
    """The order is judged by the options it follows, those in code or those of live configuration."""
    limit = make(limit=1)
    hedging = Hedge(delay=0.1, idempotent=True)
    Pipeline(hedging, limit)
    limit.reconfigure(BulkheadOptions(limit=1, queue=5))
    with pytest.warns(PipelineWarning, match="waits in the queue twice"):
        Pipeline(hedging, limit)
    limit.reconfigure(BulkheadOptions(limit=1))
    Pipeline(hedging, limit)


@pytest.mark.asyncio
async def test_reconfigure_lets_waiters_in(make: Any) -> None:
    """At once; the new queue and wait hold for who comes then."""
    gate = make(limit=1, queue=2, wait=30)
    gate.acquire()
    task = asyncio.create_task(gate.acquire_async())
    await until_async(lambda: gate.describe()["waiting"] == 1)
    gate.reconfigure(BulkheadOptions(limit=2, queue=0, wait=5))
    await task
    assert gate.describe() == {
        "in_flight": 2,
        "waiting": 0,
        "refused": 0,
        "options": {"limit": 2, "queue": 0, "wait": 5, "order": "fifo"},
    }
    with pytest.raises(BulkheadFull) as caught:
        await gate.acquire_async()
    assert caught.value.limit == 2
    assert gate.defaults == BulkheadOptions(limit=1, queue=2, wait=30)
    assert gate.options == BulkheadOptions(limit=2, queue=0, wait=5)


def test_registers_by_name() -> None:
    """It is `bulkhead:name` in the registry and in its events."""
    bus, seen = EventBus(), list[Event]()
    now = [0.0]
    gate = bulkhead("registered", options=BulkheadOptions(limit=1, wait=2.0), bus=bus, clock=lambda: now[0])
    assert policies.get("bulkhead:registered") is gate
    gate.acquire()
    with pytest.raises(BulkheadFull):
        gate.acquire()
    bus.subscribe(seen.append)
    now[0] = 1.5
    with pytest.raises(BulkheadFull):
        gate.acquire()
    [event] = seen
    assert isinstance(event, BulkheadRejected)
    assert (event.name, event.subject, event.details()) == (
        "bulkhead.rejected",
        "bulkhead:registered",
        {"limit": 1, "waiting": 0, "retry_after": 1.5},
    )
    assert not event.transition


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("limit", 0),
        ("limit", True),
        ("queue", -1),
        ("queue", 1.0),
        ("wait", 0),
        ("wait", None),
        ("wait", float("nan")),
        ("order", "LIFO"),
    ],
)
def test_trap_60_impossible_options_are_refused(field: str, value: Any) -> None:
    """At construction, naming the field."""
    with pytest.raises(ConfigError) as caught:
        BulkheadOptions(**{field: value})
    assert caught.value.setting == field


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_errors_of_a_call_that_found_no_place_bear_nothing_of_it(kind: str) -> None:
    """Neither its refusal nor, when it has waited, its own error is told as one of handling another."""
    guard = Bulkhead("errors", limit=1, queue=1, wait=5.0, register=False)
    taken = guard.acquire()

    def fail() -> None:
        raise OSError("its own")

    async def fail_async() -> None:
        fail()

    plain, coroutine = guard(fail), guard(fail_async)

    def call() -> None:
        if kind == "plain":
            plain()
        else:
            asyncio.run(coroutine())

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(call)
        wait_until(lambda: guard.describe()["waiting"] == 1)
        with pytest.raises(BulkheadFull) as refused:
            call()
        taken.settle(Outcome.IGNORED)
        error = waiting.exception(10)
    assert refused.value.__context__ is None
    assert isinstance(error, OSError)
    assert error.__context__ is None
