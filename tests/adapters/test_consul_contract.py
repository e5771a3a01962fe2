"""What every registry keeps: the same tests on the one in memory and on a real Consul."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from chassis.adapters.consul import (
    ConsulAPI,
    ConsulDiscovery,
    ConsulDiscoveryOptions,
    ConsulOptions,
    ConsulRegistrar,
    ConsulRegistrarOptions,
)
from chassis.background import background
from chassis.core import (
    ConfigError,
    Discovery,
    Freshness,
    Reason,
    Registered,
    Registrar,
    Registration,
    Snapshot,
    Status,
    Subscription,
)
from chassis.discovery import MemoryDiscovery
from tests.support.servers import ConsulServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio


@dataclass
class Registry:
    """A registry under test, with how to make it fail and what to clean up."""

    discovery: Discovery
    registrar: Registrar
    stop: Callable[[], None]
    start: Callable[[], Any]
    handles: list[Registered] = field(default_factory=list)
    subscriptions: list[Subscription] = field(default_factory=list)

    async def register(self, port: int, **more: Any) -> Registered:
        given = {"service": "kept", "id": f"kept:{port}", "host": "127.0.0.1", "port": port, **more}
        self.handles.append(await self.registrar.register(Registration(**given)))
        return self.handles[-1]

    def subscribe(self, service: str = "kept") -> Heard:
        heard = Heard()
        self.subscriptions.append(self.discovery.subscribe(service, heard.snapshots.append))
        return heard


@dataclass
class Heard:
    snapshots: list[Snapshot] = field(default_factory=list)

    async def until(self, condition: Callable[[Snapshot], Any], what: str, timeout: float = 5.0) -> Snapshot:
        await eventually(lambda: self.snapshots and condition(self.snapshots[-1]), timeout, what)
        return self.snapshots[-1]

    async def ids(self, *ids: str) -> Snapshot:
        return await self.until(lambda each: [i.id for i in each.instances] == list(ids), f"{ids}")

    async def passing(self, *ids: str) -> Snapshot:
        """These, when all are passing: on a busy machine a heartbeat may have been late before."""
        await self.ids(*ids)
        return await self.until(
            lambda each: all(i.status is Status.PASSING for i in each.instances), f"{ids} to be passing"
        )


@pytest.fixture(params=["memory", pytest.param("consul", marks=pytest.mark.integration)])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture
async def registry(kind: str, request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
    if kind == "memory":
        memory = MemoryDiscovery(beat=0.05)
        registry = Registry(memory, memory, memory.stop, memory.start)
        api = None
    else:
        server: ConsulServer = request.getfixturevalue("own_consul_server")
        api = ConsulAPI(ConsulOptions(url=server.url))
        registrar = ConsulRegistrar(api, ConsulRegistrarOptions(ttl=0.6))
        registry = Registry(
            ConsulDiscovery(api, ConsulDiscoveryOptions(idle=0)), registrar, server.stop, server.start
        )
    yield registry
    for handle in registry.handles:
        await handle.deregister()
    for subscription in registry.subscriptions:
        subscription.close()
    if api is not None:
        await background.run(api.aclose, name="close")


async def test_whoever_listens_first_hears_of_nobody_then_of_each_registration(registry: Registry) -> None:
    heard = registry.subscribe()
    assert (await heard.until(lambda each: True, "the first snapshot")).reason is Reason.NOT_REGISTERED
    await registry.register(2)
    await heard.ids("kept:2")
    await registry.register(1)
    told = await heard.passing("kept:1", "kept:2")
    assert told.reason is None
    assert told.freshness is Freshness.FRESH


async def test_whoever_listens_later_hears_of_those_registered(registry: Registry) -> None:
    handle = await registry.register(1, scheme="https", zone="z", tags=("blue",), meta={"a": "b"}, weight=4)
    await eventually(lambda: handle.confirmed, what="confirmation")
    (instance,) = (await registry.subscribe().passing("kept:1")).instances
    assert (instance.service, instance.url, instance.zone) == ("kept", "https://127.0.0.1:1", "z")
    assert (instance.tags, instance.meta["a"], instance.weight) == (("blue",), "b", 4)
    assert instance.status is Status.PASSING


async def test_readiness_is_seen_within_a_heartbeat(registry: Registry) -> None:
    told = [(Status.PASSING, "")]
    await registry.register(1, readiness=lambda: told[0])
    heard = registry.subscribe()
    await heard.ids("kept:1")
    told[0] = (Status.CRITICAL, "no database")
    ill = await heard.until(lambda each: each.reason is Reason.NO_PASSING, "the instance to be critical")
    assert ill.instances[0].status is Status.CRITICAL
    told[0] = (Status.WARNING, "so so")
    await heard.until(
        lambda each: each.instances[0].status is Status.WARNING, "the instance to be called again"
    )


async def test_deregistration_is_seen_at_once_and_may_be_repeated(registry: Registry) -> None:
    first, _ = await registry.register(1), await registry.register(2)
    heard = registry.subscribe()
    await heard.ids("kept:1", "kept:2")
    await first.deregister()
    await first.deregister()
    await heard.ids("kept:2")
    assert not first.confirmed
    await asyncio.sleep(0.3)
    assert [each.id for each in heard.snapshots[-1].instances] == ["kept:2"]


async def test_an_abandoned_registration_stays_and_its_readiness_is_asked_no_more(registry: Registry) -> None:
    asked = []

    def readiness() -> tuple[Status, str]:
        asked.append(1)
        return Status.PASSING, ""

    handle = await registry.register(1, readiness=readiness)
    await eventually(lambda: handle.confirmed, what="confirmation")
    heard = registry.subscribe()
    await heard.ids("kept:1")
    await handle.abandon()
    await handle.abandon()
    await handle.deregister()
    assert not handle.confirmed
    count = len(asked)
    await asyncio.sleep(0.4)
    assert len(asked) == count
    assert [each.id for each in heard.snapshots[-1].instances] == ["kept:1"]


async def test_a_closed_subscription_hears_nothing_more(registry: Registry) -> None:
    heard = registry.subscribe()
    await heard.until(lambda each: True, "the first snapshot")
    registry.subscriptions[0].close()
    registry.subscriptions[0].close()
    other = registry.subscribe()
    await registry.register(1)
    await other.ids("kept:1")
    assert len(heard.snapshots) == 1


async def test_services_do_not_hear_of_each_other(registry: Registry) -> None:
    heard = registry.subscribe("another")
    await heard.until(lambda each: True, "the first snapshot")
    mine = registry.subscribe()
    await registry.register(1)
    await mine.ids("kept:1")
    assert len(heard.snapshots) == 1
    assert set(registry.discovery.describe()) == {"another", "kept"}


async def test_while_the_registry_is_silent_nobody_is_taken_away_and_afterwards_all_is_well(
    registry: Registry,
) -> None:
    handle = await registry.register(1)
    heard = registry.subscribe()
    await heard.ids("kept:1")
    registry.stop()
    stale = await heard.until(lambda each: each.freshness is Freshness.STALE, "staleness")
    assert [each.id for each in stale.instances] == ["kept:1"]
    await eventually(lambda: not handle.confirmed, what="the registration to be unconfirmed")
    await asyncio.to_thread(registry.start)
    await heard.until(lambda each: each.freshness is Freshness.FRESH, "freshness", 20)
    await eventually(lambda: handle.confirmed, 10, "the registration to be confirmed again")
    assert all([i.id for i in each.instances] == ["kept:1"] for each in heard.snapshots if each.instances)
    assert [i.id for i in heard.snapshots[-1].instances] == ["kept:1"]


async def test_a_registry_that_is_silent_from_the_start_says_so_and_takes_registrations_later(
    registry: Registry,
) -> None:
    registry.stop()
    heard = registry.subscribe()
    told = await heard.until(lambda each: True, "the first snapshot")
    assert (told.reason, told.freshness) == (Reason.REGISTRY_DOWN, Freshness.STALE)
    handle = await registry.register(1)
    assert not handle.confirmed
    await asyncio.to_thread(registry.start)
    await heard.until(lambda each: len(each.instances) == 1, "the instance", 20)
    await eventually(lambda: handle.confirmed, 10, "confirmation")


async def test_a_registration_that_cannot_be_is_refused(registry: Registry) -> None:
    for wrong in ({"service": ""}, {"id": " "}, {"host": ""}, {"port": 0}, {"port": 65536}, {"scheme": "x"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            await registry.register(**{"port": 1, **wrong})  # type: ignore[arg-type]
