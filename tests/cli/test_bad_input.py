"""Bad input gets one message, with the setting, its origin and the remedy, and exit status 2."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from chassis.cli import main

HELLO = Path(__file__).resolve().parents[2] / "examples" / "hello"
ROOT = HELLO.parents[1]


def command(
    *arguments: str, module: str = "chassis.cli", cwd: Path = HELLO, **environment: str
) -> tuple[int, str]:
    """Run a command to its end; its exit status and all it printed."""
    ended = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        env={**os.environ, "CHASSIS_REQUIRE_SERVERS": "", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["nothere:app"], {}, ["MODULE:APP", "'nothere'", "command line", "start in the directory"]),
        (["hello:nope"], {}, ["MODULE:APP", "'nope'", "name the application object"]),
        (["hello:app"], {"CHASSIS_TIMEOUTT": "3"}, ["CHASSIS_TIMEOUTT", "no such setting", "environment"]),
        (
            ["hello:app"],
            {"CHASSIS_SERVER__DRAIN": "soon"},
            ["chassis.server.drain", "'soon'", "environment CHASSIS_SERVER__DRAIN", '"200ms"'],
        ),
        (
            ["hello:app"],
            {"CHASSIS_SERVICES__CATALOG": "http//x"},
            ["chassis.services.catalog", "http//x", "environment CHASSIS_SERVICES__CATALOG"],
        ),
        (["hello:app"], {"CONSUL_HTTP_ADDR": "unix:///x"}, ["CONSUL_HTTP_ADDR", "unix", "http://host:port"]),
        (["hello:app", "--set", "chassis.flush=-1"], {}, ["chassis.flush", "-1", "command line"]),
        (["hello:app", "--host", "name.invalid"], {}, ["--host", "name.invalid", "IP address"]),
    ],
)
def test_run_names_setting_origin_and_remedy(
    arguments: list[str], environment: dict[str, str], told: list[str]
) -> None:
    status, output = command("run", *arguments, "--port", "0", **environment)
    assert status == 2
    assert "Traceback" not in output
    assert output.count("chassis: ") == 1
    for each in told:
        assert each in output


@pytest.mark.parametrize("verb", ["run", "check"])
def test_check_refuses_what_keeps_a_service_from_starting(verb: str) -> None:
    """Also what is only seen when the sources of services are made."""
    service = "chassis.services.catalog.discovery"
    status, output = command(verb, "hello:app", "--set", f"{service}.tagss=v2")
    assert status == 2
    assert f"{service}.tagss: no such setting" in output
    assert "did you mean tags?" in output


@pytest.mark.parametrize("name", ["run hello:app", "dev", "gateway {gateway}"])
def test_a_port_in_use_is_told(name: str, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('[[routes]]\npath = "/x"\nservice = "x"\n')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, output = command(*name.format(gateway=file).split(), "--port", str(port))
    assert status == 2
    assert "Traceback" not in output
    assert f"127.0.0.1:{port}" in output
    assert "port" in output
    assert "free" in output


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("x = [", ["not TOML", "gateway.toml"]),
        ('[[routes]]\npath = "/x"\nservise = "x"\n', ["servise", "did you mean service?", "gateway.toml"]),
        (
            '[auth.users]\njwks = "file:keys.json"\naudience = "a"\n[[routes]]\npath = "/x"\nservice = "x"\nauth = "users"\n',
            ["auth.users.jwks", "keys.json", "RFC 7517"],
        ),
    ],
)
@pytest.mark.parametrize("verb", ["gateway", "check"])
def test_a_malformed_gateway_is_told(
    verb: str,
    content: str,
    told: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gateway.toml").write_text(content)
    Path("keys.json").write_text("{")
    with pytest.raises(SystemExit) as ended:
        main([verb, "gateway.toml"])
    assert ended.value.code == 2
    output = capsys.readouterr().err
    for each in told:
        assert each in output


def test_a_traceback_comes_only_with_debug() -> None:
    status, output = command("--debug", "run", "nothere:app")
    assert status != 0
    assert "Traceback" in output


def test_an_error_inside_the_application_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('mine')\n")
    status, output = command("run", "broken:app", "--port", "0", cwd=tmp_path)
    assert status == 1
    assert "RuntimeError: mine" in output


@pytest.mark.integration  # for the 30 s it waits
def test_case_15_a_required_system_that_does_not_answer_ends_the_start(tmp_path: Path) -> None:
    """After 30 s; the system is told."""
    status, output = command(
        "run",
        "hello:app",
        "--port",
        "0",
        CHASSIS_REQUIRED="consul",
        CONSUL_HTTP_ADDR="127.0.0.1:9",
    )
    assert status == 2
    assert "consul" in output
    assert "did not answer within 30 s" in output


def test_the_shop_tells_of_bad_input_too() -> None:
    status, output = command("--consul", "http//x", module="examples.shop", cwd=ROOT)
    assert status == 2
    assert "Traceback" not in output
    assert "http//x" in output
