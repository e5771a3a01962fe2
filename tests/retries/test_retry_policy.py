"""Retry around real calls."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import gc
import subprocess
import sys
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import pytest
import tenacity
import tenacity.asyncio
import trio

from chassis.core.deadline import Deadline, deadline_scope
from chassis.core.errors import CircuitOpen, ConfigError, Rejected
from chassis.core.events import Event, EventBus
from chassis.core.outcomes import Outcome, classify_error
from chassis.core.registry import policies
from chassis.retries import (
    Retry,
    RetryBudget,
    RetryGaveUp,
    RetryOptions,
    RetryScheduled,
    retry,
)


class Naps:
    """Sleeps nobody waits for, written down; the clock goes on meanwhile."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self.now = 1_000.0

    def sleep(self, seconds: float) -> None:
        self.taken.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)

    def clock(self) -> float:
        return self.now


@pytest.fixture
def naps() -> Naps:
    return Naps()


@pytest.fixture
def make(naps: Naps) -> Callable[..., Retry]:
    def make(name: str | None = None, **options: Any) -> Retry:
        waiting = {"sleep": naps.sleep, "sleep_async": naps.sleep_async, "clock": naps.clock}
        return Retry(name, **{**waiting, "bus": EventBus(), **options})

    return make


class Flaky:
    """Fails with the given errors, one per call, then answers."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"

    async def later(self) -> str:
        return self()


def errors(count: int) -> list[ConnectionError]:
    return [ConnectionError(f"refused {n}") for n in range(1, count + 1)]


def test_tries_again_until_it_works(make: Any, naps: Naps) -> None:
    """Two failures and a success are three attempts with growing pauses between them."""
    flaky = Flaky(*errors(2))
    assert make()(flaky)() == "answer"
    assert flaky.calls == 3
    assert len(naps.taken) == 2
    assert 0 <= naps.taken[0] <= 0.1
    assert 0 <= naps.taken[1] <= 0.2


@pytest.mark.asyncio
async def test_tries_async_functions_again(make: Any, naps: Naps) -> None:
    """As for plain functions."""
    flaky = Flaky(*errors(2))
    assert await make()(flaky.later)() == "answer"
    assert flaky.calls == 3
    assert len(naps.taken) == 2


@pytest.mark.parametrize("retries", [0, 1, 4])
def test_makes_as_many_further_attempts_as_told(make: Any, retries: int) -> None:
    """`retries` counts further attempts."""
    flaky = Flaky(*errors(9))
    with pytest.raises(ConnectionError):
        make(retries=retries)(flaky)()
    assert flaky.calls == 1 + retries


def test_trap_45_last_real_error_comes_with_a_note_of_all_attempts(make: Any) -> None:
    """The caller gets the last attempt's own error; the note tells of the ones before."""
    all_errors = errors(3)
    with pytest.raises(ConnectionError) as caught:
        make()(Flaky(*all_errors))()
    assert caught.value is all_errors[2]
    [note] = caught.value.__notes__
    assert note.startswith("attempts of this call: 1. ConnectionError: refused 1, then 0.")
    assert "; 2. ConnectionError: refused 2, then 0." in note
    assert note.endswith("; 3. ConnectionError: refused 3 (no attempts left)")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_note_leaves_the_errors_own_notes_and_ends_without_a_reason_where_there_is_none(make: Any) -> None:
    """What others wrote on the error stays; an error that is not of the kind to try again needs no reason."""
    error = KeyError("no such order")
    error.add_note("by its own")
    with pytest.raises(KeyError) as caught:
        make(on=ConnectionError)(Flaky(*errors(1), error))()
    own, note = caught.value.__notes__
    assert own == "by its own"
    assert note.endswith("; 2. KeyError: 'no such order'")


def test_error_that_cannot_be_printed_is_named(make: Any) -> None:
    """Its type stands for it."""

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    with pytest.raises(Broken) as caught:
        make(retries=1)(Flaky(*errors(1), Broken()))()
    assert caught.value.__notes__[0].endswith("; 2. Broken (no attempts left)")


def test_error_of_a_single_attempt_has_no_note(make: Any) -> None:
    """Where nothing was tried again there is nothing to tell."""
    for policy, error in ((make(retries=0), OSError()), (make(on=KeyError), OSError())):
        with pytest.raises(OSError) as caught:
            policy(Flaky(error))()
        assert not hasattr(caught.value, "__notes__")


def test_trap_45_traceback_does_not_grow_when_one_object_is_raised_each_time(make: Any) -> None:
    """An error raised from a constant has one attempt's traceback and one note, call after call."""
    error = ConnectionError("always the same")

    def depth() -> int:
        with pytest.raises(ConnectionError):
            make(retries=5)(Flaky(*[error] * 9))()
        traceback, count = error.__traceback__, 0
        while traceback is not None:
            traceback, count = traceback.tb_next, count + 1
        error.__traceback__ = None
        return count

    assert depth() == depth() <= 6
    assert len(error.__notes__) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["sync", "async", "run_sync", "run"])
async def test_trap_45_no_reference_cycle(make: Any, kind: str) -> None:
    """Errors and their frames go as soon as the caller has dealt with them, without the collector."""

    class Body:
        pass

    bodies = []

    def call() -> None:
        body = Body()
        bodies.append(weakref.ref(body))
        raise CircuitOpen("b") if len(bodies) == 3 else ConnectionError

    async def acall() -> None:
        call()

    gc.collect()
    gc.disable()
    try:
        try:
            policy = make(on=(ConnectionError, CircuitOpen))
            if kind == "sync":
                policy(call)()
            elif kind == "async":
                await policy(acall)()
            elif kind == "run_sync":
                policy.run_sync(call)
            else:
                await policy.run(acall)
        except ConnectionError:
            pass
        assert len(bodies) == 3
        assert [each() for each in bodies] == [None] * 3
    finally:
        gc.enable()


def test_group_of_refusals_after_a_real_error_is_a_refusal(make: Any) -> None:
    """Tasks that were all refused tell less than the attempt that was not."""
    real = ConnectionError("refused")
    with pytest.raises(ConnectionError) as caught:
        make()(Flaky(real, ExceptionGroup("tasks", [CircuitOpen("a"), CircuitOpen("b")])))()
    assert caught.value is real


def test_refusal_after_a_real_error_surfaces_the_real_one(make: Any) -> None:
    """A breaker that opened because of the first attempt does not hide what the first attempt met."""
    real = ConnectionError("refused")
    context = real.__context__ = KeyError("context")
    with pytest.raises(ConnectionError) as caught:
        make()(Flaky(real, CircuitOpen("payments")))()
    assert caught.value is real
    assert caught.value.__context__ is context
    assert "2. CircuitOpen: circuit breaker 'payments' is open" in caught.value.__notes__[0]
    assert any(entry.name == "__call__" for entry in caught.traceback), "it still shows where it was raised"


def test_refusal_after_a_failed_result_leaves_the_result(make: Any) -> None:
    """The last answer there was is more than a refusal to ask again."""
    answers: list[Any] = [503, CircuitOpen("payments")]

    @make(on=OSError, classify=bad_status)
    def call() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert call() == 503


# ── the first attempt ────────────────────────────────────────────────────────────────────────


@pytest.mark.asyncio
async def test_success_at_the_first_attempt_reads_no_clock(make: Any) -> None:
    """Nor takes a lock or sleeps: it is counted for the budget, and that is all it costs."""

    def clock() -> float:
        raise AssertionError

    share = RetryBudget(ratio=1.0, per_second=0.0)
    policy = make(budget=share, clock=clock)

    async def later(*, value: int) -> int:
        return value

    for value in range(10):
        assert policy(lambda value: value)(value) == value
        assert policy(lambda *, value: value)(value=value) == value
        assert await policy(later)(value=value) == value
        assert policy.run_sync(lambda value=value: value) == value
        assert await policy.run(functools.partial(later, value=value)) == value
    assert share.available(0.0) == 50


@pytest.mark.asyncio
@pytest.mark.parametrize("failures", [0, 1, 2])
async def test_plain_function_that_returns_an_awaitable_is_tried_again_until_that_is_awaited(
    make: Any, failures: int
) -> None:
    """Whether the call itself fails or the awaiting."""
    flaky = Flaky(*errors(failures))
    assert await make()(lambda: flaky.later())() == "answer"
    assert flaky.calls == failures + 1
    fails_at_once, flaky = Flaky(*errors(1)), Flaky(*errors(failures))

    def call() -> Any:
        fails_at_once()
        return flaky.later()

    assert await make()(call)() == "answer"
    assert flaky.calls == failures + 1


@pytest.mark.asyncio
async def test_what_holds_for_a_decorated_function_holds_for_run(make: Any, naps: Naps) -> None:
    """The decorator takes a way of its own on success; after a failure there is one."""
    for policy in (make(), make(wait=lambda _: 0.1)):
        for call in (
            lambda flaky, policy=policy: policy.run_sync(flaky),
            lambda f, policy=policy: policy(f)(),
        ):
            flaky = Flaky(*errors(2))
            assert call(flaky) == "answer"
            assert flaky.calls == 3
            all_errors = errors(4)
            with pytest.raises(ConnectionError) as caught:
                call(Flaky(*all_errors))
            assert caught.value is all_errors[2]
            assert len(caught.value.__notes__) == 1
        for acall in (
            lambda flaky, policy=policy: policy.run(flaky.later),
            lambda flaky, policy=policy: policy(flaky.later)(),
        ):
            flaky = Flaky(*errors(2))
            assert await acall(flaky) == "answer"
            assert flaky.calls == 3
            all_errors = errors(4)
            with pytest.raises(ConnectionError) as caught:
                await acall(Flaky(*all_errors))
            assert caught.value is all_errors[2]


# ── what ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("on", "error", "calls"),
    [
        (None, OSError(), 2),
        (None, Rejected("full"), 1),
        (KeyError, KeyError(), 2),
        (KeyError, OSError(), 1),
        ((KeyError, OSError), FileNotFoundError(), 2),
        (lambda error: "again" in str(error), ValueError("again"), 2),
        (lambda error: "again" in str(error), ValueError("no"), 1),
        (Rejected, Rejected("full"), 2),
        (CircuitOpen, CircuitOpen("b"), 2),
        ((OSError, Rejected), CircuitOpen("b"), 2),
        (CircuitOpen, Rejected("full"), 1),
        (Exception, Rejected("full"), 1),
        (Exception, CircuitOpen("b", retry_after=0.1), 1),
        (lambda _: True, CircuitOpen("b"), 2),
        (Exception, OSError(), 2),
    ],
)
def test_on_says_which_errors(make: Any, on: Any, error: Exception, calls: int) -> None:
    """A type, several, or a function; by default what the classifier calls a failure.

    A refusal is slept on only where it is named: ``Exception`` names everything and thus nothing.
    """
    flaky = Flaky(error)
    if calls == 1:
        with pytest.raises(type(error)) as caught:
            make(on=on)(flaky)()
        assert caught.value is error
    else:
        assert make(on=on)(flaky)() == "answer"
    assert flaky.calls == calls


def not_found_is_the_callers(result: Any, error: BaseException | None) -> Outcome:
    if isinstance(error, KeyError):
        return Outcome.IGNORED
    return Outcome.SUCCESS if isinstance(error, LookupError) else classify_error(result, error)


@pytest.mark.parametrize("classify", [classify_error, not_found_is_the_callers], ids=["default", "its own"])
@pytest.mark.parametrize(
    ("members", "calls"),
    [
        ([OSError()], 2),
        ([Rejected("full")], 1),
        ([Rejected("full"), ExceptionGroup("inner", [OSError()])], 2),
        ([KeyError()], {classify_error: 2, not_found_is_the_callers: 1}),
        ([KeyError(), LookupError(), Rejected("full")], {classify_error: 2, not_found_is_the_callers: 1}),
        ([KeyError(), LookupError(), ExceptionGroup("inner", [OSError()])], 2),
    ],
    ids=["a-failure", "refused", "refused-and-a-failure", "ignored", "ignored-and-good", "mixed"],
)
def test_trap_11_a_group_is_tried_again_if_one_of_its_members_would_be(
    make: Any, classify: Any, members: list[Exception], calls: Any
) -> None:
    """By the classifier there is, which need not know of task groups; the caller gets the group itself."""
    calls = calls if isinstance(calls, int) else calls[classify]
    group = ExceptionGroup("tasks", members)
    policy = make(classify=classify, retries=1)
    for run in (policy.run_sync, lambda flaky: policy(flaky)()):
        flaky = Flaky(group, group)
        with pytest.raises(ExceptionGroup) as caught:
            run(flaky)
        assert caught.value is group
        assert flaky.calls == calls


@pytest.mark.parametrize(
    ("on", "members", "calls"),
    [
        (OSError, [OSError()], 1),
        (ExceptionGroup, [OSError()], 2),
        (Exception, [OSError(), KeyError()], 2),
        (Exception, [Rejected("full")], 1),
        (Exception, [Rejected("full"), ExceptionGroup("inner", [CircuitOpen("b")])], 1),
        (Exception, [Rejected("full"), OSError()], 2),
        ((Exception, CircuitOpen), [CircuitOpen("b")], 2),
        ((Exception, CircuitOpen), [CircuitOpen("b"), Rejected("full")], 1),
        (lambda error: error.subgroup(OSError) is not None, [OSError(), KeyError()], 2),
    ],
)
def test_on_is_asked_of_a_group_as_except_is(
    make: Any, on: Any, members: list[Exception], calls: int
) -> None:
    """``on=OSError`` says nothing of what else is in a group; of refusals alone, it is a refusal."""
    flaky = Flaky(ExceptionGroup("tasks", members))
    if calls == 1:
        with pytest.raises(ExceptionGroup):
            make(on=on)(flaky)()
    else:
        assert make(on=on)(flaky)() == "answer"
    assert flaky.calls == calls


def test_tenacity_is_asked_of_a_group_as_it_is(make: Any) -> None:
    """Its predicates see what was raised, whatever a classifier says of the members."""
    seen: list[BaseException] = []
    group = ExceptionGroup("tasks", [Rejected("full")])
    asked = tenacity.retry_if_exception(lambda error: not seen.append(error))
    assert make(retry=asked)(Flaky(group))() == "answer"
    assert seen == [group]


@pytest.mark.asyncio
async def test_trap_43_a_group_with_a_cancellation_in_it_is_never_tried_again(make: Any) -> None:
    """It is no ``Exception``: somebody wants an end, whatever else has failed meanwhile."""
    flaky = Flaky(BaseExceptionGroup("tasks", [OSError(), asyncio.CancelledError()]))
    with pytest.raises(BaseExceptionGroup):
        await make(on=lambda _: True)(flaky.later)()
    assert flaky.calls == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
async def test_what_is_no_exception_is_never_tried_again(make: Any, error: type[BaseException]) -> None:
    """Whatever `on` says, at the first attempt and at a later one."""
    for before in (0, 1):
        policy = make(on=lambda _: True)
        for call in (policy.run_sync, lambda flaky, policy=policy: policy(flaky)()):
            flaky = Flaky(*errors(before), error())
            with pytest.raises(error):
                call(flaky)
            assert flaky.calls == before + 1
        for acall in (
            lambda flaky, policy=policy: policy.run(flaky.later),
            lambda flaky, policy=policy: policy(flaky.later)(),
        ):
            flaky = Flaky(*errors(before), error())
            with pytest.raises(error):
                await acall(flaky)
            assert flaky.calls == before + 1


@pytest.mark.asyncio
async def test_trap_43_cancellation_ends_it_at_once_under_any_strategy(make: Any) -> None:
    """Under tenacity, retry_if_not_exception_type would try a cancelled call again."""
    calls, started = 0, asyncio.Event()

    @make(retry=tenacity.retry_if_not_exception_type(KeyError))
    async def hang() -> None:
        nonlocal calls
        calls += 1
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await started.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=1)
    assert task.cancelled()
    assert calls == 1


@pytest.mark.asyncio
async def test_cancelled_while_it_waits(make: Any) -> None:
    """A caller that leaves during the pause leaves at once."""
    flaky = Flaky(*errors(9))
    policy = Retry(wait_base=60.0, wait_max=60.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await policy(flaky.later)()
    assert flaky.calls == 1


def bad_status(result: Any, error: BaseException | None) -> Outcome:
    return Outcome.FAILURE if error or result >= 500 else Outcome.SUCCESS


@pytest.mark.asyncio
async def test_results_the_classifier_calls_failures_are_tried_again(make: Any) -> None:
    """Until a good one, or until there are no attempts left: then the last result is returned."""
    for answers, expected, calls in (([503, 200], 200, 2), ([503, 502, 500, 200], 500, 3)):
        left = list(answers)
        assert make(classify=bad_status)(lambda left=left: left.pop(0))() == expected
        assert len(answers) - len(left) == calls
        left = list(answers)

        async def later(left: list[int] = left) -> int:
            return left.pop(0)

        assert await make(classify=bad_status)(later)() == expected
        assert len(answers) - len(left) == calls


# ── when ─────────────────────────────────────────────────────────────────────────────────────


def test_no_attempt_is_started_beyond_the_deadline(make: Any, naps: Naps) -> None:
    """Where the pause would reach the deadline, the error comes at once."""
    flaky = Flaky(*errors(9))
    wait = tenacity.wait_fixed(3)
    with deadline_scope(Deadline.after(2.0)), pytest.raises(ConnectionError) as caught:
        make(wait=wait)(flaky)()
    assert naps.taken == []
    assert flaky.calls == 1
    assert caught.value.__notes__[0].endswith("(the deadline comes first)")
    with deadline_scope(Deadline.after(20.0)):
        assert make(wait=wait)(Flaky(*errors(2)))() == "answer"
    assert naps.taken == [3.0, 3.0]


def test_no_attempt_is_started_that_has_no_time_to_be_of_use(make: Any, naps: Naps) -> None:
    """`minimum_attempt_time` must be left of the deadline when the pause is over."""
    wait = tenacity.wait_fixed(3)
    flaky = Flaky(*errors(9))
    with deadline_scope(Deadline.after(4.0)), pytest.raises(ConnectionError) as caught:
        make(wait=wait, minimum_attempt_time=1.5)(flaky)()
    assert (flaky.calls, naps.taken) == (1, [])
    assert caught.value.__notes__[0].endswith("(the deadline comes first)")
    with deadline_scope(Deadline.after(4.0)):
        assert make(wait=wait, minimum_attempt_time=0.5)(Flaky(*errors(1)))() == "answer"


def test_refusal_that_says_when_is_waited_for(make: Any, naps: Naps) -> None:
    """Never sooner than told, and not all at the same moment."""
    for _ in range(10):
        flaky = Flaky(CircuitOpen("b", retry_after=0.5))
        assert make(on=CircuitOpen)(flaky)() == "answer"
    assert all(0.5 <= each <= 0.6 for each in naps.taken)
    assert len(set(naps.taken)) > 5


def test_a_call_that_is_refused_each_time_ends_with_the_refusal(make: Any) -> None:
    """Where ``on`` names it and no attempt ever got further."""
    refusals = [CircuitOpen("b", retry_after=0.1) for _ in range(3)]
    with pytest.raises(CircuitOpen) as caught:
        make(on=CircuitOpen)(Flaky(*refusals))()
    assert caught.value is refusals[2]


def test_the_pause_is_drawn_from_nothing_to_twice_as_much_each_time(make: Any, naps: Naps) -> None:
    """From ``wait_base``, up to ``wait_max``; both follow new options."""

    def longest(times: int) -> list[float]:
        drawn: list[list[float]] = []
        for _ in range(60):
            naps.taken.clear()
            with pytest.raises(ConnectionError):
                policy(Flaky(*errors(9)))()
            drawn.append(list(naps.taken))
        assert len(drawn[0]) == times
        return [max(each[nth] for each in drawn) for nth in range(times)]

    policy = make(retries=4, wait_base=1.0, wait_max=3.0, budget=RetryBudget(per_second=1e6))
    for limit, seen in zip((1.0, 2.0, 3.0, 3.0), longest(4), strict=True):
        assert limit / 2 < seen <= limit
    policy.reconfigure(RetryOptions(retries=2, wait_base=100.0, wait_max=150.0))
    for limit, seen in zip((100.0, 150.0), longest(2), strict=True):
        assert limit / 2 < seen <= limit


class Throttled(Exception):
    def __init__(self, retry_after: Any) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


def test_trap_41_told_to_wait_beyond_the_deadline_or_the_limit(make: Any, naps: Naps) -> None:
    """No sleep, the error at once, with its retry_after for the caller to see."""
    with deadline_scope(Deadline.after(2.0)), pytest.raises(Throttled) as caught:
        make()(Flaky(Throttled(30)))()
    assert caught.value.retry_after == 30
    with pytest.raises(Throttled) as caught:
        make()(Flaky(Throttled(61)))()
    assert "told to wait 61 s" in caught.value.__notes__[0]
    assert naps.taken == []
    assert make(retry_after_max=61)(Flaky(Throttled(61)))() == "answer"
    assert make()(Flaky(Throttled(60)))() == "answer"
    assert naps.taken[0] >= 61


def test_of_a_group_the_longest_wait_that_was_told_holds(make: Any, naps: Naps) -> None:
    """Some of its calls would be refused again before."""
    members = [OSError(), Throttled(30), ExceptionGroup("inner", [Throttled(5), Throttled(None)])]
    assert make()(Flaky(ExceptionGroup("tasks", members)))() == "answer"
    assert 30 <= naps.taken[0] <= 30.1
    with pytest.raises(ExceptionGroup) as caught:
        make(retry_after_max=29)(Flaky(ExceptionGroup("tasks", members)))()
    assert "told to wait 30 s" in caught.value.__notes__[0]
    assert make()(Flaky(ExceptionGroup("tasks", [OSError()])))() == "answer"
    assert naps.taken[1] <= 0.1


@pytest.mark.parametrize("told", [None, -1, float("nan"), "5", True, 0, float("inf")])
def test_retry_after_that_is_no_number_is_ignored(make: Any, naps: Naps, told: Any) -> None:
    """Then the drawn pause holds."""
    assert make()(Flaky(Throttled(told)))() == "answer"
    assert 0 <= naps.taken[0] <= 0.1


def test_trap_44_budget_bounds_what_a_thousand_failing_callers_add(make: Any, naps: Naps) -> None:
    """Further attempts are at most a fifth of the first ones plus the floor, pauses or not."""
    policy = make(budget=RetryBudget(ratio=0.2, per_second=1.0, window=10.0), wait_base=0)
    flaky = Flaky(*errors(10_000))
    call = policy(flaky)
    for _ in range(1_000):
        with pytest.raises(ConnectionError) as caught:
            call()
    assert flaky.calls - 1_000 == 210
    assert caught.value.__notes__[0].endswith("(the retry budget is spent)")
    assert policy.describe()["budget"]["available"] == 0
    assert policy.describe()["budget"]["refused"] > 0


@pytest.mark.asyncio
async def test_trap_44_budget_bounds_callers_that_fail_together(make: Any) -> None:
    """What was decided is what is launched: a thousand tasks in their pauses add no more."""
    policy = Retry(budget=RetryBudget(ratio=0.2, per_second=1.0), wait_base=0.01)
    flaky = Flaky(*errors(10_000))
    call = policy(flaky.later)
    await asyncio.gather(*(call() for _ in range(1_000)), return_exceptions=True)
    assert flaky.calls - 1_000 == 210


def test_successes_fill_the_budget(make: Any) -> None:
    """Each first attempt puts its share in, whatever came of it."""
    policy = make(budget=RetryBudget(ratio=0.5, per_second=0.0))
    for _ in range(4):
        policy(Flaky())()
    flaky = Flaky(*errors(9))
    with pytest.raises(ConnectionError):
        policy(flaky)()
    assert flaky.calls == 3


@pytest.mark.asyncio
async def test_all_successes_of_the_window_fill_the_budget(make: Any) -> None:
    """However many there are between two failures."""

    async def plain(policy: Retry) -> Any:
        return policy(Flaky())()

    async def run_sync(policy: Retry) -> Any:
        return policy.run_sync(Flaky())

    for call in (plain, run_sync, lambda policy: policy(Flaky().later)(), lambda p: p.run(Flaky().later)):
        policy = make(budget=RetryBudget(ratio=1.0, per_second=0.0))
        for _ in range(500):
            assert await call(policy) == "answer"
        assert policy.budget.available(1_000.0) == 500


def test_successes_of_long_ago_pay_for_nothing(make: Any, naps: Naps) -> None:
    """An hour of traffic without a failure is no credit for a storm: what counts is the last window."""
    policy = make(budget=RetryBudget(ratio=1.0, per_second=0.0, window=10.0))
    call = policy(Flaky())
    for _ in range(5_000):
        naps.now += 0.1
        call()
    assert policy.budget.available(naps.now) == pytest.approx(100, abs=63)
    assert policy.budget.available(naps.now + 30) == 0


# ── tenacity ─────────────────────────────────────────────────────────────────────────────────


def test_takes_tenacity_stop_wait_and_retry_objects(make: Any, naps: Naps) -> None:
    """They see the state they know: attempt number, outcome, time since start, idle time."""
    seen = []

    def spy(state: tenacity.RetryCallState) -> float:
        assert state.outcome is not None
        seen.append((state.attempt_number, state.outcome.failed, state.seconds_since_start, state.idle_for))
        return 0.5

    policy = make(
        stop=tenacity.stop_after_attempt(4),
        wait=spy,
        retry=tenacity.retry_if_exception_type(OSError)
        | tenacity.retry_if_result(lambda each: each == "bad"),
    )
    answers: list[Any] = [OSError(), "bad", OSError(), "good"]

    @policy
    def call() -> str:
        naps.now += 1
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert call() == "good"
    assert seen == [(1, True, 1.0, 0.0), (2, False, 2.5, 0.5), (3, True, 4.0, 1.0)]
    assert naps.taken == [0.5] * 3
    with pytest.raises(KeyError):
        policy(Flaky(KeyError()))()
    flaky = Flaky(*errors(9))
    with pytest.raises(ConnectionError):
        policy(flaky)()
    assert flaky.calls == 4


def test_stop_before_delay_knows_the_coming_pause(make: Any, naps: Naps) -> None:
    """The pause is known to the stop object, so that none is slept in vain."""
    flaky = Flaky(*errors(9))
    with pytest.raises(ConnectionError):
        make(stop=tenacity.stop_before_delay(2.5), wait=tenacity.wait_fixed(1))(flaky)()
    assert naps.taken == [1.0, 1.0]
    assert flaky.calls == 3


def test_tenacity_is_loaded_only_where_it_is_used() -> None:
    """Neither importing retry nor a call that fails loads it, or an event loop."""
    code = """
import sys
from chassis.retries import retry
@retry(wait_base=0)
def call(): raise OSError
try: call()
except OSError: pass
sys.exit(bool({'tenacity', 'asyncio', 'anyio'} & sys.modules.keys()))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"stop": tenacity.stop_never, "retries": 3},
            "stop: takes the place of retries; give one of them",
        ),
        (
            {"wait": tenacity.wait_none(), "wait_max": 9.0},
            "wait: takes the place of wait_max; give one of them",
        ),
        (
            {"wait": tenacity.wait_none(), "wait_max": 9.0, "wait_base": 1.0},
            "wait: takes the place of wait_base, wait_max; give one of them",
        ),
        (
            {"retry": tenacity.retry_always, "on": OSError},
            "retry: takes the place of on; give one of them",
        ),
        (
            {"retry": tenacity.asyncio.retry_if_exception(bool)},
            "retry: is async; give one of tenacity's plain objects",
        ),
    ],
)
def test_two_answers_to_one_question_are_refused(options: Any, said: str) -> None:
    """A strategy and the option it replaces cannot both be given; nor an async strategy."""
    with pytest.raises(ConfigError) as caught:
        Retry(**options)
    assert str(caught.value) == said


def test_decorator_without_parentheses_says_what_to_write() -> None:
    """The function would be taken for a name."""
    with pytest.raises(ConfigError, match=r"write @retry\(\)"):
        retry(print)  # type: ignore[arg-type]  # the mistake under test


# ── streams, loops ───────────────────────────────────────────────────────────────────────────


@pytest.mark.asyncio
async def test_streams_are_tried_again_until_their_first_item(make: Any) -> None:
    """What has been yielded is the consumer's; a later error is too."""
    starts: list[int] = []

    @make(classify=bad_status)
    def stream(fail: int) -> Generator[int, None, None]:
        starts.append(1)
        if len(starts) < fail:
            raise ConnectionError
        yield 1
        raise OSError("cut")

    @make(classify=bad_status)
    async def astream(fail: int) -> AsyncGenerator[int, None]:
        starts.append(1)
        if len(starts) < fail:
            raise ConnectionError
        yield 1
        raise OSError("cut")

    items = []
    with pytest.raises(OSError, match="cut"):
        for item in stream(3):
            items.append(item)
    assert (items, len(starts)) == ([1], 3)
    starts.clear()
    with pytest.raises(OSError, match="cut"):
        async for item in astream(3):
            items.append(item)
    assert (items, len(starts)) == ([1, 1], 3)


def test_trap_33_waits_under_trio_asyncio_and_without_a_loop() -> None:
    """The pause is slept in whatever runs."""
    policy = Retry(wait_base=0.001)
    assert trio.run(policy(Flaky(*errors(1)).later)) == "answer"
    assert asyncio.run(policy(Flaky(*errors(1)).later)()) == "answer"
    assert policy(Flaky(*errors(1)))() == "answer"


def test_concurrent_calls_have_attempts_of_their_own(make: Any) -> None:
    """One policy, a call inside a call: neither sees the other's attempts."""
    policy = make(retries=1)
    inner = Flaky(*errors(1))
    outer_errors = errors(1)

    @policy
    def outer() -> str:
        answer = policy(inner)()
        if outer_errors:
            raise outer_errors.pop()
        return answer

    assert outer() == "answer"
    assert inner.calls == 3


# ── being known ──────────────────────────────────────────────────────────────────────────────


def test_events_tell_of_further_attempts_and_of_giving_up(make: Any) -> None:
    """Only while somebody listens, and only of failures that could have been tried again."""
    bus = EventBus()
    policy = make(retries=1, bus=bus)
    with pytest.raises(ConnectionError):
        policy(Flaky(*errors(9)))()
    seen: list[Event] = []
    bus.subscribe(seen.append)
    assert seen == []
    with pytest.raises(ConnectionError):
        policy(Flaky(*errors(9)))()
    with pytest.raises(Rejected):
        policy(Flaky(Rejected("full")))()
    scheduled, gave_up = seen
    assert isinstance(scheduled, RetryScheduled)
    assert isinstance(gave_up, RetryGaveUp)
    assert (scheduled.name, scheduled.subject, scheduled.attempt) == ("retry.scheduled", "retry", 1)
    assert scheduled.failure == "ConnectionError: refused 1"
    assert 0 <= scheduled.wait <= 0.1
    assert gave_up.name == "retry.gave_up"
    assert gave_up.details() == {
        "attempts": 2,
        "reason": "no attempts left",
        "failure": "ConnectionError: refused 2",
    }
    make(retries=0, classify=bad_status, bus=bus)(lambda: 500)()
    assert seen[-1].details()["failure"] == "its result was judged a failure"


def test_named_retry_is_registered_and_reconfigured(make: Any, naps: Naps) -> None:
    """It is `retry:name` in the registry; new options hold for the next decision."""
    policy = make("orders", retries=1)
    assert policies.get("retry:orders") is policy
    assert policy.defaults == policy.options == RetryOptions(retries=1)
    policy.reconfigure(RetryOptions(retries=3, wait_base=0, wait_max=0))
    flaky = Flaky(*errors(9))
    with pytest.raises(ConnectionError):
        policy(flaky)()
    assert flaky.calls == 4
    assert naps.taken == [0.0] * 3
    assert policy.describe() == {
        "budget": {
            "available": 97,
            "waiting": 0,
            "refused": 0,
            "options": {"ratio": 0.2, "per_second": 10.0, "window": 10.0},
        },
        "options": {
            "retries": 3,
            "wait_base": 0,
            "wait_max": 0,
            "retry_after_max": 60.0,
            "minimum_attempt_time": 0.0,
        },
    }
    assert policy.defaults == RetryOptions(retries=1)


def test_keywords_change_single_options(make: Any) -> None:
    """`options` gives all, keywords win."""
    policy = make(
        options=RetryOptions(retries=7, wait_max=9.0), retries=1, wait_base=1.0, retry_after_max=5.0
    )
    assert policy.options == RetryOptions(retries=1, wait_base=1.0, wait_max=9.0, retry_after_max=5.0)


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


class NoTimeTold(Exception):
    @property
    def retry_after(self) -> float:
        raise RuntimeError("no answer, no header")


@pytest.mark.parametrize("error", [Frozen(3), NoTimeTold("down")], ids=["frozen", "its-property-raises"])
def test_trap_45_errors_that_resist_reach_the_caller_all_the_same(error: Exception) -> None:
    """A frozen dataclass refuses to be written to, and a property may raise: the error is the caller's."""

    @retry(on=type(error), wait_base=0)
    def fails() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        fails()
    assert caught.value is error
    assert len(error.__notes__) == 1


@pytest.mark.parametrize(
    "on", [[ValueError], 5, "ValueError", KeyboardInterrupt, (ValueError, 5), int], ids=repr
)
def test_trap_60_what_names_no_errors_is_refused(on: Any) -> None:
    """At construction: found out at the first failure, it would take the place of the failure."""
    with pytest.raises(ConfigError, match=r"^on: .* names no types of Exception; give an exception type"):
        Retry(on=on)


def test_trap_17_judgement_that_raises_leaves_result_and_error_and_is_told() -> None:
    """What the call came to is the caller's; that it was not tried again, and why, stands in the event."""

    def broken(*judged: Any) -> Any:
        raise ZeroDivisionError("mistake")

    bus = EventBus()
    told: list[Event] = []
    bus.subscribe(told.append)
    assert Retry(classify=broken, bus=bus)(lambda: 7)() == 7
    assert asyncio.run(Retry(classify=broken, bus=bus).run(functools.partial(asyncio.sleep, 0, 7))) == 7

    @Retry(on=broken, bus=bus)
    def fails() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        fails()
    assert "mistake" in caught.value.__notes__[0]
    reasons = [event.reason for event in told if isinstance(event, RetryGaveUp)]
    assert reasons == ["what judges it failed: ZeroDivisionError: mistake"] * 3
