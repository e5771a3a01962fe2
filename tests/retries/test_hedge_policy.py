"""Hedging real calls: tasks of asyncio and trio, and threads."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from chassis.breaker import CircuitBreaker
from chassis.core.deadline import Deadline, current_deadline, deadline_scope
from chassis.core.errors import BulkheadFull, ConfigError
from chassis.core.events import Event, EventBus
from chassis.core.outcomes import Outcome
from chassis.core.pipeline import Pipeline
from chassis.core.registry import policies
from chassis.retries import (
    Hedge,
    HedgeOptions,
    HedgeSent,
    HedgeWon,
    RetryBudget,
    hedge,
)
from chassis.retries._hedge_threads import MOST, Workers
from chassis.retries._hedge_threads import _workers as process_wide
from tests.support.threads import no_more_threads
from tests.support.waiting import wait_until

Async = Callable[[Callable[[], Awaitable[Any]]], Any]


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Async:
    """Runs an async function in an event loop, for five seconds at most."""

    def run(function: Callable[[], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            with anyio.fail_after(5):
                return await function()

        return anyio.run(main, backend=request.param)

    return run


def policy(**options: Any) -> Hedge:
    """Sends every call once more after 10 ms, unless told otherwise."""
    return Hedge(idempotent=True, **{"delay": 0.01, "extra_load": 1.0, "bus": EventBus(), **options})


class Calls:
    """A dependency whose n-th call does the n-th thing given: answers, raises or hangs."""

    def __init__(self, *scripted: Any) -> None:
        self.scripted = scripted
        self.made = 0
        self.cancelled = 0

    async def __call__(self) -> Any:
        todo = self.scripted[self.made]
        self.made += 1
        try:
            if todo is HANG:
                await anyio.sleep_forever()
            if callable(todo):
                return await todo()
            await anyio.sleep(0)
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        if isinstance(todo, BaseException):
            raise todo
        return todo


HANG = object()


# ── who wins ─────────────────────────────────────────────────────────────────────────────────


def test_quick_call_is_made_once(run: Async) -> None:
    """Nothing is sent before the delay is over."""
    calls = Calls("answer")
    assert run(lambda: policy(delay=1.0)(calls)()) == "answer"
    assert (calls.made, calls.cancelled) == (1, 0)


def test_slow_call_is_sent_once_more_and_the_first_answer_wins(run: Async) -> None:
    """The one that is overtaken is cancelled, and has ended when the caller has its answer."""
    calls = Calls(HANG, "second")
    each = policy()
    assert run(lambda: each(calls)()) == "second"
    assert (calls.made, calls.cancelled) == (2, 1)
    assert each.describe()["sent"] == 1


def test_call_itself_may_still_win(run: Async) -> None:
    """Then the further one is cancelled."""

    async def slowly() -> str:
        while calls.made < 2:
            await anyio.sleep(0.005)
        return "first"

    calls = Calls(slowly, HANG)
    assert run(lambda: policy()(calls)()) == "first"
    assert (calls.made, calls.cancelled) == (2, 1)


def test_as_many_further_calls_as_told(run: Async) -> None:
    """One by default; each after another delay."""
    calls = Calls(HANG, HANG, "third")

    async def caller() -> None:
        with anyio.move_on_after(0.1):
            await policy()(calls)()

    run(caller)
    assert (calls.made, calls.cancelled) == (2, 2)
    calls = Calls(HANG, HANG, "third")
    each = policy(extra=2)
    for _ in range(3):
        run(lambda: each(Calls("quick"))())
    began = time.monotonic()
    assert run(lambda: each(calls)()) == "third"
    assert time.monotonic() - began >= 0.02
    assert (calls.made, calls.cancelled) == (3, 2)


def test_failure_waits_for_the_other(run: Async) -> None:
    """Whichever of the two failed; only when both did is there an error, the last real one."""

    async def fail_late() -> None:
        while calls.made < 2:
            await anyio.sleep(0.005)
        raise OSError("first")

    async def answer_late() -> str:
        await anyio.sleep(0.03)
        return "second"

    calls = Calls(fail_late, answer_late)
    assert run(lambda: policy()(calls)()) == "second"
    calls = Calls(answer_late, OSError("second"))
    assert run(lambda: policy()(calls)()) == "second"
    calls = Calls(fail_late, BulkheadFull("b", limit=1))
    with pytest.raises(OSError, match="first") as caught:
        run(lambda: policy()(calls)())
    assert caught.value.__context__ is None
    calls = Calls(fail_late, KeyError("sooner"))
    with pytest.raises(OSError, match="first"):
        run(lambda: policy()(calls)())


def test_failure_before_the_delay_is_the_callers_at_once(run: Async) -> None:
    """Trying again is what retry is for."""
    calls = Calls(OSError("at once"))
    with pytest.raises(OSError, match="at once"):
        run(lambda: policy(delay=5.0)(calls)())
    assert calls.made == 1


@pytest.mark.parametrize("permanent", [KeyError, (ValueError, KeyError), lambda error: "no" in str(error)])
def test_permanent_error_ends_the_call_at_once(run: Async, permanent: Any) -> None:
    """The other attempt would meet it as well, so it is cancelled."""
    calls = Calls(HANG, KeyError("no such order"))
    with pytest.raises(KeyError):
        run(lambda: policy(permanent=permanent)(calls)())
    assert (calls.made, calls.cancelled) == (2, 1)


def test_result_the_classifier_calls_a_failure_waits_for_the_other(run: Async) -> None:
    """A 503 is no answer to be quick with; if there is no other, it is the result."""

    def judge(result: Any, error: BaseException | None) -> Outcome:
        return Outcome.FAILURE if error or result >= 500 else Outcome.SUCCESS

    async def late() -> int:
        await anyio.sleep(0.03)
        return 200

    assert run(lambda: policy(classify=judge)(Calls(late, 503))()) == 200

    async def late_and_bad() -> int:
        await anyio.sleep(0.03)
        return 502

    assert run(lambda: policy(classify=judge)(Calls(late_and_bad, 503))()) == 502


# ── who may be hedged ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("idempotent", [False, None, 1, "yes"])
def test_only_what_is_marked_idempotent_is_hedged(idempotent: Any) -> None:
    """It must be said: the call is made twice."""
    with pytest.raises(ConfigError, match="idempotent=True") as caught:
        Hedge(idempotent=idempotent)
    assert caught.value.setting == "idempotent"
    with pytest.raises(ConfigError, match="idempotent=True"):
        Hedge()


def test_trap_60_impossible_hedge_keywords_are_refused_at_construction() -> None:
    """As its options are."""
    with pytest.raises(ConfigError, match="e.g. 0.05 for 5 %"):
        Hedge(idempotent=True, extra_load=5)
    with pytest.raises(ConfigError, match=r"write @hedge\(idempotent=True\)"):
        hedge(print, idempotent=True)  # type: ignore[arg-type]  # the mistake under test


def test_generators_cannot_be_hedged(run: Async) -> None:
    """It says so when it decorates one, and when it meets one in a pipeline."""

    def items() -> Generator[int, None, None]:
        yield 1

    async def aitems() -> AsyncGenerator[int, None]:
        yield 1

    for each in (items, aitems):
        with pytest.raises(ConfigError, match="cannot be hedged"):
            policy()(each)
    with pytest.raises(ConfigError, match="cannot be hedged"):
        list(Pipeline(policy())(items)())

    async def consume() -> None:
        async for _ in Pipeline(policy())(aitems)():
            raise AssertionError

    with pytest.raises(ConfigError, match="cannot be hedged"):
        run(consume)


def test_without_an_estimate_nothing_is_sent(run: Async) -> None:
    """A call runs in the caller's own task until a hundred have been seen; then the slow are hedged."""
    each = policy(delay=None)
    tasks = set()

    @each
    async def call(seconds: float = 0.0) -> None:
        tasks.add(anyio.get_current_task().id)
        await anyio.sleep(seconds)

    async def callers() -> None:
        own = anyio.get_current_task().id
        for _ in range(100):
            await call()
        assert tasks == {own}
        assert each.describe()["delay"] == pytest.approx(0.001, abs=0.01)
        await call(0.1)
        assert len(tasks) == 3

    run(callers)
    assert each.describe()["sent"] == 1


def test_failed_calls_do_not_make_the_estimate(run: Async) -> None:
    """What refuses at once is not quick."""
    each = policy(delay=None, minimum_calls=1)

    async def callers() -> None:
        with pytest.raises(OSError):
            await each(Calls(OSError()))()

    run(callers)
    assert each.describe()["delay"] is None


def test_overtaken_calls_count_with_the_time_they_had_taken(run: Async) -> None:
    """Left out, the slow ones would be missing in the estimate, which would sink ever lower."""
    each = policy(delay=None, minimum_calls=1, percentile=0.5)

    async def slowly() -> None:
        await anyio.sleep(0.05)

    async def callers() -> None:
        await each(Calls("quick"))()
        for _ in range(3):
            await each(Calls(HANG, slowly))()

    run(callers)
    assert each.describe()["sent"] == 3
    assert each.describe()["delay"] >= 0.05


def test_trap_56_with_an_empty_budget_the_call_goes_on_alone(run: Async) -> None:
    """No hedge is no error."""

    async def slowly() -> str:
        await anyio.sleep(0.05)
        return "answer"

    empty = RetryBudget(per_second=0.0)
    calls = Calls(slowly, "never")
    each = policy(budget=empty, extra=3)
    assert run(lambda: each(calls)()) == "answer"
    assert calls.made == 1
    assert empty.refused == 1, "and it is not asked again and again"


def test_trap_56_with_an_empty_budget_a_plain_call_goes_on_alone() -> None:
    """As for tasks."""
    empty = RetryBudget(per_second=0.0)
    calls = []

    @policy(budget=empty)
    def call() -> str:
        calls.append(1)
        time.sleep(0.05)
        return "answer"

    assert call() == "answer"
    assert len(calls) == 1


def test_hedges_stay_within_their_share_of_the_load(run: Async) -> None:
    """One in twenty, however many are slow."""
    each = policy(extra_load=0.05, delay=0.001)

    async def slowly() -> None:
        await anyio.sleep(0.005)

    async def callers() -> None:
        for _ in range(80):
            await each(slowly)()

    run(callers)
    assert each.describe()["sent"] == 4


# ── those that are overtaken ─────────────────────────────────────────────────────────────────


def test_trap_55_overtaken_call_that_ignores_its_cancellation_holds_nobody(run: Async) -> None:
    """The caller has its answer after the grace; the other ends when it likes, and its error is nobody's."""
    told: list[Any] = []
    released = threading.Event()
    ended: list[str] = []
    began = 0.0

    async def stubborn() -> None:
        while not released.is_set() and time.monotonic() - began < 8:
            with anyio.CancelScope(shield=True):
                try:
                    await anyio.sleep(0.01)
                except anyio.get_cancelled_exc_class():
                    pass  # asyncio would cancel it all the same
        ended.append("stubborn")
        raise RuntimeError("too late")

    async def caller() -> None:
        if not is_trio():
            asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        nonlocal began
        began = time.monotonic()
        assert await policy(grace=0.05)(Calls(stubborn, "second"))() == "second"
        assert 0.05 <= time.monotonic() - began < 5  # without a grace it is eight seconds
        assert not ended
        released.set()
        while not ended:
            await anyio.sleep(0.01)
        await anyio.sleep(0.02)
        gc.collect()

    run(caller)
    assert told == []


def is_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_run()


def test_trap_55_without_grace_the_caller_waits_for_nobody(run: Async) -> None:
    """The other is cancelled all the same."""
    calls = Calls(HANG, "second")

    async def caller() -> None:
        assert await policy(grace=0.0)(calls)() == "second"
        while not calls.cancelled:
            await anyio.sleep(0.001)

    run(caller)


def test_trap_55_overtaken_thread_is_left_behind() -> None:
    """It cannot be cancelled: the caller goes on, and what it comes to is dropped."""
    release, left = threading.Event(), threading.Event()
    calls: list[int] = []

    @policy()
    def call() -> str:
        calls.append(1)
        if len(calls) == 1:
            release.wait(5)
            left.set()
            raise RuntimeError("too late")
        return "second"

    assert call() == "second"
    assert not left.is_set()
    release.set()
    assert left.wait(5)


def test_cancelled_call_is_neutral_for_the_breaker_inside(run: Async) -> None:
    """One success, and nothing else, is what the breaker sees of a hedged call."""
    breaker = CircuitBreaker("hedged", register=False)
    calls = Calls(HANG, "second")
    assert run(lambda: Pipeline(policy(), breaker)(calls)()) == "second"
    assert breaker.describe()["calls"] == 1
    assert breaker.describe()["failures"] == 0


def test_cancelling_the_caller_cancels_all(run: Async) -> None:
    """And waits for them, within the grace."""
    calls = Calls(HANG, HANG)

    async def caller() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(policy()(calls))
            while calls.made < 2:
                await anyio.sleep(0.001)
            group.cancel_scope.cancel()
        assert calls.cancelled == 2

    run(caller)


def test_cancelling_a_caller_whose_call_ignores_it_takes_no_longer_than_the_grace(run: Async) -> None:
    """The caller leaves; nothing is told of the rest."""
    release = threading.Event()
    began = time.monotonic()

    async def stubborn() -> None:
        while not release.is_set() and time.monotonic() - began < 8:
            with anyio.CancelScope(shield=True):
                try:
                    await anyio.sleep(0.01)
                except anyio.get_cancelled_exc_class():
                    pass

    async def caller() -> None:
        nonlocal began
        began = time.monotonic()
        with anyio.move_on_after(0.03):
            await policy(grace=0.02, delay=5.0)(stubborn)()
        assert time.monotonic() - began < 5  # it ignores its cancellation for eight seconds
        release.set()
        await anyio.sleep(0.03)

    run(caller)


def test_call_that_cancels_itself_ends_so(run: Async) -> None:
    """As it would without a hedge: nobody waits for another."""

    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    async def caller() -> None:
        if is_trio():
            return
        with pytest.raises(asyncio.CancelledError):
            await policy(delay=5.0)(cancels_itself)()

    run(caller)


# ── context, threads ─────────────────────────────────────────────────────────────────────────

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


def test_attempts_have_the_callers_context_and_deadline(run: Async) -> None:
    """Every attempt, in tasks; what it changes does not come back."""
    seen: list[tuple[str, Deadline | None]] = []

    @policy()
    async def call() -> str:
        seen.append((user.get(), current_deadline()))
        user.set("somebody else")
        if len(seen) == 1:
            await anyio.sleep_forever()
        return "second"

    async def caller() -> None:
        user.set("ada")
        with deadline_scope(Deadline.after(9.0)) as deadline:
            assert await call() == "second"
            assert seen == [("ada", deadline)] * 2
        assert user.get() == "ada"

    run(caller)


def test_attempts_in_threads_have_the_callers_context_and_deadline() -> None:
    """As in tasks."""
    seen: list[tuple[str, Deadline | None]] = []
    release = threading.Event()

    @policy()
    def call(answer: str) -> str:
        assert threading.current_thread() is not threading.main_thread()
        seen.append((user.get(), current_deadline()))
        if len(seen) == 1:
            release.wait(5)
        return answer

    token = user.set("ada")
    with deadline_scope(Deadline.after(9.0)) as deadline:
        assert call("second") == "second"
        assert seen == [("ada", deadline)] * 2
    release.set()
    user.reset(token)


def test_plain_calls_fail_and_win_as_tasks_do() -> None:
    """The same machine decides."""
    errors: list[BaseException] = [OSError("first"), KeyError("second")]

    @policy(permanent=KeyError)
    def call() -> None:
        error = errors.pop(0)
        if isinstance(error, OSError):
            time.sleep(0.05)
        raise error

    with pytest.raises(KeyError):
        call()
    with pytest.raises(ZeroDivisionError):
        policy()(lambda: 1 / 0)()
    with pytest.raises(SystemExit):
        policy()(sys.exit)()
    assert policy()(lambda value: value)("quick") == "quick"


def test_threads_are_used_again_and_bounded() -> None:
    """There are no more than allowed, however many jobs come."""
    workers = Workers(most=2)
    release, started = threading.Event(), threading.Semaphore(0)
    threads = set()

    def job() -> None:
        threads.add(threading.current_thread())
        started.release()
        release.wait(5)

    for _ in range(2):
        assert workers.run(job)
        assert started.acquire(timeout=5)
    assert not workers.run(job)
    release.set()
    for _ in range(20):
        wait_until(lambda: workers.run(job), what="a thread that is free again", every=0.001)
        assert started.acquire(timeout=5)
    assert len(threads) == 2


def test_threads_end_when_there_is_nothing_to_do() -> None:
    """A burst does not leave its threads behind for ever; the next one gets new ones."""
    workers = Workers(most=2, kept=0.01)
    threads: list[threading.Thread] = []

    def job() -> None:
        threads.append(threading.current_thread())

    for count in range(1, 4):
        assert workers.run(job)
        wait_until(lambda count=count: len(threads) == count and not threads[-1].is_alive())
        assert workers.busy == 0
    assert len(set(threads)) == 3


def test_a_system_without_a_thread_to_give_is_as_if_all_were_busy() -> None:
    workers, ran = Workers(most=1), threading.Event()
    with no_more_threads():
        assert not workers.run(ran.set)
    assert workers.busy == 0
    assert workers.run(ran.set)
    assert ran.wait(5)


def test_with_all_threads_busy_calls_go_on_alone() -> None:
    """Also if they fail then: nobody waits for what was never begun."""
    release, calls = threading.Event(), []

    @policy()
    def call() -> None:
        calls.append(threading.current_thread())
        time.sleep(0.05)
        raise OSError("alone")

    wait_until(lambda: not process_wide.busy, what="the threads of other tests")
    try:
        while process_wide.busy < MOST - 1:
            assert process_wide.run(release.wait)
        with pytest.raises(OSError, match="alone"):
            call()
        while process_wide.run(release.wait):
            pass
        with pytest.raises(OSError, match="alone"):
            call()
    finally:
        release.set()
    in_a_thread, in_its_own = calls
    assert in_a_thread is not threading.current_thread()
    assert in_its_own is threading.current_thread()


def test_plain_function_in_a_loops_thread_is_not_hedged(run: Async) -> None:
    """The loop must not wait for threads; if its result is awaitable, that is hedged."""
    threads = []
    calls = Calls(HANG, "second")

    def call() -> Awaitable[Any]:
        threads.append(threading.current_thread())
        return calls()

    async def caller() -> None:
        assert await policy()(call)() == "second"
        assert policy()(lambda: "plain")() == "plain"

    run(caller)
    assert set(threads) == {threading.main_thread()}
    assert calls.made == 2


def test_hanging_thread_does_not_keep_the_process_from_ending() -> None:
    """What was left behind dies with it; and no event loop was loaded for threads."""
    code = """
import sys, threading, time
from chassis.retries import hedge
calls = []
@hedge(idempotent=True, delay=0.01, extra_load=1.0)
def call():
    calls.append(1)
    if len(calls) == 1: threading.Event().wait()
    return "second"
assert call() == "second"
sys.exit(bool({'asyncio', 'anyio', 'trio'} & sys.modules.keys()))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=20).returncode == 0


def test_errors_leave_no_reference_cycle(run: Async) -> None:
    """What the attempts' frames hold goes with the error, without the collector."""

    class Body:
        pass

    bodies: list[Any] = []

    async def call() -> None:
        body = Body()
        bodies.append(weakref.ref(body))
        await anyio.sleep(0)
        raise OSError

    def plain_call() -> None:
        body = Body()
        bodies.append(weakref.ref(body))
        raise OSError

    async def caller() -> None:
        try:
            await policy(delay=5.0)(call)()
        except OSError:
            pass
        await anyio.sleep(0.01)

    gc.collect()
    gc.disable()
    try:
        run(caller)
        assert [each() for each in bodies] == [None]
        try:
            policy(delay=5.0)(plain_call)()
        except OSError:
            pass
        wait_until(lambda: bodies[1]() is None, what="the thread to let go")
    finally:
        gc.enable()


# ── being known ──────────────────────────────────────────────────────────────────────────────


def test_events_tell_of_hedges_sent_and_won(run: Async) -> None:
    """While somebody listens."""
    bus, seen = EventBus(), list[Event]()
    each = policy(bus=bus)
    run(lambda: each(Calls(HANG, "second"))())
    bus.subscribe(seen.append)
    assert seen == []
    run(lambda: each(Calls(HANG, "second"))())
    sent, won = seen
    assert isinstance(sent, HedgeSent)
    assert isinstance(won, HedgeWon)
    assert (sent.name, sent.subject, sent.number, sent.delay) == ("hedge.sent", "hedge", 1, 0.01)
    assert (won.name, won.number) == ("hedge.won", 1)

    async def slowly() -> None:
        await anyio.sleep(0.05)

    run(lambda: each(Calls(slowly, HANG))())
    assert [event.name for event in seen[2:]] == ["hedge.sent"]
    seen.clear()
    count = []

    @each
    def plain() -> None:
        count.append(1)
        time.sleep(0.05 / len(count))

    plain()
    assert seen[0].name == "hedge.sent"


def test_named_hedge_is_registered_and_reconfigured() -> None:
    """It is `hedge:name` in the registry; new options hold for the next call."""
    each = Hedge("orders", idempotent=True, delay=0.5, options=HedgeOptions(delay=9.0, extra=2))
    assert policies.get("hedge:orders") is each
    assert each.defaults == each.options == HedgeOptions(delay=0.5, extra=2)
    each.reconfigure(HedgeOptions(delay=0.1))
    assert each.describe() == {
        "delay": 0.1,
        "sent": 0,
        "refused": 0,
        "options": {
            "delay": 0.1,
            "percentile": 0.95,
            "minimum_calls": 100,
            "window": 30.0,
            "extra": 1,
            "extra_load": 0.05,
            "grace": 0.1,
        },
    }
    assert each.defaults.delay == 0.5


def test_decorated_function_keeps_its_signature(run: Async) -> None:
    """Arguments reach every attempt."""
    seen = []

    @policy()
    async def call(first: int, *, second: int) -> int:
        """What it does."""
        seen.append((first, second))
        if len(seen) == 1:
            await anyio.sleep_forever()
        return first + second

    assert call.__doc__ == "What it does."
    assert run(functools.partial(call, 1, second=2)) == 3
    assert seen == [(1, 2)] * 2


def test_settings_can_switch_off_a_hedge_given_in_code_and_on_again(run: Async) -> None:
    """``extra = 0``: each call is made alone, in its caller's own task; what it takes is still seen."""
    policy = Hedge("reads", idempotent=True, delay=0.01, extra_load=1.0)
    calls: list[int] = []

    @policy
    async def read() -> int:
        calls.append(1)
        await anyio.sleep(0.05)
        return 1

    policies.override({"hedge:reads": lambda options: replace(options, extra=0)})
    run(read)
    assert len(calls) == 1
    assert policy.describe()["sent"] == 0
    policies.override({})
    run(read)
    assert len(calls) == 3


@pytest.mark.parametrize("delay", [None, 5.0], ids=["alone", "hedged"])
def test_trap_17_judgement_that_raises_leaves_the_result_and_the_error(
    run: Async, delay: float | None
) -> None:
    def broken(*judged: Any) -> Any:
        raise ZeroDivisionError("mistake")

    policy = Hedge(idempotent=True, delay=delay, extra_load=1.0, classify=broken, permanent=broken)

    async def answers() -> int:
        return 7

    async def fails() -> None:
        raise ValueError("mine")

    assert run(policy(answers)) == 7
    with pytest.raises(ValueError, match="mine"):
        run(policy(fails))


@pytest.mark.parametrize("permanent", [[ValueError], 5, (ValueError, "x")], ids=repr)
def test_trap_60_what_names_no_permanent_errors_is_refused(permanent: Any) -> None:
    with pytest.raises(ConfigError, match=r"^permanent: .* names no types of Exception"):
        Hedge(idempotent=True, permanent=permanent)
