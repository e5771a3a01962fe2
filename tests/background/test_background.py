"""The one background thread."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings

import pytest

from chassis.background import Background
from tests.support.threads import no_more_threads


def test_jobs_run_in_one_thread_that_starts_with_the_first() -> None:
    background = Background()

    async def where() -> threading.Thread:
        return threading.current_thread()

    first = background.start(where, name="a").result(5)
    assert first is background.start(where, name="b").result(5)
    assert first is not threading.current_thread()
    assert first.daemon


def test_a_system_without_a_thread_to_give_is_told_of_and_leaves_nothing_open() -> None:
    background, turn = Background(), lambda: asyncio.sleep(0)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with no_more_threads(), pytest.raises(RuntimeError, match="thread"):
            background.start(turn, name="turn")
        gc.collect()
    told = [str(each.message) for each in warned]
    assert not [each for each in told if "event loop" in each or "never awaited" in each]
    background.start(turn, name="turn").result(5)


def test_a_cancelled_job_ends() -> None:
    background = Background()
    ended = threading.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    job = background.start(forever, name="forever")
    assert not job.done
    background.start(lambda: asyncio.sleep(0), name="turn").result(5)
    job.cancel()
    assert ended.wait(5)
    assert job.done


@pytest.mark.asyncio
async def test_an_async_caller_awaits_a_result_and_sees_its_error() -> None:
    background = Background()

    async def fail() -> None:
        assert background.here()
        raise ValueError("as raised")

    assert not background.here()
    with pytest.raises(ValueError, match="as raised"):
        await background.run(fail, name="fail")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_it_starts_anew_in_a_forked_child() -> None:
    from chassis.background import background

    async def answer() -> int:
        return 42

    assert background.start(answer, name="parent").result(5) == 42
    child = os.fork()
    if child == 0:
        try:
            code = 0 if background.start(answer, name="child").result(5) == 42 else 1
        except BaseException:
            code = 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
