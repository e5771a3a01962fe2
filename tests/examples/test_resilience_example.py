"""examples/resilience runs, says its order, and its own tests pass as a stranger runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "resilience"


def _run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_module_tells_its_order_and_who_is_refused() -> None:
    done = _run("quotes.py", cwd=FOLDER)
    assert done.returncode == 0, done.stderr
    order = "Timeout(2 s) > RateLimit(quotes) > Retry(quotes) > KeyedBreakers(carriers) > Timeout(0.5 s)"
    assert f"quoting: {order}" in done.stdout
    assert "north: 4.2" in done.stdout
    assert "CircuitOpen: circuit breaker 'carriers/south' is open; it admits a probe in" in done.stdout
    assert "south tracks: unknown" in done.stdout


def test_its_own_tests_pass(tmp_path: Path) -> None:
    """In a project of their own, which knows nothing of this one's settings for pytest."""
    for file in ("quotes.py", "test_quotes.py"):
        (tmp_path / file).write_text((FOLDER / file).read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    done = _run("-m", "pytest", "-q", "-p", "no:cacheprovider", ".", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    tests = (FOLDER / "test_quotes.py").read_text().count("\ndef test_")
    assert f"{tests} passed" in done.stdout
