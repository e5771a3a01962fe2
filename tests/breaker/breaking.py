"""What the tests of breakers share: a clock to turn by hand, calls that fail, threads that begin together."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from chassis.breaker import CircuitBreaker


class Clock:
    """A monotonic clock that is turned by hand, and knows how often it was read."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return self.now


def fail(breaker: CircuitBreaker, times: int = 1, error: type[Exception] = ConnectionError) -> None:
    """Make calls through ``breaker`` that fail."""

    @breaker
    def call() -> None:
        raise error("refused")

    for _ in range(times):
        with pytest.raises(error):
            call()


@contextmanager
def switching_often() -> Iterator[None]:
    """Threads take turns as often as the interpreter can have them do so."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def in_threads(count: int, function: Callable[[], Any]) -> list[Any]:
    """What ``function`` returned or raised in ``count`` threads that begin together."""
    gate = threading.Barrier(count)

    def run() -> Any:
        gate.wait(10)
        try:
            return function()
        except Exception as error:
            return error

    with switching_often(), ThreadPoolExecutor(count) as pool:
        return [each.result(20) for each in [pool.submit(run) for _ in range(count)]]
