"""examples/failover shows what its page says: zones, weights, hedges, keys, and nobody's call lost."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ports import free_port

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "failover"


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What it prints, run as it is written but for the ports."""
    folder = tmp_path_factory.mktemp("failover") / "failover"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    services = folder / "services.toml"
    services.write_text(re.sub(r"(?<=127\.0\.0\.1:)\d+", lambda _: str(free_port()), services.read_text()))
    done = subprocess.run(
        [sys.executable, "-W", "error", "failover.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def answers(lines: list[str], what: str) -> dict[str, int]:
    """How many of a hundred pages each instance answered."""
    line = next(each for each in lines if each.startswith(f"{what} "))
    found = {id: int(count) for id, count in re.findall(r"(a1|a2|b1|far) (\d+)", line.removeprefix(what))}
    assert sum(found.values()) == 100, line
    return found


def test_its_own_zone_is_called_and_the_heavier_instance_more(lines: list[str]) -> None:
    told = answers(lines, "all are well")
    assert set(told) == {"a1", "a2"}
    assert told["a2"] > told["a1"]


def test_a_slow_instance_is_hedged(lines: list[str]) -> None:
    assert answers(lines, "a2 is slow").get("a1", 0) > 90
    line = next(each for each in lines if each.startswith("a2 is slow"))
    attempts = re.search(r"(\d+) attempts", line)
    assert attempts is not None
    assert int(attempts[1]) > 120, "calls were sent once more beside the slow ones"


def test_each_that_goes_is_replaced_by_the_next_in_order(lines: list[str]) -> None:
    # From the moment on when zone a is known to be half of itself, and this is looked at once a second,
    # it keeps 70 of a hundred.
    assert answers(lines, "a2 is gone").get("a1", 0) > 50
    assert answers(lines, "a1 is gone").get("b1", 0) > 80
    assert answers(lines, "b1 is gone") == {"far": 100}


def test_only_the_carts_of_the_one_that_is_gone_move(lines: list[str]) -> None:
    before, after = (dict(re.findall(r"(\w+): (cart-\d)", lines[place])) for place in (-3, -1))
    assert len(before) == 6
    assert "cart-2" not in after.values()
    moved = {user for user in before if before[user] != after[user]}
    assert moved == {user for user in before if before[user] == "cart-2"}
