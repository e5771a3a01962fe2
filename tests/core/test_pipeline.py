"""Pipelines: order, composition, and what an order that defeats itself is told."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from typing import Any, TypeVar

import pytest

from chassis.core import (
    ConfigError,
    Event,
    EventBus,
    Operation,
    Pipeline,
    PipelineOrderDoubted,
    PipelineWarning,
    Policy,
    Role,
)
from chassis.core.streams import Stream

T = TypeVar("T")


class Noting(Policy):
    """Notes that it was entered and left."""

    def __init__(self, name: str, notes: list[str], role: Role | None = None) -> None:
        self.name = name
        self.notes = notes
        self.role = role

    async def run(self, operation: Operation[T]) -> T:
        self.notes.append(f"+{self.name}")
        try:
            return await operation()
        finally:
            self.notes.append(f"-{self.name}")

    def run_sync(self, operation: Callable[[], T]) -> T:
        self.notes.append(f"+{self.name}")
        try:
            return operation()
        finally:
            self.notes.append(f"-{self.name}")

    def describe(self) -> Mapping[str, Any]:
        return {"entered": self.notes.count(f"+{self.name}")}


class ByArgument(Noting):
    """Another policy for each call: it is named after its first argument."""

    def for_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Policy:
        return Noting(f"{self.name}:{args[0]}", self.notes)


def stack(*roles: Role) -> list[Noting]:
    return [Noting(role.value, [], role) for role in roles]


def told(*policies: Policy) -> list[str]:
    """The warnings of a pipeline of these."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Pipeline(*policies, bus=EventBus())
    assert all(each.category is PipelineWarning for each in caught)
    return [str(each.message) for each in caught]


def test_a_policy_is_shown_by_its_kind_and_name_and_a_pipeline_by_its_policies() -> None:
    """In a log or a debugger; also one that has no name yet."""
    assert repr(Pipeline(*stack(Role.TIMEOUT), Pipeline(*stack(Role.RETRY, Role.BREAKER)))) == (
        "Pipeline(Noting('timeout'), Pipeline(Noting('retry'), Noting('breaker')))"
    )
    assert repr(Noting.__new__(Noting)) == "Noting('')"


def test_order_is_told_outermost_first_with_nested_ones_in_their_place() -> None:
    """And each policy's own description beside it."""
    notes: list[str] = []
    inner = Pipeline(Noting("b", notes), Noting("c", notes))
    whole = Pipeline(Noting("a", notes), inner, Noting("d", notes))
    assert whole.order() == ["Noting(a)", "Noting(b)", "Noting(c)", "Noting(d)"]
    assert whole.run_sync(lambda: 7) == 7
    assert notes == ["+a", "+b", "+c", "+d", "-d", "-c", "-b", "-a"]
    assert whole.describe() == {
        "order": whole.order(),
        "doubts": [],
        "policies": {each: {"entered": 1} for each in whole.order()},
    }


def test_policies_that_are_called_alike_are_told_apart() -> None:
    """In the order, in what each tells of itself, and in what is wrong with them; nested or not."""
    alike = [Noting("retry", [], Role.RETRY) for _ in range(3)]
    alike[1].run_sync(lambda: None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        whole = Pipeline(alike[0], Pipeline(alike[1]), alike[2])
    assert "Noting(retry)#3 stands inside Noting(retry)#2" in str(caught[-1].message)
    assert whole.order() == ["Noting(retry)", "Noting(retry)#2", "Noting(retry)#3"]
    entered = {label: told["entered"] for label, told in whole.describe()["policies"].items()}
    assert entered == {"Noting(retry)": 0, "Noting(retry)#2": 1, "Noting(retry)#3": 0}


def test_an_order_that_goes_wrong_later_is_told_on_request() -> None:
    """Roles follow options, which may change at run time; also within a nested pipeline."""
    retry, limit = Noting("a", [], Role.RETRY), Noting("b", [], Role.BULKHEAD)
    whole = Pipeline(Pipeline(retry, limit))
    assert whole.describe()["doubts"] == []
    limit.role = Role.QUEUE
    (doubt,) = whole.describe()["doubts"]
    assert doubt.startswith("Noting(b) stands inside Noting(a): every attempt waits in the queue anew")


@pytest.mark.asyncio
async def test_every_form_meets_the_policies_in_the_same_order() -> None:
    """Plain, async, generators, awaitables of plain functions, and operations run by hand."""
    notes: list[str] = []
    whole = Pipeline(Noting("a", notes), Noting("b", notes))
    inside = ["+a", "+b", "-b", "-a"]

    async def coroutine(value: int) -> int:
        return value

    @whole
    def generator(value: int) -> Generator[int, None, None]:
        yield value

    @whole
    async def async_generator(value: int) -> AsyncGenerator[int, None]:
        yield value

    def taken() -> list[str]:
        result = notes[:]
        notes.clear()
        return result

    assert whole(lambda value: value)(1) == 1
    assert taken() == inside
    assert await whole(coroutine)(2) == 2
    assert taken() == inside
    assert list(generator(3)) == [3]
    assert taken() == inside
    assert [each async for each in async_generator(4)] == [4]
    assert taken() == inside
    assert await whole.run(lambda: coroutine(5)) == 5
    assert taken() == inside
    assert await whole(lambda value: coroutine(value))(6) == 6
    assert taken()[-4:] == inside


@pytest.mark.asyncio
async def test_a_pipeline_of_nothing_runs_the_operation() -> None:
    empty = Pipeline()

    async def one() -> int:
        return 1

    assert empty.run_sync(lambda: 1) == await empty.run(one) == empty(lambda: 1)() == await empty(one)() == 1
    assert empty.order() == []


def test_a_function_is_put_together_once() -> None:
    """What each policy makes of it is made when it is decorated, not at each call."""
    made: list[str] = []

    class Making(Noting):
        def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
            made.append(self.name)
            return super().guard(function)

        def guard_async(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            made.append(f"async {self.name}")
            return super().guard_async(function)

    whole = Pipeline(Making("a", []), Making("b", []))
    guarded = whole(lambda: 1)
    assert [guarded() for _ in range(3)] == [1, 1, 1]

    @whole
    async def one() -> int:
        return 1

    assert made == ["b", "a", "async b", "async a"]


@pytest.mark.asyncio
async def test_policies_that_depend_on_the_call_are_asked_for_each_generator() -> None:
    notes: list[str] = []
    whole = Pipeline(Noting("a", notes), Pipeline(ByArgument("key", notes)))

    @whole
    def generator(user: str) -> Generator[str, None, None]:
        yield user

    @whole
    async def async_generator(user: str) -> AsyncGenerator[str, None]:
        yield user

    assert list(generator("x")) == ["x"]
    assert [each async for each in async_generator("y")] == ["y"]
    assert notes == ["+a", "+key:x", "-key:x", "-a", "+a", "+key:y", "-key:y", "-a"]


@pytest.mark.parametrize(
    ("order", "remedy"),
    [
        ((Role.BREAKER, Role.RETRY), "put the retry outside the breaker"),
        ((Role.BREAKER, Role.HEDGE, Role.RETRY), "put the retry outside the breaker"),
        ((Role.RETRY, Role.RETRY), "retry in one place"),
        ((Role.RETRY, Role.TIMEOUT, Role.RETRY), "retry in one place"),
        ((Role.HEDGE, Role.RETRY), "put the retry outside the hedge"),
        ((Role.HEDGE, Role.HEDGE), "hedge in one place"),
        ((Role.RETRY, Role.FALLBACK), "put the fallback outermost"),
        ((Role.HEDGE, Role.FALLBACK), "put the fallback outermost"),
        ((Role.BREAKER, Role.FALLBACK), "put the fallback outermost"),
        ((Role.RETRY, Role.QUEUE), "put the bulkhead outside the retry"),
        ((Role.HEDGE, Role.QUEUE), "put the bulkhead outside the hedge"),
        ((Role.TIMEOUT, Role.BREAKER), "put a timeout inside the breaker"),
        ((Role.RETRY, Role.TIMEOUT, Role.BREAKER), "put a timeout inside the breaker"),
    ],
)
def test_trap_59_order_that_defeats_itself_is_told(order: tuple[Role, ...], remedy: str) -> None:
    """As a warning when it is made, naming both policies and the remedy, and as an event."""
    policies = stack(*order)
    said = told(*policies)
    assert any(remedy in each for each in said)
    for each in said:
        assert sum(each.count(f"Noting({policy.name})") for policy in policies) >= 2
    bus, seen = EventBus(), list[Event]()
    with pytest.warns(PipelineWarning):
        Pipeline(*policies, name="checkout", bus=bus)
    bus.subscribe(seen.append)  # kept for whoever listens later: pipelines are made while importing
    assert len(seen) == len(said)
    event = seen[0]
    assert isinstance(event, PipelineOrderDoubted)
    assert (event.subject, event.level) == ("checkout", "warning")
    assert set(event.details()) == {"outer", "inner", "reason", "remedy"}


def test_trap_59_warning_points_to_who_made_the_pipeline() -> None:
    with pytest.warns(PipelineWarning) as caught:
        Pipeline(*stack(Role.BREAKER, Role.RETRY), name="checkout")
    assert caught[0].filename == __file__
    assert str(caught[0].message) == (
        "checkout: Noting(retry) stands inside Noting(breaker): all attempts of a call are one vote, and the"
        " breaker stops none of them; put the retry outside the breaker"
    )


@pytest.mark.parametrize(
    "order",
    [
        (
            Role.FALLBACK,
            Role.TIMEOUT,
            Role.SHEDDING,
            Role.RATE_LIMIT,
            Role.QUEUE,
            Role.RETRY,
            Role.HEDGE,
            Role.BREAKER,
            Role.BULKHEAD,
            Role.TIMEOUT,
        ),
        (Role.FALLBACK, Role.TIMEOUT, Role.RETRY, Role.BREAKER),
        (Role.TIMEOUT, Role.BREAKER, Role.TIMEOUT),
        (Role.BREAKER, Role.TIMEOUT),
        (Role.RETRY, Role.BULKHEAD),
        (Role.BREAKER, Role.BREAKER),
        (Role.TIMEOUT, Role.FALLBACK, Role.FALLBACK),
    ],
)
def test_an_order_that_serves_is_passed_in_silence(order: tuple[Role, ...]) -> None:
    """So is a policy that says no role, wherever it stands."""
    nameless = Noting("own", [])
    assert told(*stack(*order)) == []
    assert told(nameless, *stack(*order), nameless) == []


def test_trap_59_pairs_across_nested_pipelines_are_told_once() -> None:
    """Each part's own pairs by the part, those between parts by the whole."""
    retry, breaker = stack(Role.RETRY), stack(Role.BREAKER)
    assert len(told(Pipeline(*breaker), Pipeline(*retry))) == 1
    with pytest.warns(PipelineWarning):
        part = Pipeline(*breaker, *retry)
    assert told(part) == []
    assert len(told(*stack(Role.RETRY), part)) == 1  # the two retries


def test_a_stream_goes_through_the_composed_begin() -> None:
    """A generator's first item is taken under all policies."""
    notes: list[str] = []
    whole = Pipeline(Noting("a", notes), Noting("b", notes))
    stream = whole.begin(lambda: Stream.start(lambda: (each for each in (1, 2))))
    assert (notes, list(stream)) == (["+a", "+b", "-b", "-a"], [1, 2])


@pytest.mark.parametrize("wrong", [Noting, len, None], ids=repr)
def test_trap_60_what_is_no_policy_is_refused(wrong: Any) -> None:
    """A class that was not called, a function, nothing: said when the pipeline is made."""
    with pytest.raises(ConfigError, match=r"policies: .* is no policy; give policies"):
        Pipeline(wrong)
