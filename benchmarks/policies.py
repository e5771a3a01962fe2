"""What each resilience policy costs a call, beside the libraries one could take instead.

What a library does for that cost differs: docs/benchmarks.md says what is compared with what.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
from collections.abc import Callable
from typing import Any

from benchmarks._peers import NAMES, PEERS, Failure, Peer, listener
from benchmarks.harness import Benchmark, Case, Run, bytes_each, calls, calls_async, main
from chassis.breaker import CircuitBreaker, KeyedBreakers
from chassis.core import EventBus, Pipeline
from chassis.fallbacks import Fallback
from chassis.limits import Bulkhead, LoadShedder, RateLimit, Timeout
from chassis.retries import Hedge, Retry, RetryBudget

ARGUMENT = 7
BARE = {"sync": "bare call", "async": "bare call, async", "waiting": "bare call, async, that waits once"}
"""The baseline of each kind of call."""

MIXED = (("circuitbreaker", "tenacity"), ("circuitbreaker", "stamina"))
"""Breakers without a retry of their own, with the retry that most people have."""


def bare(value: int) -> int:
    """What is guarded: a call that does nothing, so that all there is to see is the guard."""
    return value


async def bare_async(value: int) -> int:
    return value


async def bare_waiting(value: int) -> int:
    """As a real call does; what is only set up for one that waits is not seen otherwise."""
    await asyncio.sleep(0)
    return value


def failing(value: int) -> int:
    raise Failure("no")


async def failing_async(value: int) -> int:
    raise Failure("no")


def every_other() -> Callable[[int], int]:
    """A function whose every first call fails and every second succeeds."""
    failed = False

    def call(value: int) -> int:
        nonlocal failed
        failed = not failed
        if failed:
            raise Failure("once")
        return value

    return call


def every_other_async() -> Callable[[int], Any]:
    plain = every_other()

    async def call(value: int) -> int:
        return plain(value)

    return call


def refusals(guarded: Callable[[int], Any]) -> Run:
    """Calls what refuses, and gives the name of the last refusal."""

    def run(n: int) -> str:
        last = ""
        for _ in range(n):
            try:
                guarded(ARGUMENT)
            except Exception as error:
                last = type(error).__name__
        return last

    return run


def refusals_async(guarded: Callable[[int], Any]) -> Run:
    async def run(n: int) -> str:
        last = ""
        for _ in range(n):
            try:
                await guarded(ARGUMENT)
            except Exception as error:
                last = type(error).__name__
        return last

    return run


def calls_in_loop(make: Callable[[], Callable[[int], Any]]) -> Run:
    """As ``calls_async``, for what must be made in the loop it is used in."""
    made: list[Callable[[int], Any]] = []

    async def run(n: int) -> Any:
        if not made:
            made.append(make())
        function, result = made[0], None
        for _ in range(n):
            result = await function(ARGUMENT)
        return result

    return run


def over(keys: tuple[int, ...], function: Callable[[int], Any]) -> Run:
    """Calls with one key after the other, which all have been seen before."""
    for key in keys:
        function(key)

    def run(n: int) -> bool:
        result = None
        for key in itertools.islice(itertools.cycle(keys), n):
            result = function(key)
        return result is not None

    return run


def in_turn(keys: tuple[int, ...], functions: list[Callable[[int], Any]]) -> Run:
    """As ``over``, each key with a function of its own."""
    pairs = list(zip(functions, keys, strict=True))
    for function, key in pairs:
        function(key)

    def run(n: int) -> bool:
        result = None
        for function, key in itertools.islice(itertools.cycle(pairs), n):
            result = function(key)
        return result is not None

    return run


def in_time(function: Callable[[int], Any]) -> Callable[[int], Any]:
    """What the standard library has for an async call."""

    async def guarded(value: int) -> Any:
        async with asyncio.timeout(30.0):
            return await function(value)

    return guarded


def opened(run: Run) -> str:
    """Make failing calls until the breaker refuses, and give its refusal's name."""
    refusal = asyncio.run(run(50)) if asyncio.iscoroutinefunction(run) else run(50)
    if refusal == Failure.__name__:
        raise AssertionError("50 failing calls did not open it")
    return str(refusal)


class Comparison:
    """Adds the same case for us and for each peer that has the thing.

    :ivar found: the names of the cases of a group, ours aside.
    """

    def __init__(self, bench: Benchmark) -> None:
        self.bench = bench
        self.found: dict[str, list[str]] = {}
        self._modules = {
            peer: bench.peer(peer.module or peer.distribution, peer.distribution) for peer in PEERS
        }
        for name, run in (
            (BARE["sync"], calls(bare, ARGUMENT)),
            (BARE["async"], calls_async(bare_async, ARGUMENT)),
            (BARE["waiting"], calls_async(bare_waiting, ARGUMENT)),
        ):
            bench.case(Case(name, run, ARGUMENT, group="bare"))

    def module(self, distribution: str) -> Any:
        """The imported module of a peer, or None."""
        return next(
            (m for peer, m in self._modules.items() if m is not None and peer.distribution == distribution),
            None,
        )

    def add(self, group: str, who: str, guard: Any, *, kind: str, note: str = "") -> str:
        """Time ``guard`` as a decorator on a call that succeeds."""
        if kind == "sync":
            run = calls(guard(bare), ARGUMENT)
        else:
            run = calls_in_loop(lambda: guard(bare_async if kind == "async" else bare_waiting))
        return self.add_run(group, who, run, ARGUMENT, kind=kind, note=note)

    def add_run(self, group: str, who: str, run: Run, expected: Any, *, kind: str, note: str = "") -> str:
        """Time ``run``."""
        group = f"{group}, {kind}"
        name = f"{group}: {who}"
        self.bench.case(Case(name, run, expected, baseline=BARE[kind], group=group, note=note))
        if not who.startswith("chassis"):
            self.found.setdefault(group, []).append(name)
        return name

    def peers(self, attribute: str, kind: str) -> list[tuple[Peer, Callable[[], Any]]]:
        """Each peer that has the thing for this kind of function, and what makes one."""
        found = []
        guards = "sync" if kind == "sync" else "async"
        for peer, module in self._modules.items():
            make = getattr(peer, f"{attribute}_{guards}", None) or getattr(peer, attribute)
            if module is not None and make is not None and guards in peer.kinds.split():
                found.append((peer, functools.partial(make, module)))
        return found

    def add_peers(self, group: str, attribute: str, *, kind: str) -> None:
        """Time what every peer gives for ``attribute``, on a call that succeeds."""
        for peer, make in self.peers(attribute, kind):
            self.add(group, peer.name, lambda function, make=make: make()(function), kind=kind)


def breaker(name: str, **more: Any) -> CircuitBreaker:
    """A breaker with the defaults, and slow-call detection."""
    return CircuitBreaker(name, slow_after=1.0, **more)


def build(bench: Benchmark) -> None:
    # Some peers log what they do: they shall pay for their records, as they do by default, and print none.
    logging.getLogger().addHandler(logging.NullHandler())
    compare = Comparison(bench)
    for kind in ("sync", "async"):
        closed(compare, kind)
        refused(compare, kind)
        retries(compare, kind)
        pipelines(compare, kind)
        others(compare, kind)
    timed(compare, "waiting")
    pipelines(compare, "waiting")
    keyed(compare)
    memory(compare)


def closed(compare: Comparison, kind: str) -> None:
    """The breaker is closed, and the call succeeds."""
    group = "breaker closed"
    compare.add(group, "chassis, no slow calls", CircuitBreaker(f"closed {kind}"), kind=kind)
    ours = compare.add(group, "chassis", breaker(f"closed slow {kind}"), kind=kind)
    compare.bench.target(ours, at_most={"sync": 18, "async": 9}[kind])
    for peer, make in compare.peers("breaker", kind):
        compare.add(group, peer.name, make(), kind=kind, note=peer.note)


def refused(compare: Comparison, kind: str) -> None:
    """The breaker is open, and the call is refused; the exception raised and caught is part of it."""
    bus = EventBus()
    bus.subscribe(listener)
    if nopanic := compare.module("nopanic"):
        nopanic.events.subscribe(listener)
    ours = breaker(f"open {kind}", bus=bus, open_for=3600.0, open_for_max=3600.0)
    guards = [("chassis", ours, "a listener")]
    guards += [(peer.name, make(), peer.heard) for peer, make in compare.peers("breaker", kind) if peer.trips]
    for who, guard, note in guards:
        run = refusals(guard(failing)) if kind == "sync" else refusals_async(guard(failing_async))
        name = compare.add_run("breaker refuses", who, run, opened(run), kind=kind, note=note)
        if kind == "sync" and who == "chassis":
            compare.bench.target(name, at_most=38)


def keyed(compare: Comparison) -> None:
    """A breaker for each of 1,000 keys, which take turns."""
    group, keys = "breaker by key", tuple(range(len(NAMES)))
    compare.add_run(group, "bare", over(keys, bare), True, kind="sync")
    # In a window this long nothing expires between two rounds: that is work for time passed, not for keys.
    hour: dict[str, Any] = {"window": 3600.0}
    compare.add_run(
        group, "chassis, one breaker", over(keys, breaker("one", **hour)(bare)), True, kind="sync"
    )
    each = [breaker(f"key {key}", **hour)(bare) for key in keys]
    found = compare.add_run(group, "chassis, found beforehand", in_turn(keys, each), True, kind="sync")
    many = KeyedBreakers("many", key=lambda key: key, slow_after=1.0, **hour)
    ours = compare.add_run(group, "chassis", over(keys, many(bare)), True, kind="sync")
    compare.bench.target(ours, at_most=8, less=found)
    for peer, make in compare.peers("keyed", "sync"):
        compare.add_run(group, peer.name, over(keys, make()(bare)), True, kind="sync")


def memory(compare: Comparison) -> None:
    """What one more breaker takes, before its first call."""
    bench = compare.bench
    bench.figure("fresh breaker: chassis", bytes_each(lambda number: breaker(f"fresh {number}")), "bytes")
    bench.target("fresh breaker: chassis", at_most=1536)
    both = dict(compare.peers("fresh", "sync") + compare.peers("fresh", "async"))
    for peer, make in both.items():
        bench.figure(f"fresh breaker: {peer.name}", bytes_each(lambda _, make=make: make()), "bytes")


def retries(compare: Comparison, kind: str) -> None:
    """The first attempt succeeds; or the second does, without a pause."""
    ours = compare.add("retry, first success", "chassis", Retry(f"first {kind}", on=Failure), kind=kind)
    compare.bench.target(ours, at_most=5)
    compare.add_peers("retry, first success", "retry", kind=kind)
    # Every call is tried again, which no budget is made for; the others have none.
    plenty = RetryBudget(ratio=1.0, per_second=1e6)
    guards = [("chassis", Retry(f"second {kind}", on=Failure, wait_base=0.0, budget=plenty))]
    guards += [(peer.name, make()) for peer, make in compare.peers("retry", kind)]
    for who, guard in guards:
        if kind == "sync":
            run = calls(guard(every_other()), ARGUMENT)
        else:
            run = calls_async(guard(every_other_async()), ARGUMENT)
        compare.add_run("retry, second success", who, run, ARGUMENT, kind=kind)


def pipelines(compare: Comparison, kind: str) -> None:
    """Five of our policies, beside a retry and a breaker of the others."""
    group = "several policies"
    five = Pipeline(
        Fallback(0, on=Failure),
        Timeout(30.0),
        Retry(f"five {kind}", on=Failure),
        breaker(f"five {kind}"),
        Bulkhead(f"five {kind}", limit=64),
    )
    four = Pipeline(
        Fallback(0, on=Failure),
        Retry(f"four {kind}", on=Failure),
        breaker(f"four {kind}"),
        Bulkhead(f"four {kind}", limit=64),
    )
    two = Pipeline(Retry(f"two {kind}", on=Failure), breaker(f"two {kind}"))
    note = "fallback, deadline, retry, breaker, bulkhead"
    ours = compare.add(group, "chassis, five", five, kind=kind, note=note)
    compare.add(group, "chassis, four", four, kind=kind, note="the same without the deadline")
    compare.add(group, "chassis, two", two, kind=kind, note="retry, breaker")
    compare.add_peers(group, "pair", kind=kind)
    breaking = {peer.name: make for peer, make in compare.peers("breaker", kind)}
    trying = {peer.name: make for peer, make in compare.peers("retry", kind)}
    for breaks, tries in MIXED:
        if breaks in breaking and tries in trying:
            outer, inner = trying[tries](), breaking[breaks]()
            both = lambda function, outer=outer, inner=inner: outer(inner(function))  # noqa: E731
            compare.add(group, f"{tries} + {breaks}", both, kind=kind)
    # In a call that waits, the event loop's turn is most of the time: told, not judged.
    if kind != "waiting" and (peers := compare.found.get(f"{group}, {kind}")):
        compare.bench.target(ours, at_most=1.0, of=peers)


def others(compare: Comparison, kind: str) -> None:
    """The rest, on a call that succeeds and is not limited."""
    compare.add("bulkhead", "chassis", Bulkhead(f"alone {kind}", limit=64), kind=kind)
    compare.add_peers("bulkhead", "bulkhead", kind=kind)
    compare.add("rate limit", "chassis", RateLimit(f"alone {kind}", rate=10**9), kind=kind)
    compare.add_peers("rate limit", "rate", kind=kind)
    compare.add("load shedding", "chassis", LoadShedder(f"alone {kind}"), kind=kind)
    compare.add("fallback", "chassis", Fallback(0, on=Failure), kind=kind)
    compare.add_peers("fallback", "fallback", kind=kind)
    timed(compare, kind)


def timed(compare: Comparison, kind: str) -> None:
    """What ends, or begins, after a time that is not reached."""
    compare.add("deadline", "chassis", Timeout(30.0), kind=kind)
    if kind != "sync":
        compare.add("deadline", "asyncio.timeout", in_time, kind=kind)
        compare.add_peers("deadline", "timeout", kind=kind)
        compare.add("hedge, not needed", "chassis", Hedge(idempotent=True, delay=30.0), kind=kind)
        compare.add_peers("hedge, not needed", "hedge", kind=kind)


if __name__ == "__main__":
    main("policies", build)
