"""Breaks each promise on purpose and sees its test fail: a test that cannot fail proves nothing.

Every ``tests/sabotage/*.toml`` holds entries of this form::

    [[sabotage]]
    name = "a cancelled probe gives its permit back"   # the requirement
    file = "src/chassis/breaker/_machine.py"
    text = "..."           # occurs exactly once in the file
    replacement = "..."    # takes the feature away
    test = "tests/breaker/test_machine.py::test_..."   # must fail then, and passes before

The edits are made in copies of the tree, one per worker; the tree itself is never touched.

    python tests/sabotage/run.py              all of them
    python tests/sabotage/run.py breaker      the entries of breaker.toml
    python tests/sabotage/run.py -k probe     those whose name has the word
"""

from __future__ import annotations

import argparse
import gc
import importlib
import itertools
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "site", "build", "dist", "mutants")
TEST_FAILED = 1  # pytest's exit status; 2, 4 and 5 say that nothing was tested
HANG = 20  # seconds a test may take once the code is broken
LIMIT = 120  # and the run around it
NOT_THE_COPY, NO_ANSWER = 70, 71
OUTCOMES, PRINTED = ".outcomes.json", ".printed"
WIDELY_USED = [
    "pytest",
    "hypothesis",
    "anyio",
    "trio",
    "httpx2",
    "httpx",
    "pydantic",
    "pydantic_settings",
    "fastapi",
    "click",
    "loguru",
    "jwt.algorithms",
    "prometheus_client",
    "opentelemetry.sdk.trace",
    "dns.asyncresolver",
]


@dataclass(frozen=True, kw_only=True)
class Sabotage:
    """One edit that takes a promise away, and the test that must notice."""

    component: str
    name: str
    file: str
    text: str
    replacement: str
    test: str

    @property
    def title(self) -> str:
        return f"{self.component}: {self.name}"

    def flaw(self) -> str | None:
        """Why this entry cannot be tried, or None."""
        file = ROOT / self.file
        if not file.is_file():
            return f"there is no file {self.file}"
        found = file.read_text().count(self.text)
        if found != 1:
            return f"its text occurs {found} times in {self.file}, must be once"
        return "its replacement is its text" if self.text == self.replacement else None

    @contextmanager
    def applied(self, tree: Path, stamp: int) -> Iterator[None]:
        """Break the file inside the block. ``stamp`` is new each time, so that no byte code is reused."""
        file = tree / self.file
        whole, times = file.read_text(), file.stat()
        file.write_text(whole.replace(self.text, self.replacement))
        os.utime(file, (stamp, stamp))
        try:
            yield
        finally:
            file.write_text(whole)
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def read_entries() -> list[Sabotage]:
    entries = []
    for file in sorted(Path(__file__).parent.glob("*.toml")):
        for table in tomllib.loads(file.read_text()).get("sabotage", []):
            try:
                entries.append(Sabotage(component=file.stem, **table))
            except TypeError as error:
                raise SystemExit(f"{file.name}: {table.get('name', table)}: {error}") from None
    return entries


# ── the server: one process for each tree, which forks for each run of pytest ────────────────────


class Recorder:
    """A pytest plugin that keeps one word per test: passed, failed or skipped."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome


def run_pytest(arguments: list[str]) -> int:
    """Run pytest on the tree of the working directory and write what became of each test."""
    import pytest

    import chassis

    if not Path(chassis.__file__ or "").is_relative_to(Path.cwd()):
        print(f"would test {chassis.__file__}, not the copy in {Path.cwd()}")
        return NOT_THE_COPY
    recorder = Recorder()
    imported_before = "-Wignore::pytest.PytestAssertRewriteWarning"
    status = pytest.main([*arguments, "-q", "-p", "no:cacheprovider", imported_before], plugins=[recorder])
    Path(OUTCOMES).write_text(json.dumps({"status": status, "outcomes": recorder.outcomes}))
    return status


def serve() -> None:
    """Run pytest for each line of arguments on standard input, and answer a line when it has ended.

    Everything but our own code and tests is imported once, here: that is most of a run's time.
    """
    plugins = [entry.module for entry in entry_points(group="pytest11")]
    for name in [*WIDELY_USED, *plugins]:
        if not name.startswith("chassis"):
            importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            os.dup2(os.open(PRINTED, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            os.dup2(1, 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.exit(run_pytest(order["arguments"]))
        print(wait_for(pid, order["limit"]), flush=True)


def wait_for(pid: int, limit: float) -> int:
    """The exit status of a child, which is killed with all it started after ``limit`` seconds."""
    end = time.monotonic() + limit
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.killpg(pid, signal.SIGKILL)
            end += limit
        time.sleep(0.01)


class Tree:
    """A copy of the tree, and the server that runs tests in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        shutil.copytree(ROOT, path, ignore=LEFT_OUT, symlinks=True)
        self._server = subprocess.Popen(
            [sys.executable, str(path / Path(__file__).relative_to(ROOT)), "--serve"],
            cwd=path,
            # What was broken is told from its byte code by the stamp; all else is compiled but once.
            env={**os.environ, "PYTHONPATH": str(path / "src"), "PYTHONDONTWRITEBYTECODE": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, arguments: list[str], limit: float) -> tuple[int, dict[str, str], str]:
        """Pytest's exit status, the outcome of each test, and what was printed."""
        outcomes, printed = self.path / OUTCOMES, self.path / PRINTED
        outcomes.unlink(missing_ok=True)
        assert self._server.stdin
        assert self._server.stdout
        print(json.dumps({"arguments": arguments, "limit": limit}), file=self._server.stdin, flush=True)
        status = int(self._server.stdout.readline() or NO_ANSWER)
        text = printed.read_text(errors="replace") if printed.exists() else ""
        if not outcomes.exists():
            return status, {}, text
        # Pytest's own status: what the broken code does when the interpreter ends is another matter.
        ended = json.loads(outcomes.read_text())
        return ended["status"], ended["outcomes"], text

    def close(self) -> None:
        self._server.communicate()


# ── the parent ───────────────────────────────────────────────────────────────────────────────────


def shares(tests: set[str], workers: int) -> list[list[str]]:
    """The tests, dealt to the workers by the file: each file is read once, and its tests are not rivals."""
    by_file = itertools.groupby(sorted(tests), lambda test: test.partition("::")[0])
    files = [list(those) for _, those in by_file]
    return [list(itertools.chain(*files[number::workers])) for number in range(workers)]


def before(tree: Tree, tests: list[str]) -> dict[str, str]:
    """What became of each test on the unbroken code: passed, failed, skipped or missing."""
    if not tests:
        return {}
    _, outcomes, printed = tree.run(tests, LIMIT + 10 * len(tests))
    if "failed" in outcomes.values():
        print(printed[-6_000:], flush=True)
    if not outcomes:  # one node id that does not exist keeps pytest from running any of them
        for test in tests:
            outcomes |= tree.run([test], LIMIT)[1]
    state = {}
    for test in tests:
        found = {
            outcome
            for node, outcome in outcomes.items()
            if node == test or node.startswith((f"{test}[", f"{test}::"))
        }
        state[test] = "missing" if not found else "passed" if found == {"passed"} else min(found - {"passed"})
    return state


def verdict(entry: Sabotage, tree: Tree, stamp: int) -> str | None:
    """None when the test noticed, else what went wrong."""
    with entry.applied(tree.path, stamp):
        status, outcomes, printed = tree.run([entry.test, "-x", f"--timeout={HANG}"], LIMIT)
    if status == TEST_FAILED and "failed" in outcomes.values():
        return None
    told = "the test passes all the same" if status == 0 else f"the test could not run (exit status {status})"
    return f"{told}: {entry.test}\n{printed[-1500:]}"


def run_all(entries: list[Sabotage], workers: int) -> int:
    began, counts, stamps = time.monotonic(), {"ok": 0, "skip": 0, "FAIL": 0}, itertools.count(1)

    def tell(word: str, entry: Sabotage, remark: str) -> None:
        counts[word] += 1
        print(f"{word:4} {entry.title}{remark}", flush=True)

    with tempfile.TemporaryDirectory(prefix="sabotage-") as folder, ThreadPoolExecutor(workers) as pool:
        all_trees = [Tree(Path(folder).resolve() / str(number)) for number in range(workers)]

        sound = []
        for entry in entries:
            if flaw := entry.flaw():
                tell("FAIL", entry, f": {flaw}")
            else:
                sound.append(entry)
        state: dict[str, str] = {}
        for part in pool.map(before, all_trees, shares({entry.test for entry in sound}, workers)):
            state |= part
        trees: queue.SimpleQueue[Tree] = queue.SimpleQueue()
        for tree in all_trees:
            trees.put(tree)

        def attempt(entry: Sabotage) -> None:
            if state[entry.test] == "skipped":
                return tell("skip", entry, ": its test was skipped")
            if state[entry.test] != "passed":
                return tell("FAIL", entry, f": its test {entry.test} {state[entry.test]} before any sabotage")
            started, tree = time.monotonic(), trees.get()
            try:
                wrong = verdict(entry, tree, next(stamps))
            finally:
                trees.put(tree)
            if wrong:
                return tell("FAIL", entry, f": {wrong}")
            return tell("ok", entry, f" ({time.monotonic() - started:.1f} s)")

        for _ in pool.map(attempt, sound):
            pass
        for tree in all_trees:
            tree.close()
    print(
        f"sabotage: {counts['ok']} passed, {counts['FAIL']} failed, {counts['skip']} skipped"
        f" in {time.monotonic() - began:.0f} s"
    )
    return 1 if counts["FAIL"] or not counts["ok"] else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Break each promise in a copy and see its test fail.")
    parser.add_argument("components", nargs="*", help="names of tests/sabotage/*.toml; all by default")
    parser.add_argument("-k", default="", metavar="WORD", help="only entries whose name has the word")
    parser.add_argument("-j", type=int, default=os.cpu_count() or 1, metavar="N", help="workers")
    chosen = parser.parse_args()
    entries = [
        entry
        for entry in read_entries()
        if chosen.k in entry.name and (not chosen.components or entry.component in chosen.components)
    ]
    return run_all(entries, chosen.j)


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        sys.exit(main())
