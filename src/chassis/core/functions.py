"""What kind of function it is that a policy shall guard."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


def is_async_callable(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: ``async def``, partials of one, async ``__call__``."""
    return inspect.iscoroutinefunction(innermost(function))


NEVER_AWAITABLE = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict})
"""Known not to be awaitable: asking a type that is not costs more than the rest of a guard."""


def is_awaitable(value: Any) -> bool:
    """Whether ``value`` can be awaited."""
    return type(value) not in NEVER_AWAITABLE and hasattr(type(value), "__await__")


def innermost(function: Any) -> Any:
    """The function that a call runs in the end: without partials, the method of a callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__
