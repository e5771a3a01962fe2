"""``python -m examples.shop``: the story passes, and each act fails without the feature it is about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from examples.shop.shop import INSTANCES
from examples.shop.without import FEATURES, settings
from tests.support.ports import free_port
from tests.support.processes import ManagedProcess
from tests.support.servers import ConsulServer

RATE = "60"


def story(*arguments: str, **env: str | None) -> ManagedProcess:
    return ManagedProcess.python("-m", "examples.shop", *arguments, name="story", env=env)


def play(folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Play it: exit status, what was found by act, and the output."""
    with story("--folder", str(folder), "--rate", RATE, *arguments, CONSUL_HTTP_ADDR=None) as running:
        status = running.wait(timeout=115)
        assert (folder / "verdict.json").exists(), running.output
        found = json.loads((folder / "verdict.json").read_text())
        return status, {each["act"]: each for each in found}, running.output


@pytest.mark.integration
def test_every_act_passes_on_a_real_consul(own_consul_server: ConsulServer, tmp_path: Path) -> None:
    address = own_consul_server.url.removeprefix("http://")
    status, acts, output = play(tmp_path / "run", "--quick", "--consul", address)
    assert status == 0, output
    assert len(acts) == 8
    assert "payments  POST /charges [server]" in output  # the trace is drawn


@pytest.mark.integration
def test_without_failover_breaker_and_drain_the_acts_about_them_fail(tmp_path: Path) -> None:
    """By what callers saw: refused calls, charges that reach payments, refused and cut requests."""
    acts = "steady,kill,payments,rolling"
    status, found, output = play(tmp_path / "run", "--quick", "--acts", acts, "--without", ",".join(FEATURES))
    assert status == 1, output
    assert found["Steady load"]["passed"], output
    assert any("requests failed" in each for each in found["A catalog instance is killed"]["failures"]), (
        output
    )
    charged = found["Payments fails"]["failures"]
    assert any("attempts reached payments" in each for each in charged), output
    rolling = found["Rolling restart of everything"]["failures"]
    assert any("requests failed" in each for each in rolling), output
    assert " × refused" in output


def test_what_is_switched_off_is_said_by_settings_of_the_services_concerned() -> None:
    assert settings(frozenset()) == {}
    failover = json.loads(settings(frozenset({"failover"}))["gateway"]["CHASSIS_POLICIES"])
    assert failover["client:catalog/budget"]["per_second"] == 0
    both = json.loads(settings(frozenset({"failover", "breaker"}))["orders"]["CHASSIS_POLICIES"])
    assert both.keys() == {"client:catalog/budget", "client:payments/breaker"}
    assert settings(frozenset({"drain"})).keys() == INSTANCES.keys()


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        (("--acts", "steady,dance"), {}, "--acts: there is no 'dance'; there are steady, kill"),
        (("--without", "gravity"), {}, "--without: there is no 'gravity'; there are failover"),
        (("--consul", "https://consul:8501"), {}, "--consul: 'https://consul:8501' is no address"),
        ((), {"CONSUL_HTTP_ADDR": "nowhere"}, "CONSUL_HTTP_ADDR: 'nowhere' is no address of a Consul"),
        (("--consul", f"127.0.0.1:{free_port()}"), {}, "no Consul answers at 127.0.0.1"),
        (("--consul",), {"PATH": "/nowhere", "CONSUL_BIN": None}, "no consul program on PATH"),
        (("--folder", "."), {}, "is not empty; name a new one"),
        (("--rate", "many"), {}, "'many' is not a valid float"),
    ],
)
def test_bad_input_is_one_message_and_status_2(
    arguments: tuple[str, ...], env: dict[str, str | None], message: str
) -> None:
    with story(*arguments, **{"CONSUL_HTTP_ADDR": None, **env}) as running:
        assert running.wait(timeout=30) == 2, running.output
        assert message in running.output
        assert "Traceback" not in running.output


def test_a_collector_without_a_file_is_one_message_and_status_2() -> None:
    with ManagedProcess.python("-m", "examples.shop.collector") as collector:
        assert collector.wait(timeout=30) == 2
        assert "Missing argument 'FILE'" in collector.output
