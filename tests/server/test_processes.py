"""Real servers, real signals: what start and stop do to callers that follow the registry."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.server.callers import Callers
from tests.support.ports import free_port
from tests.support.processes import ManagedProcess
from tests.support.waiting import wait_until

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    with ManagedProcess.python("-m", "chassis.cli", "dev", "--port", "0") as process:
        yield process.wait_for_json("address", timeout=20)["address"]


@pytest.fixture
def start(registry: str) -> Iterator[Any]:
    """Starts one instance of ``served`` under a server and waits until the registry passes it."""
    with ExitStack() as stack:

        def begin(
            server: str, app: str, *, workers: int = 1, drain: float = 0.5, level: str = "warning"
        ) -> tuple[ManagedProcess, int]:
            port = free_port()
            commands = {
                "uvicorn": [
                    "-m", "uvicorn", f"apps:{app}", "--port", str(port), "--workers", str(workers),
                    "--log-level", "warning", "--timeout-graceful-shutdown", "5",
                ],
                "granian": [
                    "-m", "granian", "--interface", "asgi", "--port", str(port), "--workers", str(workers),
                    "--workers-kill-timeout", "8", "--no-log", f"apps:{app}",
                ],
                "gunicorn": [
                    "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-w", str(workers),
                    "--log-level", "error", f"apps:{app}",
                ],
                "preload": [
                    "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-w", str(workers), "--preload",
                    "--log-level", "error", f"apps:{app}",
                ],
                "chassis": [
                    "-m", "chassis.cli", "run", f"apps:{app}", "--port", str(port), "--workers", str(workers),
                ],
            }  # fmt: skip
            process = stack.enter_context(
                ManagedProcess.python(
                    *commands[server],
                    cwd=HERE,
                    env={
                        "CONSUL_HTTP_ADDR": registry,
                        "CHASSIS_SERVER__DRAIN": str(drain),
                        "CHASSIS_LOGS__LEVEL": level,
                    },
                )
            )
            wait_until(lambda: port in passing(registry), 20, f"port {port} to pass\n{process.tail()}")
            return process, port

        yield begin


def passing(registry: str) -> list[int]:
    entries = httpx2.get(f"{registry}/v1/health/service/served?passing=1").json()
    return [entry["Service"]["Port"] for entry in entries]


@pytest.mark.parametrize(
    ("server", "app", "workers"),
    [
        ("uvicorn", "fastapi", 2),
        ("granian", "fastapi", 2),
        ("chassis", "fastapi", 1),
        ("chassis", "flask", 1),
        ("gunicorn", "flask", 2),
    ],
)
def test_case_22_an_instance_stopped_under_load_costs_no_caller_an_error(
    registry: str, start: Any, server: str, app: str, workers: int
) -> None:
    stopping, _ = start(server, app, workers=workers)
    _, other = start(server, app)
    with Callers(registry) as callers:
        wait_until(lambda: callers.good > 100, 20, "load")
        began = time.monotonic()
        stopping.terminate(timeout=15)
        took = time.monotonic() - began
        before = callers.good
        wait_until(lambda: callers.good > before + 50, 20, "load on the other instance")
    assert callers.bad == {}
    assert took < 6
    assert passing(registry) == [other]


@pytest.mark.parametrize("server", ["uvicorn", "granian", "chassis"])
def test_an_open_event_stream_ends_cleanly_within_the_drain(start: Any, server: str) -> None:
    process, port = start(server, "fastapi")
    with httpx2.stream("GET", f"http://127.0.0.1:{port}/events", timeout=10) as response:
        lines = response.iter_lines()
        assert next(lines) == "data: 0"
        process.signal(15)
        assert list(lines)[-1] == ""  # the chunked body has its end: nothing was cut
    began = time.monotonic()
    process.wait(10)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("app", ["litestar", "plain", "django"])
def test_other_frameworks_are_served_registered_and_drained(registry: str, start: Any, app: str) -> None:
    process, port = start("uvicorn", app)
    assert httpx2.get(f"http://127.0.0.1:{port}/work").json() == {"done": True}
    assert httpx2.get(f"http://127.0.0.1:{port}/health").json()["drains_on_sigterm"] is True
    process.terminate(timeout=15)
    assert passing(registry) == []


def test_a_preloaded_application_registers_in_its_workers_and_leaves_at_exit(
    registry: str, start: Any
) -> None:
    """Gunicorn puts its own handler over ours in a preloaded worker: no drain, and /health says so."""
    process, port = start("preload", "flask", workers=2)
    assert httpx2.get(f"http://127.0.0.1:{port}/work").json() == {"done": True}
    assert httpx2.get(f"http://127.0.0.1:{port}/health").json()["drains_on_sigterm"] is False
    process.terminate(timeout=15)
    assert passing(registry) == []


def test_workers_whose_parent_was_killed_stop_and_leave_the_registry(registry: str, start: Any) -> None:
    process, port = start("chassis", "plain", workers=2)
    process.kill()
    wait_until(lambda: passing(registry) == [], 10, "the registration to end")
    wait_until(lambda: not _connects(port), 10, "the workers to end")


def _connects(port: int) -> bool:
    try:
        httpx2.get(f"http://127.0.0.1:{port}/livez", timeout=1)
    except httpx2.ConnectError:
        return False
    return True


def test_two_workers_are_one_registration(registry: str, start: Any) -> None:
    process, _ = start("chassis", "fastapi", workers=2, level="info")
    wait_until(lambda: process.output.count("registration.confirmed") == 2, 10, "both workers to register")
    assert len(passing(registry)) == 1


def test_a_second_sigterm_skips_the_drain(start: Any) -> None:
    process, port = start("uvicorn", "fastapi", drain=30)
    process.signal(15)
    wait_until(lambda: httpx2.get(f"http://127.0.0.1:{port}/readyz").status_code == 503, 5, "the drain")
    began = time.monotonic()
    process.signal(15)
    process.wait(10)
    assert time.monotonic() - began < 5


def test_the_ready_line_is_printed_once_for_all_workers(start: Any) -> None:
    process, port = start("chassis", "plain", workers=2, level="info")
    wait_until(lambda: process.output.count("registration.confirmed") == 2, 10, "both workers to register")
    process.wait_for_json("service", "address")
    lines = [line for line in process.output.splitlines() if line.startswith("{")]
    assert [json.loads(line) for line in lines if '"address": ' in line] == [
        {"service": "served", "address": f"http://127.0.0.1:{port}"}
    ]
