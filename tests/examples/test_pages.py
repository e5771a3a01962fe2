"""The code in the pages on discovery, calls and serving runs as it stands there, and so does that of the README."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(
        f"docs/components/{each}.md"
        for each in (
            "client",
            "consul",
            "dev-agent",
            "discovery",
            "dns",
            "hedging",
            "load-balancing",
            "serving",
        )
    ),
    "README.md",
    "docs/tutorial.md",
]
_RUN = """
import json, sys
for page, code in json.load(sys.stdin).items():
    exec(compile(code, page, "exec"), {"__name__": page})
"""


def test_every_code_block_of_these_pages_runs(tmp_path: Path) -> None:
    """In the order of the page; the assertions in it hold."""
    code = {}
    for page in PAGES:
        blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
        assert blocks, page
        code[page] = "\n".join(blocks)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _RUN],
        input=json.dumps(code),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.integration
@pytest.mark.parametrize("checker", [["mypy", "--strict", "--cache-dir=cache"], ["pyright"]])
def test_the_code_of_the_readme_is_typed(checker: list[str], tmp_path: Path) -> None:
    """Who pastes it into a project that is checked strictly has nothing to add."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "readme.py").write_text("\n".join(blocks))
    (tmp_path / "pyrightconfig.json").write_text("{}")
    (tmp_path / "mypy.ini").write_text("[mypy]\n")
    where = ["--pythonpath", sys.executable] if checker == ["pyright"] else []
    command = [sys.executable, "-m", *checker, *where, "readme.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
