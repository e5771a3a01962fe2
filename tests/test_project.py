"""What the project says of itself is true: the README, the documentation, the sabotage entries."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from tests.sabotage.run import Sabotage, read_entries

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("session", ["demo", "tests"])
def test_the_readme_has_the_two_commands(session: str) -> None:
    """Each on a line of its own, to be copied as it stands; CI runs the second one from there."""
    assert f"\npython3 -m pip install nox && python3 -m nox -s {session}\n" in README


def test_the_readmes_hello_is_the_example() -> None:
    """The first thing a stranger copies is a file that the tests run."""
    shown = blocks(ROOT / "README.md", "python")[0]
    example = (ROOT / "examples" / "hello" / "hello.py").read_text()
    assert ast.dump(ast.parse(shown)) == ast.dump(ast.parse(example))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_imports_is_there(page: Path) -> None:
    """Every python block is valid, and every name it takes from us exists."""
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "chassis":
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{page.name}: {node.module} has no {alias.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """A relative link names a file of the tree."""
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("entry", read_entries(), ids=lambda entry: entry.title)
def test_a_sabotage_entry_still_fits_its_file(entry: Sabotage) -> None:
    """Its text occurs exactly once, so that `nox -s sabotage` breaks what it means to break."""
    assert entry.flaw() is None
