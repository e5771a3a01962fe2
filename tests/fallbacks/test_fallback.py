"""Answers in place of calls that failed."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import sys
import threading
import warnings
from collections.abc import AsyncGenerator, Generator
from typing import Any

import anyio
import pytest

from chassis.core.deadline import Deadline, current_deadline, deadline_scope
from chassis.core.errors import CircuitOpen, ConfigError, DeadlineExceeded, Rejected
from chassis.core.events import Event, EventBus
from chassis.core.pipeline import Pipeline
from chassis.core.registry import policies
from chassis.fallbacks import Fallback, FallbackOptions, FallbackUsed, fallback


def fail(error: BaseException) -> Any:
    raise error


async def fail_async(error: BaseException) -> Any:
    raise error


@pytest.mark.asyncio
async def test_answers_for_the_listed_errors_only() -> None:
    """What is not listed is the caller's, untouched; what works is not touched either."""
    policy = fallback("instead", on=(ConnectionError, Rejected))
    assert policy(fail)(ConnectionRefusedError()) == "instead"
    assert await policy(fail_async)(CircuitOpen("b")) == "instead"
    error = ValueError()
    with pytest.raises(ValueError) as caught:
        policy(fail)(error)
    assert caught.value is error
    with pytest.raises(ValueError):
        await policy(fail_async)(error)
    assert policy(lambda: "own")() == "own"
    assert await policy(asyncio.sleep)(0, "own") == "own"


@pytest.mark.asyncio
async def test_each_caller_gets_a_copy_of_its_own() -> None:
    """No caller can change what the next one gets, nor can whoever gave the value."""
    given: dict[str, list[int]] = {"items": []}
    policy = fallback(given, on=OSError)
    given["items"].append(1)
    first = policy(fail)(OSError())
    first["items"].append(2)
    assert policy(fail)(OSError()) == {"items": []}
    assert await policy(fail_async)(OSError()) == {"items": []}


@pytest.mark.asyncio
async def test_functions_are_called_each_time_and_may_be_async() -> None:
    """They find the error they answer for in sys.exception()."""
    seen: list[BaseException | None] = []

    def instead() -> str:
        seen.append(sys.exception())
        return "plain"

    async def instead_async() -> str:
        await asyncio.sleep(0)
        seen.append(sys.exception())
        return "async"

    error = OSError()
    assert fallback(instead, on=OSError)(fail)(error) == "plain"
    assert await fallback(instead, on=OSError)(fail_async)(error) == "plain"
    assert await fallback(instead_async, on=OSError)(fail_async)(error) == "async"
    assert seen == [error] * 3
    assert fallback(list, on=OSError)(fail)(error) == []


def test_async_function_cannot_answer_for_a_plain_one() -> None:
    """It says so, instead of returning a coroutine nobody awaits."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConfigError, match="plain function") as caught:
            fallback(lambda: asyncio.sleep(0), on=OSError)(fail)(OSError())
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.asyncio
async def test_trap_57_cancellation_is_never_answered_for() -> None:
    """Not even where everything is listed that can be."""
    policy = fallback("instead", on=Exception)
    for error in (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error):
            policy(fail)(error())
        with pytest.raises(error):
            policy.run_sync(functools.partial(fail, error()))
        with pytest.raises(error):
            await policy(fail_async)(error())
        with pytest.raises(error):
            await policy.run(functools.partial(fail_async, error()))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_trap_57_cancelled_caller_leaves_without_an_answer(backend: str) -> None:
    """Under asyncio and trio, and also while its fallback is at work."""
    answered = []

    @fallback("instead", on=Exception)
    async def hang() -> None:
        await anyio.sleep_forever()

    @fallback(anyio.sleep_forever, on=OSError)
    async def refused() -> None:
        raise OSError

    async def main() -> None:
        for call in (hang, refused):
            with anyio.move_on_after(0.01):
                answered.append(await call())

    anyio.run(main, backend=backend)
    assert not answered


@pytest.mark.parametrize(
    "on", [BaseException, asyncio.CancelledError, (OSError, KeyboardInterrupt), (), "OSError", OSError()]
)
def test_trap_57_cancellation_cannot_be_listed(on: Any) -> None:
    """What is no Exception is refused at construction."""
    with pytest.raises(ConfigError) as caught:
        Fallback("instead", on=on)
    assert caught.value.setting == "on"


@pytest.mark.asyncio
async def test_trap_58_error_of_the_fallback_is_chained_from_the_original() -> None:
    """Both are to be seen; a cause of its own is left to it."""
    original = OSError("first")

    def broken() -> None:
        raise KeyError("second")

    def broken_for_a_reason() -> None:
        raise KeyError("second") from ValueError("reason")

    def gives_up() -> None:
        raise original

    for guarded in (fail, fail_async):

        async def call(instead: Any, guarded: Any = guarded) -> Any:
            result = fallback(instead, on=OSError)(guarded)(original)
            return await result if guarded is fail_async else result

        with pytest.raises(KeyError) as caught:
            await call(broken)
        assert caught.value.__cause__ is original
        with pytest.raises(KeyError) as caught:
            await call(broken_for_a_reason)
        assert isinstance(caught.value.__cause__, ValueError)
        with pytest.raises(OSError) as same:
            await call(gives_up)
        assert same.value is original
        assert original.__cause__ is None


# ── its own limit ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_fallback_has_a_time_limit_of_its_own(backend: str) -> None:
    """What it waits for is cancelled, and the caller sees both errors."""
    left = []

    async def instead() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            left.append("cancelled")

    async def stream_instead() -> AsyncGenerator[int, None]:
        await anyio.sleep_forever()
        yield 1

    async def stream() -> AsyncGenerator[int, None]:
        raise OSError("stream")
        yield 1

    async def main() -> None:
        with anyio.fail_after(2):
            original = OSError("first")
            with pytest.raises(DeadlineExceeded, match="not done within") as caught:
                await fallback(instead, on=OSError, timeout=0.02)(fail_async)(original)
            assert caught.value.__cause__ is original
            with pytest.raises(DeadlineExceeded):
                [each async for each in fallback(stream_instead, on=OSError, timeout=0.02)(stream)()]

    anyio.run(main, backend=backend)
    assert left == ["cancelled"]


@pytest.mark.asyncio
async def test_default_limit_is_a_second_and_none_leaves_it_to_the_deadline() -> None:
    """A plain replacement finds it as the deadline, of nested ones the earliest."""

    def left() -> float | None:
        deadline = current_deadline()
        return None if deadline is None else deadline.remaining()

    async def left_async() -> float | None:
        return left()

    for policy in (fallback(left, on=OSError), fallback(left_async, on=OSError)):
        assert await policy(fail_async)(OSError()) == pytest.approx(1.0, abs=0.2)
        with deadline_scope(Deadline.after(0.5)):
            assert await policy(fail_async)(OSError()) == pytest.approx(0.5, abs=0.2)
    assert fallback(left, on=OSError)(fail)(OSError()) == pytest.approx(1.0, abs=0.2)
    for unlimited in (
        fallback(left, on=OSError, timeout=None),
        fallback(left_async, on=OSError, timeout=None),
    ):
        assert await unlimited(fail_async)(OSError()) is None
        with deadline_scope(Deadline.after(30.0)):
            assert await unlimited(fail_async)(OSError()) == pytest.approx(30.0, abs=0.5)


@pytest.mark.asyncio
async def test_fallback_that_would_take_longer_than_the_deadline_is_ended_by_it() -> None:
    """No limit of its own is longer than its caller's."""
    with deadline_scope(Deadline.after(0.02)), pytest.raises(DeadlineExceeded) as caught:
        await fallback(asyncio.Event().wait, on=OSError, timeout=60)(fail_async)(OSError())
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.asyncio
async def test_value_is_answered_whatever_the_deadline() -> None:
    """It takes no time."""
    policy = fallback("instead", on=OSError)
    with deadline_scope(Deadline.after(-1.0)):
        assert policy(fail)(OSError()) == "instead"
        assert await policy(fail_async)(OSError()) == "instead"


@pytest.mark.parametrize("value", [0, -1, float("nan"), True, "1s"])
def test_trap_60_impossible_fallback_options_are_refused_at_construction(value: Any) -> None:
    """The error names the field, the value and what to write instead."""
    for make in (FallbackOptions, lambda timeout: fallback(None, on=OSError, timeout=timeout)):
        with pytest.raises(ConfigError) as caught:
            make(timeout=value)
        assert caught.value.setting == "timeout"
        assert repr(value) in str(caught.value)
        assert caught.value.remedy


@pytest.mark.asyncio
async def test_plain_function_that_returns_an_awaitable_is_answered_for() -> None:
    """When the call fails and when the awaiting does."""
    policy = fallback("instead", on=OSError)
    assert await policy(lambda: fail_async(OSError()))() == "instead"
    assert await policy(lambda value: asyncio.sleep(0, value))("own") == "own"
    assert policy(lambda *, value: value)(value=1) == 1
    assert policy.run_sync(lambda: fail(OSError())) == "instead"
    assert await policy.run(lambda: fail_async(OSError())) == "instead"


def test_named_fallback_is_registered_and_reconfigured() -> None:
    """It is `fallback:name` in the registry, and tells how often it answered and failed."""

    def broken() -> None:
        raise KeyError

    policy = fallback(broken, on=(OSError, ValueError), name="prices", options=FallbackOptions(timeout=3.0))
    assert policies.get("fallback:prices") is policy
    assert policy(lambda: 1)() == 1
    with pytest.raises(KeyError):
        policy(fail)(OSError())
    assert policy.describe() == {
        "used": 1,
        "failed": 1,
        "on": ["OSError", "ValueError"],
        "options": {"timeout": 3.0},
    }
    policy.reconfigure(FallbackOptions(timeout=None))
    assert policy.options == FallbackOptions(timeout=None)
    assert policy.defaults == FallbackOptions(timeout=3.0)


@pytest.mark.asyncio
async def test_streams_that_fail_before_their_first_item_get_other_items() -> None:
    """A list, a generator function or an async one; what fails later is the consumer's."""

    def stream(items: int) -> Generator[int, None, None]:
        yield from range(items)
        raise OSError("cut")

    async def astream(items: int) -> AsyncGenerator[int, None]:
        for each in range(items):
            yield each
        raise OSError("cut")

    def other() -> Generator[int, None, None]:
        yield 8

    async def aother() -> AsyncGenerator[int, None]:
        yield 9

    async def made_async() -> list[int]:
        return [6]

    assert list(fallback([7], on=OSError)(stream)(0)) == [7]
    assert list(fallback(other, on=OSError)(stream)(0)) == [8]
    assert list(fallback([], on=OSError)(stream)(0)) == []
    for instead, items in (([7], [7]), (other, [8]), (aother, [9]), (made_async, [6]), ([], [])):
        assert [each async for each in fallback(instead, on=OSError)(astream)(0)] == items
    with pytest.raises(OSError, match="cut"):
        list(fallback([7], on=OSError)(stream)(2))
    with pytest.raises(OSError, match="cut"):
        [each async for each in fallback([7], on=OSError)(astream)(2)]
    with pytest.raises(OSError, match="cut"):
        list(fallback([7], on=KeyError)(stream)(0))


def test_in_a_pipeline() -> None:
    """Outermost, it answers for what all the others gave up on."""
    pipeline = Pipeline(fallback("outer", on=KeyError), fallback("inner", on=OSError))
    assert pipeline(fail)(OSError()) == "inner"
    assert pipeline(fail)(KeyError()) == "outer"


def test_use_is_an_event_while_somebody_listens() -> None:
    """With the type of the error alone: its message may hold what the caller sent."""
    bus, seen = EventBus(), []
    policy = fallback(None, on=OSError, name="advice", bus=bus)
    policy(fail)(OSError("secret"))
    bus.subscribe(seen.append)
    policy(fail)(FileNotFoundError("secret"))
    policy(lambda: 1)()
    [event] = seen
    assert isinstance(event, FallbackUsed)
    assert isinstance(event, Event)
    assert (event.name, event.subject, event.error) == (
        "fallback.used",
        "fallback:advice",
        "FileNotFoundError",
    )
    assert not event.transition


def test_value_that_cannot_be_copied_is_refused_when_given() -> None:
    """It says what to give instead."""
    with pytest.raises(ConfigError, match="give a function"):
        fallback(threading.Lock(), on=OSError)


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


def test_trap_58_a_frozen_error_of_the_fallback_is_chained_too() -> None:
    """A frozen dataclass refuses to be written to; it has its cause and reaches the caller."""

    def replacement() -> None:
        raise Frozen(4)

    @fallback(replacement, on=ValueError)
    def fails() -> None:
        raise ValueError("first")

    with pytest.raises(Frozen) as caught:
        fails()
    assert isinstance(caught.value.__cause__, ValueError)
