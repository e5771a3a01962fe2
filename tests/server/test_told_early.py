"""A SIGTERM that comes before anything is served."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.processes import ManagedProcess

pytestmark = pytest.mark.integration  # starts a server


@pytest.mark.parametrize("told", ["parent", "group"])
def test_a_sigterm_while_the_application_is_imported_ends_it_before_it_serves(
    tmp_path: Path, told: str
) -> None:
    """Nothing has begun, so nothing is drained; and a stop that was asked for is status 0."""
    # Afterwards it would serve: a worker that missed the signal does.
    source = "import time\nprint('importing', flush=True)\ntime.sleep(3.0)\n"
    (tmp_path / "late.py").write_text(source + "async def app(scope, receive, send): ...\n")
    command = ["-m", "chassis.cli", "run", "late:app", "--port", "0"]
    with ManagedProcess.python(*command, cwd=tmp_path) as process:
        process.wait_for_line("importing", timeout=20)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.signal(signal.SIGTERM)
        for each in children if told == "group" else []:
            os.kill(int(each), signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.output == "importing\n"
