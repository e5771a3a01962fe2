"""The code in the pages of the resilience components runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / "docs" / "components"


@pytest.mark.parametrize(
    "page",
    [
        "circuit-breaker",
        "retry",
        "timeout",
        "bulkhead",
        "rate-limit",
        "load-shedding",
        "pipeline",
        "fallback",
    ],
)
def test_every_code_block_of_the_page_runs(page: str) -> None:
    """In the order of the page, in one fresh process; the assertions in it hold."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", (PAGES / f"{page}.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert blocks
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
