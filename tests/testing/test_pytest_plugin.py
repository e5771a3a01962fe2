"""The pytest plugin: fixtures that are there when asked for, and nothing else."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = "chassis.testing._pytest_plugin"

USER_TESTS = """
import urllib.request

from chassis import CircuitBreaker
from chassis.breaker import BreakerOpened
from chassis.retries import Retry
from chassis.testing import ScriptedDependency, assert_state


def test_policy(chassis_clock, chassis_events, chassis_policies):
    breaker = CircuitBreaker("payments", consecutive_failures=1, clock=chassis_clock)
    retry = Retry(on=ConnectionError, sleep=chassis_clock.sleep)
    dependency = ScriptedDependency(ConnectionError, repeat=True)
    try:
        retry.run_sync(lambda: breaker.run_sync(dependency.call))
    except ConnectionError:
        pass
    assert_state(breaker, "open")
    assert chassis_events.one(BreakerOpened)
    assert chassis_policies.get("breaker:payments") is breaker
    globals()["kept"] = breaker


def test_the_name_is_free_again(chassis_policies):
    CircuitBreaker("payments")


def test_discovery(chassis_discovery):
    assert chassis_discovery.instances("catalog") == ()


def test_agent(chassis_dev_agent):
    assert urllib.request.urlopen(chassis_dev_agent.url + "/v1/catalog/services").status == 200


def test_services(chassis_services):
    from chassis import Chassis

    chassis_services.get("http://catalog/items").respond(json=[])
    assert Chassis("shop", environment={}).sync_client("catalog").get("/items").json() == []
"""


def test_pytest_finds_it_by_itself() -> None:
    """It is an entry point of the distribution."""
    found = [
        each.value
        for each in importlib.metadata.entry_points(group="pytest11")
        if each.dist is not None and each.dist.name == "chassis-kit"
    ]
    assert found == [PLUGIN], "an older installation has no entry point: pip install -e ."


def test_its_fixtures_serve_a_users_tests(tmp_path: Path) -> None:
    """Each of them, in a directory that knows nothing of this project."""
    (tmp_path / "test_user.py").write_text(USER_TESTS)
    # Without it pytest looks for settings in the directories above, which may be this project's.
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", PLUGIN, "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_loading_it_loads_nothing_else_of_chassis() -> None:
    """Pytest loads it at every start, also of projects that use chassis in none of their tests."""
    script = (
        f"import sys, pytest; before = set(sys.modules); import {PLUGIN}\n"
        "import json; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = [name for name in json.loads(done.stdout) if not name.startswith("coverage")]
    assert {name for name in loaded if name.startswith("chassis")} == {"chassis", "chassis.testing", PLUGIN}
    third_party = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
    assert third_party == {"chassis"}


def test_a_name_that_needs_a_missing_package_says_which_extra_brings_it() -> None:
    """Respx comes with the extra `testing` alone."""
    script = (
        "import sys; sys.modules['respx'] = None\n"
        "import chassis.testing\n"
        "try:\n    chassis.testing.mock_services\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "mock_services needs the package respx: pip install 'chassis-kit[testing]'"


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As with any module."""
    import chassis.testing

    with pytest.raises(AttributeError, match="no attribute 'mock_everything'"):
        chassis.testing.mock_everything  # noqa: B018 - asking for it is the test
    assert "mock_services" in dir(chassis.testing)
