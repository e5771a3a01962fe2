"""Waiting for a condition with a limit, in place of sleeping for luck."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any


def _failed(what: str, timeout: float, last: Any, error: Exception | None) -> AssertionError:
    seen = f"raised {error!r}" if error is not None else f"gave {last!r}"
    return AssertionError(f"waited {timeout:g} s for {what}; the condition last {seen}")


def wait_until(
    condition: Callable[[], Any], timeout: float = 5.0, what: str = "the condition", *, every: float = 0.01
) -> Any:
    """Call ``condition`` until it gives something true, and return that.

    An ``Exception`` it raises counts as "not yet" and is named in the failure.

    :param timeout: seconds after which the wait fails.
    :param what: what is waited for, for the failure's message.
    :param every: seconds between two calls.
    :raises AssertionError: it was not true in time.
    """
    end = time.monotonic() + timeout
    while True:
        last, error = None, None
        try:
            last = condition()
        except Exception as raised:
            error = raised
        if last:
            return last
        if time.monotonic() >= end:
            raise _failed(what, timeout, last, error) from error
        time.sleep(every)


def at_best(measure: Callable[[], float], limit: float, what: str = "it", *, tries: int = 3) -> None:
    """Call ``measure``, which gives the seconds that something took, until that was less than ``limit``.

    For promises of speed: a machine that stands still for a moment makes anything slow once; what is slow
    by itself is slow each time.

    :param what: what is measured, for the failure's message.
    :param tries: how often it is measured at most.
    :raises AssertionError: it took too long each time.
    """
    taken: list[float] = []
    while len(taken) < tries:
        taken.append(measure())
        if taken[-1] < limit:
            return
    raise _slow(what, limit, taken)


async def at_best_async(
    measure: Callable[[], Awaitable[float]], limit: float, what: str = "it", *, tries: int = 3
) -> None:
    """:func:`at_best` for a coroutine function."""
    taken: list[float] = []
    while len(taken) < tries:
        taken.append(await measure())
        if taken[-1] < limit:
            return
    raise _slow(what, limit, taken)


def _slow(what: str, limit: float, taken: list[float]) -> AssertionError:
    each = ", ".join(f"{seconds:.3f}" for seconds in taken)
    return AssertionError(f"{what} is to take less than {limit:g} s; it took {each} s")


async def eventually(
    condition: Callable[[], Any | Awaitable[Any]],
    timeout: float = 5.0,
    what: str = "the condition",
    *,
    every: float = 0.01,
) -> Any:
    """:func:`wait_until` for coroutines; ``condition`` may be sync or async.

    An async condition that hangs is cut at the limit.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    while True:
        last, error = None, None
        try:
            last = condition()
            if inspect.isawaitable(last):
                async with asyncio.timeout_at(max(end, loop.time() + every)):
                    last = await last
        except Exception as raised:
            last, error = None, raised
        if last:
            return last
        if loop.time() >= end:
            raise _failed(what, timeout, last, error) from error
        await asyncio.sleep(every)
