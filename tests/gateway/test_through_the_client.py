"""The gateway over the client's own line: discovery, failover and breakers are the same ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chassis.client import ServiceUpstreams
from chassis.core import Deadline, PolicyRegistry, deadline_scope
from chassis.discovery import StaticDiscovery
from tests.gateway.exchange import Answer, call, gateway
from tests.support.ports import free_port

pytestmark = pytest.mark.asyncio


class Service:
    """A raw HTTP/1.1 server that keeps what it gets; ``/slow`` takes its time to send a body."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.port = 0
        self.tasks: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.create_task(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(4) if b"content-length: 4" in head.lower() else b""
                self.requests.append(head + body)
                if head.startswith(b"GET /slow "):
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
                    await writer.drain()
                    await asyncio.sleep(0.3)
                    writer.write(b"cd")
                else:
                    location = f"http://127.0.0.1:{self.port}/next".encode()
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nLocation: " + location + b"\r\n\r\ndone"
                    )
                await writer.drain()


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Service]:
    it = Service()
    server = await asyncio.start_server(it.accept, "127.0.0.1", 0)
    it.port = server.sockets[0].getsockname()[1]
    yield it
    server.close()
    for task in it.tasks:
        task.cancel()
    await asyncio.gather(*it.tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def upstreams(*ports: int) -> AsyncIterator[ServiceUpstreams]:
    discovery = StaticDiscovery({"catalog": [f"http://127.0.0.1:{port}" for port in ports]})
    it = ServiceUpstreams(lambda: discovery, registry=PolicyRegistry())
    try:
        yield it
    finally:
        it.close()
        await asyncio.sleep(0.01)  # connections are closed in their own loop


ROUTE = {"path": "/catalog/{rest:path}", "service": "catalog", "strip": "/catalog"}


async def test_the_bytes_of_the_target_survive_the_clients_line(service):
    """And the Host is the service's name, not the instance's address."""
    async with upstreams(service.port) as through:
        answer = await call(gateway(through, ROUTE), b"/catalog/a%2Db/%7e//c?a=%zz&b=[|]&c=..//")
    assert answer.status == 200
    [request] = service.requests
    assert request.startswith(b"GET /a%2Db/%7e/c?a=%zz&b=[|]&c=..// HTTP/1.1\r\n")
    assert b"\r\nhost: catalog\r\n" in request.lower()
    assert b"x-chassis-attempt: 1" in request.lower()


async def test_an_instance_that_refuses_costs_the_caller_nothing_not_even_a_post(service):
    """A small body was read whole, so it can be sent to another instance."""
    async with upstreams(free_port(), service.port) as through:
        app = gateway(through, ROUTE)
        for _ in range(4):
            answer = await call(
                app, "/catalog/orders", method="POST", headers={"Content-Length": "4"}, body=[b"bo", b"dy"]
            )
            assert answer.status == 200, answer.body
    assert [request[-4:] for request in service.requests] == [b"body"] * 4


async def test_an_instance_that_refuses_is_503_before_and_after_its_breaker_opens(service):
    """To the caller it is one and the same: nothing was done, and it may ask again later."""
    async with upstreams(free_port()) as through:
        app = gateway(through, ROUTE)
        answers = [await call(app, "/catalog/x") for _ in range(8)]
    assert {answer.status for answer in answers} == {503}
    assert all(answer["retry-after"] for answer in answers)


async def test_row_35_the_instances_address_in_a_location_is_made_public(service):
    """The client says which instance answered."""
    async with upstreams(service.port) as through:
        answer = await call(gateway(through, ROUTE), "/catalog/x")
    assert answer["location"] == "https://shop.test/catalog/next"


async def test_a_body_outlives_the_deadline_that_the_server_edge_set(service):
    """Its head came in time; only a deadline of the client's own would cut it."""
    async with upstreams(service.port) as through:
        app = gateway(through, ROUTE)

        async def with_deadline(**headers: str) -> Answer:
            with deadline_scope(Deadline.after(0.15)):
                return await call(app, "/catalog/slow", headers=headers)

        whole = await with_deadline()
        cut = await with_deadline(**{"X-Chassis-Deadline-Ms": "150"})
    assert (whole.body, whole.cut) == (b"abcd", None)
    assert (cut.body, type(cut.cut).__name__) == (b"ab", "UpstreamAborted")
