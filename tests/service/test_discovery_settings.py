"""How services are looked for can be set for each of them, and what is known shows in the metrics."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chassis import Chassis, ConfigError
from chassis.metrics import render
from tests.support.scripted_agent import Answer, Asked, ScriptedAgent
from tests.support.waiting import eventually


def entry(name: str, *, tags: tuple[str, ...] = (), status: str = "passing") -> dict[str, Any]:
    return {
        "Node": {"Address": "10.0.0.1", "Datacenter": "dc1"},
        "Service": {"ID": name, "Service": "x", "Port": 80, "Tags": list(tags)},
        "Checks": [{"CheckID": "c", "Status": status}],
    }


def agent(asked: Asked) -> Answer:
    if not asked.path.startswith("/v1/health/service/"):
        return Answer("null", 404)
    if "index" in asked.query:
        return Answer("No cluster leader", 500)
    entries = [entry("blue", tags=("blue",)), entry("green"), entry("ill", status="critical")]
    return Answer(json.dumps(entries), headers={"X-Consul-Index": "7"})


async def described(chassis: Chassis, service: str) -> dict[str, Any]:
    def known() -> Any:
        told = chassis.describe()["policies"][f"client:{service}"]
        return told if told["freshness"] == "stale" else None

    return dict(await eventually(known, what=f"{service} to be known, and then stale"))


def page() -> str:
    return render().body.decode()


@pytest.mark.asyncio
async def test_a_service_may_be_looked_for_in_its_own_way() -> None:
    with ScriptedAgent(agent) as server:
        environment = {
            "CONSUL_HTTP_ADDR": server.url,
            "CHASSIS_SERVICES__ORDER_HISTORY__DISCOVERY__TAGS": "blue",
            "CHASSIS_SERVICES__ORDER_HISTORY__DISCOVERY__DATACENTERS": "dc2,dc3",
            "CHASSIS_SERVICES__ORDER_HISTORY__DISCOVERY__PRECONNECT": "true",
        }
        chassis = Chassis("shop", environment=environment)
        chassis.client("order-history")
        chassis.client("catalog")
        async with chassis:
            # The script knows no datacenters: all have the same instances, which therefore are one each.
            assert list((await described(chassis, "order-history"))["instances"]) == ["blue"]
            assert list((await described(chassis, "catalog"))["instances"]) == ["blue", "green", "ill"]
            asked = {each.query.get("dc") for each in server.asked if each.path.endswith("order-history")}
    assert asked == {None, "dc2", "dc3"}


@pytest.mark.asyncio
async def test_what_is_known_of_a_service_shows_in_the_metrics_and_goes_with_it() -> None:
    with ScriptedAgent(agent) as server:
        chassis = Chassis("shop", environment={"CONSUL_HTTP_ADDR": server.url})
        chassis.client("catalog")
        async with chassis:
            await described(chassis, "catalog")

            def shown() -> str | None:
                text = page()
                return text if 'chassis_discovery_freshness{service="catalog"} 1.0' in text else None

            text = await eventually(shown, what="the freshness on the page")
            assert 'chassis_discovery_instances{service="catalog",status="passing"} 2.0' in text
            assert 'chassis_discovery_instances{service="catalog",status="critical"} 1.0' in text
            assert 'chassis_discovery_snapshot_age_seconds{service="catalog"}' in text
            assert 'chassis_discovery_empty_answer_held{service="catalog"} 0.0' in text
            assert 'chassis_discovery_watch_errors{kind="unavailable",service="catalog"}' in text
        await eventually(lambda: 'chassis_discovery_instances{service="catalog"' not in page())


@pytest.mark.asyncio
async def test_a_bad_setting_of_one_service_is_told_with_its_origin() -> None:
    environment = {"CHASSIS_SERVICES__CATALOG__DISCOVERY__WAIT": "soon"}
    with pytest.raises(
        ConfigError, match=r"chassis.services.catalog.discovery.*wait.*CHASSIS_SERVICES__CATALOG"
    ):
        await Chassis("shop", environment=environment).start()
