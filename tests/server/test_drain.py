"""The order in which a process leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from chassis.core import Event, events
from chassis.server import Draining, Stopping
from chassis.server._drain import Drain
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio


@pytest.fixture
def heard() -> Iterator[list[Event]]:
    heard: list[Event] = []
    unsubscribe = events.subscribe(heard.append)
    heard.clear()
    yield heard
    unsubscribe()


class Registry:
    """Is left when ``answers`` is set."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()
        self.left = False

    async def leave(self) -> None:
        self.asked += 1
        await self.answers.wait()
        self.left = True


async def test_the_registry_is_left_first_and_then_callers_get_their_time(heard: list[Event]) -> None:
    registry = Registry()
    drain = Drain("order", registry.leave)
    running = asyncio.create_task(drain.run(0.05))
    await eventually(lambda: registry.asked)
    assert [each.name for each in heard] == ["service.draining"]
    assert heard[0].details() == {"drain": 0.05}
    await asyncio.sleep(0.1)
    assert not running.done(), "the time of callers begins when the registry was left"
    begun = asyncio.get_running_loop().time()
    registry.answers.set()
    await running
    assert asyncio.get_running_loop().time() - begun >= 0.05
    assert registry.left
    assert [type(each) for each in heard] == [Draining, Stopping]
    assert heard[1].details() == {"skipped": False}
    await drain.left()
    assert registry.asked == 1


async def test_a_hurried_stop_still_waits_for_the_registry_in_the_end(heard: list[Event]) -> None:
    """Neither the registry nor callers hold it up; but what left last must leave no ghost."""
    registry = Registry()
    drain = Drain("hurry", registry.leave)
    running = asyncio.create_task(drain.run(60))
    await eventually(lambda: registry.asked)
    drain.hurry()
    await running
    assert heard[-1].details() == {"skipped": True}
    assert not registry.left
    leaving = asyncio.create_task(drain.left())
    await asyncio.sleep(0.02)
    assert not leaving.done()
    registry.answers.set()
    await leaving
    assert registry.left


async def test_who_was_never_drained_leaves_all_the_same() -> None:
    registry = Registry()
    registry.answers.set()
    drain = Drain("undrained", registry.leave)
    await drain.left()
    await drain.left()
    assert (registry.left, registry.asked) == (True, 1)
