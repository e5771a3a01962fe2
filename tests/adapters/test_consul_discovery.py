"""Services as Consul knows them, through every kind of trouble."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from chassis.adapters.consul import ConsulAPI, ConsulDiscoveryOptions, ConsulOptions
from chassis.background import background
from chassis.core import ConfigError, Freshness, Reason, Snapshot, Source, Status
from chassis.discovery import EmptyAnswerHeld, EntriesSkipped, InstancesChanged, InstancesHeld
from tests.support.consul_script import Agent, Watch, entry
from tests.support.scripted_agent import Answer, ScriptedAgent
from tests.support.servers import ConsulServer
from tests.support.waiting import at_best_async, eventually

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def watch() -> AsyncIterator[Watch]:
    watch = Watch()
    yield watch
    await watch.close()


# answers, from a script


async def test_instances_of_every_status_are_told_and_changes_follow(watch: Watch) -> None:
    agent = Agent(entry("a"), entry("b", status="critical"))
    with ScriptedAgent(agent) as server:
        watching = watch(server.url)
        first = await watching.until(lambda each: True, "the first snapshot")
        assert [(each.id, each.status) for each in first.instances] == [
            ("a", Status.PASSING),
            ("b", Status.CRITICAL),
        ]
        assert (first.source, first.freshness, first.reason) == (Source.LIVE, Freshness.FRESH, None)
        agent.set(entry("b", status="critical"))
        told = await watching.until(lambda each: len(each.instances) == 1, "a to leave")
        assert told.reason is Reason.NO_PASSING
    asked = server.asked
    assert "passing" not in asked[0].query
    assert "index" not in asked[0].query
    assert asked[1].query == {"index": "10", "wait": "1000ms"}


async def test_case_6_the_last_instance_leaving_is_told_at_once(watch: Watch) -> None:
    agent = Agent(entry("a"))
    with ScriptedAgent(agent) as server:
        watching = watch(server.url)
        await watching.until(lambda each: len(each.instances) == 1, "a")
        agent.set()
        told = await watching.until(lambda each: not each.instances, "emptiness", 1.0)
        assert told.reason is Reason.NOT_REGISTERED
        assert told.freshness is Freshness.FRESH


async def test_case_4_an_index_that_went_back_is_asked_anew_and_loses_no_event(watch: Watch) -> None:
    agent = Agent(entry("a"), index=162)
    with ScriptedAgent(agent) as server:
        watching = watch(server.url)
        await watching.until(lambda each: True, "the first snapshot")
        agent.set(entry("b"), index=13)
        await watching.until(lambda each: "b" in [i.id for i in each.instances], "b")
        await eventually(lambda: server.asked[-1].query.get("index") == "13", what="the new index")
        agent.set(entry("c"))
        await watching.until(lambda each: "c" in [i.id for i in each.instances], "c")
    indexes = [each.query.get("index") for each in server.asked]
    assert indexes[:4] == [None, "162", None, "13"]


async def test_case_5_a_registry_that_came_back_blank_takes_no_instance_away(watch: Watch) -> None:
    agent = Agent(entry("a"), entry("b"), index=162)
    with ScriptedAgent(agent) as server:
        watching = watch(server.url)
        await watching.until(lambda each: True, "the first snapshot")
        agent.override = Answer("rpc error making call: EOF", 500)
        await watching.until(lambda each: each.freshness is Freshness.STALE, "staleness")
        agent.set(index=5)
        agent.override = None
        await eventually(lambda: watching.of(EmptyAnswerHeld), what="the empty answer to be held")
        agent.set(entry("b"))
        await eventually(lambda: watching.of(InstancesHeld), what="the other instance to be held")
        agent.set(entry("a"), entry("b"))
        await watching.until(lambda each: each.freshness is Freshness.FRESH, "freshness")
    assert all([each.id for each in told.instances] == ["a", "b"] for _, told in watching.heard)


async def test_case_7_an_empty_answer_is_believed_after_the_grace(watch: Watch) -> None:
    agent = Agent(entry("a"), index=162)
    with ScriptedAgent(agent) as server:
        watching = watch(server.url, empty_grace=1.5)
        await watching.until(lambda each: True, "the first snapshot")
        begun = time.monotonic()
        agent.set(index=5)
        told = await watching.until(lambda each: not each.instances, "the grace to end")
        assert 1.4 < time.monotonic() - begun < 4
        assert told.reason is Reason.NOT_REGISTERED


async def test_case_9_twenty_flips_at_once_make_few_snapshots_and_the_last_is_right(watch: Watch) -> None:
    agent = Agent(entry("a"))
    with ScriptedAgent(agent) as server:
        watching = watch(server.url)
        await watching.until(lambda each: True, "the first snapshot")
        for flip in range(20):
            agent.set(entry("a", status="critical" if flip % 2 else "passing"), entry(f"z{flip}"))
            await asyncio.sleep(0.01)
        await watching.until(lambda each: each.instances[-1].id == "z19", "the last flip")
        assert len(watching.heard) <= 5


async def test_case_10_the_same_data_in_another_order_is_not_told(watch: Watch) -> None:
    agent = Agent(entry("a"), entry("b"))
    with ScriptedAgent(agent) as server:
        watching = watch(server.url)
        await watching.until(lambda each: True, "the first snapshot")
        agent.set(entry("b"), entry("a"))
        await eventually(lambda: server.asked[-1].query.get("index") == "11", what="the new index")
        assert len(watching.heard) == 1


@pytest.mark.parametrize(
    "trouble",
    [
        Answer("No cluster leader", 500),
        Answer('[{"Service": {"ID": "x", "Service": "catalog", "Port": 1, "Address": "x"}}]', 500),
        Answer("[]", headers={"X-Consul-KnownLeader": "false"}),
        Answer("[]", headers={"X-Consul-LastContact": "60000"}),
        Answer('[{"Ser'),
        Answer('{"a": 1}'),
        Answer("[null, 7]"),
        Answer("[]", headers={"X-Consul-Results-Filtered-By-ACLs": "true"}),
        Answer("ACL not found", 403),
    ],
)
async def test_case_11_to_13_what_cannot_be_believed_keeps_the_snapshot(
    watch: Watch, trouble: Answer
) -> None:
    agent = Agent(entry("a"))
    with ScriptedAgent(agent) as server:
        watching = watch(server.url)
        await watching.until(lambda each: True, "the first snapshot")
        agent.override = trouble
        told = await watching.until(lambda each: each.freshness is Freshness.STALE, "staleness")
        assert [each.id for each in told.instances] == ["a"]
        agent.override = None
        await watching.until(lambda each: each.freshness is Freshness.FRESH, "freshness")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer("down", 500), Reason.REGISTRY_DOWN),
        (Answer("Permission denied", 403), Reason.ACL_FILTERED),
        (Answer("[]", headers={"X-Consul-Results-Filtered-By-ACLs": "true"}), Reason.ACL_FILTERED),
        (Answer("[]"), Reason.NOT_REGISTERED),
        (Answer(json.dumps([entry("a", status="critical")])), Reason.NO_PASSING),
        (Answer(json.dumps([entry("a", tags=("green",))])), Reason.FILTERED),
    ],
)
async def test_why_there_is_no_instance_is_told(watch: Watch, answer: Answer, reason: Reason) -> None:
    agent = Agent()
    agent.override = answer
    with ScriptedAgent(agent) as server:
        watching = watch(server.url, tags=("blue",) if reason is Reason.FILTERED else ())
        assert (await watching.until(lambda each: True, "the first snapshot")).reason is reason
        assert watching.discovery.describe()["catalog"]["reason"] == reason.value


async def test_what_was_closed_tells_of_nothing_any_more(watch: Watch) -> None:
    """Nor of the agent's end, if that follows at once."""
    with ScriptedAgent(Agent(entry("a"))) as server:
        watching = watch(server.url)
        await watching.until_ids("a")
        watching.subscription.close()

        async def close() -> list[str]:
            await watching.discovery.aclose()
            return list(watching.discovery._watched)

        assert await background.run(close, name="close") == []


async def test_only_instances_with_all_tags_are_told(watch: Watch) -> None:
    agent = Agent(entry("a", tags=("blue", "v2")), entry("b", tags=("blue",)))
    with ScriptedAgent(agent) as server:
        watching = watch(server.url, tags=("v2", "blue"))
        await watching.until(lambda each: True, "the first snapshot")
        assert watching.ids == ["a"]


async def test_case_12_an_entry_without_a_port_is_left_out_and_told_of_once(watch: Watch) -> None:
    agent = Agent(entry("a"), entry("bad", port=0))
    with ScriptedAgent(agent) as server:
        watching = watch(server.url)
        await watching.until(lambda each: True, "the first snapshot")
        agent.set(entry("b"), entry("bad", port=0))
        await watching.until(lambda each: [i.id for i in each.instances] == ["b"], "b")
        assert [each.details() for each in watching.of(EntriesSkipped)] == [
            {"source": "live", "skipped": 1, "example": "ValueError: 'bad' has no usable port: 0"}
        ]


async def test_case_8_an_agent_that_sends_no_index_is_asked_once_a_second_at_most(watch: Watch) -> None:
    with ScriptedAgent(lambda asked: Answer("[]")) as server:
        watch(server.url)
        # It goes on asking, or asking little would be no achievement.
        await eventually(lambda: len(server.asked) >= 2, what="a second question")
        await asyncio.sleep(1.2)
        assert len(server.asked) <= 5


async def test_stale_answers_are_asked_for_and_taken_as_far_as_wanted(watch: Watch) -> None:
    agent = Agent(entry("a"))
    agent.headers["X-Consul-LastContact"] = "5000"
    with ScriptedAgent(agent) as server:
        watching = watch(server.url, stale=True, max_stale=6.0)
        await watching.until(lambda each: each.freshness is Freshness.FRESH, "a fresh snapshot")
        assert server.asked[0].query == {"stale": ""}
        too_old = watch(server.url, stale=True, max_stale=4.0)
        assert (await too_old.until(lambda each: True, "the first snapshot")).freshness is Freshness.STALE


async def test_one_query_serves_all_listeners_and_ends_with_the_last(watch: Watch) -> None:
    agent = Agent(entry("a"))
    with ScriptedAgent(agent) as server:
        watching = watch(server.url, wait=0.5, idle=0)
        await watching.until(lambda each: True, "the first snapshot")
        heard: list[Snapshot] = []
        second = watching.discovery.subscribe("catalog", heard.append)
        assert len(heard) == 1
        assert len(server.asked) <= 2
        second.close()
        watching.subscription.close()
        assert watching.discovery.describe() == {}
        asked = len(server.asked)
        await asyncio.sleep(0.8)
        assert len(server.asked) <= asked + 1


@pytest.mark.parametrize("options", [{"wait": 0}, {"empty_grace": -1}, {"max_stale": "x"}])
async def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        ConsulDiscoveryOptions(**options)


# a real agent


async def put(api: ConsulAPI, name: str, service: str, *, port: int = 80) -> None:
    await api.register_service({"Name": service, "ID": name, "Address": "10.0.0.1", "Port": port})


async def test_a_change_is_seen_within_milliseconds(consul_server: ConsulServer, watch: Watch) -> None:
    watching = watch(consul_server.url, "discovery-quick")
    await watching.until(lambda each: True, "the first snapshot")
    async with ConsulAPI(ConsulOptions(url=consul_server.url)) as api:
        ports = iter((80, 81, 82))

        async def change() -> float:
            port = next(ports)
            if port > 80:
                await asyncio.sleep(2.0)  # after a burst a watcher asks once a second
            await put(api, "dq:1", "discovery-quick", port=port)
            done = time.monotonic()
            await watching.until(lambda each: [i.port for i in each.instances] == [port], "the change")
            return watching.heard[-1][0] - done

        await at_best_async(change, 0.25, "the change")
        await api.service_maintenance("dq:1", True)
        told = await watching.until(lambda each: each.reason is Reason.NO_PASSING, "maintenance")
        assert told.instances[0].status is Status.MAINTENANCE
        await api.service_maintenance("dq:1", False)
        await watching.until(lambda each: each.reason is None, "the end of maintenance")
        await api.deregister_service("dq:1")
        await watching.until(lambda each: each.reason is Reason.NOT_REGISTERED, "its leaving")


async def test_case_1_and_5_an_agent_killed_and_back_blank(
    own_consul_server: ConsulServer, watch: Watch
) -> None:
    watching = watch(own_consul_server.url, "held")
    async with ConsulAPI(ConsulOptions(url=own_consul_server.url)) as api:
        await put(api, "h:1", "held")
        await watching.until(lambda each: len(each.instances) == 1, "the instance")
        own_consul_server.kill()
        # By the connection's end, long before the query's, which may wait for 30 s.
        await watching.until(lambda each: each.freshness is Freshness.STALE, "staleness", 5)
        assert watching.ids == ["h:1"]
        await asyncio.to_thread(own_consul_server.start)
        await eventually(lambda: watching.of(EmptyAnswerHeld), 20, "the empty answer to be held")
        assert watching.ids == ["h:1"]
    async with ConsulAPI(ConsulOptions(url=own_consul_server.url)) as api:
        await put(api, "h:1", "held")
        await watching.until(lambda each: each.freshness is Freshness.FRESH, "freshness", 15)
    assert all(told.instances for _, told in watching.heard[1:])


async def test_case_2_an_agent_that_is_stopped_tells_no_change(
    own_consul_server: ConsulServer, watch: Watch
) -> None:
    """It answers the query under way with what it has, and is gone."""
    watching = watch(own_consul_server.url, "left")
    async with ConsulAPI(ConsulOptions(url=own_consul_server.url)) as api:
        await put(api, "l:1", "left")
        await watching.until_ids("l:1")
    # An event follows the snapshot it is about, in the background thread.
    await eventually(lambda: watching.of(InstancesChanged), what="the event")
    changes = watching.of(InstancesChanged)
    await asyncio.to_thread(own_consul_server.stop)
    await watching.until(lambda told: told.freshness is Freshness.STALE, "staleness", 5)
    assert watching.ids == ["l:1"]
    assert watching.of(InstancesChanged) == changes


async def test_case_3_an_agent_that_hangs_is_noticed_and_forgiven(
    own_consul_server: ConsulServer, watch: Watch
) -> None:
    watching = watch(own_consul_server.url, "hung", wait=1.0)
    async with ConsulAPI(ConsulOptions(url=own_consul_server.url)) as api:
        await put(api, "h:1", "hung")
        await watching.until(lambda each: len(each.instances) == 1, "the instance")
        own_consul_server.pause()
        try:
            await watching.until(lambda each: each.freshness is Freshness.STALE, "staleness", 6)
            assert watching.ids == ["h:1"]
        finally:
            own_consul_server.resume()
        await watching.until(lambda each: each.freshness is Freshness.FRESH, "freshness", 15)
