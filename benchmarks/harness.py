"""Measures named cases against each other in one process, and says whether the targets are met.

A benchmark is a module of this package with a ``build`` function and three lines at its end::

    from benchmarks.harness import Benchmark, Case, calls, main

    def build(bench: Benchmark) -> None:
        bench.case(Case("bare call", calls(double, 2), expected=4))
        bench.case(Case("guarded call", calls(guarded, 2), expected=4, baseline="bare call"))
        bench.target("guarded call", at_most=18)                     # times its baseline

    if __name__ == "__main__":
        main("policies", build)

That is all: ``nox -s bench`` and the tests find the module by its file. What to know when adding one:

- A case is a function that takes ``n``, does the thing ``n`` times and returns the last result, which
  must equal ``expected``, before the timings and after each of them. It may be a coroutine function;
  all of those run in one event loop. :func:`calls` and :func:`calls_async` make the usual ones.
- All cases are timed once per round, in an order shuffled anew, so what slows the machine for a while
  slows all alike. Ratios are formed within a round; a case's ratio is the median over the rounds.
  Many short rounds give steadier ratios on a busy machine than a few long ones.
- What is no time per operation (bytes, a latency over a network) is measured in ``build`` itself and
  told by :meth:`Benchmark.figure`. Look at ``bench.quick`` there: with it, the whole run must end
  within a few seconds and need not mean anything.
- A peer is imported by :meth:`Benchmark.peer`, which notes its version, or that it is missing.
- Do not leave cases out for being unflattering. Say in ``note`` what a case does not do.

Times are wall-clock per operation, the loop around it included, for the baseline as for the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import importlib.metadata
import inspect
import json
import os
import platform
import random
import statistics
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

from benchmarks._report import show

Run: TypeAlias = Callable[[int], Any]
"""Does its thing ``n`` times; returns the last result, or a coroutine that does so."""

RESULTS = Path(__file__).with_name("results")


class BenchmarkError(Exception):
    """A case gave a wrong result, or names do not fit; there is nothing to be compared."""


@dataclass(frozen=True)
class Case:
    """One thing to be timed. ``baseline`` names the case its ratio is formed with, ``group`` its table."""

    name: str
    run: Run
    expected: Any = None
    baseline: str | None = None
    group: str = ""
    note: str = ""


@dataclass(frozen=True)
class Target:
    """``name`` (minus ``less``) must be ``at_most`` times the cheapest of ``of``.

    With an empty ``of``, ``at_most`` is the value itself: of a figure, or a case's nanoseconds.
    """

    name: str
    at_most: float
    of: tuple[str, ...] = ()
    less: str | None = None


@dataclass(frozen=True)
class Settings:
    """How long is measured: rounds, and the seconds one timing should take."""

    rounds: int
    seconds: float


def calls(function: Callable[[Any], Any], argument: Any) -> Run:
    """Calls ``function(argument)`` as plainly as Python can."""

    def run(n: int) -> Any:
        result = None
        for _ in range(n):
            result = function(argument)
        return result

    return run


def calls_async(function: Callable[[Any], Awaitable[Any]], argument: Any) -> Run:
    """As :func:`calls`, awaiting."""

    async def run(n: int) -> Any:
        result = None
        for _ in range(n):
            result = await function(argument)
        return result

    return run


def bytes_each(make: Callable[[int], Any], count: int = 1_000) -> float:
    """Bytes that each of ``count`` objects adds, by tracemalloc, from the second one on."""
    keep = [make(0)]  # the first brings what all of them share
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        keep.extend([make(number) for number in range(1, count + 1)])
        return (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()


class Benchmark:
    """The cases, figures and targets of one benchmark, and what came of them."""

    def __init__(self, name: str, *, quick: bool = False, only: str = "") -> None:
        self.name = name
        self.quick = quick
        self.settings = Settings(rounds=2, seconds=0.0005) if quick else Settings(rounds=75, seconds=0.004)
        self.cases: dict[str, Case] = {}
        self.figures: list[dict[str, Any]] = []
        self.targets: list[Target] = []
        self.versions = {"python": platform.python_version(), "chassis-kit": _version("chassis-kit")}
        self.missing: dict[str, str] = {}
        self.times: dict[str, list[float]] = {}  # per round; a figure is the same in all
        self._only = only

    def case(self, case: Case) -> None:
        """Time this case too. With ``--only``, cases that others are compared with always stay."""
        if case.name in self.cases:
            raise BenchmarkError(f"two cases are called {case.name!r}")
        if self._only in case.name or case.baseline is None:
            self.cases[case.name] = case

    def figure(self, name: str, value: float, unit: str, *, note: str = "") -> None:
        """Record a value that was measured here, e.g. in bytes or milliseconds."""
        self.figures.append({"name": name, "value": value, "unit": unit, "note": note})
        self.times[name] = [value] * self.settings.rounds

    def target(self, name: str, *, at_most: float, of: Any = None, less: str | None = None) -> None:
        """Judge ``name``: see :class:`Target`. ``of`` is a name or several; a case's is its baseline."""
        known = self.cases.get(name)
        if of is None and known is not None and known.baseline:
            of = known.baseline
        names = (of,) if isinstance(of, str) else tuple(of or ())
        self.targets.append(Target(name, at_most, names, less))

    def peer(self, module: str, distribution: str | None = None) -> Any:
        """The peer's module; None, and a line in the report, if it cannot be imported."""
        distribution = distribution or module
        try:
            found = importlib.import_module(module)
        except Exception as error:
            self.missing[distribution] = f"{type(error).__name__}: {error}"
            return None
        self.versions[distribution] = _version(distribution)
        return found

    def measure(self) -> None:
        """Check every case, then time all of them, round by round.

        :raises BenchmarkError: a case gave another result than expected.
        """
        cases = list(self.cases.values())
        with asyncio.Runner() as runner:
            counts = {case.name: self._calibrate(runner, case) for case in cases}
            for _ in range(self.settings.rounds):
                random.shuffle(cases)
                gc.collect()
                for case in cases:
                    n = counts[case.name]
                    self.times.setdefault(case.name, []).append(1e9 * _time(runner, case, n) / n)

    def _calibrate(self, runner: asyncio.Runner, case: Case) -> int:
        n = 1
        _time(runner, case, n)
        while True:
            # The shortest of three: one that was interrupted would pass for many iterations.
            took = min(_time(runner, case, n) for _ in range(3))
            if took >= self.settings.seconds / 2:
                return n
            n = max(2 * n, min(100 * n, int(n * self.settings.seconds / max(took, 1e-7))))

    def ratio(self, name: str, of: str | None = None, less: str | None = None) -> float:
        """The median over the rounds of (name - less) / of."""
        ones = [1.0] * self.settings.rounds
        minus = self.times[less] if less else [0.0] * self.settings.rounds
        each = zip(self.times[name], minus, self.times[of] if of else ones, strict=True)
        return statistics.median((top - sub) / base for top, sub, base in each)

    def verdicts(self) -> list[dict[str, Any]]:
        """Each target with the value seen; those of cases left out by ``--only`` aside."""
        found = []
        for target in self.targets:
            named = {target.name, *target.of} | ({target.less} if target.less else set())
            if unknown := named - self.times.keys():
                if self._only:
                    continue
                raise BenchmarkError(f"a target names what was not measured: {', '.join(sorted(unknown))}")
            # The cheapest of several is the one that the ratio to is greatest.
            value, of = max(
                (self.ratio(target.name, of, target.less), of or "") for of in target.of or (None,)
            )
            found.append({**asdict(target), "of": of, "value": value, "met": value <= target.at_most})
        return found

    def report(self) -> dict[str, Any]:
        """Everything that was seen, as plain values."""
        cases = {}
        for case in self.cases.values():
            times = self.times[case.name]
            low, median, high = statistics.quantiles(times, n=4, method="inclusive")
            row: dict[str, Any] = {
                "group": case.group,
                "ns": median,
                "quartiles": [low, high],
                "note": case.note,
            }
            if case.baseline:
                row |= {"baseline": case.baseline, "ratio": self.ratio(case.name, case.baseline)}
            cases[case.name] = row
        return {
            "benchmark": self.name,
            "quick": self.quick,
            "versions": self.versions,
            "missing": self.missing,
            "machine": {"cpus": os.cpu_count(), "platform": platform.platform(), "load": os.getloadavg()},
            "settings": asdict(self.settings),
            "cases": cases,
            "figures": self.figures,
            "targets": self.verdicts(),
        }


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "?"


def _time(runner: asyncio.Runner, case: Case, n: int) -> float:
    """Seconds that ``n`` operations take, without garbage collection."""

    async def awaited() -> tuple[float, Any]:
        started = perf_counter()
        result = await case.run(n)
        return perf_counter() - started, result

    gc.disable()
    try:
        if inspect.iscoroutinefunction(case.run):
            took, result = runner.run(awaited())
        else:
            started = perf_counter()
            result = case.run(n)
            took = perf_counter() - started
    except Exception as error:
        raise BenchmarkError(f"{case.name}: {type(error).__name__}: {error}") from error
    finally:
        gc.enable()
    if result != case.expected:
        raise BenchmarkError(f"{case.name}: gave {result!r}, expected {case.expected!r}")
    return took


def main(name: str, build: Callable[[Benchmark], None]) -> None:
    """Build, measure, print and write; exits 1 on an error, and with ``--strict`` on a missed target."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--quick", action="store_true", help="tiny counts: only to see that it runs")
    parser.add_argument("--json", type=Path, default=RESULTS / f"{name}.json", help="where the report goes")
    parser.add_argument("--strict", action="store_true", help="a missed target fails the run")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    arguments = parser.parse_args()
    bench = Benchmark(name, quick=arguments.quick, only=arguments.only)
    try:
        build(bench)
        bench.measure()
        report = bench.report()
    except BenchmarkError as error:
        sys.exit(f"{name}: {error}")
    print(show(report))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.strict and not all(each["met"] for each in report["targets"]):
        sys.exit(1)
