"""How calls are spread: by name, live, by key, and first within the own zone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from chassis.breaker import BreakerOptions
from chassis.client import ClientOptions
from chassis.core import Instance, Snapshot
from chassis.discovery import MemoryDiscovery
from chassis.loadbalancing import BalancingOptions
from tests.client.calling import Caller, catalog
from tests.client.scripted import ScriptedServer, hang_up
from tests.support.ports import free_port

Serve = Callable[..., ScriptedServer]
Calling = Callable[..., Caller]


@pytest.fixture
def module() -> str:
    """The choice of an instance is made before any HTTP module has a part in it."""
    return "httpx2"


def counts(servers: list[ScriptedServer]) -> list[int]:
    return [len(server.received) for server in servers]


def test_the_policy_is_chosen_by_name_while_the_client_is_in_use(serve: Serve, calling: Calling) -> None:
    servers = [serve() for _ in range(3)]
    caller = calling(catalog(*servers))
    for _ in range(6):
        caller.get()
    assert counts(servers) == [2, 2, 2]
    caller.policy("/balancing").reconfigure(BalancingOptions(policy="ordered"))
    for _ in range(6):
        caller.get()
    assert counts(servers) == [8, 2, 2]
    assert caller.policy("/balancing").describe()["policy"] == "ordered"


def test_the_policy_given_in_code_holds_from_the_first_call(serve: Serve, calling: Calling) -> None:
    servers = [serve() for _ in range(3)]
    caller = calling(catalog(*servers), balancing=BalancingOptions(policy="ordered"))
    for _ in range(4):
        caller.get()
    assert counts(servers) == [4, 0, 0]


def test_a_key_always_leads_to_the_same_instance(serve: Serve, calling: Calling) -> None:
    servers = [serve() for _ in range(4)]
    caller = calling(catalog(*servers), balancing=BalancingOptions(policy="consistent_hash"))
    for user in range(12):
        before = counts(servers)
        for _ in range(3):
            caller.get(extensions={"chassis": {"key": f"user-{user}"}})
        assert Counter(now - then for now, then in zip(counts(servers), before, strict=True)) == {0: 3, 3: 1}
    assert sum(count > 0 for count in counts(servers)) > 1


@pytest.mark.parametrize("key", [7, "\ud800", "", b"raw"])
def test_anything_may_be_a_key(serve: Serve, calling: Calling, key: object) -> None:
    """A number of a customer as it stands in the database, a text as it came from outside."""
    servers = [serve(), serve()]
    caller = calling(catalog(*servers), balancing=BalancingOptions(policy="consistent_hash"))
    for _ in range(3):
        assert caller.get(extensions={"chassis": {"key": key}}).status_code == 200
    assert sorted(len(server.received) for server in servers) == [0, 3]


def test_two_instances_of_one_id_are_both_told_of(serve: Serve, calling: Calling) -> None:
    """Two datacenters may use one id: an open breaker must not hide behind the other one."""
    dead, good = free_port(), serve()
    same = [
        Instance(id="catalog-0", service="catalog", host="127.0.0.1", port=port)
        for port in sorted((dead, good.port))
    ]
    caller = calling(catalog(), breaker=BreakerOptions(consecutive_failures=1))
    caller.upstream.open()
    caller.upstream.endpoints.update(Snapshot(service="catalog", instances=tuple(same)))
    for _ in range(4):
        caller.get()
    names = {f"127.0.0.1:{same[0].port}": "catalog-0"}
    names[f"127.0.0.1:{same[1].port}"] = f"catalog-0 at 127.0.0.1:{same[1].port}"
    described = caller.policy("/breaker").describe()["instances"]
    assert described[names[f"127.0.0.1:{dead}"]]["state"] == "open"
    assert described[names[f"127.0.0.1:{good.port}"]]["state"] == "closed"
    assert {each["address"]: name for name, each in caller.policy().describe()["instances"].items()} == names


def test_the_key_may_stand_in_a_header(serve: Serve, calling: Calling) -> None:
    servers = [serve() for _ in range(4)]
    options = ClientOptions(hash_header="X-User")
    caller = calling(catalog(*servers), options, balancing=BalancingOptions(policy="consistent_hash"))
    for user in range(12):
        before = counts(servers)
        for _ in range(3):
            caller.get(headers={"X-User": f"user-{user}"})
        assert Counter(now - then for now, then in zip(counts(servers), before, strict=True)) == {0: 3, 3: 1}


def test_what_fails_at_the_keys_own_instance_goes_to_the_next(serve: Serve, calling: Calling) -> None:
    """Untried instances first, whatever the policy says."""
    servers = [serve() for _ in range(3)]
    caller = calling(catalog(*servers), balancing=BalancingOptions(policy="consistent_hash"))
    caller.get(extensions={"chassis": {"key": "user-7"}})
    (own,) = [server for server in servers if server.received]
    own.behaviour = hang_up
    response = caller.get(extensions={"chassis": {"key": "user-7"}})
    assert (response.status_code, response.extensions["chassis"].attempts) == (200, 2)


def in_zones(servers: list[ScriptedServer]) -> MemoryDiscovery:
    discovery = MemoryDiscovery()
    for number, server in enumerate(servers):
        discovery.put(
            Instance(
                id=f"catalog-{number}",
                service="catalog",
                host="127.0.0.1",
                port=server.port,
                zone="ab"[number % 2],
            )
        )
    return discovery


def test_the_processs_own_zone_is_preferred(serve: Serve, calling: Calling) -> None:
    servers = [serve() for _ in range(4)]
    caller = calling(in_zones(servers), zone="b")
    for _ in range(8):
        caller.get()
    assert counts(servers) == [0, 4, 0, 4]


def test_a_zone_in_the_options_wins_over_the_processs_own(serve: Serve, calling: Calling) -> None:
    servers = [serve() for _ in range(4)]
    caller = calling(in_zones(servers), zone="b", balancing=BalancingOptions(zone="a"))
    for _ in range(8):
        caller.get()
    assert counts(servers) == [4, 0, 4, 0]
    caller.policy("/balancing").reconfigure(BalancingOptions())
    for _ in range(8):
        caller.get()
    assert counts(servers) == [4, 4, 4, 4]
