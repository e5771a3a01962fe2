"""Health and catalog with index and wait: what a watcher sees and when it wakes."""

import statistics
import time

import pytest

from tests.contract.differences import UNRELATED_LEAVING_WAKES_MISSING_SERVICE
from tests.support.waiting import at_best, wait_until

SAMPLES = 20


def test_health_answers_with_the_headers_a_watcher_needs(agent):
    """Index, leader and age; no sign of ACLs where there are none."""
    answer = agent.get(f"/v1/health/service/{agent.name('nobody')}")
    assert (answer.status, answer.json()) == (200, [])
    assert answer.index >= 1
    assert answer.headers["x-consul-knownleader"] == "true"
    assert answer.headers["x-consul-lastcontact"] == "0"
    assert answer.headers["content-type"] == "application/json"
    assert "x-consul-results-filtered-by-acls" not in answer.headers
    stale = agent.get(f"/v1/health/service/{agent.name('nobody')}?stale")
    assert stale.headers["x-consul-effective-consistency"] == "stale"


def test_passing_leaves_out_what_is_not_and_tags_choose(agent):
    """Warning is not passing; every tag asked for must be there, in any case."""
    name = agent.name("choose")
    for number, (status, tags) in enumerate(
        [("passing", ["blue", "v2"]), ("warning", ["blue"]), ("critical", ["green"])]
    ):
        agent.register(name, f"{name}:{number}", Tags=tags, Check={"TTL": "30s", "Status": status})

    def found(query):
        return [each["Service"]["ID"] for each in agent.get(f"/v1/health/service/{name}{query}").json()]

    assert found("") == [f"{name}:0", f"{name}:1", f"{name}:2"]
    assert found("?passing") == [f"{name}:0"]
    assert found("?passing=1") == [f"{name}:0"]
    assert found("?passing=false") == found("")
    assert found("?tag=blue") == [f"{name}:0", f"{name}:1"]
    assert found("?tag=BLUE&tag=v2") == [f"{name}:0"]
    assert found("?tag=none") == []
    assert found("?near=_agent&stale&dc=dc1") == found("")
    assert agent.get(f"/v1/catalog/service/{name}?tag=green").json()[0]["ServiceID"] == f"{name}:2"


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("?index=abc", 400, "Invalid index"),
        ("?index=-1", 400, "Invalid index"),
        ("?wait=soon", 400, "Invalid wait time"),
        ("?passing=maybe", 400, "Invalid value for ?passing"),
        ("?stale&consistent", 400, "Cannot specify ?stale with ?consistent, conflicting semantics."),
        ("?dc=nowhere", 500, "No path to datacenter"),
    ],
)
def test_health_refuses_what_it_cannot_read(agent, query, status, text):
    """A bad parameter is an error, never an empty list."""
    answer = agent.get(f"/v1/health/service/orders{query}")
    assert (answer.status, answer.body.decode().strip()) == (status, text)


def test_health_without_a_name_is_refused(agent):
    """An empty name is a mistake, not a service."""
    for path in ("/v1/health/service/", "/v1/catalog/service/"):
        answer = agent.get(path)
        assert (answer.status, answer.body) == (400, b"Missing service name")


def test_a_name_may_need_quoting(agent):
    """Spaces, slashes and other scripts in a name are found again."""
    name = agent.name("ünits a/b")
    agent.register(name)
    _, instances = agent.consul.health.service(name)
    assert [each["Service"]["Service"] for each in instances] == [name]


@pytest.mark.parametrize("index", [0, 1])
def test_index_zero_and_one_answer_at_once(agent, index):
    """The first read of a watcher does not wait."""
    began = time.monotonic()
    answer = agent.get(f"/v1/health/service/{agent.name('nobody')}?index={index}&wait=10s")
    assert answer.status == 200
    assert time.monotonic() - began < 5


HEALTH_CHANGES = {
    "a check fails": lambda agent, name: agent.consul.agent.check.ttl_fail(f"service:{name}"),
    "maintenance": lambda agent, name: agent.consul.agent.service.maintenance(name, "true"),
}
CATALOG_CHANGES = {
    "another instance": lambda agent, name: agent.register(name, f"{name}:2"),
    "a changed port": lambda agent, name: agent.register(name, Port=81),
    "it leaves": lambda agent, name: agent.consul.agent.service.deregister(name),
}


@pytest.mark.parametrize(
    ("path", "change"),
    [
        *(("/v1/health/service/{}", change) for change in (HEALTH_CHANGES | CATALOG_CHANGES).items()),
        *(("/v1/catalog/service/{}", change) for change in CATALOG_CHANGES.items()),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value.split("/")[2],
)
def test_a_change_wakes_the_watcher_with_the_new_state(agent, path, change):
    """Each change ends the wait at once, with a higher index."""
    name = agent.name("watched")
    agent.register(name, Port=80, Check={"TTL": "30s", "Status": "passing"})
    path = path.format(name)
    before = agent.get(path)
    blocked = agent.block(path, before.index)
    assert blocked.waiting
    change[1](agent, name)
    after, _ = blocked.answer()
    assert after.index > before.index
    assert after.body != before.body
    assert after.body == agent.get(path).body


@pytest.mark.parametrize("change", HEALTH_CHANGES.values(), ids=list(HEALTH_CHANGES))
def test_a_change_of_health_does_not_wake_the_watcher_of_the_catalog(agent, change):
    """The catalog says where instances are, not how they are."""
    name = agent.name("watched")
    agent.register(name, Check={"TTL": "30s", "Status": "passing"})
    path = f"/v1/catalog/service/{name}"
    before = agent.get(path)
    blocked = agent.block(path, before.index, "250ms")
    change(agent, name)
    assert blocked.answer()[0].body == before.body


def test_the_first_instance_wakes_who_waits_for_the_service(agent):
    """A watcher of a service that is not there yet hears of it at once."""
    name = agent.name("coming")
    path = f"/v1/health/service/{name}"
    blocked = agent.block(path, agent.get(path).index)
    agent.register(name)
    answer, _ = blocked.answer()
    assert len(answer.json()) == 1


def test_a_lapsing_ttl_wakes_the_watcher(agent):
    """Nobody has to ask for a dead process to be noticed."""
    name = agent.name("lapsing")
    agent.register(name, Check={"TTL": "200ms", "Status": "passing"})
    path = f"/v1/health/service/{name}?passing"

    def passing():
        agent.consul.agent.check.ttl_pass(f"service:{name}")
        answer = agent.get(path)
        return answer if answer.json() else None

    # Again where the TTL was over before it could be looked at.
    before = wait_until(passing, what="a heartbeat to be seen")
    after, _ = agent.block(path, before.index).answer()
    assert after.json() == []


def test_unrelated_services_wake_nobody(agent):
    """Registrations, heartbeats and departures of others leave a watcher in its wait."""
    name, other = agent.name("quiet"), agent.name("noisy")
    agent.register(name)
    path = f"/v1/health/service/{name}"
    index = agent.get(path).index
    blocked = agent.block(path, index, "250ms")
    agent.register(other, Check={"TTL": "30s"})
    agent.consul.agent.check.ttl_pass(f"service:{other}")
    agent.consul.agent.service.deregister(other)
    agent.consul.kv.put(agent.name("key"), "x")
    answer, _ = blocked.answer()
    assert answer.index == index


def test_others_arrivals_do_not_wake_who_waits_for_a_missing_service(agent):
    """The index of a missing service is that of the last service to vanish, not of every change."""
    gone = agent.name("gone")
    agent.register(gone)
    agent.consul.agent.service.deregister(gone)
    path = f"/v1/health/service/{agent.name('missing')}"
    index = agent.get(path).index
    blocked = agent.block(path, index, "250ms")
    other = agent.name("other")
    agent.register(other, Check={"TTL": "30s"})
    agent.consul.agent.check.ttl_pass(f"service:{other}")
    answer, _ = blocked.answer()
    assert (answer.index, answer.json()) == (index, [])


def test_a_vanishing_service_and_who_waits_for_a_missing_one(agent):
    """A difference: older agents wake every watcher of a missing service then."""
    # With a common beginning: an older agent watches the nearest name there is.
    other = agent.name("vanishing")
    agent.register(other)
    path = f"/v1/health/service/{agent.name('vanishing')}"
    woken = agent.expected(UNRELATED_LEAVING_WAKES_MISSING_SERVICE)
    wait = 10 if woken else 0.6
    index, began = agent.get(path).index, time.monotonic()
    blocked = agent.block(path, index, f"{wait}s")
    agent.consul.agent.service.deregister(other)
    _, at = blocked.answer()
    assert (at - began < wait) is woken


def test_a_wait_that_ends_gives_the_same_index(agent):
    """Nothing changed: the same answer, after the wait and at most a sixteenth more."""
    name = agent.name("still")
    agent.register(name)
    path = f"/v1/health/service/{name}"
    before = agent.get(path)

    def waited():
        began = time.monotonic()
        answer = agent.get(f"{path}?index={before.index}&wait=400ms")
        took = time.monotonic() - began
        assert took >= 0.4
        assert (answer.index, answer.body) == (before.index, before.body)
        return took

    at_best(waited, 0.4 * 17 / 16 + 0.5, "the wait")


def test_an_index_from_the_future_waits_and_gives_the_real_one(agent):
    """A watcher that outlived a restart learns the lower index only at the end of its wait."""
    name = agent.name("future")
    agent.register(name)
    path = f"/v1/health/service/{name}"
    real = agent.get(path).index
    began = time.monotonic()
    answer = agent.get(f"{path}?index=999999999&wait=250ms")
    assert time.monotonic() - began >= 0.25
    assert answer.index == real


def test_the_list_of_services_wakes_for_registrations_only(agent):
    """A service that comes or leaves does; a heartbeat does not."""
    name = agent.name("listed")
    agent.register(name, Check={"TTL": "30s"})
    path = "/v1/catalog/services"
    index = agent.get(path).index
    blocked = agent.block(path, index, "250ms")
    agent.consul.agent.check.ttl_pass(f"service:{name}")
    answer, _ = blocked.answer()
    assert answer.index == index
    blocked = agent.block(path, index)
    other = agent.name("listed")
    agent.register(other)
    answer, _ = blocked.answer()
    assert other in answer.json()


def test_there_is_one_node_that_nothing_changes(agent):
    """The node is listed, and registrations do not wake its watchers."""
    answer = agent.get("/v1/catalog/nodes")
    (node,) = answer.json()
    assert node["Datacenter"] == "dc1"
    assert node["Node"] == agent.consul.agent.self()["Config"]["NodeName"]
    blocked = agent.block("/v1/catalog/nodes", answer.index, "250ms")
    agent.register(agent.name("on-it"))
    after, _ = blocked.answer()
    assert after.index == answer.index


def test_the_agent_leads_itself(agent):
    """Clients ask for the leader to learn whether the registry can be used."""
    assert agent.consul.status.leader() in agent.consul.status.peers()
    assert agent.consul.agent.self()["Config"]["Datacenter"] == "dc1"
    assert "consul" in agent.consul.catalog.services()[1]
    assert len(agent.consul.health.service("consul", passing=True)[1]) == 1


def test_a_write_wakes_a_blocked_query_within_20_ms(agent):
    """The median of twenty changes, from before the write to the watcher's answer."""
    name = agent.name("fast")
    agent.register(name, Check={"TTL": "30s"})
    path = f"/v1/health/service/{name}"

    def median():
        latencies = []
        for number in range(SAMPLES):
            blocked = agent.block(path, agent.get(path).index)
            began = time.monotonic()
            agent.put(f"/v1/agent/check/{'fail' if number % 2 else 'pass'}/service:{name}")
            _, at = blocked.answer()
            latencies.append(at - began)
        return statistics.median(latencies)

    at_best(median, 0.020, "the wake")
