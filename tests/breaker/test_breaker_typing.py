"""What a type checker knows of a function once a breaker guards it: all it knew before."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration  # each starts a type checker, which takes some seconds

_SNIPPET = """
from collections.abc import AsyncGenerator, Generator
from chassis.breaker import CircuitBreaker, KeyedBreakers

breaker = CircuitBreaker("typed", failure_rate=0.3, slow_after=1.0, mode="metrics_only", register=False)
hosts = KeyedBreakers("typed", key=lambda host, path: host, window_calls=50, register=False)

@breaker
def plain(order: int, *, note: str = "") -> bytes: raise RuntimeError
@breaker
async def later(order: int, *, note: str = "") -> bytes: raise RuntimeError
@hosts
def items(host: str, path: str) -> Generator[int, str, bytes]:
    yield 1
    return b""
@hosts
async def aitems(host: str, path: str) -> AsyncGenerator[int, str]:
    yield 1

class Service:
    @breaker
    def method(self, order: int) -> bytes: raise RuntimeError
    @breaker
    @classmethod
    def of_class(cls, order: int) -> bytes: raise RuntimeError

reveal_type(plain)
reveal_type(later)
reveal_type(items)
reveal_type(aitems)
reveal_type(Service().method)
reveal_type(Service.of_class)
plain("not a number")  # wrong
CircuitBreaker("typed", failure_rate="half")  # wrong
CircuitBreaker("typed", failurerate=0.5)  # wrong
"""


def checked(command: list[str], tmp_path: Path) -> tuple[list[str], set[int]]:
    """The types revealed, in order, and the lines with errors."""
    file = tmp_path / "snippet.py"
    file.write_text(_SNIPPET)
    # A project of its own: pyright leaves out what lies in a folder like .nox of another.
    (tmp_path / "pyrightconfig.json").write_text("{}")
    result = subprocess.run(
        [sys.executable, "-m", *command, str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    revealed = re.findall(r"(?:Revealed type is|Type of \".*\" is) \"(.*)\"", result.stdout)
    wrong = {int(line) for line in re.findall(r"snippet\.py:(\d+)(?::\d+)?(?::| -) error", result.stdout)}
    marked = {
        number for number, line in enumerate(file.read_text().splitlines(), 1) if line.endswith("# wrong")
    }
    assert wrong == marked, result.stdout + result.stderr
    return revealed, wrong


def test_trap_30_mypy_sees_the_exact_parameters(tmp_path: Path) -> None:
    """Parameters with their names, kinds and defaults; and what is wrong is an error."""
    revealed, _ = checked(["mypy", "--strict", f"--cache-dir={tmp_path}"], tmp_path)
    assert revealed == [
        "def (order: int, *, note: str =) -> bytes",
        "def (order: int, *, note: str =) -> typing.Coroutine[Any, Any, bytes]",
        "def (host: str, path: str) -> typing.Generator[int, str, bytes]",
        "def (host: str, path: str) -> typing.AsyncGenerator[int, str]",
        "def (order: int) -> bytes",
        "def (order: int) -> bytes",
    ]


def test_trap_30_pyright_sees_the_exact_parameters(tmp_path: Path) -> None:
    """As mypy does."""
    revealed, _ = checked(["pyright", "--pythonpath", sys.executable], tmp_path)
    assert revealed == [
        '(order: int, *, note: str = "") -> bytes',
        '(order: int, *, note: str = "") -> CoroutineType[Any, Any, bytes]',
        "(host: str, path: str) -> Generator[int, str, bytes]",
        "(host: str, path: str) -> AsyncGenerator[int, str]",
        "(order: int) -> bytes",
        "(order: int) -> bytes",
    ]
