"""The scripted dependency: it does what its script says, and remembers how it was called."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import trio

from chassis import CircuitBreaker, Pipeline, fallback
from chassis.limits import Bulkhead
from chassis.retries import Retry
from chassis.testing import Delay, Hang, Items, ManualClock, ScriptedDependency, ScriptExhausted
from tests.support.waiting import wait_until


def test_it_plays_its_script_call_by_call() -> None:
    """Values are returned; errors and error classes are raised."""
    own = ValueError("as told")
    dependency = ScriptedDependency({"id": 1}, own, TimeoutError, None)
    assert dependency.call() == {"id": 1}
    with pytest.raises(ValueError, match="as told") as raised:
        dependency.call()
    assert raised.value is own
    with pytest.raises(TimeoutError):
        dependency.call()
    assert dependency.remaining == 1
    assert dependency.call() is None
    assert dependency.remaining == 0


def test_it_remembers_what_it_was_called_with_when_and_how_that_ended() -> None:
    """All that a test may want to know of a call is in its record."""
    clock = ManualClock()
    dependency = ScriptedDependency("ok", Delay(2.0, then=OSError("gone")), clock=clock)
    dependency.call(1, user="anna")
    clock.advance(10.0)
    with pytest.raises(OSError, match="gone"):
        dependency.call()
    first, second = dependency.calls
    assert (first.args, first.kwargs, first.outcome) == ((1,), {"user": "anna"}, "returned")
    assert (first.at, first.ended_at, first.error) == (1_000.0, 1_000.0, None)
    assert (second.at, second.ended_at, second.outcome) == (1_010.0, 1_012.0, "raised")
    assert str(second.error) == "gone"
    assert str(first) == "(1, user='anna')"


@pytest.mark.asyncio
async def test_one_call_too_many_passes_every_policy() -> None:
    """A test whose script is too short fails, whatever stands around the dependency."""
    dependency = ScriptedDependency("once", name="catalog")
    guarded = Pipeline(
        fallback("replaced", on=Exception), Retry(on=Exception, wait_base=0.0), CircuitBreaker("catalog")
    )
    assert await guarded.run(dependency.call_async) == "once"
    with pytest.raises(ScriptExhausted, match=r"'catalog' has 1 steps, and this is call 2: \(\)"):
        await guarded.run(dependency.call_async)
    with pytest.raises(ScriptExhausted):
        ScriptedDependency(repeat=True).call()


def test_the_last_step_may_answer_all_further_calls() -> None:
    """Down, and up for good."""
    dependency = ScriptedDependency(ConnectionError, "up", repeat=True)
    with pytest.raises(ConnectionError):
        dependency.call()
    assert [dependency.call() for _ in range(3)] == ["up", "up", "up"]


@pytest.mark.parametrize("run", [asyncio.run, trio.run], ids=["asyncio", "trio"])
def test_its_async_face_runs_under_asyncio_and_trio(run: Any) -> None:
    """Delays pass on the script's clock."""
    dependency = ScriptedDependency(Delay(3.0, then="late"), Delay(1.0, then=Delay(1.0, then="later")))

    async def main() -> list[Any]:
        return [await dependency.call_async(), await dependency.call_async()]

    assert (run(main) if run is trio.run else run(main())) == ["late", "later"]
    assert dependency.clock() == 1_005.0


@pytest.mark.asyncio
async def test_a_call_hangs_until_it_is_released() -> None:
    """And what was to happen then happens."""
    dependency = ScriptedDependency(Hang(then="at last"), Hang(then=ConnectionError))
    first = asyncio.create_task(dependency.call_async())
    second = asyncio.create_task(dependency.call_async())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not first.done()
    assert not second.done()
    assert dependency.hanging == dependency.in_flight == dependency.most_in_flight == 2
    dependency.release()
    assert await first == "at last"
    with pytest.raises(ConnectionError):
        await second
    assert dependency.in_flight == dependency.hanging == 0


@pytest.mark.asyncio
async def test_a_cancelled_call_is_seen_as_cancelled() -> None:
    """Whoever tests a time limit or a hedge asks whether the loser was really stopped."""
    dependency = ScriptedDependency(Hang())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await dependency.call_async()
    assert dependency.calls[0].outcome == "cancelled"
    assert dependency.hanging == 0


def test_a_thread_hangs_until_it_is_released() -> None:
    """A bulkhead of one place lets nobody else in meanwhile."""
    dependency = ScriptedDependency(Hang(then="done"), "second")
    bulkhead = Bulkhead("one place", limit=1)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(bulkhead.run_sync(dependency.call)), daemon=True)
    thread.start()
    wait_until(lambda: dependency.hanging == 1)
    with pytest.raises(Exception, match="is full"):
        bulkhead.run_sync(dependency.call)
    dependency.release()
    thread.join(5.0)
    assert answers == ["done"]
    assert dependency.remaining == 1


def test_a_stream_yields_its_items_and_fails_where_it_should() -> None:
    """One item after the other, with their delays, until an error."""
    dependency = ScriptedDependency(Items("a", Delay(1.0, then="b"), ConnectionResetError, "never"), "alone")
    seen = []
    with pytest.raises(ConnectionResetError):
        for item in dependency.stream("topic"):
            seen.append((item, dependency.clock()))
    assert seen == [("a", 1_000.0), ("b", 1_001.0)]
    assert dependency.calls[0].outcome == "raised"
    assert list(dependency.stream()) == ["alone"]


@pytest.mark.asyncio
async def test_an_async_stream_that_its_consumer_leaves_is_closed() -> None:
    """A policy that forgets to close what it guards is found out."""
    dependency = ScriptedDependency(Items("a", "b"), Items("c"))
    guarded = CircuitBreaker("streaming")(dependency.stream_async)
    stream = guarded()
    assert await anext(stream) == "a"
    assert dependency.calls[0].outcome == "running"
    await stream.aclose()
    assert dependency.calls[0].outcome == "closed"
    assert [item async for item in dependency.stream_async()] == ["c"]


@pytest.mark.parametrize("face", ["call", "call_async", "stream", "stream_async"])
def test_each_face_is_taken_for_what_it_is(face: str) -> None:
    """A policy decorates it as it would the real function."""
    import inspect

    guarded = CircuitBreaker("faces", register=False)(getattr(ScriptedDependency("ok"), face))
    kinds = (
        inspect.iscoroutinefunction(guarded),
        inspect.isgeneratorfunction(guarded),
        inspect.isasyncgenfunction(guarded),
    )
    assert kinds == (face == "call_async", face == "stream", face == "stream_async")


def test_it_tells_what_it_is() -> None:
    """A failing assertion shows the script and its steps as they are written."""
    dependency = ScriptedDependency("ok", Hang(), name="catalog")
    dependency.call()
    assert repr(dependency) == "ScriptedDependency('catalog', 1 calls, 1 steps left)"
    assert repr(Delay(1.0, then=Hang(then="x"))) == "Delay(1.0, then=Hang(then='x'))"
    assert repr(Items("a", 1)) == "Items('a', 1)"
