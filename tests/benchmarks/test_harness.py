"""The benchmarks' harness tells the truth, and no benchmark rots."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import harness
from benchmarks.harness import Benchmark, BenchmarkError, Case, bytes_each, calls, calls_async

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = sorted(file.stem for file in (ROOT / "benchmarks").glob("[a-z]*.py") if file.stem != "harness")


def same(value: int) -> int:
    return value


def sevenfold(value: int) -> int:
    for _ in range(200):
        value += 0
    return value


async def same_async(value: int) -> int:
    return value


def measured(build: Callable[[Benchmark], None], **options: Any) -> Benchmark:
    bench = Benchmark("test", quick=True, **options)
    build(bench)
    bench.measure()
    return bench


def run(build: Callable[[Benchmark], None], *flags: str, file: Path) -> tuple[Any, dict[str, Any] | None]:
    """The exit status as ``python -m benchmarks.test`` gives it, and what it wrote."""
    before, sys.argv = sys.argv, ["test", "--quick", "--json", str(file), *flags]
    status = None
    try:
        harness.main("test", build)
    except SystemExit as exit_:
        status = exit_.code
    finally:
        sys.argv = before
    return status, json.loads(file.read_text()) if file.exists() else None


def two(bench: Benchmark, *, at_most: float = 1000.0) -> None:
    bench.case(Case("bare", calls(same, 7), expected=7))
    bench.case(Case("slow", calls(sevenfold, 7), expected=7, baseline="bare"))
    bench.target("slow", at_most=at_most)


def test_a_ratio_says_how_many_times_the_baseline_a_case_takes() -> None:
    """Two hundred additions take more than twice a bare call, and a case takes as long as itself."""
    bench = measured(two)
    assert bench.ratio("slow", "bare") > 2
    assert bench.ratio("bare", "bare") == 1
    assert bench.ratio("slow", "bare", less="bare") == pytest.approx(bench.ratio("slow", "bare") - 1)


def test_async_cases_are_awaited() -> None:
    """A coroutine function is timed to its end, in one loop."""
    bench = measured(lambda bench: bench.case(Case("async", calls_async(same_async, 7), expected=7)))
    assert len(bench.times["async"]) == bench.settings.rounds


def test_a_wrong_result_ends_the_run(tmp_path: Path) -> None:
    """What does not do its work must not look fast."""

    def build(bench: Benchmark) -> None:
        bench.case(Case("wrong", calls(same, 7), expected=8))

    status, report = run(build, file=tmp_path / "report.json")
    assert status == "test: wrong: gave 7, expected 8"
    assert report is None


def test_a_result_that_goes_wrong_later_ends_the_run() -> None:
    """Results are looked at after each timing, not before the first one alone."""
    calls_made = 0

    def failing_later(n: int) -> bool:
        nonlocal calls_made
        calls_made += n
        return calls_made < 5

    with pytest.raises(BenchmarkError, match="gave False"):
        measured(lambda bench: bench.case(Case("tires", failing_later, expected=True)))


def test_a_case_that_raises_ends_the_run() -> None:
    """An error is named with its case."""

    def run_badly(n: int) -> None:
        raise OSError("no such thing")

    with pytest.raises(BenchmarkError, match="broken: OSError: no such thing"):
        measured(lambda bench: bench.case(Case("broken", run_badly)))


@pytest.mark.parametrize(("flags", "expected"), [((), None), (("--strict",), 1)])
def test_a_missed_target_fails_a_strict_run_only(
    flags: tuple[str, ...], expected: int | None, tmp_path: Path
) -> None:
    """On a shared machine a target is told, and judged only where that was asked."""
    status, report = run(lambda bench: two(bench, at_most=0.01), *flags, file=tmp_path / "report.json")
    assert status == expected
    assert report is not None
    assert [each["met"] for each in report["targets"]] == [False]


def test_a_target_is_measured_by_the_cheapest_of_several() -> None:
    """Of several to be compared with, it is the dearest ratio that counts."""
    bench = Benchmark("test", quick=True)
    for name, value in (("ours", 10.0), ("cheap", 5.0), ("dear", 50.0)):
        bench.figure(name, value, "bytes")
    bench.target("ours", at_most=1.0, of=("dear", "cheap"))
    bench.target("ours", at_most=10)
    verdicts = bench.verdicts()
    assert [(each["of"], each["value"], each["met"]) for each in verdicts] == [
        ("cheap", 2.0, False),
        ("", 10.0, True),
    ]


def test_a_target_of_nothing_measured_is_an_error() -> None:
    """A misspelt name must not pass for a target that was met."""
    bench = Benchmark("test", quick=True)
    bench.target("ours", at_most=1.0)
    with pytest.raises(BenchmarkError, match="ours"):
        bench.verdicts()


def test_a_peer_that_cannot_be_imported_is_listed(tmp_path: Path) -> None:
    """Whoever reads the table sees who is missing, and why; and the versions of who is there."""

    def build(bench: Benchmark) -> None:
        assert bench.peer("no_such_library", "no-such-library") is None
        assert bench.peer("tenacity") is not None
        bench.case(Case("bare", calls(same, 7), expected=7))

    _, report = run(build, file=tmp_path / "report.json")
    assert report is not None
    assert "ModuleNotFoundError" in report["missing"]["no-such-library"]
    assert report["versions"]["tenacity"][0].isdigit()
    assert {"python", "chassis-kit"} <= report["versions"].keys()


def test_only_some_cases_still_have_their_baseline() -> None:
    """``--only`` keeps what others are compared with, and the targets that can be judged."""
    bench = measured(two, only="nothing of the kind")
    assert list(bench.cases) == ["bare"]
    assert bench.verdicts() == []


def test_memory_is_what_each_object_adds() -> None:
    """A thousand bytes are a thousand bytes."""
    assert 1000 < bytes_each(lambda number: bytes(1000), count=100) < 1100


@pytest.mark.integration
@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_benchmark_runs(name: str, tmp_path: Path) -> None:
    """Quickly, with every case checked; what it measures then means nothing."""
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", str(report)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(report.read_text())
    assert told["quick"]
    assert told["cases"] or told["figures"]
