"""Answers nobody waits for any more: closed, whatever becomes of the caller."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import Any

import pytest

from chassis.client._closing import SlotBody
from chassis.client._effects import Discard, Race
from chassis.client._module import http_module


class Answer:
    """Takes its time to close."""

    def __init__(self, seconds: float = 0.02) -> None:
        self.seconds = seconds
        self.closed = False

    async def aclose(self) -> None:
        await asyncio.sleep(self.seconds)
        self.closed = True


class Given:
    """An attempt with this answer."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    async def perform(self) -> Answer:
        return self.answer


class Lingering:
    """An attempt that has no answer, and ends some time after it was cancelled."""

    async def perform(self) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            raise


async def all_else() -> None:
    while others := asyncio.all_tasks() - {asyncio.current_task()}:  # type: ignore[arg-type]  # set of tasks
        await asyncio.wait(others, timeout=5)


@pytest.mark.asyncio
async def test_case_38_nobody_can_be_cancelled_while_an_answer_is_put_away() -> None:
    """The next attempt's permit is held by then: whoever left here would never give it back."""
    answer = Answer()
    putting_away = Discard(answer).perform()
    with pytest.raises(StopIteration):  # it never waits
        putting_away.send(None)
    await all_else()
    assert answer.closed


@pytest.mark.asyncio
@pytest.mark.parametrize("good", [True, False], ids=["in the grace", "before any was good"])
async def test_case_38_a_caller_that_leaves_a_race_leaves_no_answer_open(good: bool) -> None:
    """Its connection would be lost to the pool for good."""
    answer = Answer()
    race: Race[Any] = Race(
        Lingering(),  # no attempt, but performed like one
        copy_context(),
        delay=0.001,
        another=lambda: (Given(answer), copy_context()),
        good=lambda response: good,
        grace=5.0,
    )
    caller = asyncio.create_task(race.perform())
    await asyncio.sleep(0.02)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await all_else()
    assert answer.closed


@pytest.mark.asyncio
async def test_case_38_a_body_of_a_fragile_pool_is_closed_though_its_reader_is_cancelled() -> None:
    """Its connection would be busy for good, though nobody used it."""
    stream, slots = Answer(), asyncio.Semaphore(0)
    body = http_module("httpx").stream_class(SlotBody)(stream, slots)
    reader = asyncio.create_task(body.aclose())
    await asyncio.sleep(0.005)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await all_else()
    assert stream.closed
    assert not slots.locked()
