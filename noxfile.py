"""Everything that checks or builds this project, one session each; CI runs the same sessions.

python -m nox -s demo        watch it work
python -m nox -s tests       the test suite, without servers of others, with coverage
python -m nox -l             all of them
"""

import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import nox

nox.needs_version = ">=2026.10"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "lint", "types"]
nox.options.error_on_missing_interpreters = False
os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")
# Or each of the hundreds of processes the tests start would compile everything anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

GROUPS = nox.project.dependency_groups
PYPROJECT = nox.project.load_toml("pyproject.toml")
BRANCHES_COVERED = 90  # per cent, at least


def install(session: nox.Session, *groups: str, extras: str = "[all]") -> None:
    """Install the project as it stands in the tree, and the named dependency groups."""
    session.install("--quiet", "--editable", f".{extras}", *GROUPS(PYPROJECT, *groups))


@nox.session
def tests(session: nox.Session) -> None:
    """Run the suite with the running interpreter; count child processes in the coverage."""
    install(session, "test")
    # Child processes write their figures beside ours, whatever directory they run in.
    data = Path(session.create_tmp()) / "coverage"
    session.env["COVERAGE_FILE"] = str(data.resolve())
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "-m", "not integration", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")
    report = data.with_suffix(".json")
    session.run("coverage", "json", "--quiet", "-o", str(report))
    totals = json.loads(report.read_text())["totals"]
    covered = 100 * totals["covered_branches"] / max(1, totals["num_branches"])
    session.log(f"branches covered: {covered:.1f} % (at least {BRANCHES_COVERED} %)")
    if covered < BRANCHES_COVERED and not session.posargs:
        session.error(f"cover the branches listed above: {covered:.1f} % is below {BRANCHES_COVERED} %")


@nox.session(python=["3.11", "3.12", "3.13"], download_python="never")
def tests_all(session: nox.Session) -> None:
    """Run the suite on every supported Python that is here; one that is missing is skipped."""
    install(session, "test")
    session.run("pytest", "-m", "not integration", *session.posargs)


@nox.session
def integration(session: nox.Session) -> None:
    """Run the tests that need a real Consul or OpenBao, and those that take their time.

    With CHASSIS_REQUIRE_SERVERS=1 a test that was skipped fails the session.
    """
    install(session, "test", "types")
    report = Path(session.create_tmp()) / "integration.xml"
    session.run("pytest", "-m", "integration", f"--junit-xml={report}", *session.posargs)
    skipped = [
        case.get("name") for case in ET.parse(report).iter("testcase") if case.find("skipped") is not None
    ]
    if skipped and os.environ.get("CHASSIS_REQUIRE_SERVERS") == "1":
        session.error(f"CHASSIS_REQUIRE_SERVERS=1, and these did not run: {', '.join(map(str, skipped))}")


@nox.session
def demo(session: nox.Session) -> None:
    """Watch it work: six services under load, act by act, and a verdict for each."""
    install(session, "examples")
    session.run("python", "-m", "examples.shop", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and the import contracts."""
    install(session, "lint", extras="")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types as users' tools do: mypy strict and pyright."""
    install(session, "types", "examples", extras="[all,testing]")
    session.run("mypy")
    session.run("pyright", "--pythonpath", str(Path(session.bin, "python")))


@nox.session
def api(session: nox.Session) -> None:
    """Write docs/api.txt, the public API as text; with `-- --check` only compare."""
    install(session, extras="[all,testing]")
    session.run("python", "docs/tools/api.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/; every warning is an error."""
    install(session, "docs", extras="")
    session.run("mkdocs", "build", "--strict", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def sabotage(session: nox.Session) -> None:
    """Break each promise in a copy of the tree and see its test fail."""
    install(session, "test")
    session.run("python", "tests/sabotage/run.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks: all, or those named, e.g. `-- policies --strict`; see docs/benchmarks.md."""
    install(session, "bench")
    named = [argument for argument in session.posargs if not argument.startswith("-")]
    flags = [argument for argument in session.posargs if argument.startswith("-")]
    found = sorted(file.stem for file in Path("benchmarks").glob("[a-z]*.py") if file.stem != "harness")
    for name in named or found:
        session.run("python", "-m", f"benchmarks.{name}", *flags)


@nox.session
def mutation(session: nox.Session) -> None:
    """Mutate the pure machines and print how many mutants their tests kill; takes a while."""
    install(session, "test", "mutation")
    session.run("python", "tests/mutation/run.py", *session.posargs)
