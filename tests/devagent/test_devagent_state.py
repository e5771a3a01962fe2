"""The agent's pure state under a clock the test moves: lapses, reaping, late outputs, indexes."""

import pytest

from chassis.devagent import DevAgent, Node
from chassis.devagent._definitions import parse_service
from chassis.devagent._errors import AgentError


class Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def agent(clock):
    return DevAgent(clock=clock)


def register(agent, name="orders", **body):
    agent.register(parse_service({"Name": name, **body}))


def check(agent, check_id="service:orders"):
    return next(each for _, each in agent.checks() if each.id == check_id)


def test_a_ttl_lapses_at_its_instant_and_not_before(agent, clock):
    """Passing until the last moment of the TTL, critical at its end."""
    register(agent, Check={"TTL": "10s"})
    agent.update_ttl("service:orders", "passing", "fine")
    assert agent.next_due() == clock.now + 10
    clock.advance(9.999)
    agent.advance()
    assert check(agent).status == "passing"
    clock.advance(0.001)
    agent.advance()
    assert check(agent).status == "critical"
    assert check(agent).shown_output == "TTL expired (last output before timeout follows): fine"


def test_a_heartbeat_begins_the_ttl_anew(agent, clock):
    """Beats closer than the TTL keep it passing for ever."""
    register(agent, Check={"TTL": "10s"})
    for _ in range(5):
        agent.update_ttl("service:orders", "passing", "")
        clock.advance(9)
        agent.advance()
        assert check(agent).status == "passing"


def test_a_late_heartbeat_still_shows_that_the_ttl_had_lapsed(agent, clock):
    """A beat that comes after the end is a change from critical, though nobody asked in between."""
    register(agent, Check={"TTL": "10s", "Status": "passing"})
    index = agent.catalog.service_index("orders")
    clock.advance(11)
    agent.update_ttl("service:orders", "passing", "")
    assert agent.catalog.service_index("orders") == index + 2


def test_a_service_critical_for_long_enough_is_reaped(agent, clock):
    """DeregisterCriticalServiceAfter counts from the moment it became critical."""
    register(agent, Check={"TTL": "10s", "DeregisterCriticalServiceAfter": "90s"})
    agent.update_ttl("service:orders", "passing", "")
    clock.advance(10)
    agent.advance()
    assert agent.next_due() == clock.now + 90
    clock.advance(89.9)
    agent.advance()
    assert agent.catalog.instances("orders")
    clock.advance(0.1)
    agent.advance()
    assert not agent.catalog.instances("orders")
    assert agent.next_due() is None


def test_no_service_is_reaped_in_less_than_a_minute(agent, clock):
    """Consul's least, whatever was asked for."""
    register(agent, Check={"TTL": "1s", "DeregisterCriticalServiceAfter": "2s"})
    clock.advance(1)
    agent.advance()
    clock.advance(59.9)
    agent.advance()
    assert agent.catalog.instances("orders")
    clock.advance(0.1)
    agent.advance()
    assert not agent.catalog.instances("orders")


def test_a_heartbeat_in_time_stops_the_reaping(agent, clock):
    """Whoever was critical and is back is not taken away by the old count."""
    register(agent, Check={"TTL": "10s", "DeregisterCriticalServiceAfter": "60s"})
    clock.advance(65)
    agent.update_ttl("service:orders", "passing", "")
    clock.advance(9)
    agent.advance()
    assert agent.catalog.instances("orders")


def test_a_whole_night_in_one_step(agent, clock):
    """A laptop that slept: lapses and reaps are done in one go, with both checks of one service."""
    register(
        agent,
        Checks=[
            {"TTL": "10s", "DeregisterCriticalServiceAfter": "60s", "Status": "passing"},
            {"TTL": "20s", "DeregisterCriticalServiceAfter": "60s", "Status": "passing"},
        ],
    )
    clock.advance(30_000)
    agent.advance()
    assert not agent.catalog.instances("orders")
    assert agent.next_due() is None


def test_an_output_alone_is_shown_minutes_later(agent, clock):
    """As in Consul: heartbeats with changing notes do not wake every watcher at each beat."""
    register(agent, Check={"TTL": "1h"})
    agent.update_ttl("service:orders", "passing", "one")
    index = agent.catalog.service_index("orders")
    agent.update_ttl("service:orders", "passing", "two")
    assert (check(agent).output, check(agent).shown_output) == ("two", "one")
    clock.advance(300)
    agent.advance()
    assert check(agent).shown_output == "two"
    assert agent.catalog.service_index("orders") == index + 1
    agent.update_ttl("service:orders", "passing", "three")
    agent.update_ttl("service:orders", "passing", "two")
    assert agent.next_due() == clock.now + 3600


def test_a_long_output_is_cut_with_its_length(agent):
    """4096 bytes are kept, and the sentence says of how many."""
    register(agent, Check={"TTL": "10s"})
    agent.update_ttl("service:orders", "passing", "x" * 5000)
    assert check(agent).output == "x" * 4096 + " ... (captured 4096 of 5000 bytes)"


def test_watchers_are_told_of_their_domain_only(agent):
    """Keys, services and health are told apart, and an ended watch is told nothing."""
    told = []
    ends = [
        agent.watch(domain, lambda domain=domain: told.append(domain))
        for domain in ("services", "health", "kv")
    ]
    register(agent, Check={"TTL": "10s"})
    assert told == ["services", "health"]
    told.clear()
    agent.update_ttl("service:orders", "passing", "")
    assert told == ["health"]
    told.clear()
    agent.put_key("k", b"v")
    assert told == ["kv"]
    told.clear()
    for end in ends:
        end()
    agent.deregister("orders")
    agent.delete_key("k")
    assert told == []


def test_a_service_that_takes_another_name_leaves_the_old_one(agent):
    """The watchers of both names are told."""
    register(agent, "orders", ID="one")
    old = agent.catalog.service_index("orders")
    register(agent, "bookings", ID="one")
    assert not agent.catalog.instances("orders")
    assert agent.catalog.service_index("orders") > old
    assert agent.catalog.service_index("bookings") > old


def test_what_only_the_catalog_has_is_not_the_agents_to_change(agent):
    """The cluster's own service and the node's liveness cannot be deregistered or beaten."""
    assert agent.services() == {}
    with pytest.raises(AgentError, match="Unknown service ID"):
        agent.deregister("consul")
    with pytest.raises(AgentError, match="Unknown check ID"):
        agent.update_ttl("serfHealth", "critical", "")


def test_a_maintenance_check_takes_no_heartbeat(agent):
    """Only its own call ends maintenance."""
    register(agent)
    agent.service_maintenance("orders", enable=True)
    with pytest.raises(AgentError, match="does not have associated TTL"):
        agent.update_ttl("_service_maintenance:orders", "passing", "")


def test_the_node_is_what_it_was_told_to_be(clock):
    """Name, address and datacenter are the caller's; the id is new in each agent."""
    one, two = (DevAgent(clock=clock, node=Node(name="laptop", datacenter="home")) for _ in range(2))
    assert (one.catalog.node.name, one.catalog.node.datacenter) == ("laptop", "home")
    assert one.catalog.node.id != two.catalog.node.id
