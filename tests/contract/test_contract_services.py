"""Registration, heartbeats and maintenance, as a service's process uses them."""

import time

import consul
import pytest

from tests.contract.differences import (
    DATACENTER_IN_AGENT_SERVICES,
    DEREGISTERING_TWICE,
    HEARTBEAT_FOR_UNKNOWN_CHECK,
)
from tests.support.waiting import wait_until


def statuses(agent, name):
    _, instances = agent.consul.health.service(name)
    return {check["CheckID"]: check["Status"] for one in instances for check in one["Checks"]}


def test_an_instance_is_registered_with_all_it_said(agent):
    """Every field a client sends comes back from health, catalog and agent."""
    name = agent.name("orders")
    assert agent.consul.agent.service.register(
        name,
        service_id=f"{name}:1",
        address="127.0.0.1",
        port=8080,
        tags=["blue", "v2"],
        meta={"zone": "a"},
        weights={"Passing": 10, "Warning": 1},
        check=consul.Check.ttl("30s"),
    )
    _, (instance,) = agent.consul.health.service(name)
    service = instance["Service"]
    assert (service["ID"], service["Service"]) == (f"{name}:1", name)
    assert (service["Address"], service["Port"]) == ("127.0.0.1", 8080)
    assert (service["Tags"], service["Meta"]) == (["blue", "v2"], {"zone": "a"})
    assert service["Weights"] == {"Passing": 10, "Warning": 1}
    assert service["TaggedAddresses"]["lan_ipv4"] == {"Address": "127.0.0.1", "Port": 8080}
    assert [check["CheckID"] for check in instance["Checks"]] == ["serfHealth", f"service:{name}:1"]
    assert instance["Node"]["Datacenter"] == "dc1"

    _, (listed,) = agent.consul.catalog.service(name)
    assert (listed["ServiceID"], listed["ServiceAddress"], listed["ServicePort"]) == (
        f"{name}:1",
        "127.0.0.1",
        8080,
    )
    assert (listed["ServiceTags"], listed["ServiceMeta"]) == (["blue", "v2"], {"zone": "a"})
    assert sorted(agent.consul.catalog.services()[1][name]) == ["blue", "v2"]  # Consul's order is random

    own = agent.consul.agent.services()[f"{name}:1"]
    assert (own["Service"], own["Port"], own["Weights"]) == (name, 8080, {"Passing": 10, "Warning": 1})
    assert ("Datacenter" in own) is agent.expected(DATACENTER_IN_AGENT_SERVICES)
    assert agent.consul.agent.service_definition(f"{name}:1")["ContentHash"]


def test_the_least_registration_has_defaults(agent):
    """A name alone is enough: the id is the name, weights are one, and there is no check."""
    name = agent.name("plain")
    agent.register(name)
    (instance,) = agent.get(f"/v1/health/service/{name}").json()
    service = instance["Service"]
    assert (service["ID"], service["Address"], service["Port"]) == (name, "", 0)
    assert service["Tags"] == []
    assert service["Weights"] == {"Passing": 1, "Warning": 1}
    assert not service["Meta"]
    assert [check["CheckID"] for check in instance["Checks"]] == ["serfHealth"]


def test_a_ttl_check_begins_critical_and_follows_the_heartbeats(agent):
    """Critical until the first pass; pass, warn and fail set the status, with their note."""
    name = agent.name("beat")
    agent.register(name, Check={"TTL": "30s"})
    check_id = f"service:{name}"
    beats = agent.consul.agent.check
    assert statuses(agent, name)[check_id] == "critical"
    for beat, status in (
        (beats.ttl_pass, "passing"),
        (beats.ttl_warn, "warning"),
        (beats.ttl_fail, "critical"),
    ):
        assert beat(check_id, notes=f"it is {status}")
        shown = agent.check_of(name, check_id)
        assert (shown["Status"], shown["Output"]) == (status, f"it is {status}")
        assert (shown["ServiceID"], shown["ServiceName"], shown["Type"]) == (name, name, "ttl")


def test_a_heartbeat_by_update_carries_status_and_output(agent):
    """The form with a body does the same."""
    name = agent.name("update")
    agent.register(name, Check={"TTL": "30s"})
    path = f"/v1/agent/check/update/service:{name}"
    assert agent.put(path, {"Status": "warning", "Output": "slow"}).status == 200
    assert agent.check_of(name, f"service:{name}")["Output"] == "slow"
    assert agent.put(path, {"Status": "odd"}).status == 400
    assert agent.put(path, b"{").status == 400


def test_a_note_without_a_change_of_status_reaches_the_agent_alone(agent):
    """Heartbeats do not move the catalog's index, or every watcher would wake at each."""
    name = agent.name("note")
    agent.register(name, Check={"TTL": "30s"})
    check_id = f"service:{name}"
    agent.consul.agent.check.ttl_pass(check_id, notes="first")
    index = agent.get(f"/v1/health/service/{name}").index
    agent.consul.agent.check.ttl_pass(check_id, notes="second")
    assert agent.consul.agent.checks()[check_id]["Output"] == "second"
    answer = agent.get(f"/v1/health/service/{name}")
    assert answer.index == index
    assert agent.check_of(name, check_id)["Output"] == "first"


def test_a_ttl_lapses_to_critical_and_a_heartbeat_heals_it(agent):
    """A process that died is critical once its TTL is over, and says so in the output."""
    name = agent.name("lapse")
    check_id = f"service:{name}"
    agent.register(name, Check={"TTL": "300ms"})
    began = time.monotonic()
    agent.consul.agent.check.ttl_pass(check_id, notes="last words")
    # Consul's agent notices at once and tells its catalog up to a second later.
    wait_until(lambda: statuses(agent, name)[check_id] == "critical", 10, "the TTL to lapse")
    assert time.monotonic() - began >= 0.3
    assert agent.check_of(name, check_id)["Output"].startswith("TTL expired")
    assert "last words" in agent.check_of(name, check_id)["Output"]

    def healed():
        agent.consul.agent.check.ttl_pass(check_id)
        return agent.check_of(name, check_id)["Status"] == "passing"

    # Again where the TTL was over before it could be looked at.
    wait_until(healed, what="the heartbeat to heal it")


def test_a_heartbeat_for_an_unknown_check_is_refused(agent):
    """So a service learns that the agent lost it; the status tells how old the agent is."""
    answer = agent.put(f"/v1/agent/check/pass/service:{agent.name('nobody')}")
    assert answer.status == agent.expected(HEARTBEAT_FOR_UNKNOWN_CHECK)
    assert b"heck" in answer.body


def test_a_check_may_begin_with_a_status_of_its_own(agent):
    """Status in the registration, and names, notes and ids of several checks."""
    name = agent.name("checks")
    agent.register(
        name,
        Checks=[
            {"TTL": "30s", "Status": "passing"},
            {
                "TTL": "30s",
                "CheckID": f"{name}-db",
                "Name": "database",
                "Notes": "the pool",
                "Status": "warning",
            },
        ],
    )
    assert statuses(agent, name) == {
        "serfHealth": "passing",
        f"service:{name}:1": "passing",
        f"{name}-db": "warning",
    }
    shown = agent.check_of(name, f"{name}-db")
    assert (shown["Name"], shown["Notes"]) == ("database", "the pool")
    assert agent.check_of(name, f"service:{name}:1")["Name"] == f"Service '{name}' check"


def test_registering_again_keeps_status_and_moves_no_index(agent):
    """A service may re-register whenever it doubts; nobody wakes and it stays passing."""
    name = agent.name("again")
    body = {"Port": 80, "Check": {"TTL": "30s"}}
    agent.register(name, **body)
    agent.consul.agent.check.ttl_pass(f"service:{name}")
    index = agent.get(f"/v1/health/service/{name}").index
    agent.register(name, **body)
    assert agent.get(f"/v1/health/service/{name}").index == index
    assert agent.check_of(name, f"service:{name}")["Status"] == "passing"
    agent.register(name, **{**body, "Port": 81})
    answer = agent.get(f"/v1/health/service/{name}")
    assert answer.index > index
    (instance,) = answer.json()
    assert instance["Service"]["Port"] == 81
    assert instance["Service"]["CreateIndex"] < instance["Service"]["ModifyIndex"]


def test_checks_not_named_again_stay_unless_they_are_to_be_replaced(agent):
    """Registering without checks keeps them; replace-existing-checks drops them."""
    name = agent.name("replace")
    agent.register(
        name, Checks=[{"TTL": "30s", "CheckID": f"{name}-a"}, {"TTL": "30s", "CheckID": f"{name}-b"}]
    )
    agent.register(name)
    assert set(statuses(agent, name)) == {"serfHealth", f"{name}-a", f"{name}-b"}
    only_b = {"Name": name, "ID": name, "Check": {"TTL": "30s", "CheckID": f"{name}-b"}}
    assert agent.put("/v1/agent/service/register?replace-existing-checks=true", only_b).status == 200
    assert set(statuses(agent, name)) == {"serfHealth", f"{name}-b"}


def test_deregistering_takes_it_out_and_again_harms_nothing(agent):
    """The second time is answered, whatever its status, and changes nothing."""
    name = agent.name("leave")
    agent.register(name, Check={"TTL": "30s"})
    assert agent.consul.agent.service.deregister(name)
    assert agent.consul.health.service(name)[1] == []
    assert name not in agent.consul.catalog.services()[1]
    again = agent.put(f"/v1/agent/service/deregister/{name}")
    assert again.status == agent.expected(DEREGISTERING_TWICE)
    assert agent.put(f"/v1/agent/check/pass/service:{name}").status in (404, 500)


def test_maintenance_takes_an_instance_out_and_puts_it_back(agent):
    """An operator's check is critical, with the reason, until it is taken away."""
    name = agent.name("maintain")
    agent.register(name, Check={"TTL": "30s", "Status": "passing"})
    maintenance = agent.consul.agent.service.maintenance
    assert maintenance(name, "true", reason="upgrade")
    shown = agent.check_of(name, f"_service_maintenance:{name}")
    assert (shown["Status"], shown["Notes"], shown["Name"]) == (
        "critical",
        "upgrade",
        "Service Maintenance Mode",
    )
    assert agent.consul.health.service(name, passing=True)[1] == []
    index = agent.get(f"/v1/health/service/{name}").index
    assert maintenance(name, "true", reason="another")
    assert agent.get(f"/v1/health/service/{name}").index == index
    assert maintenance(name, "false")
    assert maintenance(name, "false")
    assert statuses(agent, name) == {"serfHealth": "passing", f"service:{name}": "passing"}


def test_maintenance_survives_registering_again(agent):
    """A heartbeat that re-registers must not end what an operator began."""
    name = agent.name("maintained")
    agent.register(name, Check={"TTL": "30s"})
    agent.consul.agent.service.maintenance(name, "true")
    agent.register(name, Check={"TTL": "30s"})
    assert f"_service_maintenance:{name}" in statuses(agent, name)


def test_node_maintenance_takes_every_instance_out(agent):
    """All services of the node are critical until it ends, and their watchers are told."""
    name = agent.name("on-node")
    agent.register(name)
    index = agent.get(f"/v1/health/service/{name}").index
    assert agent.consul.agent.maintenance("true", reason="disk")
    try:
        assert statuses(agent, name)["_node_maintenance"] == "critical"
        assert agent.get(f"/v1/health/service/{name}").index > index
    finally:
        assert agent.consul.agent.maintenance("false")
    assert statuses(agent, name) == {"serfHealth": "passing"}


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("service/maintenance/", 400, b"Missing service ID"),
        ("service/maintenance/x", 400, b"Missing value for enable"),
        ("service/maintenance/x?enable=maybe", 400, b'Invalid value for enable: "maybe"'),
        ("service/maintenance/nobody-at-all?enable=true", 404, b"nobody-at-all"),
        ("maintenance", 400, b"Missing value for enable"),
    ],
)
def test_maintenance_refuses_what_it_cannot_do(agent, path, status, text):
    """One sentence says what is missing."""
    answer = agent.put(f"/v1/agent/{path}")
    assert (answer.status, text in answer.body) == (status, True), answer.body


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "Missing service name"),
        ({"Name": "x", "Port": "80"}, "Request decode failed"),
        ({"Name": "x", "Port": 80.5}, "Request decode failed"),
        ({"Name": "x", "Tags": "a"}, "Request decode failed"),
        ({"Name": "x", "Bogus": 1}, 'unknown field "Bogus"'),
        ({"Name": "x", "Address": "0.0.0.0"}, "Invalid service address"),
        ({"Name": "x", "Address": "::"}, "Invalid service address"),
        ({"Name": "x", "Meta": {"a": 1}}, "Request decode failed"),
        ({"Name": "x", "Meta": {"a b": "c"}}, "Key contains invalid characters"),
        ({"Name": "x", "Meta": {"": "c"}}, "Key cannot be blank"),
        ({"Name": "x", "Meta": {"k" * 129: "c"}}, "Key is too long (limit: 128 characters)"),
        ({"Name": "x", "Meta": {"consul-a": "b"}}, "Key prefix 'consul-' is reserved"),
        ({"Name": "x", "Meta": {"a": "c" * 513}}, "Value is too long (limit: 512 characters)"),
        ({"Name": "x", "Meta": {str(n): "" for n in range(65)}}, "cannot contain more than 64"),
        (
            {"Name": "x", "Weights": {"Passing": 0, "Warning": 1}},
            "Invalid Weights: Passing must be greater than 0",
        ),
        ({"Name": "x", "Weights": {"Passing": 1, "Warning": -1}}, "Invalid Weights: Warning must be"),
        ({"Name": "x", "Weights": {"Passing": 65536, "Warning": 1}}, "between 0 and 65535"),
        ({"Name": "x", "Check": {"TTL": "soon"}}, 'invalid duration "soon"'),
        ({"Name": "x", "Check": {"TTL": "5s", "Status": "odd"}}, "Status for checks must"),
        ({"Name": "x", "Check": {"Name": "n"}}, "TTL must be > 0 for TTL checks"),
        ({"Name": "x", "Check": {"HTTP": "http://a"}}, "Interval must be > 0"),
        (
            {"Name": "x", "Check": {"HTTP": "http://a", "Interval": "1s", "TTL": "1s"}},
            "cannot both be specified",
        ),
        ({"Name": "x", "Check": {"TTL": "5s", "ID": "y"}}, 'unknown field "ID"'),
        ([], "Request decode failed"),
        (b"", "Request decode failed: EOF"),
        (b"{", "Request decode failed"),
    ],
)
def test_a_registration_that_is_wrong_is_refused_with_the_reason(agent, body, text):
    """400 and a sentence, and nothing is registered."""
    answer = agent.put("/v1/agent/service/register", body)
    assert answer.status == 400
    assert text in answer.body.decode()
    assert "x" not in agent.consul.agent.services()


@pytest.mark.parametrize(
    "body",
    [
        {"name": "NAME", "tags": None, "port": 8080},
        {"Name": "NAME", "Port": -1},
        {"Name": "NAME", "Port": 70000},
        {"Name": "NAME", "Check": {}},
        {"Name": "NAME", "Check": {"TTL": "0s"}},
        {"Name": "NAME", "Address": "host.example", "enable_tag_override": True},
        {"Name": "NAME", "Checks": [{"ttl": "1m30s", "deregister_critical_service_after": "2m"}]},
    ],
)
def test_a_registration_that_is_odd_is_taken(agent, body):
    """What Consul takes is taken: names in any case, ports outside the range, empty checks."""
    name = agent.name("odd")
    answer = agent.put(
        "/v1/agent/service/register", {key: name if value == "NAME" else value for key, value in body.items()}
    )
    assert (answer.status, answer.body) == (200, b"")
    assert len(agent.get(f"/v1/health/service/{name}").json()) == 1


def test_an_unknown_instance_of_the_agent_is_not_found(agent):
    """404 with a sentence, where health answers an empty list."""
    answer = agent.get("/v1/agent/service/nobody-at-all")
    assert answer.status == 404
    assert b"nobody-at-all" in answer.body
