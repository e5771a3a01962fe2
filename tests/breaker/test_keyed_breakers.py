"""A breaker per key: found without a lock, made with one, kept while it matters."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from chassis.breaker import BreakerOptions, BreakerState, CircuitBreaker, KeyedBreakers
from chassis.core.errors import CircuitOpen, ConfigError
from chassis.core.events import Event, EventBus
from chassis.core.outcomes import Outcome
from chassis.core.pipeline import Pipeline
from chassis.core.registry import policies
from tests.breaker.breaking import Clock, fail, in_threads

CLOSED, OPEN = BreakerState.CLOSED, BreakerState.OPEN


@pytest.fixture
def family(clock: Clock, bus: EventBus) -> Callable[..., KeyedBreakers]:
    def family(**options: Any) -> KeyedBreakers:
        options = {"consecutive_failures": 1, "clock": clock, "bus": bus, "register": False, **options}
        return KeyedBreakers("hosts", **options)

    return family


@pytest.mark.asyncio
async def test_each_key_has_its_own_breaker_for_every_kind_of_function(family: Any) -> None:
    """The key function sees the call's arguments; a sick key refuses, the others do not notice."""
    hosts = family(key=lambda host, *, bad=False: host)

    @hosts
    def call(host: str, *, bad: bool = False) -> str:
        if bad:
            raise ConnectionError
        return host

    @hosts
    async def acall(host: str, *, bad: bool = False) -> str:
        await asyncio.sleep(0)
        return call.__wrapped__(host, bad=bad)  # type: ignore[attr-defined]  # the bare function

    @hosts
    def items(host: str) -> Generator[str, None, None]:
        yield host

    @hosts
    async def aitems(host: str) -> AsyncGenerator[str, None]:
        yield host

    with pytest.raises(ConnectionError):
        call("a", bad=True)
    with pytest.raises(ConnectionError):
        await acall("b", bad=True)
    for sick in ("a", "b"):
        for attempt in (lambda sick=sick: call(sick), lambda sick=sick: next(items(sick))):
            with pytest.raises(CircuitOpen) as caught:
                attempt()
            assert caught.value.name == f"hosts/{sick}"
        with pytest.raises(CircuitOpen):
            await acall(sick)
        with pytest.raises(CircuitOpen):
            await anext(aitems(sick))
    assert call("c") == await acall("c") == next(items("c")) == await anext(aitems("c")) == "c"
    assert hosts.of("a").state is OPEN
    assert hosts.of("c").state is CLOSED
    assert hosts.of("c") is hosts.of("c")


@pytest.mark.asyncio
async def test_key_function_that_needs_no_arguments_serves_where_there_are_none(family: Any) -> None:
    """In a pipeline, by `run`, `acquire` and as a block."""
    hosts = family(key=lambda *args: "the only one")
    pipeline = Pipeline(hosts, name="only")
    assert pipeline(lambda: "ok")() == "ok"
    assert hosts.run_sync(lambda: "ok") == "ok"
    assert await hosts.run(lambda: asyncio.sleep(0, "ok")) == "ok"
    hosts.acquire().settle(Outcome.SUCCESS)
    with hosts.guarded():
        pass
    async with hosts.guarded():
        pass
    assert hosts.of("the only one").describe()["calls"] >= 5


def test_family_without_a_key_function_is_no_decorator(family: Any) -> None:
    """The error says what to give, at decoration."""
    with pytest.raises(ConfigError, match="key=lambda"):
        family()(print)
    assert family().of("a").ready


def test_trap_34_ten_thousand_keys_while_five_are_open(family: Any) -> None:
    """The open ones are kept, the number is bounded, and the latest used are still there."""
    hosts = family(max_keys=1_000)
    for number in range(5):
        fail(hosts.of(f"sick {number}"))
    held = hosts.of("held")
    held.metrics_only()
    recent = hosts.of("recent")
    for number in range(10_000):
        hosts.of(number)
        if number % 100 == 0:
            assert hosts.of("recent") is recent
        if number % 2_500 == 0:
            assert len(hosts.describe()["breakers"]) <= 1_000
    assert hosts.describe()["keys"] <= 1_000
    assert [hosts.of(f"sick {number}").state for number in range(5)] == [OPEN] * 5
    assert hosts.of("held") is held
    gc.collect()


def test_those_not_used_for_longest_go_first(family: Any) -> None:
    """Use is what counts, not age."""
    hosts = family(max_keys=8)
    breakers = {key: hosts.of(key) for key in range(8)}
    for key in (0, 1, 2, 4, 5, 6, 7):
        hosts.of(key)
    hosts.of("new")
    assert set(hosts.describe()["breakers"]) == {"0", "1", "2", "4", "5", "6", "7", "new"}
    assert hosts.of(0) is breakers[0]


def test_half_open_breakers_are_kept(family: Any, clock: Clock) -> None:
    """Who is being tried must not be let loose on all callers."""
    hosts = family(max_keys=2, probes=2)
    sick = hosts.of("sick")
    fail(sick)
    clock.now += 10
    sick.acquire().settle(Outcome.SUCCESS)
    for key in range(10):
        hosts.of(key)
    assert hosts.of("sick") is sick


def test_keys_beyond_the_number_are_not_guarded_if_all_others_matter(
    family: Any, clock: Clock, bus: EventBus
) -> None:
    """Told once, until there was a place again; those that matter are never dropped for them."""
    hosts, seen = family(max_keys=3), []
    for key in "abc":
        fail(hosts.of(key))
    bus.subscribe(seen.append)
    seen.clear()
    assert hosts.of("d") is not hosts.of("d")
    assert hosts.of("d").ready
    assert [(event.name, event.details()) for event in seen] == [("breaker.keys_exhausted", {"keys": 3})]
    hosts.of("a").reset()
    assert hosts.of("d") is not hosts.of("d"), "that is looked at once a second"
    clock.now += 1
    assert hosts.of("d") is hosts.of("d")
    seen.clear()
    fail(hosts.of("d"))
    hosts.of("e")
    assert seen[-1].name == "breaker.keys_exhausted"
    hosts.discard("b")
    hosts.discard("never seen")
    assert hosts.of("e") is hosts.of("e")


def test_trap_35_breaker_dropped_while_calls_are_in_flight(family: Any) -> None:
    """They end without error, and change nothing for the one that comes after it."""
    hosts = family(max_keys=1)
    permits = [hosts.of("a").acquire() for _ in range(2)]
    hosts.of("b")
    permits[0].settle(Outcome.FAILURE, OSError())
    hosts.discard("b")
    assert hosts.of("a").state is CLOSED
    permits[1].settle(Outcome.FAILURE, OSError())
    assert hosts.of("a").describe()["calls"] == 0


def test_breakers_are_found_while_others_are_made(family: Any) -> None:
    """They are found while others are made, and no more are kept than allowed."""
    hosts = family(max_keys=64)
    numbers = itertools.count()

    def ask() -> list[CircuitBreaker]:
        mine = next(numbers)
        found = [hosts.of(key) for key in range(20)]
        for each in range(100):
            hosts.of((mine, each))
        return found

    results = in_threads(8, ask)
    assert all(isinstance(each, list) for each in results), results
    assert hosts.describe()["keys"] <= 64


def test_one_breaker_per_key_among_threads(family: Any) -> None:
    """Threads that all miss a new key, and wait for one another, get the same breaker."""
    hosts, looks = family(), itertools.count()
    missed = threading.Event()

    class Key:
        def __hash__(self) -> int:
            if next(looks) == 7:
                missed.set()  # the last of the eight has looked for it and is about to make it
            return 1

    key = Key()
    with hosts._lock, ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(hosts.of, key) for _ in range(8)]
        assert missed.wait(10)
        hosts._lock.release()
        try:
            found = [each.result(10) for each in waiting]
        finally:
            hosts._lock.acquire()
    assert len({id(each) for each in found}) == 1


def test_is_known_and_configured_as_one(bus: EventBus) -> None:
    """One name in the registry, one entry of options for all its breakers, those to come included."""
    hosts = KeyedBreakers("registered-hosts", failure_rate=0.25, bus=bus)
    assert policies.get("breaker:registered-hosts") is hosts
    with pytest.raises(ConfigError, match="breaker:registered-hosts"):
        KeyedBreakers("registered-hosts")
    assert hosts.defaults == BreakerOptions(failure_rate=0.25)
    first = hosts.of("a")
    policies.override({"breaker:registered-hosts": lambda defaults: replace(defaults, mode="forced_open")})
    try:
        assert hosts.options == BreakerOptions(failure_rate=0.25, mode="forced_open")
        assert not first.ready
        assert not hosts.of("b").ready
        assert hosts.describe() == {
            "keys": 2,
            "breakers": {
                key: {
                    "state": "forced_open",
                    "ordered": None,
                    "retry_after": None,
                    "calls": 0,
                    "failures": 0,
                    "slow": 0,
                    "refused": 0,
                    "last_failure": None,
                }
                for key in ("a", "b")
            },
            "options": hosts.options.describe(),
        }
    finally:
        policies.override({})
    assert first.ready
    seen: list[Event] = []
    bus.subscribe(seen.append)
    first.force_open()
    assert seen[-1].subject == "breaker:registered-hosts/a"


@pytest.mark.parametrize("value", [0, True, 2.5, -1])
def test_trap_60_impossible_number_of_keys_is_refused(value: Any) -> None:
    """As any other option, with its name and value."""
    with pytest.raises(ConfigError) as caught:
        KeyedBreakers("none", max_keys=value, register=False)
    assert caught.value.setting == "max_keys"
    assert repr(value) in str(caught.value)
