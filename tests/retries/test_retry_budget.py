"""The retry budget where attempts have to wait: it bounds what is made, whenever it is made."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.core.deadline import Deadline, deadline_scope
from chassis.core.errors import ConfigError
from chassis.core.registry import policies
from chassis.retries import BudgetOptions, Retry, RetryBudget


def budget(ratio: float = 0.2, per_second: float = 0.0, window: float = 10.0, **more: Any) -> RetryBudget:
    return RetryBudget(ratio=ratio, per_second=per_second, window=window, **more)


# ── reserving and launching ──────────────────────────────────────────────────────────────────


def test_who_waits_counts_against_the_next_to_ask() -> None:
    """No more callers wait than may go on; launching takes none a second time."""
    each = budget(per_second=0.3)
    assert [each.reserve(0.0) for _ in range(4)] == [True, True, True, False]
    assert (each.waiting, each.available(0.0), each.refused) == (3, 0, 1)
    assert not each.withdraw(0.0)
    assert [each.launch(1.0) for _ in range(3)] == [True] * 3
    assert (each.waiting, each.available(1.0)) == (0, 0)
    assert each.available(11.0) == 3


def test_who_leaves_while_waiting_gives_the_place_back() -> None:
    """Released, it may be had by the next; releasing once too often gives nobody more."""
    each = budget(per_second=0.1)
    assert each.reserve(0.0)
    assert not each.reserve(0.0)
    each.release()
    each.release()
    assert each.reserve(0.0)
    assert not each.reserve(0.0)


def test_trap_44_what_was_reserved_asks_again_when_it_is_launched() -> None:
    """What had been put in when it was decided may have gone stale by then."""
    each = budget(per_second=0.1)
    for _ in range(50):
        each.deposit(0.0)
    assert [each.reserve(0.0) for _ in range(12)] == [True] * 11 + [False]
    assert [each.launch(30.0) for _ in range(11)] == [True] + [False] * 10
    assert each.waiting == 0


def test_what_is_refused_at_the_launch_is_counted() -> None:
    """As what is refused at the decision is."""
    each = budget(ratio=1.0)
    for _ in range(2):
        each.deposit(0.0)
    assert [each.reserve(0.0) for _ in range(4)] == [True, True, False, False]
    assert [each.launch(30.0) for _ in range(2)] == [False, False]
    assert each.refused == 4


def test_after_a_fork_it_works_in_the_child() -> None:
    """Another thread may have held the lock or a place, and does not exist there."""
    each = budget(per_second=0.1)
    assert each.reserve(0.0)
    each._lock.acquire()
    each.after_fork_in_child()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(each.withdraw, 0.0).result(5)


class Timeline:
    """A clock that jumps from one sleeper to the next, and what began when."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.began: Counter[float] = Counter()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    def clock(self) -> float:
        return self.now

    async def sleep_until(self, at: float) -> None:
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (at, next(self._numbers), future))
        await future

    async def sleep(self, seconds: float) -> None:
        await self.sleep_until(self.now + seconds)

    async def run(self, *calls: Any) -> list[Any]:
        """Await all ``calls``, and let time pass whenever all of them sleep."""
        everything = asyncio.gather(*calls, return_exceptions=True)
        while not everything.done():
            for _ in range(4):
                await asyncio.sleep(0)
            while self._sleepers and self._sleepers[0][2].done():
                heapq.heappop(self._sleepers)
            if self._sleepers:
                at, _, future = heapq.heappop(self._sleepers)
                self.now = max(self.now, at)
                future.set_result(None)
        return await everything


class ToldToWait(Exception):
    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.retry_after = seconds


@pytest.mark.asyncio
async def test_trap_44_callers_told_the_same_moment_do_not_all_come_then() -> None:
    """A retry that was in order when it was decided may be one too many when its pause is over."""
    timeline = Timeline()
    share = budget(ratio=0.2, per_second=1.0)
    policy = Retry(
        budget=share,
        retries=1,
        wait_base=0,
        clock=timeline.clock,
        sleep_async=timeline.sleep,
    )
    first: Counter[float] = Counter()
    further: Counter[float] = Counter()

    async def caller(arrives: float) -> None:
        await timeline.sleep_until(arrives)
        attempts = first

        @policy
        async def call() -> None:
            nonlocal attempts
            attempts[timeline.now] += 1
            attempts = further
            raise ToldToWait(1_040.0 - timeline.now)

        with pytest.raises(ToldToWait):
            await call()

    await timeline.run(*(caller(1_000.0 + number * 0.03) for number in range(1_000)))
    assert sum(first.values()) == 1_000
    assert list(further) == [1_040.0]
    in_window = sum(count for at, count in first.items() if at >= 1_031.0)
    assert further[1_040.0] <= 0.2 * in_window + 10
    assert share.waiting == 0


@pytest.mark.asyncio
async def test_trap_44_a_thousand_callers_who_fail_at_once_mostly_do_not_wait() -> None:
    """As many wait as may go on; the others have their error without a pause."""
    timeline = Timeline()
    share = budget(ratio=0.2, per_second=1.0)
    policy = Retry(budget=share, wait_base=1.0, clock=timeline.clock, sleep_async=timeline.sleep)
    calls = slept = 0

    async def call() -> None:
        nonlocal calls
        calls += 1
        raise ConnectionError

    async def caller() -> None:
        nonlocal slept
        with pytest.raises(ConnectionError) as caught:
            await policy(call)()
        slept += "then" in caught.value.__notes__[0]

    await timeline.run(*(caller() for _ in range(1_000)))
    assert calls - 1_000 == slept == 210
    assert share.waiting == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_leaving_during_the_pause_gives_the_place_back(kind: str) -> None:
    """A caller that is cancelled while it waits has made no attempt."""
    share = budget(per_second=0.1)

    def leave(_: float) -> None:
        raise KeyboardInterrupt

    async def leave_async(_: float) -> None:
        raise asyncio.CancelledError

    policy = Retry(budget=share, sleep=leave, sleep_async=leave_async)

    def call() -> None:
        raise ConnectionError

    async def call_async() -> None:
        raise ConnectionError

    if kind == "sync":
        with pytest.raises(KeyboardInterrupt):
            policy(call)()
    else:
        with pytest.raises(asyncio.CancelledError):
            await policy(call_async)()
    assert share.waiting == 0
    assert share.available(0.0) == 1


def test_deadline_that_passed_during_the_pause_gives_the_place_back() -> None:
    """A sleep that took longer than asked begins no attempt beyond the deadline."""
    share = budget(per_second=0.1)
    with deadline_scope(Deadline.after(5.0)) as deadline:
        assert deadline is not None
        late = Deadline.after(-1.0)
        scopes: list[Any] = []

        def oversleep(_: float) -> None:
            scopes.append(deadline_scope(late))
            scopes[0].__enter__()

        calls = []

        @Retry(budget=share, sleep=oversleep)
        def call() -> None:
            calls.append(1)
            raise ConnectionError

        with pytest.raises(ConnectionError) as caught:
            call()
        scopes[0].__exit__(None, None, None)
    assert len(calls) == 1
    assert caught.value.__notes__[0].endswith("(the deadline comes first)")
    assert (share.waiting, share.available(0.0)) == (0, 1)


# ── counting without a lock ──────────────────────────────────────────────────────────────────


@given(st.lists(st.integers(0, 200), max_size=40))
def test_first_attempts_counted_by_the_tick_are_all_there_when_it_is_asked(bursts: list[int]) -> None:
    """Whatever was decided in between: whoever gets a 0 folds, and none is lost or invented."""
    each = budget(ratio=1.0)
    made = 0
    for burst in bursts:
        for _ in range(burst):
            made += 1
            if not next(each.deposits):
                each.fold(0.0)
        assert each.available(0.0) == made


def test_at_most_63_first_attempts_are_counted_later_than_they_were_made() -> None:
    """Those of an hour ago do not pay for the retries of now: that is the whole error."""
    each = budget(ratio=1.0)
    now = 0.0
    for _ in range(100_000):
        now += 0.001
        if not next(each.deposits):
            each.fold(now)
    assert each.available(now + 3_600) <= 63


def test_first_attempts_are_never_counted_twice_under_threads() -> None:
    """Eight threads that count and decide together: nothing is counted that did not happen."""
    each = budget(ratio=1.0)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:

            def work(_: int) -> int:
                granted = 0
                for number in range(2_000):
                    if not next(each.deposits):
                        each.fold(0.0)
                    if not number % 50 and each.reserve(0.0):
                        granted += each.launch(0.0)
                return granted

            granted = sum(pool.map(work, range(8)))
    finally:
        sys.setswitchinterval(before)
    assert granted + each.available(0.0) <= 16_000
    assert granted > 0
    assert each.waiting == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(["first", "reserve", "launch", "release", "withdraw"]), st.floats(0, 3)),
        max_size=120,
    ),
    st.sampled_from([0.2, 1.0]),
    st.sampled_from([0.0, 0.3]),
)
def test_further_attempts_never_exceed_share_and_floor(
    steps: list[tuple[str, float]], ratio: float, per_second: float
) -> None:
    """In any ten buckets of time, by whatever way they were decided and launched."""
    each, now, waiting = budget(ratio, per_second), 0.0, 0
    first: Counter[int] = Counter()
    made: Counter[int] = Counter()
    for step, pause in steps:
        now += pause
        slot = int(now)
        since = range(slot - 9, slot + 1)
        left = ratio * sum(first[s] for s in since) + per_second * 10 - sum(made[s] for s in since)
        if step == "first":
            first[slot] += 1
            each.deposit(now)
        elif step == "withdraw":
            granted = each.withdraw(now)
            assert granted == (left >= waiting + 1)
            made[slot] += granted
        elif step == "reserve":
            granted = each.reserve(now)
            assert granted == (left >= waiting + 1)
            waiting += granted
        elif waiting and step == "launch":
            granted = each.launch(now)
            assert granted == (left >= 1)
            made[slot] += granted
            waiting -= 1
        elif waiting and step == "release":
            each.release()
            waiting -= 1
        assert each.waiting == waiting


# ── being known ──────────────────────────────────────────────────────────────────────────────


def test_named_budget_is_registered_and_reconfigured() -> None:
    """It is `budget:name`, tells what is left, and can be turned down while the process runs."""
    each = budget(per_second=0.5, name="payments", clock=lambda: 0.0)
    assert policies.get("budget:payments") is each
    each.reserve(0.0)
    assert each.describe() == {
        "available": 4,
        "waiting": 1,
        "refused": 0,
        "options": {"ratio": 0.2, "per_second": 0.5, "window": 10.0},
    }
    each.reconfigure(BudgetOptions(ratio=0.1, per_second=0.0))
    assert each.available(0.0) == 0
    assert each.defaults == BudgetOptions(per_second=0.5)
    with pytest.raises(ConfigError, match="budget:payments"):
        budget(name="payments")


def test_new_ratio_counts_what_was_made_before_it() -> None:
    """First attempts not yet folded belong to the time before the change."""
    each = budget(ratio=1.0)
    next(each.deposits)
    each.reconfigure(BudgetOptions(ratio=1.0, per_second=0.0, window=20.0), 0.0)
    assert each.available(0.0) == 1
