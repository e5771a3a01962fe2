"""Idle connections: used again while their server keeps them, and given up before it does."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from chassis.client import ClientOptions
from tests.client.calling import Caller, catalog
from tests.client.scripted import ScriptedServer

Serve = Callable[..., ScriptedServer]
Calling = Callable[..., Caller]


@pytest.mark.parametrize(("keepalive", "connections"), [(30.0, 1), (0.03, 2)])
def test_an_idle_connection_is_used_again_for_as_long_as_it_is_kept(
    serve: Serve, calling: Calling, keepalive: float, connections: int
) -> None:
    server = serve()
    caller = calling(catalog(server), ClientOptions(keepalive=keepalive))
    for _ in range(2):
        assert caller.post("/orders", content=b"one").status_code == 200
        time.sleep(0.05)
    assert server.accepted == connections


def test_by_default_it_is_given_up_before_common_servers_do() -> None:
    """Gunicorn closes an idle connection after two seconds, uvicorn after five."""
    gunicorn = pytest.importorskip("gunicorn.config").Keepalive.default
    assert ClientOptions().keepalive <= 0.75 * gunicorn
