"""What a cluster does to those who discover: servers blank, leader killed, agent frozen, tokens denied, connections refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chassis.adapters.consul import ConsulAPI, ConsulOptions, ConsulRegistrar, ConsulRegistrarOptions
from chassis.core import Freshness, Reason, Registration, Source
from chassis.discovery import (
    DiscoveryRecovered,
    DiscoveryStale,
    EmptyAnswerAccepted,
    EmptyAnswerHeld,
    InstancesChanged,
    RegistryCrowded,
)
from tests.cluster.consul_cluster import ConsulCluster, definition
from tests.support.binaries import find_consul
from tests.support.consul_script import Watch, Watching
from tests.support.fixtures import require
from tests.support.servers import ConsulServer
from tests.support.waiting import eventually

pytestmark = [pytest.mark.asyncio, pytest.mark.integration]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulCluster]:
    """One cluster for all; every test leaves it with a leader."""
    with ConsulCluster(require(find_consul), tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest_asyncio.fixture
async def watch() -> AsyncIterator[Watch]:
    watch = Watch()
    yield watch
    await watch.close()


def never_empty(watching: Watching) -> bool:
    first = next(place for place, (_, told) in enumerate(watching.heard) if told.instances)
    return all(told.instances for _, told in watching.heard[first:])


async def test_a_change_reaches_the_other_agents_watchers(cluster: ConsulCluster, watch: Watch) -> None:
    watching = watch(cluster.client.url, "far")
    await watching.until(lambda told: True, "the first answer")
    cluster.servers[0].put("/v1/agent/service/register", definition("far:1", "far"))
    await watching.until_ids("far:1")
    cluster.servers[0].put("/v1/agent/service/deregister/far:1")
    assert (await watching.until_ids()).reason is Reason.NOT_REGISTERED


async def test_case_11_a_killed_leader_is_staleness_and_no_change(
    cluster: ConsulCluster, watch: Watch
) -> None:
    cluster.client.put("/v1/agent/service/register", definition("led:1", "led"))
    watching = watch(cluster.client.url, "led", wait=5.0)
    await watching.until_ids("led:1")
    # An event follows the snapshot it is about, in the background thread.
    await eventually(lambda: watching.of(InstancesChanged), what="the event")
    changes = watching.of(InstancesChanged)
    leader = cluster.wait_for_leader()
    leader.process.kill()
    try:
        await asyncio.to_thread(cluster.wait_for_leader, but=leader)
        await watching.until(lambda told: told.freshness is Freshness.FRESH, "freshness", 20)
        assert watching.of(InstancesChanged) == changes
        assert never_empty(watching)
        # And it hears again what changes.
        cluster.client.put("/v1/agent/service/register", definition("led:2", "led"))
        await watching.until_ids("led:1", "led:2", timeout=20)
    finally:
        leader.start()
        await asyncio.to_thread(cluster.wait_for_leader)


async def test_case_3_a_frozen_agent_is_noticed_and_its_snapshot_kept(
    cluster: ConsulCluster, watch: Watch
) -> None:
    cluster.client.put("/v1/agent/service/register", definition("ice:1", "ice"))
    watching = watch(cluster.client.url, "ice", wait=2.0)
    await watching.until_ids("ice:1")
    cluster.client.process.pause()
    begun = time.monotonic()
    try:
        await watching.until(lambda told: told.freshness is Freshness.STALE, "staleness", 10)
        # The wait, a sixteenth more, and the time limit of any answer, which is a second here; and what a
        # busy machine adds, as nothing else would tell of it.
        assert watching.heard[-1][0] - begun <= 2.0 + 2.0 / 16 + 1.0 + 2.0
        assert watching.ids == ["ice:1"]
    finally:
        cluster.client.process.resume()
    await watching.until(lambda told: told.freshness is Freshness.FRESH, "freshness", 20)
    assert never_empty(watching)
    await asyncio.to_thread(cluster.wait_for_leader)


async def test_case_5_servers_that_come_back_blank_cost_no_lookup(
    cluster: ConsulCluster, watch: Watch
) -> None:
    """The client agent survives, and with it the registrations it holds; the servers know nothing of them."""
    agent = cluster.client
    agent.put("/v1/agent/service/register", definition("kept:1", "kept"))
    # This one is held by a server, and is gone for good.
    cluster.servers[0].put("/v1/agent/service/register", definition("gone:1", "gone"))
    # With short waits: the agent may ask blank servers anew what it was waiting for, with an index that they
    # reach much later, and then nothing is noticed before the wait is over.
    kept = watch(agent.url, "kept", wait=2.0)
    gone = watch(agent.url, "gone", empty_grace=6.0, wait=2.0)
    api = ConsulAPI(ConsulOptions(url=agent.url, timeout=1.0))
    registration = Registration(service="own", id="own:1", host="10.0.0.1", port=80)
    registered = await ConsulRegistrar(api, ConsulRegistrarOptions(ttl=6.0)).register(registration)
    own = watch(agent.url, "own", wait=2.0)
    try:
        for each, name in ((kept, "kept:1"), (gone, "gone:1"), (own, "own:1")):
            await each.until(lambda told: told.reason is None and told.instances, f"{name} to be passing", 15)
        await asyncio.to_thread(cluster.restart_servers_blank)
        await kept.until(lambda told: told.freshness is Freshness.STALE, "staleness", 10)
        await asyncio.to_thread(cluster.wait_for_leader)
        # Ours is registered anew by its own registrar, long before the agent would do so on its own.
        await own.until(lambda told: told.freshness is Freshness.FRESH, "our own to be back", 15)
        await gone.until(lambda told: not told.instances, "what is gone to be believed gone", 30)
        # An event follows the snapshot it is about, in the background thread.
        await eventually(lambda: "gone" in [each.subject for each in gone.of(EmptyAnswerAccepted)])
        assert len(gone.of(EmptyAnswerHeld)) >= 1
        # The agent syncs the others when its time has come, up to 90 s later; saying it again does it now.
        agent.put("/v1/agent/service/register", definition("kept:1", "kept"))
        await kept.until(lambda told: told.freshness is Freshness.FRESH, "the kept one to be back", 15)
        assert never_empty(kept)
        assert never_empty(own)
        assert kept.ids == ["kept:1"]
    finally:
        await registered.deregister()
        await api.aclose()


async def test_case_14_a_crowded_agent_starves_neither_heartbeats_nor_services(watch: Watch) -> None:
    """An agent that grants ten connections, thirty services that want one each, and a heartbeat."""
    config = {"limits": {"http_max_conns_per_client": 10}}
    server = ConsulServer(require(find_consul), config=config)
    try:
        await asyncio.to_thread(server.start)
        # What asked whether it is ready keeps a connection for a moment.
        api = ConsulAPI(ConsulOptions(url=server.url))
        registrar = ConsulRegistrar(api, ConsulRegistrarOptions(ttl=3.0))
        registration = Registration(service="beating", id="beating:1", host="10.0.0.1", port=80)
        registered = await registrar.register(registration)
        await eventually(lambda: registered.confirmed, what="the registration")
        watching = [watch(server.url, f"s{number}", wait=2.0) for number in range(30)]
        beating = watch(server.url, "beating", wait=2.0)
        for each in watching:
            told = await each.until(lambda told: told.freshness is Freshness.FRESH, "an answer", 20)
            assert told.reason is Reason.NOT_REGISTERED
        (crowded,) = watching[0].of(RegistryCrowded)[:1]
        # Half of what was open when it showed, which all thirty may have been.
        assert crowded.details()["limit"] <= 15

        def blocking() -> int:
            return [each.described["mode"] for each in watching].count("blocking")

        await eventually(lambda: blocking() <= 8, what="connections to be left to others")
        # Through all of that the heartbeat, every second, was never late by the three it may be.
        await asyncio.sleep(3.0)
        await eventually(lambda: registered.confirmed, what="a heartbeat to be taken")
        assert [each.status.value for each in beating.newest.instances] == ["passing"]
        assert {each.status.value for _, told in beating.heard for each in told.instances} == {"passing"}
        await registered.deregister()
        await api.aclose()
    finally:
        for each in watch.made:
            each.subscription.close()
        server.close()


class DenyingServer(ConsulServer):
    """An agent with ACLs, which denies what no token allows."""

    def __init__(self) -> None:
        acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": "root", "agent": "root"}}
        super().__init__(require(find_consul), config={"acl": {**acl, "token_ttl": "0s"}})

    def _ready(self) -> bool:
        try:
            # Its ACLs are those of old agents until it has found that it is the only server.
            policies = self.ask("GET", "/v1/acl/policies", "root")
            return bool(policies and self.ask("GET", "/v1/health/service/consul?passing", "root"))
        except OSError:
            return False

    def ask(self, method: str, path: str, token: str, body: Any = None) -> Any:
        import json
        import urllib.request

        content = None if body is None else json.dumps(body).encode()
        headers = {"X-Consul-Token": token}
        request = urllib.request.Request(f"{self.url}{path}", content, headers, method=method)
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.loads(response.read() or b"null")


async def test_case_13_denied_tokens_are_told_and_take_nothing_away(watch: Watch, tmp_path: Path) -> None:
    server = DenyingServer()
    try:
        await asyncio.to_thread(server.start)
        server.ask("PUT", "/v1/agent/service/register", "root", definition("c:1", "catalog"))
        rules = 'service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }'
        policy = {"Name": "reader", "Rules": rules}
        server.ask("PUT", "/v1/acl/policy", "root", policy)
        made = server.ask("PUT", "/v1/acl/token", "root", {"Policies": [{"Name": "reader"}]})
        # Nobody at all is answered "200, nothing" by this release; it is found out all the same.
        nobody = watch(server.url, "catalog")
        assert (await nobody.until(lambda told: True, "a reason")).reason is Reason.ACL_FILTERED
        # A token that does not exist is refused, and read again when its file has changed.
        file = tmp_path / "token"
        file.write_text("no-such-token")
        watching = watch(server.url, "catalog", agent={"token_file": str(file)}, wait=1.0)
        assert (await watching.until(lambda told: True, "a reason")).reason is Reason.ACL_FILTERED
        assert watching.described["errors"] == {"forbidden": watching.described["errors"]["forbidden"]}
        file.write_text(made["SecretID"])
        told = await watching.until_ids("c:1", timeout=15)
        assert (told.source, told.freshness) == (Source.LIVE, Freshness.FRESH)
        # A token that is taken away takes no instance with it.
        server.ask("DELETE", f"/v1/acl/token/{made['AccessorID']}", "root")
        await watching.until(lambda told: told.freshness is Freshness.STALE, "staleness", 15)
        assert watching.ids == ["c:1"]
        # Nor does one that loses its rights: Consul answers "200, nothing" then.
        made = server.ask("PUT", "/v1/acl/token", "root", {"Policies": [{"Name": "reader"}]})
        file.write_text(made["SecretID"])
        await watching.until(lambda told: told.freshness is Freshness.FRESH, "freshness", 15)
        token = {"AccessorID": made["AccessorID"], "Policies": []}
        server.ask("PUT", f"/v1/acl/token/{made['AccessorID']}", "root", token)
        await eventually(
            lambda: watching.described["errors"].get("acl_filtered"), 15, "the loss of rights to be found out"
        )
        assert watching.ids == ["c:1"]
        # An event follows the snapshot it is about, in the background thread.
        await eventually(lambda: len(watching.of(DiscoveryStale)) >= 2, what="the event")
        assert watching.of(DiscoveryRecovered)
    finally:
        for each in watch.made:
            each.subscription.close()
        server.close()
