"""Decorated functions: what a breaker does for nearly every call, in one frame.

Nearly all calls succeed while the breaker is closed, and the rest of them are refused. What is done
for these stands here without a permit object, a context variable or a lock; everything else takes the
general way. The same code serves one breaker and a family of them, among which the arguments choose.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from chassis.breaker._owner import Owner
from chassis.breaker._permit import BreakerPermit
from chassis.core.clock import Clock
from chassis.core.functions import NEVER_AWAITABLE, is_awaitable
from chassis.core.outcomes import Classifier, Outcome, classify_error

Find = Callable[[tuple[Any, ...], dict[str, Any]], Owner]


def guard(
    function: Callable[..., Any], one: Owner | None, find: Find, classify: Classifier, clock: Clock
) -> Callable[..., Any]:
    """Decorate a plain function.

    :param one: the breaker; None to ``find`` one for each call.
    """
    judges = classify is not classify_error

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        breaker = find(args, kwargs) if one is None else one
        machine = breaker._machine
        generation = machine.closed
        if generation is None:
            now, until = clock(), machine.until
            if now < until:
                # Never kept in a local: with its traceback it would be a cycle, for the collector.
                raise breaker._refusal(now, until)
            return breaker._call(function, args, kwargs)
        slow_after = generation.slow_after
        slow_at = None if slow_after is None else clock() + slow_after
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            breaker.settle(BreakerPermit(breaker, generation, slow_at), None, error)
            raise
        if type(result) not in NEVER_AWAITABLE and is_awaitable(result):
            return breaker.run_awaitable(result, functools.partial(function, *args, **kwargs))
        if judges:
            breaker._judge(generation, result, slow_at)
            return result
        now = clock() if generation.timed or slow_at is not None else 0.0
        if now < generation.edge and (slow_at is None or now <= slow_at):
            generation.add()
            if now < generation.edge:
                return result
            breaker._weigh(generation)
        else:
            breaker._settle(generation, Outcome.SUCCESS, None, slow_at)
        return result

    return guarded


def guard_async(
    function: Callable[..., Awaitable[Any]],
    one: Owner | None,
    find: Find,
    classify: Classifier,
    clock: Clock,
) -> Callable[..., Awaitable[Any]]:
    """Decorate a coroutine function; as :func:`guard`, line by line."""
    judges = classify is not classify_error

    @functools.wraps(function)
    async def guarded_async(*args: Any, **kwargs: Any) -> Any:
        breaker = find(args, kwargs) if one is None else one
        machine = breaker._machine
        generation = machine.closed
        if generation is None:
            now, until = clock(), machine.until
            if now < until:
                raise breaker._refusal(now, until)
            return await breaker.run(functools.partial(function, *args, **kwargs))
        slow_after = generation.slow_after
        slow_at = None if slow_after is None else clock() + slow_after
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            breaker.settle(BreakerPermit(breaker, generation, slow_at), None, error)
            raise
        if judges:
            breaker._judge(generation, result, slow_at)
            return result
        now = clock() if generation.timed or slow_at is not None else 0.0
        if now < generation.edge and (slow_at is None or now <= slow_at):
            generation.add()
            if now < generation.edge:
                return result
            breaker._weigh(generation)
        else:
            breaker._settle(generation, Outcome.SUCCESS, None, slow_at)
        return result

    return guarded_async
