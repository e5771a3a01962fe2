"""Load shedding: the pure machine, and event loops, threads and deadlines around it."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from chassis.core import (
    ConfigError,
    Deadline,
    DeadlineExceeded,
    Event,
    EventBus,
    Outcome,
    Overloaded,
    deadline_scope,
    policies,
)
from chassis.limits import LoadShed, LoadShedder, LoadShedderOptions
from chassis.limits._load import LoadMachine


def machine(**options: Any) -> LoadMachine:
    return LoadMachine(LoadShedderOptions(**options))


class ManualClock:
    """A clock that is set by hand."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


# ── the machine ──────────────────────────────────────────────────────────────────────────────


def test_machine_sheds_nothing_by_default() -> None:
    """Whatever it sees."""
    each = machine()
    for now in range(100):
        each.probe(now)
        each.probed(now, now + 1)
        assert each.enter(now + 1, 1e-6) is None
    assert each.refused == {"in_flight": 0, "lag": 0, "hopeless": 0}


def test_machine_lets_in_no_more_than_may_be_in_flight() -> None:
    """And says after what time a place usually comes free."""
    each = machine(max_in_flight=2)
    assert [each.enter(10.0, None) for _ in range(3)] == [None, None, "in_flight"]
    assert each.retry_after("in_flight", 13.0) == 3.0
    each.leave(14.0, None)
    assert each.enter(14.0, None) is None
    assert each.enter(14.0, None) == "in_flight"
    assert each.retry_after("in_flight", 14.0) == 4.0


def test_machine_sheds_by_lag_that_lasts_and_by_no_spike() -> None:
    """Late once is a long step; late for all of the interval is too much work; in time once ends it."""
    each = machine(max_lag=0.1, interval=0.5)

    def see(since: float, lag: float) -> None:
        each.probe(since)
        each.probed(since, since + lag)

    see(0.0, 3.0)  # one step of three seconds
    assert each.enter(3.0, None) is None
    see(3.0, 0.01)
    see(3.1, 0.2)  # late from 3.3 on
    see(3.3, 0.2)
    assert each.enter(3.7, None) is None
    see(3.5, 0.2)
    see(3.7, 0.2)
    assert each.enter(3.9, None) == "lag"
    assert each.retry_after("lag", 3.9) == 0.5
    see(3.9, 0.09)
    assert each.enter(4.0, None) is None


def test_machine_takes_no_silence_for_lag() -> None:
    """Between two spikes far apart nothing was seen, so nothing is known; a step still waited for is."""
    each = machine(max_lag=0.1, interval=0.5)
    each.probe(0.0)
    each.probed(0.0, 1.0)
    assert not each.late(10.0)
    each.probe(10.0)
    assert not each.late(10.0)
    each.probed(10.0, 11.0)
    assert not each.late(11.0)
    each.probe(11.1)
    assert each.late(12.0)  # it has been waiting since, so the loop is late all the while


def test_machine_refuses_what_cannot_be_answered_in_time() -> None:
    """Less time left than the quickest of the last seconds took; the oldest measurements go."""
    each = machine(hopeless=True, hopeless_share=1.0)
    assert each.enter(0.0, 0.001) is None  # nothing is known
    each.leave(0.0, 0.3)
    each.leave(1.0, 0.2)
    each.leave(1.0, None)  # it failed, which may be quick
    assert each.enter(2.0, 0.19) == "hopeless"
    assert each.enter(2.0, 0.2) is None
    assert each.enter(2.0, None) is None
    assert each.retry_after("hopeless", 2.0) == 0.5
    assert each.enter(9.9, 0.19) == "hopeless"
    assert each.enter(20.0, 0.01) is None


def test_machine_knows_what_the_last_ten_seconds_were_like_and_no_more() -> None:
    """Kept for one to two halves of ten seconds, and dropped together after a rest of ten."""
    for later, reason in ((8.0, "hopeless"), (12.9, "hopeless"), (13.0, None)):
        each = machine(hopeless=True, hopeless_share=1.0)
        each.enter(3.0, None)
        each.leave(3.0, 0.3)
        assert each.enter(later, 0.1) == reason


def test_machine_counts_the_share_over_both_halves() -> None:
    """Those refused as hopeless in the half before still count."""
    each = machine(hopeless=True, hopeless_share=0.5)
    each.enter(0.0, None)
    each.leave(0.0, 1.0)
    assert [each.enter(1.0, 0.5) for _ in range(3)] == ["hopeless", None, "hopeless"]
    assert [each.enter(6.0, 0.5) for _ in range(3)] == [None, "hopeless", None]


def test_machine_that_is_just_as_late_as_it_may_be_is_not_late() -> None:
    each = machine(max_lag=0.25, interval=0.5)
    for since in (0.0, 0.5, 1.0, 1.5):
        each.probe(since)
        each.probed(since, since + 0.25)
    assert not each.late(1.75)


def test_machine_refuses_only_a_share_as_hopeless() -> None:
    """A clock or collector that stood still makes every deadline look spent: most go through all the same."""
    each = machine(hopeless=True, hopeless_share=0.2)
    each.enter(0.0, None)
    each.leave(0.0, 1.0)
    seen = [each.enter(0.01 * number, 0.5) for number in range(100)]
    assert seen.count("hopeless") == 20
    assert seen[:4] == [None] * 3 + ["hopeless"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["come", "leave", "fail", "wait", "change"]),
            st.integers(0, 20),
            st.integers(0, 9),
        ),
        max_size=80,
    )
)
def test_machine_agrees_with_a_list_of_calls(steps: list[tuple[str, int, int]]) -> None:
    """Places and shares as counted from the list of all that happened."""
    limit, now = 3, 0.0
    each = machine(max_in_flight=limit, hopeless=True, hopeless_share=0.5)
    inside: list[float] = []
    halves: list[dict[str, Any]] = []

    def half() -> dict[str, Any]:
        if not halves or now - halves[-1]["since"] >= 5.0:
            if halves and now - halves[-1]["since"] >= 10.0:
                halves.clear()
            halves.append({"since": now, "calls": 0, "hopeless": 0, "quickest": float("inf")})
        return halves[-1]

    for step, left, number in steps:
        if step == "come":
            half()["calls"] += 1
            recent = halves[-2:]
            quickest = min(part["quickest"] for part in recent)
            refused = sum(part["hopeless"] for part in recent)
            calls = sum(part["calls"] for part in recent)
            reason = each.enter(now, left / 10)
            if left / 10 < quickest < float("inf") and refused + 1 <= 0.5 * calls:
                assert reason == "hopeless"
                half()["hopeless"] += 1
            elif len(inside) >= limit:
                assert reason == "in_flight"
            else:
                assert reason is None
                inside.append(now)
        elif step in ("leave", "fail") and inside:
            took = now - inside.pop(number % len(inside))
            if step == "leave":
                half()["quickest"] = min(half()["quickest"], took)
            each.leave(now, took if step == "leave" else None)
        elif step == "wait":
            now += left / 4
        elif step == "change":
            limit = 1 + number
            each.reconfigure(LoadShedderOptions(max_in_flight=limit, hopeless=True, hopeless_share=0.5), now)
        assert each.in_flight == len(inside)


# ── admission ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def make() -> Callable[..., LoadShedder]:
    def make(name: str = "work", **options: Any) -> LoadShedder:
        return LoadShedder(name, **{"register": False, "bus": EventBus(), **options})

    return make


def test_sheds_what_is_too_much_and_says_when_to_come_back(make: Any) -> None:
    """As a decorator and by hand; every way out gives the place back; a stream holds its own to the end."""
    clock = ManualClock()
    shedder = make(max_in_flight=1, clock=clock)

    @shedder
    def work(error: BaseException | None = None) -> str:
        clock.now += 2
        with pytest.raises(Overloaded) as caught:
            work()
        assert (caught.value.name, caught.value.retry_after) == ("work", 2.0)
        if error is not None:
            raise error
        return "done"

    assert work() == "done"
    for error in (LookupError(), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            work(error)

    @shedder
    def stream() -> Generator[int, None, None]:
        yield 1
        yield 2

    running = stream()
    assert next(running) == 1
    with pytest.raises(Overloaded):
        shedder.acquire()
    running.close()
    permit = shedder.acquire_sync()
    permit.settle(Outcome.SUCCESS)
    permit.settle(Outcome.SUCCESS)
    described = shedder.describe()
    assert (described["in_flight"], described["refused"]["in_flight"]) == (0, 4)


@pytest.mark.asyncio
async def test_expired_work_is_never_begun(make: Any) -> None:
    """Whatever the options: nobody waits for it. It is no refusal, as it is not safe to ask for again."""
    shedder = make()

    async def work() -> None:
        raise AssertionError("begun")

    with deadline_scope(Deadline.after(-1)):
        with pytest.raises(DeadlineExceeded):
            await shedder.run(work)
        with pytest.raises(DeadlineExceeded):
            shedder.run_sync(lambda: 1)
    with deadline_scope(Deadline.after(60)):
        assert shedder.run_sync(lambda: 1) == 1


def test_hopeless_work_is_refused_at_once(make: Any) -> None:
    """Measured by what succeeded, and asked of the caller's deadline."""
    clock = ManualClock()
    shedder = make(hopeless=True, hopeless_share=1.0, clock=clock)

    @shedder
    def work(error: bool) -> None:
        if error:
            raise LookupError
        clock.now += 0.5

    work(False)
    with pytest.raises(LookupError):
        work(True)  # quick, and no measure
    with deadline_scope(Deadline.after(0.4)), pytest.raises(Overloaded):
        work(False)
    with deadline_scope(Deadline.after(60)):
        work(False)


@pytest.mark.asyncio
async def test_a_loop_that_stays_late_sheds_and_recovers(make: Any) -> None:
    """Long steps, one after the other, for all of the interval; the first step in time ends it."""
    shedder = make(max_lag=0.02, interval=0.1)

    waits: set[float | None] = set()

    async def come() -> bool:
        try:
            (await shedder.acquire_async()).settle(Outcome.SUCCESS)
        except Overloaded as refusal:
            waits.add(refusal.retry_after)
            return False
        return True

    assert await come()
    await asyncio.sleep(0)
    time.sleep(0.15)
    assert await come()
    await asyncio.sleep(0)
    assert await come()
    refused = 0
    for _ in range(12):
        asyncio.get_running_loop().call_soon(time.sleep, 0.03)
        refused += not await come()
        await asyncio.sleep(0)
    assert refused > 2
    assert waits == {0.1}
    assert shedder.describe()["late"]
    for _ in range(4):
        await come()
        await asyncio.sleep(0)
    assert await come()
    assert not shedder.describe()["late"]
    assert 0 <= shedder.describe()["lag"] < 0.02


def test_under_trio_and_in_two_loops_one_after_the_other(make: Any) -> None:
    """A probe left behind in a loop that has ended holds nothing up."""
    shedder = make(max_lag=0.5, max_in_flight=1)

    async def come() -> None:
        permit = await shedder.acquire_async()
        with pytest.raises(Overloaded):
            await shedder.acquire_async()
        permit.settle(Outcome.SUCCESS)

    async def come_and_see() -> None:
        await come()
        before = shedder.describe()["lag"]
        for _ in range(1000):
            await trio.sleep(0)
            if shedder.describe()["lag"] != before:
                return
        raise AssertionError("the loop was not measured")

    asyncio.run(come())
    trio.run(come_and_see)
    asyncio.run(come())


def test_threads_share_its_places(make: Any) -> None:
    """Never more inside than may be, and none is lost, with a tiny switch interval."""
    shedder, inside, most, count = make(max_in_flight=3, hopeless=True), 0, 0, threading.Lock()
    refused: list[int] = []

    def work() -> None:
        nonlocal inside, most
        dice = random.Random()
        for _ in range(200):
            try:
                permit = shedder.acquire_sync()
            except Overloaded:
                refused.append(1)
                continue
            with count:
                inside += 1
                most = max(most, inside)
            if dice.random() < 0.05:
                time.sleep(0.0005)
            with count:
                inside -= 1
            permit.settle(Outcome.SUCCESS)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(30)
    finally:
        sys.setswitchinterval(before)
    described = shedder.describe()
    assert most <= 3
    assert (described["in_flight"], described["refused"]["in_flight"]) == (0, len(refused))


def test_trap_39_forked_child_begins_empty(make: Any) -> None:
    """The parent's work is not the child's; what is given back there changes nothing."""
    shedder = make(max_in_flight=1)
    permit = shedder.acquire()
    shedder.after_fork_in_child()
    mine = shedder.acquire()
    permit.settle(Outcome.SUCCESS)
    assert shedder.describe()["in_flight"] == 1
    mine.settle(Outcome.SUCCESS)
    assert shedder.describe()["in_flight"] == 0


# ── being known ──────────────────────────────────────────────────────────────────────────────


def test_registers_tells_refusals_and_follows_new_options() -> None:
    """It is `shedder:name` in the registry and in its events."""
    bus, seen, clock = EventBus(), list[Event](), ManualClock()
    shedder = LoadShedder("registered", max_in_flight=1, bus=bus, clock=clock)
    assert policies.get("shedder:registered") is shedder
    permit = shedder.acquire()
    bus.subscribe(seen.append)
    clock.now += 1.5
    with pytest.raises(Overloaded):
        shedder.acquire()
    [event] = seen
    assert isinstance(event, LoadShed)
    assert (event.name, event.subject, event.details()) == (
        "load.shed",
        "shedder:registered",
        {"reason": "in_flight", "in_flight": 1, "retry_after": 1.5},
    )
    assert not event.transition
    shedder.reconfigure(LoadShedderOptions(max_in_flight=2))
    shedder.acquire().settle(Outcome.SUCCESS)
    shedder.reconfigure(shedder.defaults)
    assert shedder.options == LoadShedderOptions(max_in_flight=1)
    with pytest.raises(Overloaded):
        shedder.acquire()
    permit.settle(Outcome.SUCCESS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_in_flight", 0),
        ("max_in_flight", True),
        ("max_lag", 0),
        ("max_lag", float("nan")),
        ("interval", 0),
        ("interval", None),
        ("hopeless", 1),
        ("hopeless_share", 20),
        ("hopeless_share", 0),
        ("hopeless_share", float("nan")),
    ],
)
def test_trap_60_impossible_options_are_refused(field: str, value: Any) -> None:
    """At construction, naming the field and the value."""
    with pytest.raises(ConfigError) as caught:
        LoadShedderOptions(**{field: value})
    assert caught.value.setting == field
    assert repr(value) in str(caught.value)
