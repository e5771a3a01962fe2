"""Real servers, real signals: what start and stop do to callers that follow the registry."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.server.callers import Callers
from tests.support.ports import free_port
from tests.support.processes import ManagedProcess
from tests.support.waiting import wait_until

# For their time: each starts a server or two.
pytestmark = pytest.mark.integration

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    with ManagedProcess.python("-m", "chassis.cli", "dev", "--port", "0") as process:
        yield process.wait_for_json("address")["address"]


@pytest.fixture
def start(registry: str) -> Iterator[Any]:
    """Starts one instance of ``served`` under a server and waits until the registry passes it."""
    with ExitStack() as stack:

        def begin(
            server: str,
            app: str,
            *,
            workers: int = 1,
            drain: float = 0.5,
            level: str = "warning",
            ttl: float = 15.0,
            registry: str = registry,
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
                        "CHASSIS_HEARTBEAT__TTL": str(ttl),
                    },
                )
            )
            wait_until(lambda: port in passing(registry), 40, f"port {port} to pass\n{process.tail()}")
            return process, port

        yield begin


def passing(registry: str) -> list[int]:
    entries = httpx2.get(f"{registry}/v1/health/service/served?passing=1").json()
    return [entry["Service"]["Port"] for entry in entries]


@pytest.mark.integration  # for its time
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
    # Callers have this long to hear of it; on a busy machine that is not milliseconds.
    drain = 1.5
    stopping, port = start(server, app, workers=workers, level="info", drain=drain)
    _, other = start(server, app)
    with Callers(registry) as callers:
        wait_until(lambda: callers.good > 100, 20, "load")
        began = time.monotonic()
        stopping.terminate(timeout=15)
        took = time.monotonic() - began
        before = callers.good
        wait_until(lambda: callers.good > before + 50, 20, "load on the other instance")
    assert callers.bad == {}
    assert took < drain + 5
    assert other in passing(registry)
    assert port not in passing(registry)
    assert drained_in_order(stopping.output, workers)


def drained_in_order(output: str, workers: int = 1) -> bool:
    """Whether each worker told of its steps, and all of them of each step before the next one."""
    steps = ["service.draining", "registration.ended", "service.stopping", "process.stopped"]
    told = [re.findall("|".join(map(re.escape, steps)), line) for line in output.splitlines()]
    seen = [step for line in told for step in line[:1]]
    # Who is not the last of several workers leaves the registration to the others.
    assert seen.count("registration.ended") >= 1, output
    assert [seen.count(step) for step in steps if step != "registration.ended"] == [workers] * 3, output
    return workers > 1 or seen == steps


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
    assert port not in passing(registry)


def test_a_preloaded_application_registers_in_its_workers_and_leaves_at_exit(
    registry: str, start: Any
) -> None:
    """Gunicorn puts its own handler over ours in a preloaded worker: no drain, and /health says so."""
    process, port = start("preload", "flask", workers=2)
    assert httpx2.get(f"http://127.0.0.1:{port}/work").json() == {"done": True}
    assert httpx2.get(f"http://127.0.0.1:{port}/health").json()["drains_on_sigterm"] is False
    process.terminate(timeout=15)
    assert port not in passing(registry)


def test_workers_whose_parent_was_killed_stop_and_leave_the_registry(registry: str, start: Any) -> None:
    process, port = start("chassis", "plain", workers=2)
    process.kill()
    wait_until(lambda: port not in passing(registry), 10, "the registration to end")
    wait_until(lambda: not _connects(port), 10, "the workers to end")


def _connects(port: int) -> bool:
    try:
        httpx2.get(f"http://127.0.0.1:{port}/livez", timeout=1)
    except httpx2.ConnectError:
        return False
    return True


def test_case_40_two_workers_are_one_registration(registry: str, start: Any) -> None:
    process, port = start("chassis", "fastapi", workers=2, level="info")
    wait_until(lambda: process.output.count("registration.confirmed") >= 2, 10, "both workers to register")
    assert passing(registry).count(port) == 1


@pytest.mark.parametrize("server", ["uvicorn", "chassis"])
def test_a_second_sigterm_skips_the_drain_and_cuts_no_request(start: Any, server: str) -> None:
    """Nor does a third one: what is in flight is finished."""
    process, port = start(server, "fastapi", drain=30, level="info")
    with ThreadPoolExecutor() as threads:
        process.signal(15)
        wait_until(lambda: httpx2.get(f"http://127.0.0.1:{port}/readyz").status_code == 503, 5, "the drain")
        slow = threads.submit(httpx2.get, f"http://127.0.0.1:{port}/slow", timeout=10)
        process.wait_for_line("slow: begun")
        time.sleep(0.6)  # the next signal is no part of the first order
        began = time.monotonic()
        process.signal(15)
        wait_until(lambda: "service.stopping" in process.output, 5, "the drain to be skipped")
        process.signal(15)
        assert slow.result().json() == {"done": True}
    process.wait(10)
    assert time.monotonic() - began < 6
    assert drained_in_order(process.output)


def test_a_sigterm_to_the_whole_process_group_is_one_order(start: Any) -> None:
    """As systemd and a shell's ``kill %1`` give it: the worker has it twice, and drains all the same."""
    process, _ = start("chassis", "fastapi", drain=0.7, level="info")
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for each in workers:
        os.kill(int(each), signal.SIGTERM)
    # At once, as in a group: half a second later it would be a second order.
    assert process.terminate(timeout=15) == 0
    assert '"skipped":false' in process.output
    assert drained_in_order(process.output)


@pytest.mark.integration  # for its time
def test_case_21_no_ghost_is_left_when_a_heartbeat_meets_the_end(registry: str, start: Any) -> None:
    process, port = start("chassis", "fastapi", ttl=0.3, drain=0)
    assert process.terminate(timeout=15) == 0
    until = time.monotonic() + 2
    while time.monotonic() < until:
        assert port not in registered(registry)
        time.sleep(0.05)


@pytest.mark.integration  # for its time
@pytest.mark.parametrize(("server", "app"), [("uvicorn", "fastapi"), ("chassis", "flask")])
def test_case_23_a_registry_that_hangs_delays_the_end_by_its_cap_alone(
    start: Any, server: str, app: str
) -> None:
    with ManagedProcess.python("-m", "chassis.cli", "dev", "--port", "0") as hung:
        process, _ = start(server, app, level="info", registry=hung.wait_for_json("address")["address"])
        hung.pause()
        began = time.monotonic()
        process.terminate(timeout=15)
        took = time.monotonic() - began
        hung.resume()
    assert 3 < took < 3 + 0.5 + 4, process.output
    assert "did not answer within 3 s" in process.output
    assert drained_in_order(process.output)


@pytest.mark.integration  # for its time
def test_case_20_an_instance_whose_loop_is_blocked_is_critical_until_the_next_beat(
    registry: str, start: Any, tmp_path: Path
) -> None:
    # Slow from 1 s on, blocked from 3 s on; a beat a second.
    process, port = start("uvicorn", "fastapi", ttl=3.0, level="info")

    def told(event: str) -> int:
        return process.output.count(event)

    def lag(status: str) -> bool:
        seen, note = registered(registry)[port]
        return seen == status and "the event loop has not answered for" in note

    # A busy machine may have been slow to start it.
    wait_until(lambda: told("service.loop_blocked") == told("service.loop_recovered"), 5, "the start")
    before = told("service.loop_blocked")
    free = tmp_path / "free"
    with ThreadPoolExecutor() as threads:
        url = f"http://127.0.0.1:{port}/block"
        blocked = threads.submit(httpx2.get, url, params={"until": str(free)}, timeout=60)
        try:
            wait_until(lambda: lag("warning"), 10, "the warning")
            wait_until(lambda: lag("critical"), 10, "the verdict")
            assert not blocked.done()
        finally:
            free.touch()
        blocked.result()
    wait_until(lambda: registered(registry)[port] == ("passing", "ready"), 5, "the next beat")
    # The heartbeat reads the lag itself; the event comes with the watch's next round, up to 0.2 s later.
    wait_until(lambda: told("service.loop_recovered") > before, 5, "the recovery")
    assert told("service.loop_blocked") == before + 1
    assert told("service.loop_recovered") == before + 1


def registered(registry: str) -> dict[int, tuple[str, str]]:
    """Status and note of each registered instance's heartbeat, by port."""
    checks = httpx2.get(f"{registry}/v1/agent/checks").json()
    return {
        int(each["ServiceID"].rpartition(":")[2]): (each["Status"], each["Output"])
        for each in checks.values()
        if each["ServiceName"] == "served"
    }


def test_the_ready_line_is_printed_once_for_all_workers(start: Any) -> None:
    process, port = start("chassis", "plain", workers=2, level="info")
    wait_until(lambda: process.output.count("registration.confirmed") >= 2, 10, "both workers to register")
    process.wait_for_json("service", "address")
    lines = [line for line in process.output.splitlines() if line.startswith("{")]
    assert [json.loads(line) for line in lines if '"address": ' in line] == [
        {"service": "served", "address": f"http://127.0.0.1:{port}"}
    ]
