"""Whether the application's loop still runs: what heartbeats say of a process that answers nobody."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.adapters.consul import ConsulAPI, ConsulOptions, ConsulRegistrar, ConsulRegistrarOptions
from chassis.background import background
from chassis.core import Event, Registration, Status, events
from chassis.server import LoopBlocked, LoopRecovered, LoopWatch
from chassis.server._loop_watch import LoopLag
from tests.support.scripted_agent import Answer, Asked, ScriptedAgent
from tests.support.waiting import eventually, wait_until

TTL = 0.6


def lag() -> LoopLag:
    return LoopLag(warn_after=5.0, fail_after=15.0)


def test_a_loop_that_answers_is_no_reason_for_anything() -> None:
    machine = lag()
    machine.asked(100.0)
    assert machine.waiting
    machine.answered(100.2)
    assert not machine.waiting
    assert machine.lag(200.0) == pytest.approx(0.2)
    assert machine.status(200.0) is Status.PASSING


@pytest.mark.parametrize(
    ("after", "status"),
    [(4.9, Status.PASSING), (5.0, Status.WARNING), (14.9, Status.WARNING), (15.0, Status.CRITICAL)],
)
def test_case_20_a_loop_that_does_not_answer_is_slow_and_then_blocked(after: float, status: Status) -> None:
    machine = lag()
    machine.asked(100.0)
    assert machine.lag(100.0 + after) == pytest.approx(after)
    assert machine.status(100.0 + after) is status
    machine.answered(100.0 + after)
    machine.asked(120.0)
    assert machine.lag(120.0) == pytest.approx(after), "the last answer is what is known"
    machine.answered(120.0)
    assert machine.status(120.0) is Status.PASSING


def test_case_20_each_edge_is_told_once_with_the_lag() -> None:
    machine = lag()
    machine.asked(100.0)
    assert machine.news("shop", 101.0) is None
    assert machine.news("shop", 106.0) == LoopBlocked(subject="shop", at=106.0, lag=6.0)
    assert machine.news("shop", 107.0) is None
    machine.answered(110.0)
    machine.asked(110.0)
    machine.answered(110.5)
    assert machine.news("shop", 111.0) == LoopRecovered(subject="shop", at=111.0, lag=0.5)
    assert machine.news("shop", 112.0) is None


@given(st.lists(st.tuples(st.sampled_from(["ask", "answer", "look"]), st.floats(0, 10)), max_size=40))
def test_the_lag_is_what_the_oldest_question_waited_or_the_last_answer_took(
    steps: list[tuple[str, float]],
) -> None:
    machine = lag()
    now, asked, last = 0.0, None, 0.0
    for kind, pause in steps:
        now += pause
        if kind == "ask" and not machine.waiting:
            machine.asked(now)
            asked = now
        elif kind == "answer":
            machine.answered(now)
            if asked is not None:
                last, asked = now - asked, None
        expected = last if asked is None else max(last, now - asked)
        assert machine.lag(now) == pytest.approx(expected)


@pytest.fixture
def application() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop in a thread of its own, as a server's is from the background thread's view."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_worse_readiness_is_not_made_better_by_a_lively_loop(application: asyncio.AbstractEventLoop) -> None:
    watch, release = LoopWatch("shop", application, ttl=0.3), threading.Event()
    assert watch.temper(Status.CRITICAL, "no database") == (Status.CRITICAL, "no database")
    wait_until(
        lambda: watch.temper(Status.PASSING, "ready") == (Status.PASSING, "ready"), what="a lively loop"
    )
    application.call_soon_threadsafe(release.wait, 30)
    wait_until(lambda: watch.temper(Status.PASSING, "ready")[0] is Status.CRITICAL, what="the block")
    assert watch.temper(Status.CRITICAL, "no database") == (Status.CRITICAL, "no database")
    assert "the event loop has not answered for" in watch.temper(Status.WARNING, "so so")[1]
    release.set()
    watch.stop()


def test_a_loop_that_was_closed_is_asked_no_more() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    watch = LoopWatch("shop", loop, ttl=0.3)
    wait_until(lambda: watch._job.done, what="the watch to end")


@pytest.mark.asyncio
async def test_case_20_a_blocked_loop_makes_the_instance_critical_and_the_next_beat_heals(
    application: asyncio.AbstractEventLoop,
) -> None:
    """The heartbeats go on, since they leave from another thread: what they say must be true."""
    heard: list[Event] = []
    unsubscribe = events.subscribe(heard.append)
    beats: list[tuple[str, str]] = []
    release = threading.Event()

    def agent(asked: Asked) -> Answer:
        if "/check/update/" in asked.path:
            told = json.loads(asked.body)
            beats.append((told["Status"], told["Output"]))
        return Answer("[]" if asked.method == "GET" else "", headers={"X-Consul-Index": "1"})

    watch = LoopWatch("case-20", application, ttl=TTL)
    what = Registration(
        service="shop",
        id="shop:1",
        host="127.0.0.1",
        port=1,
        readiness=lambda: watch.temper(Status.PASSING, "ready"),
    )
    with ScriptedAgent(agent) as server:
        api = ConsulAPI(ConsulOptions(url=server.url))
        handle = await ConsulRegistrar(api, ConsulRegistrarOptions(ttl=TTL)).register(what)
        await eventually(lambda: len(beats) > 1 and beats[-1][0] == "passing")
        application.call_soon_threadsafe(release.wait, 30)
        await eventually(lambda: beats[-1][0] == "critical", what="the verdict")
        assert "the event loop has not answered for " in beats[-1][1]
        before = len(beats)
        release.set()
        await eventually(lambda: beats[-1][0] == "passing", what="recovery")
        # A heartbeat that comes before the watch's next question is answered says what was known till then.
        assert [status for status, _ in beats[before:]].index("passing") <= 2
        # The event is told at the watch's next turn, the heartbeat may come before it.
        await eventually(
            lambda: any(isinstance(each, LoopRecovered) and each.subject == "case-20" for each in heard),
            what="the event of the recovery",
        )
        blocked = next(each for each in heard if isinstance(each, LoopBlocked) and each.subject == "case-20")
        assert blocked.lag >= TTL / 3
        await handle.deregister()
        await background.run(api.aclose, name="close")
    watch.stop()
    unsubscribe()
