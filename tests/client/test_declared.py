"""How a service declares its clients: in code and, over that, by name in its settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from chassis import Chassis, ClientOptions
from chassis.client import ServiceUpstreams
from chassis.core import ConfigError, PolicyRegistry
from chassis.discovery import MemoryDiscovery
from chassis.loadbalancing import BalancingOptions
from chassis.retries import HedgeOptions
from tests.support.waiting import eventually


def upstream_of(chassis: Chassis, service: str):  # type: ignore[no-untyped-def]  # the shipped one
    upstreams = chassis.upstreams
    assert isinstance(upstreams, ServiceUpstreams)
    return upstreams.upstream(service)


def test_balancing_and_hedging_are_given_where_the_client_is_made() -> None:
    chassis = Chassis("shop", environment={})
    chassis.client("catalog", balancing="least_request", hedge=HedgeOptions(extra_load=0.02))
    chassis.client("orders", balancing=BalancingOptions(policy="ordered", slow_start=30))
    catalog, orders = upstream_of(chassis, "catalog"), upstream_of(chassis, "orders")
    assert catalog.endpoints.options == BalancingOptions(policy="least_request")
    assert catalog.options == ClientOptions(hedge=HedgeOptions(extra_load=0.02))
    assert orders.endpoints.options.slow_start == 30


def test_other_balancing_for_the_same_service_is_refused() -> None:
    chassis = Chassis("shop", environment={})
    chassis.client("catalog", balancing="least_request")
    chassis.client("catalog")
    with pytest.raises(ConfigError, match="made before with other options"):
        chassis.client("catalog", balancing="random")
    with pytest.raises(ConfigError, match="none of the choices"):
        chassis.client("payments", balancing="fastest")  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("part", ["", "/breaker", "/balancing", "/budget"])
@pytest.mark.parametrize("given", [{"retries": 3}, None, HedgeOptions()])
def test_what_is_no_options_of_a_clients_policies_changes_nothing(part: str, given: object) -> None:
    registry = PolicyRegistry()
    ServiceUpstreams(MemoryDiscovery, registry=registry).upstream("catalog")
    policy = registry.get(f"client:catalog{part}")
    assert policy is not None
    told = policy.describe()
    with pytest.raises(ConfigError, match=f"^options: {type(given).__name__} is not "):
        policy.reconfigure(given)
    assert policy.describe() == told


def test_a_sync_client_of_a_hedged_service_is_refused_where_it_is_made() -> None:
    chassis = Chassis("shop", environment={})
    chassis.client("catalog", hedge=HedgeOptions())
    with pytest.raises(ConfigError, match=r"client:catalog\.hedge.*a thread cannot be cancelled"):
        chassis.sync_client("catalog")
    with pytest.raises(ConfigError, match="a thread cannot be cancelled"):
        chassis.sync_client("orders", options=ClientOptions(hedge=HedgeOptions()))


@pytest.mark.asyncio
async def test_balancing_and_hedging_follow_the_file_while_the_service_runs(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text('[chassis.registration]\nzone = "a"\n')
    chassis = Chassis("shop", file=file, environment={}, discovery=MemoryDiscovery())
    chassis.client("catalog", balancing="least_request")
    upstream = upstream_of(chassis, "catalog")
    async with chassis:
        # The process's own zone, where the options name none.
        assert upstream.endpoints.options == BalancingOptions(policy="least_request", zone="a")
        file.write_text(
            '[chassis.registration]\nzone = "a"\n'
            '[chassis.policies."client:catalog/balancing"]\npolicy = "peak_ewma"\nslow_start = "30s"\n'
            '[chassis.policies."client:catalog"]\nhedge = { delay = "50ms" }\nserver_name = "{host}"\n'
        )
        await eventually(lambda: upstream.endpoints.options.policy == "peak_ewma", 5, "the change")
        assert upstream.endpoints.options == BalancingOptions(policy="peak_ewma", slow_start=30, zone="a")
        assert upstream.options == ClientOptions(hedge=HedgeOptions(delay=0.05), server_name="{host}")
