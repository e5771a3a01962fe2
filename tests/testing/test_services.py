"""Services in tests: a registry in memory, an agent in this process, respx in place of it all."""

from __future__ import annotations

import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import httpx2
import pytest
import respx
from respx.models import AllMockedAssertionError

from chassis import Chassis, CircuitOpen, DeadlineExceeded, NoInstance
from chassis.client import HTTPModuleName, ServiceUpstreams, async_client, sync_client
from chassis.core import Reason
from chassis.discovery import parse_urls
from chassis.testing import MemoryDiscovery, dev_agent, isolated_policies, mock_services

MODULES: dict[HTTPModuleName, Any] = {"httpx2": httpx2, "httpx": httpx}
both = pytest.mark.parametrize("http", list(MODULES))


@pytest.fixture(autouse=True)
def own_names() -> Iterator[None]:
    """Clients of one service in many tests: each has the names to itself."""
    with isolated_policies():
        yield


@pytest.fixture
def upstreams() -> ServiceUpstreams:
    """Upstreams that no discovery has: whoever asks it fails."""

    def no_discovery() -> Any:
        raise AssertionError("discovery was asked")

    return ServiceUpstreams(no_discovery)


# ── respx ────────────────────────────────────────────────────────────────────────────────────


@both
@pytest.mark.asyncio
async def test_a_service_is_answered_without_discovery(http: HTTPModuleName, upstreams: Any) -> None:
    """By its name, with a response of the client's own module that can be read and has its extension."""
    with mock_services() as services:
        route = services.get("http://catalog/items", params={"page": "2"}).respond(json=[1, 2])
        async with async_client(upstreams, "catalog", http=http) as catalog:
            response = await catalog.get("/items", params={"page": 2}, headers={"x-user": "anna"})
    assert type(response) is MODULES[http].Response
    assert response.json() == [1, 2]
    assert response.headers["content-type"] == "application/json"
    assert response.extensions["chassis"].attempts == 1
    assert route.calls.last.request.headers["x-user"] == "anna"


@both
def test_a_sync_client_is_answered_too(http: HTTPModuleName, upstreams: Any) -> None:
    """And what it sent can be looked at."""
    with mock_services(base_url="http://orders") as services:
        route = services.post("/orders").respond(201, json={"id": 7})
        with sync_client(upstreams, "orders", http=http) as orders:
            response = orders.post("/orders", json={"item": 3})
    assert (response.status_code, response.json()) == (201, {"id": 7})
    assert route.calls.last.request.content.replace(b" ", b"") == b'{"item":3}'
    assert "content-length" in route.calls.last.request.headers


@both
@pytest.mark.asyncio
async def test_a_streamed_answer_arrives_in_its_chunks(http: HTTPModuleName, upstreams: Any) -> None:
    """What reads a stream is tested with one."""

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in (b"a", b"b", b"c"):
            yield chunk

    with mock_services() as services:
        services.get("http://catalog/feed").respond(stream=chunks())
        async with (
            async_client(upstreams, "catalog", http=http) as catalog,
            catalog.stream("GET", "/feed") as response,
        ):
            assert [chunk async for chunk in response.aiter_bytes()] == [b"a", b"b", b"c"]


@both
@pytest.mark.asyncio
async def test_a_compressed_answer_is_decompressed_once(http: HTTPModuleName, upstreams: Any) -> None:
    """The answer's bytes are those that would come over the wire."""
    import gzip

    with mock_services() as services:
        services.get("http://catalog/items").respond(
            content=gzip.compress(b"hello"), headers={"content-encoding": "gzip"}
        )
        async with async_client(upstreams, "catalog", http=http) as catalog:
            assert (await catalog.get("/items")).text == "hello"


@both
@pytest.mark.asyncio
async def test_errors_are_the_clients_own(http: HTTPModuleName, upstreams: Any) -> None:
    """Respx speaks httpx, ours come from any layer: what the caller catches is its module's error."""
    module = MODULES[http]
    cases = [
        (httpx.ConnectError, (module.ConnectError,)),
        (httpx.ReadTimeout("too slow"), (module.ReadTimeout,)),
        (CircuitOpen("catalog", retry_after=3.0), (CircuitOpen, module.ConnectError)),
        (NoInstance("catalog", reason=Reason.NO_PASSING.value), (NoInstance, module.ConnectError)),
        (DeadlineExceeded("too late"), (DeadlineExceeded, module.TimeoutException)),
    ]
    async with async_client(upstreams, "catalog", http=http) as catalog:
        for effect, kinds in cases:
            with mock_services() as services:
                services.get("http://catalog/items").mock(side_effect=effect)
                with pytest.raises(kinds[0]) as raised:
                    await catalog.get("/items")
            assert all(isinstance(raised.value, kind) for kind in kinds), effect
            assert raised.value.request.url.host == "catalog"
    assert raised.value.args == ("too late",)


@both
def test_an_error_that_is_not_the_clients_stays_as_it_is(http: HTTPModuleName, upstreams: Any) -> None:
    """A mistake in the test's own side effect must not look like a service that is down."""
    with mock_services() as services, sync_client(upstreams, "catalog", http=http) as catalog:
        services.get("http://catalog/items").mock(side_effect=KeyError("mistake"))
        with pytest.raises(KeyError, match="mistake"):
            catalog.get("/items")


@both
def test_what_no_route_answers_fails_the_test(http: HTTPModuleName, upstreams: Any) -> None:
    """Nothing leaves by accident; nor does a route that nobody called go unnoticed."""
    catalog = sync_client(upstreams, "catalog", http=http)
    with mock_services(), pytest.raises(AllMockedAssertionError):
        catalog.get("/items")
    with pytest.raises(AssertionError, match="not called"), mock_services() as services:
        services.get("http://catalog/items")


@both
@pytest.mark.asyncio
async def test_what_is_to_pass_goes_the_usual_way(http: HTTPModuleName) -> None:
    """Through discovery, balancing and policies, as without respx; so does everything after the block."""
    upstreams = ServiceUpstreams(MemoryDiscovery)
    async with async_client(upstreams, "catalog", http=http) as catalog:
        with mock_services() as services:
            services.get("http://catalog/items").pass_through()
            with pytest.raises(NoInstance):
                await catalog.get("/items")
        with pytest.raises(NoInstance):
            await catalog.get("/items")
    upstreams.close()


def test_respx_itself_knows_it_by_name(upstreams: Any) -> None:
    """For `respx.mock(using="chassis")` and the marker of respx's own fixture."""
    mock_services()
    with respx.mock(using="chassis") as services, sync_client(upstreams, "catalog") as catalog:
        services.get("http://catalog/items").respond(204)
        assert catalog.get("/items").status_code == 204


@pytest.mark.asyncio
async def test_a_whole_service_is_tested_without_the_others() -> None:
    """The code under test is as it is in production."""
    chassis = Chassis("shop", environment={})
    catalog = chassis.client("catalog")

    async def first_item() -> str:
        return str((await catalog.get("/items")).json()[0])

    with mock_services() as services:
        services.get("http://catalog/items").respond(json=["book"])
        assert await first_item() == "book"


# ── registries ───────────────────────────────────────────────────────────────────────────────


def test_the_agent_serves_while_the_block_runs() -> None:
    """On a free port, with nothing in it; and not any longer."""
    with dev_agent() as agent:
        with urllib.request.urlopen(f"{agent.url}/v1/catalog/services", timeout=5) as answer:
            assert answer.status == 200
        assert agent.environment == {"CONSUL_HTTP_ADDR": agent.url}
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{agent.url}/v1/catalog/services", timeout=5)


def test_two_agents_know_nothing_of_each_other() -> None:
    """Each test has a registry of its own."""
    with dev_agent() as one, dev_agent() as other:
        assert one.url != other.url
        assert one.agent is not other.agent


@pytest.mark.asyncio
async def test_the_registry_in_memory_can_be_scripted() -> None:
    """Instances come and go as the test says."""
    discovery = MemoryDiscovery()
    discovery.put(*parse_urls("catalog", "http://127.0.0.1:9"))
    seen: list[int] = []
    subscription = discovery.subscribe("catalog", lambda snapshot: seen.append(len(snapshot.instances)))
    discovery.remove("catalog", "127.0.0.1:9")
    subscription.close()
    assert seen == [1, 0]
