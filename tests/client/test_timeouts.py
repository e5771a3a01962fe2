"""An attempt's time, shared by its phases, and what its callee is told of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.client._timeouts import PhaseTimeouts, told_deadline


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_all_phases_share_one_time() -> None:
    """A slow connection leaves less for the answer: the attempt's limit is not one per phase."""
    clock = Clock()
    timeouts = PhaseTimeouts(3.0, 1.0, clock=clock)
    assert timeouts.get("read") == 3.0
    clock.now += 0.9
    assert timeouts.get("read") == pytest.approx(2.1)
    clock.now += 2.6
    assert timeouts.get("read") == 0.001  # none at all would mean no limit, or no wait, to a socket


def test_a_phase_before_the_sending_ends_before_the_attempt() -> None:
    """Its own error says that nothing was sent, so it must be the first."""
    timeouts = PhaseTimeouts(0.2, 1.0, clock=Clock())
    for phase in ("pool", "connect"):
        assert timeouts[phase] == pytest.approx(0.19)
    assert PhaseTimeouts(3.0, 1.0, clock=Clock())["connect"] == 1.0


def test_it_knows_when_the_phase_asked_for_last_runs_out() -> None:
    clock = Clock()
    timeouts = PhaseTimeouts(3.0, 1.0, clock=clock)
    timeouts.get("connect")
    assert timeouts.expires == 101.0
    timeouts.get("read")
    assert timeouts.expires == timeouts.due == 103.0


def test_after_the_headers_the_time_between_chunks_holds() -> None:
    clock = Clock()
    timeouts = PhaseTimeouts(3.0, 1.0, clock=clock)
    timeouts["read"] = 60.0
    clock.now += 1000
    assert timeouts.get("read") == 60.0


@pytest.mark.parametrize(
    ("remaining", "told"), [(0.010, 5), (4.0, 3800), (0.003, 1), (0.0, None), (-1.0, None)]
)
def test_trap_50_the_callee_is_told_what_remains_less_the_way_there(
    remaining: float, told: int | None
) -> None:
    """Five milliseconds or five per cent, whichever is more; with nothing left nothing is sent."""
    assert told_deadline(remaining) == told


@given(st.floats(min_value=1e-6, max_value=1e6))
def test_what_is_told_is_never_more_than_what_remains(remaining: float) -> None:
    told = told_deadline(remaining)
    assert told is not None
    assert told == 1 or told < remaining * 1000
