"""The shop's processes end with the story, however it ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.shop.processes import ProcessFailed, processes, wait_for
from tests.support.waiting import wait_until

PARENT_AND_CHILD = """
import json, os, subprocess, sys, time, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(json.dumps({"service": "x", "address": f"http://{child.pid}"}), flush=True)
time.sleep(60)
"""


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture(autouse=True)
def only_linux() -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("reads /proc")


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit, ProcessFailed])
def test_no_process_is_left_behind_nor_what_it_started(tmp_path: Path, ending: type[BaseException]) -> None:
    """Even one that ignores SIGTERM, and its child, which was never told of anything."""
    with pytest.raises(ending), processes(tmp_path) as running:
        program = tmp_path / "program.py"
        program.write_text(PARENT_AND_CHILD)
        process = running.start_program("stubborn-1", "python3", str(program))
        wait_for(process.is_ready, 10)
        running.end = short(running.end)  # type: ignore[method-assign]  # the same with less grace
        raise ending
    child = int(process.address.removeprefix("http://"))
    wait_until(lambda: gone(process.pid) and gone(child), what="both to be gone")


def short(end: Callable[..., None]) -> Callable[..., None]:
    return lambda: end(grace=0.2)


def test_sigterm_ends_the_story_as_ctrl_c_does(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended, processes(tmp_path) as running:
        running.start_program("sleeper-1", "sleep", "60")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert ended.value.code == 143
    assert running.all[0].status == -signal.SIGTERM


def test_a_process_that_ends_by_itself_is_told_with_its_last_words(tmp_path: Path) -> None:
    with processes(tmp_path) as running:
        process = running.start_program("broken-1", "sh", "-c", "echo out of cheese >&2; exit 3")
        with pytest.raises(ProcessFailed, match=r"(?s)broken-1 ended with status 3.*out of cheese"):
            wait_for(process.is_ready, 10)
        with pytest.raises(ProcessFailed, match="by itself"):
            running.check()


def test_a_process_that_was_told_to_end_is_no_failure(tmp_path: Path) -> None:
    with processes(tmp_path) as running:
        process = running.start_program("sleeper-1", "sleep", "60")
        process.kill()
        running.check()
        assert process.status == -signal.SIGKILL


def test_names_count_up_by_kind(tmp_path: Path) -> None:
    with processes(tmp_path) as running:
        for expected in ("catalog-1", "catalog-2"):
            assert running.name_for("catalog") == expected
            running.start_program(expected, "true").ended_on_purpose = True
        assert running.name_for("orders") == "orders-1"
