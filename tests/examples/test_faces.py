"""Each face of the public API is a file in examples/faces, and does what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.processes import ManagedProcess
from tests.support.waiting import wait_until

FACES = Path(__file__).resolve().parents[2] / "examples" / "faces"
HELLO = FACES.parent / "hello"


@pytest.fixture
def run() -> Iterator[Any]:
    """Starts ``chassis`` commands; gives the process and the address of its ready line."""
    with ExitStack() as stack:

        def start(*arguments: str, cwd: Path = FACES, **environment: str) -> tuple[ManagedProcess, str]:
            process = stack.enter_context(
                ManagedProcess.python(
                    "-m",
                    "chassis.cli",
                    *arguments,
                    cwd=cwd,
                    env={"CHASSIS_SERVER__DRAIN": "0", **environment},
                )
            )
            return process, process.wait_for_json("service", "address", timeout=20)["address"]

        yield start


def code_lines(file: Path) -> list[str]:
    lines = [line.strip() for line in file.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def test_hello_is_at_most_eight_lines() -> None:
    assert len(code_lines(HELLO / "hello.py")) <= 8


def test_the_gateway_is_at_most_twelve_lines() -> None:
    assert len(code_lines(FACES / "gateway.toml")) <= 12


def test_hello_serves_and_is_healthy_with_no_infrastructure(run: Any) -> None:
    process, address = run("run", "hello:app", "--port", "0", cwd=HELLO)
    assert httpx2.get(f"{address}/hello").json() == {"hello": "world"}
    assert httpx2.get(f"{address}/readyz").status_code == 200
    assert httpx2.get(f"{address}/health").json()["service"] == "hello"
    assert 'route="/hello"' in httpx2.get(f"{address}/metrics").text
    assert process.terminate() in (0, -15, 143)


def test_a_client_falls_back_charges_and_tells_its_instance(run: Any) -> None:
    _, catalog = run("run", "fakes:catalog", "--port", "0", cwd=FACES.parents[1] / "tests" / "examples")
    _, address = run(
        "run",
        "orders:app",
        "--port",
        "0",
        CHASSIS_SERVICES__PAYMENTS=catalog,
        CHASSIS_SERVICES__CATALOG="http://127.0.0.1:9",
    )
    assert httpx2.get(f"{address}/recommended/ada").json() == {"items": []}
    answer = httpx2.post(f"{address}/orders", json={"id": "o-1"}).json()
    assert answer["charge"] == {"charged": "o-1", "key": "o-1"}
    assert answer["attempts"] == 1


def test_a_breaker_alone_opens_after_three_failures() -> None:
    with ManagedProcess.python("alone.py", cwd=FACES) as process:
        assert process.wait(10) == 0
        lines = process.output.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["failed"] * 3 + ["refused"] * 2
    assert "circuit breaker 'payments' is open; it admits a probe in" in lines[-1]


def test_a_flask_service_is_typed_live_and_calls_others(run: Any) -> None:
    _, orders = run("run", "fakes:orders", "--port", "0", cwd=FACES.parents[1] / "tests" / "examples")
    _, address = run(
        "run", "invoices:app", "--port", "0", CHASSIS_SERVICES__ORDERS=orders, INVOICES_CURRENCY="EUR"
    )
    assert httpx2.get(f"{address}/invoices/7").json() == {"order": {"number": "7"}, "currency": "EUR"}
    assert 'route="/invoices/<number>"' in httpx2.get(f"{address}/metrics").text


def test_a_worker_runs_its_task_and_stops_on_sigterm() -> None:
    with ManagedProcess.python("poller.py", cwd=FACES) as process:
        address = process.wait_for_json("service", "address", timeout=20)["address"]
        assert httpx2.get(f"{address}/readyz").status_code == 200
        wait_until(lambda: _polls(process) >= 3, 10, "three polls")
        assert process.terminate() == 0


def _polls(process: ManagedProcess) -> int:
    lines = [line for line in process.output.splitlines() if line.startswith("{")]
    return sum(json.loads(line).get("message") == "polled" for line in lines)
