from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.client.calling import Caller
from tests.client.scripted import ScriptedServer


@pytest.fixture(params=["async", "sync"])
def colour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["httpx2", "httpx"])
def module(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    """Starts scripted servers, ended with the test."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(ScriptedServer(*arguments, **options))


@pytest.fixture
def calling(colour: str, module: Any) -> Iterator[Callable[..., Caller]]:
    """Makes callers of this test's colour and module, closed with the test."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(Caller(colour, module, *arguments, **options))
