"""A forked child calls on its own connections, whatever its parent was doing."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from chassis.client import ClientOptions, async_client, sync_client
from tests.client.calling import Caller, catalog
from tests.client.scripted import ScriptedServer
from tests.support.waiting import wait_until

Serve = Callable[..., ScriptedServer]

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def exit_of_child(work: Callable[[], object]) -> int:
    """What ``work`` comes to in a forked child: 0 where it raises nothing."""
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # a lock that is never free ends the child, and not the test run
        try:
            work()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("module", ["httpx2", "httpx"])
def test_case_40_a_forked_childs_calls_share_no_connection_with_the_parents(
    serve: Serve, module: str
) -> None:
    """Two processes on one connection would read each other's answers."""
    server = serve()
    options = ClientOptions(keepalive=60)  # a busy machine may take its time for the child
    with Caller("sync", module, catalog(server), options) as caller:  # type: ignore[arg-type]  # by parameter
        assert caller.get().status_code == 200
        assert server.open_connections == 1

        def in_child() -> None:
            for _ in range(3):
                assert caller.get("/child").status_code == 200

        assert exit_of_child(in_child) == 0
        assert caller.get("/parent").status_code == 200
        assert [request.target for request in server.received] == [
            "/",
            "/child",
            "/child",
            "/child",
            "/parent",
        ]
        assert server.accepted == 2  # the parent's, which it went on with, and the child's
        wait_until(lambda: server.open_connections == 1, what="the child's connection to close with it")


def test_case_40_an_async_client_works_in_a_child_and_goes_on_in_the_parent(serve: Serve) -> None:
    server = serve()
    with Caller("async", "httpx2", catalog(server)) as caller:
        assert caller.get().status_code == 200

        async def call() -> None:
            async with async_client(caller.upstreams, "catalog") as client:
                assert (await client.get("/child")).status_code == 200

        assert exit_of_child(lambda: asyncio.run(call())) == 0
        assert caller.get("/parent").status_code == 200


def test_case_40_locks_that_another_thread_held_are_free_in_the_child(serve: Serve) -> None:
    server = serve()
    with Caller("sync", "httpx2", catalog(server)) as caller:
        caller.get()
        held, done = threading.Event(), threading.Event()
        pools = list(caller.upstream.endpoints.endpoints()[0].state._pools.values())

        def hold() -> None:
            answered = caller.upstream.answered._condition
            with caller.upstreams._lock, caller.upstream._lock, pools[0]._lock, answered:
                held.set()
                done.wait(10)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(10)
        try:
            assert exit_of_child(lambda: caller.get("/child")) == 0
        finally:
            done.set()
            thread.join(10)


def test_one_service_is_called_from_several_loops_and_threads_at_once(serve: Serve) -> None:
    """A connection belongs to the loop that opened it; what is known of the instances belongs to all."""
    servers = [serve(), serve()]
    with (
        Caller("async", "httpx2", catalog(*servers)) as one,
        Caller("async", "httpx2", one.discovery, upstreams=one.upstreams) as two,
    ):
        client = sync_client(one.upstreams, "catalog")

        async def many(caller: Caller) -> None:
            await asyncio.gather(*(caller.client.get("/loop") for _ in range(10)))

        with ThreadPoolExecutor(4) as threads:
            calls = [threads.submit(client.get, "/thread") for _ in range(20)]
            loops = [caller.start(many(caller)) for caller in (one, two, one, two)]
            for each in [*calls, *loops]:
                each.result(20)
        client.close()
        assert sum(len(server.received) for server in servers) == 60
        assert one.in_flight() == 0


@pytest.mark.parametrize("module", ["httpx2", "httpx"])
def test_connections_of_loops_that_are_closed_are_let_go(serve: Serve, module: str) -> None:
    """A command that runs one loop after the other would run out of file descriptors."""
    server = serve()
    with warnings.catch_warnings():
        # Nobody can close them any more, their loop being gone: that is what is warned of.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with Caller("sync", module, catalog(server)) as caller:  # type: ignore[arg-type]  # by parameter

                async def call() -> None:
                    client = async_client(caller.upstreams, "catalog", http=module)  # type: ignore[arg-type]  # as above
                    assert (await client.get("/")).status_code == 200

                for _ in range(8):
                    asyncio.run(call())
                gc.collect()
                wait_until(lambda: server.open_connections <= 1, what="connections to be closed", timeout=2)
        finally:
            gc.collect()
