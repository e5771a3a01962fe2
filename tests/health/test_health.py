"""Checks that run, and the answers to probes."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from chassis.core import ConfigError, EventBus, Status
from chassis.health import Answer, CheckFailed, CheckRecovered, Health, State, Unhealthy
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio


def ready(bus: EventBus | None = None) -> Health:
    health = Health(bus=bus or EventBus())
    health.state = State.READY
    return health


def body(answer: Answer) -> dict[str, Any]:
    return json.loads(answer.body)


def details(health: Health, name: str) -> dict[str, Any]:
    return body(health.report(details=True))["checks"][name]


async def test_liveness_asks_nobody() -> None:
    """200 whatever is down: a restart here mends nothing elsewhere."""
    health = Health(bus=EventBus())
    health.check("db", lambda: False)
    await health.refresh()
    for state in State:
        health.state = state
        assert health.live().status == 200
        assert body(health.live()) == {"status": "pass"}


async def test_readiness_is_the_lifecycle_and_the_critical_checks() -> None:
    """503 while starting, draining, stopped, or while a critical check fails."""
    health = Health(bus=EventBus())
    assert health.ready().status == 503
    health.state = State.READY
    assert health.ready().status == 200
    remove = health.check("db", lambda: False)
    await health.refresh()
    assert (health.ready().status, body(health.ready())) == (503, {"status": "fail"})
    assert health.readiness() == (Status.CRITICAL, "failed: db")
    remove()
    remove()
    assert health.ready().status == 200
    health.state = State.DRAINING
    assert health.ready().status == 503
    assert health.readiness() == (Status.CRITICAL, "draining")


async def test_degraded_is_ready_and_passing() -> None:
    """Discovery takes instances that warn out of the rotation, so the heartbeat does not warn."""
    health = ready()
    health.check("consul", lambda: False, critical=False)
    await health.refresh()
    assert (health.ready().status, health.report(details=False).status) == (200, 200)
    assert body(health.report(details=False)) == {"status": "warn"}
    assert health.readiness() == (Status.PASSING, "degraded: consul")


def says_nothing() -> None:
    pass


def says_true() -> bool:
    return True


def says_false() -> bool:
    return False


async def unhealthy_async() -> None:
    raise Unhealthy("no leader")


def unhealthy() -> None:
    raise Unhealthy("disk full")


def secretive() -> None:
    raise ConnectionError("postgres://user:hunter2@db")


async def hanging() -> None:
    await asyncio.sleep(60)


async def fine_async() -> bool:
    return True


@pytest.mark.parametrize(
    ("function", "status", "note"),
    [
        (says_nothing, "pass", None),
        (says_true, "pass", None),
        (fine_async, "pass", None),
        (says_false, "fail", "failed"),
        (unhealthy, "fail", "disk full"),
        (unhealthy_async, "fail", "no leader"),
        (secretive, "fail", "ConnectionError"),
        (hanging, "fail", "timed out"),
    ],
)
async def test_what_a_check_may_say(function: Callable[[], Any], status: str, note: str | None) -> None:
    """Only an Unhealthy's text is shown: other messages carry addresses and secrets."""
    health = ready()
    health.check("db", function, timeout=0.1 if function is hanging else 10)
    await health.refresh()
    shown = details(health, "db")
    assert (shown["status"], shown.get("note"), shown["critical"]) == (status, note, True)
    assert set(shown) >= {"latency_ms", "age_s"}


async def test_details_are_for_who_may_see_them() -> None:
    """Without them the answer is the status alone."""
    health = ready()
    health.check("db", secretive)
    await health.refresh()
    assert body(health.report(details=False, more={"policies": {}})) == {"status": "fail"}
    report = health.report(details=True, more={"policies": {"breaker:payments": {"state": "open"}}})
    assert report.status == 503
    assert set(body(report)) == {"status", "state", "checks", "loop_lag_ms", "policies"}
    assert b"hunter2" not in report.body


async def test_results_are_kept_for_their_time_to_live() -> None:
    """And checks of one round run side by side, in threads of their own if they are plain."""
    runs: list[str] = []
    both = threading.Barrier(2, timeout=5)
    health = ready()

    def check() -> None:
        both.wait()
        runs.append("ran")

    health.check("a", check, ttl=60)
    health.check("b", check, ttl=60)
    await health.refresh()
    await health.refresh()
    assert len(runs) == 2
    assert health.ready().status == 200


async def test_a_check_runs_once_at_a_time() -> None:
    """However many ask at the same time."""
    runs = 0
    release = asyncio.Event()

    async def slow() -> None:
        nonlocal runs
        runs += 1
        await release.wait()

    health = ready()
    health.check("db", slow)
    first = asyncio.ensure_future(health.refresh())
    await eventually(lambda: runs == 1)
    await health.refresh()
    assert runs == 1
    release.set()
    await first
    assert health.ready().status == 200


async def test_case_38_a_hung_dependency_does_not_hold_up_probes() -> None:
    """A thread that hangs is left behind, not joined by a second one; the answer comes at once."""
    release = threading.Event()
    runs = []

    def hang() -> None:
        runs.append(1)
        release.wait(10)

    health = ready()
    health.check("db", hang, ttl=0.01, timeout=0.05)
    try:
        await health.refresh()
        begun = time.monotonic()
        assert health.ready().status == 503
        assert time.monotonic() - begun < 5  # the thread hangs for ten seconds
        assert details(health, "db")["note"] == "timed out"

        async def told() -> bool:
            await health.refresh()
            return bool(details(health, "db")["note"] == "timed out, and is still running")

        # On a busy machine the time may be up before the thread has even begun.
        await eventually(told)
        assert len(runs) == 1
    finally:
        release.set()

    async def recovered() -> bool:
        await health.refresh()
        return health.ready().status == 200

    await eventually(recovered)
    assert len(runs) == 2


async def test_a_busy_application_is_still_checked() -> None:
    """Plain checks do not queue behind the application's own worker threads."""
    release = threading.Event()
    loop = asyncio.get_running_loop()
    hogs = [loop.run_in_executor(None, release.wait, 5) for _ in range(64)]
    health = ready()
    health.check("db", lambda: None, timeout=2)
    try:
        await health.refresh()
        assert health.ready().status == 200
    finally:
        release.set()
        await asyncio.gather(*hogs)


async def test_run_keeps_results_fresh_until_cancelled() -> None:
    """Probes only read; what is added while it runs is picked up; a cancelled run can be run again."""
    runs: list[int] = []
    health = ready()
    health.check("db", lambda: runs.append(1), ttl=0.02)
    task = asyncio.ensure_future(health.run())
    await eventually(lambda: len(runs) >= 3)
    health.check("late", fine_async)
    await eventually(lambda: health.ready().status == 200)
    release = asyncio.Event()
    started = asyncio.Event()

    async def slow() -> None:
        started.set()
        await release.wait()

    health.check("slow", slow, timeout=30)
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert details(health, "slow")["note"] == "not checked yet"
    release.set()
    await health.refresh()
    assert details(health, "slow")["status"] == "pass"


async def test_the_loops_lag_is_measured() -> None:
    """What blocks the event loop shows in the report."""
    health = ready()
    health.check("db", fine_async, ttl=0.01)
    task = asyncio.ensure_future(health.run())
    await eventually(lambda: health.ready().status == 200)

    def blocked() -> bool:
        time.sleep(0.05)  # the very thing that is measured
        return health.loop_lag > 0.02

    await eventually(blocked)
    assert body(health.report(details=True))["loop_lag_ms"] >= 0
    task.cancel()


async def test_failing_and_recovering_are_events() -> None:
    """Once each, whatever the number of runs."""
    told: list[Any] = []
    bus = EventBus()
    bus.subscribe(told.append)
    health = ready(bus)
    answers = iter([True, False, False, False, True, True])
    health.check("db", lambda: next(answers), ttl=0.001, critical=False)
    for _ in range(6):
        await health.refresh()
        await asyncio.sleep(0.002)
    failed, recovered = told
    assert (type(failed), failed.subject, failed.critical, failed.reason) == (
        CheckFailed,
        "db",
        False,
        "failed",
    )
    assert (type(recovered), recovered.subject) == (CheckRecovered, "db")
    assert (failed.name, failed.level) == ("health.check_failed", "warning")
    assert recovered.name == "health.check_recovered"


async def test_a_name_is_given_once_and_durations_are_checked() -> None:
    """A ConfigError says which and what to do."""
    health = ready()
    health.check("db", fine_async)
    with pytest.raises(ConfigError, match="db"):
        health.check("db", fine_async)
    with pytest.raises(ConfigError, match="ttl"):
        health.check("x", fine_async, ttl=0)
    with pytest.raises(ConfigError, match="timeout"):
        health.check("x", fine_async, timeout=-1)
