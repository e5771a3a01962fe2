"""The deadline of the whole call: nesting, lifting, and what tasks and threads inherit."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Generator

import pytest

from chassis.core import Deadline, current_deadline, deadline_scope, detach_deadline, remaining
from chassis.core.deadline import hold_deadline


def test_remaining_is_asked_where_the_work_is_done() -> None:
    """None without a deadline, negative once it has passed."""
    assert remaining() is None
    with deadline_scope(Deadline.after(5)):
        left = remaining()
        assert left is not None
        assert 4 < left <= 5
    with deadline_scope(Deadline.after(-1)):
        left = remaining()
        assert left is not None
        assert left <= -1
    assert remaining() is None


def test_trap_48_nested_deadlines_take_the_earliest_and_the_outer_one_comes_back() -> None:
    """Five seconds within one are one; leaving restores the outer, also after an error."""
    with deadline_scope(Deadline.after(1)) as outer:
        with deadline_scope(Deadline.after(5)) as inner:
            assert inner == outer == current_deadline()
        with pytest.raises(LookupError), deadline_scope(Deadline.after(0.5)) as shorter:
            assert current_deadline() == shorter
            raise LookupError
        assert current_deadline() == outer
    assert current_deadline() is None


def test_shielded_work_has_its_own_time_after_the_callers() -> None:
    """To clean up, or make good, what a call that came too late left behind."""
    with deadline_scope(Deadline.after(-1)) as spent:
        with deadline_scope(Deadline.after(5), shield=True) as own:
            assert current_deadline() == own
            left = remaining()
            assert left is not None
            assert left > 4
        assert current_deadline() == spent


@pytest.mark.asyncio
async def test_trap_51_tasks_inherit_the_deadline_unless_detached() -> None:
    """Also after the block in which they were begun has been left; threads inherit as well."""

    async def later() -> float | None:
        await asyncio.sleep(0)
        return remaining()

    with deadline_scope(Deadline.after(5)) as deadline:
        inheriting = asyncio.create_task(later())
        with detach_deadline() as none:
            assert none is current_deadline() is None
            detached = asyncio.create_task(later())
        assert current_deadline() == deadline
        in_thread = await asyncio.to_thread(current_deadline)
    inherited = await inheriting
    assert inherited is not None
    assert 4 < inherited <= 5
    assert await detached is None
    assert in_thread == deadline


def test_a_scope_is_used_once() -> None:
    """Its way out belongs to one way in."""
    scope = deadline_scope(Deadline.after(1))
    with scope, pytest.raises(RuntimeError, match="make a new one"):
        scope.__enter__()
    with pytest.raises(RuntimeError, match="make a new one"):
        scope.__exit__(None, None, None)
    assert current_deadline() is None


def test_a_deadline_held_in_a_context_of_its_own_ends_with_it() -> None:
    """For a context that is made for one request."""
    context = contextvars.copy_context()
    context.run(hold_deadline, Deadline.after(5))
    assert context.run(remaining) is not None
    assert remaining() is None


def test_a_scope_around_a_yield_holds_in_the_consumer_too() -> None:
    """Documented, as Python gives a plain generator no context of its own: give items, not scopes."""

    def items() -> Generator[int, None, None]:
        with deadline_scope(Deadline.after(5)):
            yield 1

    generator = items()
    next(generator)
    assert current_deadline() is not None
    generator.close()
    assert current_deadline() is None


def test_deadlines_count_on_the_monotonic_clock() -> None:
    assert Deadline.after(0).at == pytest.approx(time.monotonic(), abs=1)
