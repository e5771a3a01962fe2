"""Mutates the pure machines, one by one, and prints how many mutants the tests of each kill.

The machines and their tests are listed in ``[tool.chassis.mutation]`` of pyproject.toml. mutmut works
in a copy of the tree; the tree itself is never touched.

    python tests/mutation/run.py                all machines
    python tests/mutation/run.py breaker        those whose path has the word
    python tests/mutation/run.py --diffs ...    also shows what each survivor changed
    python tests/mutation/run.py --list         names them and runs nothing
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "site", "build", "dist", "mutants")
KILLED = {"killed", "timeout", "segfault"}


@dataclass(frozen=True)
class Result:
    """What became of the mutants of one machine."""

    statuses: dict[str, str]
    diffs: dict[str, str]

    @property
    def killed(self) -> float:
        """Per cent of the mutants; a mutant no test runs is a survivor."""
        dead = sum(status in KILLED for status in self.statuses.values())
        return 100 * dead / max(1, len(self.statuses))

    @property
    def survivors(self) -> list[str]:
        return [name for name, status in self.statuses.items() if status not in KILLED]


def mutmut(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(
        command, cwd=tree, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def mutate(machine: str, tests: list[str], *, diffs: bool) -> Result:
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        tree = Path(folder).resolve() / "tree"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        with (tree / "pyproject.toml").open("a") as file:
            file.write(
                "\n[tool.mutmut]\n"
                'source_paths = ["src"]\n'
                'also_copy = ["docs", "examples"]\n'
                f"only_mutate = {json.dumps([machine])}\n"
                f"pytest_add_cli_args_test_selection = {json.dumps(tests)}\n"
                'pytest_add_cli_args = ["-p", "no:cacheprovider", "-m", "not integration"]\n'
            )
        from mutmut.stats import status_by_exit_code  # not needed to list the machines

        done = mutmut(tree, "run")
        meta = tree / "mutants" / f"{machine}.meta"
        if done.returncode or not meta.exists():
            raise SystemExit(f"mutmut failed on {machine}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        codes = json.loads(meta.read_text())["exit_code_by_key"]
        result = Result({name: status_by_exit_code[code] for name, code in codes.items()}, {})
        if diffs:
            result.diffs.update((name, mutmut(tree, "show", name).stdout) for name in result.survivors)
        return result


def main() -> int:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["chassis"]["mutation"]
    parser = argparse.ArgumentParser(description="Mutate the pure machines.")
    parser.add_argument("words", nargs="*", help="only machines whose path has one of them")
    parser.add_argument("--diffs", action="store_true", help="show what each survivor changed")
    parser.add_argument("--list", action="store_true", help="name the machines and run nothing")
    chosen = parser.parse_args()
    machines = {
        machine: tests
        for machine, tests in settings["machines"].items()
        if not chosen.words or any(word in machine for word in chosen.words)
    }
    weak = []
    for machine, tests in machines.items():
        if chosen.list:
            print(f"{machine}  mutated against {', '.join(tests)}")
            continue
        began = time.monotonic()
        result = mutate(machine, tests, diffs=chosen.diffs)
        counts = ", ".join(
            f"{number} {word}" for word, number in Counter(result.statuses.values()).most_common()
        )
        print(f"{result.killed:5.1f} %  {machine}  ({counts}; {time.monotonic() - began:.0f} s)", flush=True)
        for name in result.survivors:
            print(f"         {result.statuses[name]}: {name.rpartition('.')[2]}")
            if diff := result.diffs.get(name):
                print("\n".join(f"           {line}" for line in diff.splitlines() if line[:1] in "+-"))
        if result.killed < settings["at_least"]:
            weak.append(machine)
    if weak:
        print(f"below {settings['at_least']} %: {', '.join(weak)}")
    return 1 if weak else 0


if __name__ == "__main__":
    sys.exit(main())
