"""Idle connections: used again while their server keeps them, and given up before it does."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from chassis.client import ClientOptions
from tests.client.calling import Caller, catalog
from tests.client.scripted import Received, ScriptedServer, answer
from tests.support.waiting import wait_until

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


def test_a_post_never_meets_a_connection_that_its_server_gave_up_meanwhile(
    serve: Serve, calling: Calling
) -> None:
    """What is closed already is seen before anything is sent: another connection is opened for it."""

    def one_answer(connection: Any, request: Received) -> bool:
        answer()(connection, request)
        connection.shutdown(socket.SHUT_RDWR)
        return False

    server = serve(one_answer)
    caller = calling(catalog(server))
    for number in range(1, 4):
        response = caller.post("/orders", content=b"one")
        assert (response.status_code, response.extensions["chassis"].attempts) == (200, 1)
        assert server.accepted == number
        wait_until(lambda: server.open_connections == 0, what="the server to give up the connection")


def test_by_default_it_is_given_up_before_common_servers_do() -> None:
    """Gunicorn closes an idle connection after two seconds, uvicorn after five."""
    gunicorn = pytest.importorskip("gunicorn.config").Keepalive.default
    assert ClientOptions().keepalive <= 0.75 * gunicorn
