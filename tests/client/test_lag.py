"""A timeout that this process's own lag caused is no word about the instance."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from chassis.breaker import BreakerOptions, BreakerState
from chassis.client import ClientOptions, OwnLag
from chassis.client._effects import Attempt
from chassis.client._lag import LoopLag, own_lag
from chassis.client._module import http_module
from chassis.client._timeouts import PhaseTimeouts
from tests.client.calling import Caller, catalog
from tests.client.scripted import ScriptedServer, answer

Serve = Callable[..., ScriptedServer]

ONE_FAILURE_OPENS = BreakerOptions(consecutive_failures=1)


@pytest.mark.parametrize(
    ("timeout", "late", "lost", "own"),
    [
        (1.0, 0.0, 0.0, False),
        (1.0, 0.09, 0.09, False),
        (1.0, 0.11, 0.0, True),  # an answer that came just before may lie unread
        (1.0, 0.0, 0.21, True),  # the peer had less than four fifths of its time
        (10.0, 0.0, 0.5, False),  # it had nine and a half seconds
        (0.1, 0.03, 0.0, True),
    ],
)
def test_lag_counts_by_its_share_and_at_the_end(timeout: float, late: float, lost: float, own: bool) -> None:
    assert own_lag(timeout, late=late, lost=lost) is own


@pytest.mark.asyncio
async def test_a_loop_that_is_held_up_loses_just_that_time() -> None:
    lag = LoopLag()
    began, before = time.monotonic(), lag.begin()
    await asyncio.sleep(0.12)
    busy = time.monotonic() - began - 0.12  # what a busy machine held it up is lost indeed
    assert lag.lost() - before < 0.1 + busy
    began, before = time.monotonic(), lag.lost()
    time.sleep(0.3)
    assert 0.2 < lag.lost() - before < 0.1 + time.monotonic() - began  # also before the timer could tell
    await asyncio.sleep(0.06)
    assert 0.2 < lag.lost() - before < 0.1 + time.monotonic() - began
    lag.end()


@pytest.mark.asyncio
async def test_what_was_lost_before_an_attempt_is_not_the_attempts() -> None:
    lag = LoopLag()
    lag.begin()
    await asyncio.sleep(0)
    time.sleep(0.3)
    began, before = time.monotonic(), lag.begin()
    await asyncio.sleep(0.06)
    assert lag.lost() - before < 0.1 + time.monotonic() - began - 0.06


@pytest.mark.asyncio
async def test_the_timer_ends_with_the_last_attempt() -> None:
    """An idle process wakes for nothing."""
    lag = LoopLag()
    for _ in range(3):
        lag.begin()
        lag.end()
    await asyncio.sleep(0.12)
    assert not lag._armed
    lag.begin()
    assert lag._armed
    lag.end()


def timing_out(module: Any, serve: Serve, blocked: float) -> tuple[BreakerState, list[OwnLag]]:
    """How the breaker stands after an attempt of 0.3 s at a silent instance, the loop held up for a while."""
    told: list[OwnLag] = []
    options = ClientOptions(timeout=0.3, retries=0)
    with Caller("async", module, catalog(serve(answer(delay=30))), options, ONE_FAILURE_OPENS) as caller:
        caller.bus.subscribe(lambda event: told.append(event) if isinstance(event, OwnLag) else None)

        async def call() -> None:
            task = asyncio.create_task(caller.client.get("/"))
            await asyncio.sleep(0.1)
            time.sleep(blocked)
            with pytest.raises(caller.http.module.TimeoutException):
                await task

        caller.wait(call())
        assert caller.in_flight() == 0
        return caller.breaker().state, told


def test_a_timeout_while_the_loop_was_held_up_leaves_the_breaker_alone(module: Any, serve: Serve) -> None:
    state, told = timing_out(module, serve, 0.5)
    assert state is BreakerState.CLOSED
    (event,) = told
    assert event.subject == "client:catalog"
    assert event.late > 0.1


def test_a_timeout_that_was_waited_for_counts(module: Any, serve: Serve) -> None:
    """Where the machine was so busy that the loop was held up all the same, that is told, and not counted."""
    for _ in range(5):
        state, told = timing_out(module, serve, 0.0)
        assert (state is BreakerState.CLOSED) == bool(told)
        if not told:
            break
    assert state is BreakerState.OPEN


class LatePool:
    """A pool whose transport notices a timeout long after it was due, as a starved thread does."""

    http = http_module("httpx2")

    def __init__(self, late: float) -> None:
        self._late = late

    def sync_transport(self) -> Any:
        return self

    def handle_request(self, request: Any) -> Any:
        time.sleep(request.extensions["timeout"].get("read") + self._late)
        raise self.http.module.ReadTimeout("silent", request=request)


@pytest.mark.parametrize("late", [0.0, 0.2])
def test_a_thread_that_notices_its_timeout_late_says_so(late: float) -> None:
    timeouts = PhaseTimeouts(0.1, 1.0)
    request = LatePool.http.module.Request("GET", "http://catalog/", extensions={"timeout": timeouts})
    attempt = Attempt(LatePool(late), request, 0.1, timeouts)  # type: ignore[arg-type]  # as far as it is asked
    began = time.monotonic()
    with pytest.raises(LatePool.http.module.ReadTimeout):
        attempt.perform_sync()
    assert late <= attempt.late <= time.monotonic() - began - 0.1 + 0.001
    assert own_lag(attempt.given, late=attempt.late, lost=attempt.lost) is (late > 0) or late == 0
