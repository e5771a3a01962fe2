"""The rules of the tree, held by reading it: what import-linter cannot say is said here."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from importlinter.cli import lint_imports

import chassis

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "chassis"
FILES = sorted(SOURCE.rglob("*.py"))

HEAVY = {
    "asyncio",
    "httpx",
    "httpx2",
    "loguru",
    "opentelemetry.sdk",
    "prometheus_client",
    "pydantic",
    "requests",
}
"""What `import chassis` must not load."""

HOMES = {
    "a2wsgi": {"cli"},
    "click": {"cli"},
    "consul": {"adapters"},
    "cryptography": {"auth"},
    "dns": {"adapters"},
    "flask": {"service"},  # the one place that installs into a framework
    "google": {"adapters"},  # protobuf, of opentelemetry-proto
    "granian": {"cli"},
    "h11": {"devagent"},
    "httpx": {"client", "adapters", "gateway", "testing", "wire"},
    "httpx2": {"client", "adapters", "gateway", "service", "testing", "wire"},
    "jwt": {"auth", "gateway"},
    "litestar": {"service"},
    "loguru": {"logs"},
    "opentelemetry": {"tracing", "adapters", "logs"},
    "prometheus_client": {"metrics"},
    "pydantic": {"config"},
    "pydantic_settings": {"config"},
    "pytest": {"testing"},
    "respx": {"testing"},
    "starlette": {"service"},
    "tenacity": {"retries"},
    "trio": {"limits", "retries"},  # only where it is running already
}
"""Where each third-party library may be imported: a component has its subject library and no other."""


@functools.cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file))


@pytest.fixture(scope="module", autouse=True)
def kept_for_these_tests_alone() -> Iterator[None]:
    """Or whoever collects garbage later would go through hundreds of trees."""
    yield
    parsed.cache_clear()


def place(file: Path) -> str:
    return str(file.relative_to(ROOT))


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Every module named by an import statement, at run time or for types, with its line."""
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def front_doors() -> list[str]:
    """The packages a user may import: no underscore anywhere in their path."""
    found = pkgutil.walk_packages(chassis.__path__, "chassis.")
    return ["chassis", *(m.name for m in found if m.ispkg and not re.search(r"\._", m.name))]


def loaded_by(statement: str) -> set[str]:
    """The modules a fresh interpreter has after ``statement``, without those it starts with."""
    script = (
        f"import sys; before = set(sys.modules); {statement}\n"
        "import json; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    # Coverage would load asyncio and others of its own into the child.
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=quiet, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_the_import_contracts_hold() -> None:
    """A package imports what stands below it, never a neighbour; see [tool.importlinter]."""
    here = Path.cwd()
    os.chdir(ROOT)
    try:
        assert lint_imports(no_cache=True) == 0
    finally:
        os.chdir(here)


def test_core_is_standard_library_only() -> None:
    """The words every layer shares need nothing installed and no event loop."""
    allowed = sys.stdlib_module_names - {"asyncio"}
    for file in sorted((SOURCE / "core").rglob("*.py")):
        for line, name in imports(file):
            root = name.partition(".")[0]
            assert root in allowed or name.startswith("chassis.core"), f"{place(file)}:{line} imports {name}"


def test_a_private_module_is_imported_by_its_own_package_only() -> None:
    """What stands behind a front door is nobody else's: `chassis.x._y` is for `chassis.x`."""
    for file in FILES:
        own = ".".join(file.relative_to(ROOT / "src").with_suffix("").parts)
        for line, name in imports(file):
            if private := re.match(r"(chassis(?:\.[a-z]\w*)*)\._[a-z]", name):
                owner = private.group(1)
                assert own == owner or own.startswith(f"{owner}."), f"{place(file)}:{line} imports {name}"


def test_every_third_party_library_has_its_home() -> None:
    """A component names its own subject library and no other; a new library needs a line in HOMES."""
    for file in FILES:
        package = file.relative_to(SOURCE).parts[0].removesuffix(".py")
        for line, name in imports(file):
            root = name.partition(".")[0]
            # anyio is the one library that is no subject of its own: threads and task groups.
            if root in sys.stdlib_module_names or root in {"chassis", "anyio"}:
                continue
            assert package in HOMES.get(root, set()), f"{place(file)}:{line} imports {name}"


@pytest.mark.parametrize("name", front_doors())
def test_the_front_door_lists_what_is_public(name: str) -> None:
    """`__all__` is exactly what the package offers, and names nothing twice (ruff sorts it)."""
    package = importlib.import_module(name)
    listed = list(getattr(package, "__all__", []))
    assert len(listed) == len(set(listed))
    for public in listed:
        assert hasattr(package, public), f"{name}.__all__ names {public}, which is not there"
    assert offered_by(package) <= set(listed), "a public name is missing in __all__"


def offered_by(package: ModuleType) -> set[str]:
    """The public names bound in the package's namespace, its submodules aside."""
    submodules = {found.name for found in pkgutil.iter_modules(package.__path__)}
    return {
        name
        for name, value in vars(package).items()
        if not name.startswith("_")
        and name != "TYPE_CHECKING"
        and name not in submodules
        and not isinstance(value, ModuleType)
        and getattr(value, "__module__", package.__name__) not in {"__future__", "typing"}
    }


@pytest.mark.parametrize("name", front_doors())
def test_everything_public_has_a_docstring(name: str) -> None:
    """A class, a function and each of their public methods says what it is for."""
    package = importlib.import_module(name)
    assert package.__doc__, f"{name} says nothing of itself"
    for public in getattr(package, "__all__", []):
        value = getattr(package, public)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        assert inspect.getdoc(value), f"{name}.{public} has no docstring"
        for member, kind in vars(value).items() if inspect.isclass(value) else ():
            if member.startswith("_") or not (inspect.isfunction(kind) or isinstance(kind, property)):
                continue
            if kind.__module__.startswith("chassis") if inspect.isfunction(kind) else True:
                assert inspect.getdoc(getattr(value, member)), f"{name}.{public}.{member} has no docstring"


def test_importing_the_package_loads_nothing_heavy() -> None:
    """`import chassis` costs milliseconds: what is heavy is imported when it is first needed."""
    loaded = loaded_by("import chassis")
    assert "chassis" in loaded
    assert not loaded & HEAVY


def test_the_components_do_without_the_rest() -> None:
    """A circuit breaker alone needs no HTTP client, no telemetry and no settings library."""
    loaded = loaded_by("import chassis.breaker")
    assert not {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"chassis"}


def test_no_decision_is_taken_by_the_wall_clock() -> None:
    """Wall time steps back and leaps: who must read it (an HTTP date, a token's expiry) says why."""
    for file in FILES:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if re.search(r"\btime\.time\b(?!_ns)|from time import .*\btime\b", line):
                assert "noqa: TID251" in line, f"{place(file)}:{number}: {line.strip()}"


@pytest.mark.parametrize("word", ["BaseHTTPMiddleware", "raise NotImplementedError", "TODO", "FIXME", "XXX"])
def test_nothing_is_left_for_later(word: str) -> None:
    """Everything that exists is true: no stub, no promise in a comment, no slow middleware."""
    found = [place(file) for file in FILES if re.search(rf"\b{word}\b", file.read_text())]
    assert not found


def test_no_module_is_a_drawer() -> None:
    """A module is named for what it holds."""
    drawers = {"utils", "util", "common", "helpers", "lib", "misc"}
    assert not [place(file) for file in FILES if file.stem.strip("_") in drawers]


def test_only_retry_and_client_try_again() -> None:
    """There is one attempt loop for functions and one for requests; a third would multiply them."""
    for file in FILES:
        if file.relative_to(SOURCE).parts[0] in {"retries", "client"}:
            continue
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.For) and isinstance(node.target, ast.Name):
                assert not re.fullmatch(r"attempts?|retry|retries|trial", node.target.id), place(file)


@pytest.mark.parametrize("silence", ["type: ignore", "noqa", "pragma: no cover", "pyright: ignore"])
def test_a_silenced_check_names_its_rule_and_its_reason(silence: str) -> None:
    """Who reads it later must be able to judge whether it still holds."""
    form = {
        "type: ignore": r"# type: ignore\[[\w, -]+\]\s+# \S+",
        "noqa": r"# noqa: [A-Z]+\d+(, ?[A-Z]+\d+)*\s+(# )?\S+",
        "pragma: no cover": r"# pragma: no cover\s*[:,-]?\s*\S+",
        "pyright: ignore": r"# pyright: ignore\[[\w, ]+\]\s+# \S+",
    }[silence]
    for file in FILES:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if f"# {silence}" in line:
                assert re.search(form, line), f"{place(file)}:{number}: {line.strip()}"


def test_no_two_files_need_each_other() -> None:
    """Not even for a type: each can be read, and changed, after those it imports."""
    needs: dict[str, set[str]] = {}
    for file in FILES:
        name = ".".join(("chassis", *file.relative_to(SOURCE).with_suffix("").parts))
        if file.name != "__init__.py":
            tree = ast.walk(parsed(file))
            needs[name] = {each.module for each in tree if isinstance(each, ast.ImportFrom) and each.module}

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        left = [start]
        while left:
            for each in needs.get(left.pop(), set()) - found:
                found.add(each)
                left.append(each)
        return found

    assert [name for name in needs if name in reached(name)] == []
