"""The board: what results and lifecycle come to. Time is given, nothing runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.health._machine import Board, Check, Result, State


def check(*, critical: bool = True, ttl: float = 5.0, timeout: float = 2.0) -> Check:
    return Check("db", critical=critical, ttl=ttl, timeout=timeout)


def result(at: float, healthy: bool, note: str = "") -> Result:
    return Result(at, healthy, note, 0.1)


def ready_board(*checks: Check) -> Board:
    board = Board()
    board.state = State.READY
    board.checks = {each.name: each for each in checks}
    return board


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_a_verdict_needs_two_failures_in_a_row_once_healthy(runs: list[bool]) -> None:
    """One lost packet is no outage; what was never healthy fails at once; one success heals."""
    subject = check()
    failed: bool | None = None
    row = 0
    for at, healthy in enumerate(runs):
        row = 0 if healthy else row + 1
        expected = False if healthy else (True if failed is None or row >= 2 else failed)
        changed = subject.settle(result(at, healthy))
        assert subject.failed is expected
        assert changed is (bool(expected) != bool(failed))
        failed = expected


def test_a_check_is_due_when_its_result_is_old_and_it_is_not_running() -> None:
    """Single-flight, and no more often than its time to live."""
    board = ready_board(subject := check(ttl=5.0))
    assert board.due(0.0) == [subject]
    assert board.due(0.0) == []
    subject.settle(result(10.0, True))
    assert subject.running is False
    assert not subject.due(14.99)
    assert board.wait(12.0) == 3.0
    assert subject.due(15.0)
    assert board.wait(99.0) == 0.0
    assert board.due(15.0) == [subject]
    assert board.wait(15.0) is None
    assert Board().wait(0.0) is None


def test_a_result_nobody_renewed_says_nothing_any_more() -> None:
    """After three times its time to live, and the time a run may take, it counts as failed."""
    board = ready_board(subject := check(ttl=5.0, timeout=2.0))
    subject.settle(result(100.0, True))
    assert board.ready(117.0) == (True, "ready")
    assert subject.verdict(117.0) == ("pass", "")
    assert board.ready(117.1)[0] is False
    assert subject.verdict(120.0) == ("fail", "not checked for 20 s")
    assert subject.stale(117.1)
    assert not check().stale(1e9)


@pytest.mark.parametrize("state", [State.STARTING, State.DRAINING, State.STOPPED])
def test_case_40_only_a_ready_process_is_ready(state: State) -> None:
    """Starting, draining, stopped: whatever the checks say."""
    board = Board()
    assert board.state is State.STARTING
    board.state = state
    assert board.ready(0.0) == (False, state.value)
    assert board.status(0.0) == "fail"


def test_a_ready_process_without_checks_is_ready() -> None:
    """Nothing is needed, nothing can fail."""
    assert ready_board().ready(0.0) == (True, "ready")
    assert ready_board().status(0.0) == "pass"


def test_readiness_waits_for_the_first_result_of_a_critical_check() -> None:
    """Nothing good is known of what was never asked."""
    board = ready_board(subject := check())
    assert board.ready(0.0) == (False, "failed: db")
    assert subject.verdict(0.0) == ("fail", "not checked yet")
    subject.settle(result(1.0, True, "fine"))
    assert board.ready(1.0) == (True, "ready")
    assert board.status(1.0) == "pass"
    assert subject.verdict(1.0) == ("pass", "fine")


def test_case_39_what_is_not_critical_degrades_and_does_not_unready() -> None:
    """An open breaker or a receiver that is down leaves the process in the rotation."""
    board = ready_board(
        Check("b", critical=False, ttl=5.0, timeout=2.0), Check("a", critical=False, ttl=5, timeout=2)
    )
    for each in board.checks.values():
        each.settle(result(0.0, False, "open"))
    assert board.ready(1.0) == (True, "degraded: a, b")
    assert board.status(1.0) == "warn"
    assert board.checks["a"].verdict(1.0) == ("warn", "open")


def test_a_failed_critical_check_names_itself() -> None:
    """All that failed, in order; the status is fail."""
    board = ready_board(*(Check(name, critical=True, ttl=5.0, timeout=2.0) for name in ("z", "y", "x")))
    board.checks["y"].settle(result(0.0, True))
    for name in ("z", "x"):
        board.checks[name].settle(result(0.0, False, "down"))
    assert board.ready(0.0) == (False, "failed: x, z")
    assert board.status(0.0) == "fail"
