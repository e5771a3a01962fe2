"""What every policy can do as a decorator, whatever it guards."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import subprocess
import sys
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

import pytest

from chassis.core.errors import Rejected
from chassis.core.functions import is_async_callable
from chassis.core.outcomes import Outcome, classify_error
from chassis.core.permits import Permit
from chassis.core.pipeline import Pipeline
from chassis.core.policies import Admission, Operation, Policy

SUCCESS, FAILURE, IGNORED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED


class Ticket:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def settle(self, outcome: Outcome, error: BaseException | None = None) -> None:
        self._gate.outcomes.append(outcome)
        self._gate.inside -= 1


class Gate(Admission):
    """Admits while ``open`` and writes down how each call ended."""

    def __init__(self, name: str = "gate", *, open: int = 1_000, classify: Any = classify_error) -> None:
        self.name = name
        self.open = open
        self.classify = classify
        self.inside = 0
        self.outcomes: list[Outcome] = []

    def acquire(self) -> Permit:
        if self.open <= 0:
            raise Rejected("the gate is shut")
        self.open -= 1
        self.inside += 1
        return Ticket(self)


class Twice(Policy):
    """Tries once more after a ValueError."""

    name = "twice"

    async def run(self, operation: Operation[Any]) -> Any:
        try:
            return await operation()
        except ValueError:
            return await operation()

    def run_sync(self, operation: Callable[[], Any]) -> Any:
        try:
            return operation()
        except ValueError:
            return operation()


def test_plain_function_is_guarded_and_keeps_result_and_error() -> None:
    """A decorated function returns and raises what the bare one does, and each call is judged."""
    gate = Gate()
    error = ValueError("no")

    @gate
    def divide(a: float, b: float = 2) -> float:
        if b == 0:
            raise error
        return a / b

    assert divide(4) == 2
    with pytest.raises(ValueError) as caught:
        divide(1, b=0)
    assert caught.value is error
    assert gate.outcomes == [SUCCESS, FAILURE]
    assert gate.inside == 0


@pytest.mark.asyncio
async def test_async_function_is_guarded_while_it_runs() -> None:
    """The permit is held until the coroutine has ended, and cancellation is IGNORED."""
    gate = Gate()
    started = asyncio.Event()

    @gate
    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await started.wait()
    assert gate.inside == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gate.outcomes == [IGNORED]


def test_trap_25_generator_that_raises_midstream_is_one_failure() -> None:
    """A sync generator that raises after two items is one FAILURE; the consumer sees its error."""
    gate = Gate()
    error = ConnectionError("cut")

    @gate
    def stream() -> Generator[int, None, None]:
        yield 1
        yield 2
        raise error

    items = []
    with pytest.raises(ConnectionError) as caught:
        for item in stream():
            items.append(item)
            assert gate.inside == 1
    assert caught.value is error
    assert items == [1, 2]
    assert gate.outcomes == [FAILURE]


@pytest.mark.asyncio
async def test_trap_25_async_generator_that_raises_midstream_is_one_failure() -> None:
    """An async generator that raises after two items is one FAILURE; the consumer sees its error."""
    gate = Gate()
    error = ConnectionError("cut")

    @gate
    async def stream() -> AsyncGenerator[int, None]:
        yield 1
        yield 2
        raise error

    items = []
    with pytest.raises(ConnectionError) as caught:
        async for item in stream():
            items.append(item)
            assert gate.inside == 1
    assert caught.value is error
    assert items == [1, 2]
    assert gate.outcomes == [FAILURE]


@pytest.mark.asyncio
async def test_generators_that_fail_before_any_item_are_failures() -> None:
    """An error on the way to the first item gives the permit back as a FAILURE."""
    gate = Gate()

    @gate
    def stream() -> Generator[int, None, None]:
        raise ConnectionError("refused")
        yield 1

    @gate
    async def astream() -> AsyncGenerator[int, None]:
        raise ConnectionError("refused")
        yield 1

    with pytest.raises(ConnectionError):
        next(stream())
    with pytest.raises(ConnectionError):
        await anext(astream())
    assert gate.outcomes == [FAILURE, FAILURE]


@pytest.mark.asyncio
async def test_exhausted_generators_are_successes_even_without_items() -> None:
    """A generator that ends by itself is a SUCCESS, and a sync one's return value is kept."""
    gate = Gate()

    @gate
    def stream(count: int) -> Generator[int, None, str]:
        yield from range(count)
        return f"{count} sent"

    @gate
    async def astream(count: int) -> AsyncGenerator[int, None]:
        for each in range(count):
            yield each

    for count in (0, 2):
        generator = stream(count)
        items = []
        with pytest.raises(StopIteration) as end:
            while True:
                items.append(next(generator))
        assert items == list(range(count))
        assert end.value.value == f"{count} sent"
        assert [each async for each in astream(count)] == list(range(count))
    assert gate.outcomes == [SUCCESS] * 4


def test_trap_26_generator_closed_by_its_consumer() -> None:
    """Closed after an item: SUCCESS, and the guarded generator is closed; before any: no call at all."""
    gate = Gate()
    closed = []

    @gate
    def stream() -> Generator[int, None, None]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(gate.inside)

    generator = stream()
    assert next(generator) == 1
    generator.close()
    assert closed == [1], "the inner generator ends before the permit is given back"
    assert gate.outcomes == [SUCCESS]

    stream().close()
    assert gate.outcomes == [SUCCESS]
    assert gate.inside == 0


def test_dropped_generator_gives_its_permit_back() -> None:
    """A consumer that breaks out of the loop and forgets the generator leaks no permit."""
    gate = Gate()

    @gate
    def stream() -> Generator[int, None, None]:
        yield 1
        yield 2

    for _ in stream():
        break
    gc.collect()
    assert gate.inside == 0


@pytest.mark.asyncio
async def test_trap_26_async_generator_closed_by_its_consumer() -> None:
    """Closing after an item reaches the guarded generator and is a SUCCESS; before any it is no call."""
    gate = Gate()
    closed = []

    @gate
    async def stream() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(gate.inside)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generator = stream()
        assert await anext(generator) == 1
        await generator.aclose()
        assert closed == [1], "the inner generator ends before the permit is given back"
        assert gate.outcomes == [SUCCESS]

        await stream().aclose()
        gc.collect()
    assert gate.outcomes == [SUCCESS]
    assert gate.inside == 0


@pytest.mark.asyncio
async def test_trap_26_async_generator_cancelled_before_its_first_item_is_ignored() -> None:
    """Cancellation while the first item is awaited gives the permit back as IGNORED."""
    gate = Gate()
    started = asyncio.Event()

    @gate
    async def stream() -> AsyncGenerator[int, None]:
        started.set()
        await asyncio.Event().wait()
        yield 1

    task = asyncio.ensure_future(anext(stream()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gate.outcomes == [IGNORED]
    assert gate.inside == 0


def echo() -> Generator[Any, Any, str]:
    """Answers what it is sent, and survives errors thrown in."""
    answer: Any = "ready"
    while answer != "stop":
        try:
            answer = yield answer
        except KeyError as error:
            answer = f"caught {error.args[0]}"
    return "stopped"


async def aecho() -> AsyncGenerator[Any, Any]:
    """As ``echo``, async."""
    answer: Any = "ready"
    while answer != "stop":
        try:
            answer = yield answer
        except KeyError as error:
            answer = f"caught {error.args[0]}"


@pytest.mark.parametrize(
    "policy", [Gate(), Twice(), Pipeline(Twice(), Gate())], ids=["gate", "wrapper", "both"]
)
def test_trap_27_send_and_throw_reach_the_generator(policy: Policy) -> None:
    """send(x) and throw(e) go through to the guarded generator, from the first item on."""
    generator = policy(echo)()
    assert next(generator) == "ready"
    assert generator.send("one") == "one"
    assert generator.throw(KeyError("k")) == "caught k"
    assert generator.send("two") == "two"
    with pytest.raises(StopIteration) as end:
        generator.send("stop")
    assert end.value.value == "stopped"

    generator = policy(echo)()
    next(generator)
    assert generator.throw(KeyError("first")) == "caught first"
    with pytest.raises(ZeroDivisionError):
        generator.throw(ZeroDivisionError())


@pytest.mark.parametrize(
    "policy", [Gate(), Twice(), Pipeline(Twice(), Gate())], ids=["gate", "wrapper", "both"]
)
@pytest.mark.asyncio
async def test_trap_27_asend_and_athrow_reach_the_generator(policy: Policy) -> None:
    """asend(x) and athrow(e) go through to the guarded generator, from the first item on."""
    generator = policy(aecho)()
    assert await anext(generator) == "ready"
    assert await generator.asend("one") == "one"
    assert await generator.athrow(KeyError("k")) == "caught k"
    assert await generator.asend("two") == "two"
    with pytest.raises(StopAsyncIteration):
        await generator.asend("stop")

    generator = policy(aecho)()
    await anext(generator)
    assert await generator.athrow(KeyError("first")) == "caught first"
    with pytest.raises(ZeroDivisionError):
        await generator.athrow(ZeroDivisionError())


@pytest.mark.asyncio
async def test_what_an_async_generator_raises_later_does_not_bear_what_was_thrown_into_it() -> None:
    """It dealt with that: the next error did not come of handling it."""

    @Gate()
    async def items() -> AsyncGenerator[int, None]:
        with contextlib.suppress(KeyError):
            yield 1
        raise OSError("the next")

    generator = items()
    await anext(generator)
    with pytest.raises(OSError, match="next") as failed:
        await generator.athrow(KeyError())
    assert failed.value.__context__ is None


@pytest.mark.asyncio
async def test_generator_functions_still_make_context_managers() -> None:
    """A guarded generator works under contextlib, which throws the body's error into it."""
    gate = Gate()
    seen = []

    @contextlib.contextmanager
    @gate
    def session() -> Generator[str, None, None]:
        try:
            yield "session"
        except LookupError:
            seen.append("sync")

    @contextlib.asynccontextmanager
    @gate
    async def asession() -> AsyncGenerator[str, None]:
        try:
            yield "session"
        except LookupError:
            seen.append("async")

    with session() as each:
        assert each == "session"
        raise LookupError
    async with asession():
        raise LookupError
    assert seen == ["sync", "async"]
    assert gate.outcomes == [SUCCESS, SUCCESS]


class Caller:
    async def __call__(self, value: int) -> int:
        raise ConnectionError(value)

    async def method(self, value: int) -> int:
        raise ConnectionError(value)

    @classmethod
    async def of_class(cls, value: int) -> int:
        raise ConnectionError(value)


async def fetch(value: int) -> int:
    raise ConnectionError(value)


@pytest.mark.parametrize(
    "function",
    [
        lambda value: fetch(value),
        fetch,
        Caller(),
        Caller().method,
        Caller.of_class,
        functools.partial(fetch),
        functools.partial(Caller().method),
        functools.partial(Caller()),
        functools.partial(lambda value: fetch(value)),
    ],
    ids=[
        "lambda",
        "function",
        "object",
        "method",
        "classmethod",
        "partial",
        "of-method",
        "of-object",
        "of-lambda",
    ],
)
@pytest.mark.asyncio
async def test_trap_28_whatever_gives_an_awaitable_is_guarded_until_it_was_awaited(
    function: Callable[[int], Awaitable[int]],
) -> None:
    """A failing call is a FAILURE, not a success at the moment the coroutine object was made."""
    gate = Gate()
    with pytest.raises(ConnectionError):
        await gate(function)(1)
    assert [each for each in gate.outcomes if each is not IGNORED] == [FAILURE]
    assert gate.inside == 0


@pytest.mark.asyncio
async def test_trap_28_wrapper_tries_again_what_a_plain_function_returned() -> None:
    """A wrapper that calls again makes a new awaitable for the second attempt."""
    attempts = []

    async def work() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError
        return "done"

    assert await Twice()(lambda: work())() == "done"
    assert len(attempts) == 2


@pytest.mark.asyncio
async def test_trap_28_class_and_static_methods_may_be_decorated_from_above() -> None:
    """The decorator may stand above @classmethod and @staticmethod too."""
    gate = Gate()

    class Service:
        @gate
        @classmethod
        async def of_class(cls) -> str:
            return cls.__name__

        @gate
        @staticmethod
        def of_none(value: int) -> int:
            return value

    assert await Service.of_class() == "Service"
    assert Service().of_none(3) == 3
    assert gate.outcomes == [SUCCESS, SUCCESS]


@pytest.mark.asyncio
async def test_trap_29_refused_coroutine_object_is_closed() -> None:
    """A refusal after a plain function has made its coroutine leaves no "never awaited" warning."""
    gate = Gate(open=1)  # enough for the plain call, not for the awaiting that follows
    guarded = gate(lambda: fetch(1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(Rejected):
            await guarded()
        with pytest.raises(Rejected):
            guarded()
        gc.collect()
    assert not caught


def plain(a: int, *, b: str = "x") -> str:
    """Doc."""
    return b * a


def generator(a: int) -> Generator[int, None, None]:
    yield a


async def agenerator(a: int) -> AsyncGenerator[int, None]:
    yield a


@pytest.mark.parametrize("policy", [Gate(), Twice(), Pipeline(Gate())], ids=["gate", "wrapper", "pipeline"])
@pytest.mark.parametrize("function", [plain, fetch, generator, agenerator, functools.partial(plain, b="y")])
def test_trap_30_decorated_functions_look_as_before(policy: Policy, function: Callable[..., Any]) -> None:
    """Signature, name, doc and kind of a decorated function are the bare one's: frameworks ask."""
    decorated = policy(function)
    assert inspect.signature(decorated) == inspect.signature(function)
    assert decorated.__doc__ == function.__doc__
    for kind in (
        inspect.iscoroutinefunction,
        inspect.isasyncgenfunction,
        inspect.isgeneratorfunction,
    ):
        assert kind(decorated) == kind(function)
    assert is_async_callable(decorated) == is_async_callable(function)


@pytest.mark.parametrize("policy", [Gate(), Twice(), Pipeline(Gate())], ids=["gate", "wrapper", "pipeline"])
@pytest.mark.parametrize("thing", [property(lambda self: 1), None, "text"])
def test_what_cannot_be_called_is_no_function_to_decorate(policy: Policy, thing: Any) -> None:
    """A property decorated from above would else silently become a method."""
    with pytest.raises(TypeError, match="below @property"):
        policy(thing)


def test_is_async_callable_sees_through_partials_and_objects() -> None:
    """Async is told from the function that runs in the end."""
    assert is_async_callable(fetch)
    assert is_async_callable(functools.partial(functools.partial(fetch), 1))
    assert is_async_callable(Caller())
    assert is_async_callable(Caller().method)
    assert not is_async_callable(plain)
    assert not is_async_callable(Caller)
    assert not is_async_callable(len)
    assert not is_async_callable(agenerator)


def test_trap_17_classifier_that_raises_leaves_the_result_and_leaks_nothing() -> None:
    """The guarded call's result stands; the outcome is a FAILURE and the permit is back."""

    def broken(result: Any, error: BaseException | None) -> Outcome:
        raise AttributeError("no status_code")

    gate = Gate(classify=broken)
    assert gate(plain)(2) == "xx"
    assert gate.outcomes == [FAILURE]
    assert gate.inside == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_trap_10_what_is_no_exception_is_ignored_whatever_the_classifier(error: type[BaseException]) -> None:
    """Cancellation and its like say nothing of the callee, even to a classifier that counts all."""

    def everything(result: Any, error: BaseException | None) -> Outcome:
        return FAILURE if error is not None else SUCCESS

    gate = Gate(classify=everything)

    @gate
    def leave() -> None:
        raise error

    with pytest.raises(error):
        leave()
    assert gate.outcomes == [IGNORED]


def test_trap_11_exception_groups_are_judged_by_their_members() -> None:
    """Only cancellations or refusals: IGNORED; one real failure among them: FAILURE."""
    gate = Gate()

    @gate
    def leave(*errors: BaseException) -> None:
        raise BaseExceptionGroup("several", errors)

    for errors in (
        [asyncio.CancelledError()],
        [Rejected("full"), asyncio.CancelledError()],
        [asyncio.CancelledError(), BaseExceptionGroup("inner", [OSError()])],
    ):
        with pytest.raises(BaseExceptionGroup):
            leave(*errors)
    assert gate.outcomes == [IGNORED, IGNORED, FAILURE]


@pytest.mark.asyncio
async def test_pipeline_runs_outermost_first_for_every_kind_of_function() -> None:
    """Each attempt of an outer wrapper passes the inner admission, for calls and for streams."""
    gate = Gate()
    pipeline = Pipeline(Twice(), gate, name="payments")
    assert pipeline.order() == ["Twice(twice)", "Gate(gate)"]
    failures = [ValueError(each) for each in range(4)]

    @pipeline
    def call() -> int:
        if len(failures) % 2 == 0:
            raise failures.pop()
        return len(failures)

    @pipeline
    async def acall() -> int:
        if len(failures) % 2 == 0:
            raise failures.pop()
        return len(failures)

    @pipeline
    def stream() -> Generator[int, None, None]:
        if len(failures) % 2 == 0:
            raise failures.pop()
        yield len(failures)

    @pipeline
    async def astream() -> AsyncGenerator[int, None]:
        if len(failures) % 2 == 0:
            raise failures.pop()
        yield len(failures)

    assert call() == 3
    failures.append(ValueError(9))
    assert await acall() == 3
    failures.append(ValueError(9))
    assert list(stream()) == [3]
    failures.append(ValueError(9))
    assert [each async for each in astream()] == [3]
    assert gate.outcomes == [FAILURE, SUCCESS] * 4
    assert gate.inside == 0


def test_core_needs_no_event_loop() -> None:
    """Importing core loads no asyncio: scripts and WSGI workers do not pay for a loop."""
    code = "import sys, chassis.core; sys.exit('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("members", "outcome"),
    [
        ([asyncio.CancelledError(), KeyboardInterrupt()], Outcome.IGNORED),
        ([asyncio.CancelledError(), ExceptionGroup("", [ValueError()])], Outcome.FAILURE),
    ],
    ids=["only-cancellations", "an-error-among-them"],
)
def test_trap_11_a_group_of_cancellations_is_ignored_whatever_the_classifier(
    members: list[BaseException], outcome: Outcome
) -> None:
    gate = Gate(classify=lambda result, error: FAILURE if error else SUCCESS)

    def fails() -> None:
        raise BaseExceptionGroup("tasks", members)

    with pytest.raises(BaseExceptionGroup):
        gate.run_sync(fails)
    assert gate.outcomes == [outcome]


@pytest.mark.parametrize(
    ("members", "outcome"),
    [
        ([KeyError()], IGNORED),
        ([KeyError(), asyncio.CancelledError()], IGNORED),
        ([KeyError(), LookupError()], SUCCESS),
        ([KeyError(), LookupError(), ExceptionGroup("inner", [OSError()])], FAILURE),
    ],
    ids=["ignored", "ignored-and-cancelled", "a-good-one", "a-failure"],
)
def test_trap_11_members_of_a_group_are_judged_by_the_classifier_there_is(
    members: list[BaseException], outcome: Outcome
) -> None:
    """One that calls an error of the caller's own making IGNORED need not know of task groups."""

    def classify(result: Any, error: BaseException | None) -> Outcome:
        if isinstance(error, KeyError):
            return IGNORED
        return SUCCESS if isinstance(error, LookupError) else classify_error(result, error)

    gate = Gate(classify=classify)

    def fails() -> None:
        raise BaseExceptionGroup("tasks", members)

    with pytest.raises(BaseExceptionGroup):
        gate.run_sync(fails)
    assert gate.outcomes == [outcome]
