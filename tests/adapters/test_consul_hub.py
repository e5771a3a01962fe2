"""One watch per question in a process, a limited number of them, and asking beyond that."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from chassis.adapters.consul import ConsulAPI, ConsulOptions, ConsulRegistrar
from chassis.adapters.consul._hub import Following, ServiceQuery, Told, hub
from chassis.background import background
from chassis.core import Freshness, Reason, Registration, Snapshot
from chassis.discovery import RegistryCrowded, Wake, WatchFailed, WatchLimitNear
from tests.support.consul_script import Agent, Watch, entry
from tests.support.scripted_agent import Answer, Asked, ScriptedAgent
from tests.support.servers import ConsulServer
from tests.support.waiting import at_best_async, eventually, wait_until

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def watch() -> AsyncIterator[Watch]:
    watch = Watch()
    yield watch
    await watch.close()


class Follower:
    """Follows a question on the background loop, as a registrar does."""

    def __init__(self, url: str, **query: Any) -> None:
        self.told: list[Told] = []
        self.raises = False
        self._options = ConsulOptions(url=url, timeout=1.0)
        self._query = ServiceQuery(**{"service": "catalog", **query})
        self._following: Following | None = None

    async def follow(self, **how: Any) -> None:
        async def begin() -> Following:
            return hub.follow(self._options, self._query, self._take, **how)

        self._following = await background.run(begin, name="follow")

    @property
    def mode(self) -> str:
        assert self._following is not None
        return self._following.mode

    async def close(self) -> None:
        async def end() -> None:
            if self._following is not None:
                self._following.close()

        await background.run(end, name="leave")

    def _take(self, told: Told) -> None:
        if self.raises:
            raise RuntimeError("a defect")
        self.told.append(told)


async def test_one_question_is_asked_once_however_many_ask_it(watch: Watch) -> None:
    agent = Agent(entry("a"))
    with ScriptedAgent(agent) as server:
        # Two applications, of which one wants only some of the instances, and a registrar.
        first, second = watch(server.url), watch(server.url, tags=("blue",))
        follower = Follower(server.url)
        await follower.follow()
        await first.until_ids("a")
        assert (await second.until(lambda told: True, "the second")).reason is Reason.FILTERED
        await eventually(lambda: agent.blocked == 1, what="the blocking query")
        agent.set(entry("a", tags=("blue",)))
        await second.until_ids("a")
        await eventually(lambda: len(follower.told) >= 2, what="the registrar's answer")
        assert agent.most_blocked == 1
        assert [each.query.get("index") for each in server.asked if "wait" in each.query][:2] == ["10", "11"]
        await follower.close()


async def test_a_registrar_and_a_client_of_one_service_share_one_watch(watch: Watch) -> None:
    agent = Agent(entry("a"))
    with ScriptedAgent(lambda asked: agent(asked) if "health" in asked.path else Answer("{}")) as server:
        watching = watch(server.url)
        await watching.until_ids("a")
        registration = Registration(service="catalog", id="a", host="10.0.0.1", port=80)
        registered = await ConsulRegistrar(watching.api).register(registration)
        await eventually(lambda: registered.confirmed, what="the registration")
        agent.set(entry("a"), entry("b"))
        await watching.until_ids("a", "b")
        first = [each for each in server.asked if "health" in each.path and "wait" not in each.query]
        assert len(first) == 1
        await registered.deregister()


async def test_another_question_another_watch(watch: Watch) -> None:
    agent = Agent(entry("a"))
    with ScriptedAgent(agent) as server:
        first, second = watch(server.url), watch(server.url, filter="Service.Port == 80")
        await first.until_ids("a")
        await second.until_ids("a")
        await eventually(lambda: agent.blocked == 2, what="two blocking queries")
        assert {each.query.get("filter") for each in server.asked} == {None, "Service.Port == 80"}


async def test_who_comes_later_is_told_at_once_what_the_others_know(watch: Watch) -> None:
    agent = Agent(entry("a"))
    with ScriptedAgent(agent) as server:
        watching = watch(server.url)
        await watching.until_ids("a")
        follower = Follower(server.url)
        await follower.follow()
        (told,) = follower.told
        assert told.observation.answer is not None
        assert len(told.observation.answer.value) == 1
        # It shows how things stand; it is not the change that it was to the others.
        assert told.observation.wake is not Wake.CHANGED
        agent.override = Answer("No cluster leader", 500)
        await eventually(lambda: follower.told[-1].observation.error, what="the trouble")
        late = Follower(server.url)
        await late.follow()
        # The trouble goes on meanwhile, and may be told of once more.
        assert [each.observation.error is None for each in late.told][:2] == [True, False]
        await follower.close()
        await late.close()


async def test_the_shortest_wait_holds_and_the_last_to_leave_ends_the_watch() -> None:
    agent = Agent(entry("a"))
    with ScriptedAgent(agent) as server:
        patient, hasty = Follower(server.url), Follower(server.url)
        await patient.follow(wait=20.0)
        await hasty.follow(wait=0.8)
        await eventually(lambda: agent.blocked, what="a blocking query")
        assert [each.query["wait"] for each in server.asked if "wait" in each.query] == ["800ms"]
        watches = hub.watching
        await hasty.close()
        await hasty.close()
        assert hub.watching == watches
        await patient.close()
        # The query under way is not abandoned: the agent would hold its connection all the same.
        assert agent.blocked == 1
        await eventually(lambda: hub.watching == watches - 1, what="the end of the watch")
        asked = len(server.asked)
        await asyncio.sleep(0.3)
        assert len(server.asked) == asked


async def test_a_follower_with_a_defect_harms_no_other(watch: Watch) -> None:
    agent = Agent(entry("a"))
    with ScriptedAgent(agent) as server:
        watching = watch(server.url)
        broken = Follower(server.url)
        broken.raises = True
        await broken.follow()
        agent.set(entry("b"))
        await watching.until_ids("b")
        assert any("follower: RuntimeError" in each.details()["error"] for each in watching.of(WatchFailed))
        await broken.close()


async def test_beyond_the_limit_services_are_asked_once_a_second_of_the_agents_cache(watch: Watch) -> None:
    agent = Agent(entry("a"))
    with ScriptedAgent(agent) as server:
        watching = [watch(server.url, f"s{number}", max_watches=4) for number in range(6)]
        for each in watching:
            await each.until_ids("a")
        await eventually(lambda: agent.blocked == 4, what="the blocking queries allowed")
        begun = len(server.asked)
        modes = sorted(each.described["mode"] for each in watching)
        # Two of the four ring when anything changes, for those that are not watched.
        assert modes == ["blocking"] * 2 + ["cached"] * 4
        agent.set(entry("a"), entry("b"))
        for each in watching:
            await each.until_ids("a", "b")
        assert agent.most_blocked == 4
        polls = [each for each in server.asked[begun:] if "cached" in each.query]
        assert polls
        assert not any("wait" in each.query for each in polls)
        assert [each.details() for each in watching[0].of(WatchLimitNear)] == [{"open": 4, "limit": 4}]


async def test_a_watch_that_asks_for_no_limit_keeps_to_the_one_of_the_others(watch: Watch) -> None:
    """A registration watches its own service; it must not take one query more than was allowed."""
    agent = Agent(entry("a"))
    with ScriptedAgent(agent) as server:
        watching = [watch(server.url, f"s{number}", max_watches=4) for number in range(3)]
        for each in watching:
            await each.until_ids("a")
        await eventually(lambda: agent.blocked == 4, what="the blocking queries allowed")
        own = Follower(server.url, service="own")
        await own.follow()
        await eventually(lambda: own.told, what="its first answer")
        assert own.mode == "cached"
        await asyncio.sleep(0.2)
        assert agent.most_blocked == 4
        await own.close()


@pytest.mark.integration  # polling takes seconds
async def test_a_polled_service_is_watched_when_a_place_comes_free(watch: Watch) -> None:
    agent = Agent(entry("a"))
    with ScriptedAgent(agent) as server:
        first = watch(server.url, "first", max_watches=3, idle=0, wait=0.8)
        await first.until_ids("a")
        second = watch(server.url, "second", max_watches=3, wait=2.0)
        await second.until_ids("a")
        assert second.described["mode"] == "cached"
        first.subscription.close()
        await eventually(lambda: second.described["mode"] == "blocking", what="the place to be taken")
        agent.set(entry("b"))
        await second.until_ids("b")
        assert agent.most_blocked == 3


def rings(asked: Asked) -> bool:
    return asked.path in ("/v1/health/state/any", "/v1/catalog/services")


@pytest.mark.integration  # it takes seconds
async def test_while_nothing_changes_a_polled_service_is_not_asked_and_then_at_once(watch: Watch) -> None:
    agent = Agent(entry("a"))
    agent.patience = 10.0
    with ScriptedAgent(agent) as server:
        watching = watch(server.url, max_watches=2)
        await watching.until_ids("a")
        await eventually(lambda: agent.blocked == 2, what="both of those that ring")
        # What may have changed before they were there is asked for once more.
        await asyncio.sleep(2.6)
        asked = [each for each in server.asked if not rings(each)]
        await asyncio.sleep(1.2)
        assert [each for each in server.asked if not rings(each)] == asked
        names = iter("bcd")

        async def change() -> float:
            name = next(names)
            if name != "b":
                await asyncio.sleep(2.0)  # it is quiet again, and nothing is asked
            begun = time.monotonic()
            agent.set(entry(name))
            await watching.until_ids(name)
            return watching.heard[-1][0] - begun

        await at_best_async(change, 0.5, "the change")
        assert agent.most_blocked == 2


@pytest.mark.integration  # it takes seconds
@pytest.mark.parametrize("broken", ["/v1/health/state/any", "/v1/catalog/services"])
async def test_where_nothing_can_ring_a_polled_service_is_asked_once_a_second(
    watch: Watch, broken: str
) -> None:
    agent, polls = Agent(entry("a")), []

    def script(asked: Asked) -> Answer:
        if not rings(asked):
            polls.append(time.monotonic())
        return Answer("Permission denied", 403) if asked.path == broken else agent(asked)

    with ScriptedAgent(script) as server:
        watching = watch(server.url, max_watches=2)
        await watching.until_ids("a")
        await eventually(lambda: len(polls) >= 4, 10, "it to be asked again and again")
        # The bell may have rung once before it was known to be broken.
        assert polls[3] - polls[0] >= 2.0


@pytest.mark.integration  # polling takes seconds
@pytest.mark.parametrize("status", [400, 501])
async def test_an_agent_without_a_cache_is_asked_without_it(watch: Watch, status: int) -> None:
    agent = Agent(entry("a"))

    def script(asked: Asked) -> Answer:
        return Answer("no cache here", status) if "cached" in asked.query else agent(asked)

    with ScriptedAgent(script) as server:
        watching = watch(server.url, max_watches=0)
        await watching.until_ids("a")
        assert watching.described["mode"] == "polled"
        agent.set(entry("b"))
        await watching.until_ids("b")
        assert sum("cached" in each.query for each in server.asked) == 1
        assert agent.most_blocked == 0


@pytest.mark.integration  # polling takes seconds
async def test_a_cache_that_lost_its_servers_is_not_believed_for_long(watch: Watch) -> None:
    agent = Agent(entry("a"))
    with ScriptedAgent(agent) as server:
        watching = watch(server.url, max_watches=0, max_stale=20.0)
        await watching.until_ids("a")
        agent.headers["Age"] = "21"
        await eventually(lambda: watching.described["freshness"] == "stale", what="staleness")
        assert "cache has not heard from a Consul server for 21 s" in watching.described["error"]
        agent.headers["Age"] = "20"
        await eventually(lambda: watching.described["freshness"] == "fresh", what="freshness")


@pytest.mark.integration  # polling takes seconds
@pytest.mark.parametrize("status", [0, 429])
async def test_case_14_an_agent_that_refuses_connections_is_asked_without_holding_any(
    watch: Watch, status: int
) -> None:
    """Dropped without a word, as old agents do, or 429, as newer ones answer."""
    agent = Agent(entry("a"))

    def script(asked: Asked) -> Answer:
        if "wait" not in asked.query:
            return agent(asked)
        if status:
            return Answer("Your IP is issuing too many concurrent connections", status)
        raise ConnectionResetError

    with ScriptedAgent(script) as server:
        watching = watch(server.url)
        await watching.until_ids("a")
        await eventually(lambda: watching.of(RegistryCrowded), what="the event")
        await eventually(lambda: watching.described["mode"] == "cached", what="the polling")
        agent.set(entry("b"))
        await watching.until_ids("b")
        assert len(watching.of(RegistryCrowded)) == 1


@pytest.mark.integration  # waiting takes seconds
async def test_case_14_an_agent_that_refuses_short_questions_is_given_connections_back(watch: Watch) -> None:
    """What waits at it keeps its connection from question to question; who asks anew needs another."""
    agent = Agent(entry("a"))
    holders: set[str] = set()
    full, lock = threading.Event(), threading.Lock()

    def script(asked: Asked) -> Answer:
        if not asked.path.startswith("/v1/health/service/"):
            return agent(asked)
        with lock:
            if "index" in asked.query:
                holders.add(asked.path)
            else:
                holders.discard(asked.path)
                if full.is_set() and holders:
                    raise ConnectionResetError
        return agent(asked)

    with ScriptedAgent(script) as server:
        # Four blocking queries are two services and two that tell of changes.
        watching = [watch(server.url, f"s{number}", wait=1.0, max_watches=4) for number in range(4)]
        for each in watching:
            await each.until(lambda told: told.freshness is Freshness.FRESH, "an answer")
        await eventually(lambda: len(holders) == 2, what="two that wait")
        full.set()
        await eventually(lambda: not holders, 20, "them to ask without waiting")
        assert watching[0].of(RegistryCrowded)
        for each in watching:
            await each.until(lambda told: told.freshness is Freshness.FRESH, "an answer", 20)


@pytest.mark.integration  # waiting takes seconds
async def test_case_14_who_was_answered_first_waits_for_a_change_longer_and_longer(watch: Watch) -> None:
    """Until then others may need the connection for their first answer."""
    agent, waits = Agent(entry("a")), []

    def script(asked: Asked) -> Answer:
        if asked.path.startswith("/v1/health/service/") and "index" in asked.query:
            waits.append(asked.query["wait"])
        return agent(asked)

    with ScriptedAgent(script) as server:
        watching = watch(server.url, wait=3.0)
        await watching.until_ids("a")
        await eventually(lambda: len(waits) >= 3, 15, "three questions")
        assert waits[:3] == ["1000ms", "2000ms", "3000ms"]


async def test_case_42_five_hundred_services_are_known_with_fifty_queries(
    own_consul_server: ConsulServer, watch: Watch
) -> None:
    """And when nobody listens any more nothing is left of them but what they knew."""
    others = hub.watching
    async with ConsulAPI(ConsulOptions(url=own_consul_server.url)) as api:
        for number in range(500):
            await api.register_service({"Name": f"s{number}", "Address": "10.0.0.1", "Port": 80})
        watching = watch(own_consul_server.url, "s0", wait=1.0)
        heard: dict[str, Snapshot] = {}
        subscriptions = [
            watching.discovery.subscribe(f"s{number}", lambda told: heard.update({told.service: told}))
            for number in range(500)
        ]
        await eventually(lambda: len(heard) == 500 and all(each.instances for each in heard.values()), 30)
        modes = [each["mode"] for each in watching.discovery.describe().values()]
        assert (modes.count("blocking"), modes.count("cached")) == (48, 452)
        # Of those that are asked once a second, too, a change is told.
        last = next(name for name, told in watching.discovery.describe().items() if told["mode"] == "cached")
        await api.deregister_service(last)
        await eventually(lambda: not heard[last].instances, 10, "the change of a polled one")
        for each in subscriptions:
            each.close()
        await watching.close()
        assert watching.discovery.describe() == {}
        await eventually(lambda: hub.watching <= others, 10, "the watches to end")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
async def test_case_40_a_forked_child_begins_watches_of_its_own(watch: Watch) -> None:
    agent = Agent(entry("a"))
    with ScriptedAgent(agent) as server:
        watching = watch(server.url)
        await watching.until_ids("a")
        child = os.fork()
        if child == 0:
            try:
                wait_until(lambda: hub.watching == 1 and watching.ids == ["b"], what="the child's own answer")
                os._exit(0)
            except BaseException:
                os._exit(1)
        await eventually(lambda: agent.blocked == 2, what="the child's query beside the parent's")
        agent.set(entry("b"))
        status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status[1]) == 0
        await watching.until_ids("b")


@pytest.mark.integration  # polling takes seconds
async def test_a_watcher_asks_at_most_once_a_second_whatever_it_is_answered(watch: Watch) -> None:
    """Changes, emptiness that has to be explained, and errors between: after a burst one a second."""
    turns = iter(range(10**6))

    def script(asked: Asked) -> Answer:
        turn = next(turns)
        if turn % 4 == 3:
            return Answer("No cluster leader", 500)
        entries = [entry("a")] if turn % 2 else []
        return Answer(json.dumps(entries), headers={"X-Consul-Index": str(turn + 1)})

    with ScriptedAgent(script) as server:
        begun = time.monotonic()
        watch(server.url, filter="x")
        await eventually(lambda: len(server.asked) >= 3, what="the first questions")
        await asyncio.sleep(2.6)
        asked = len(server.asked)
        assert asked <= 3 + (time.monotonic() - begun) + 1


async def test_whether_a_token_may_read_is_asked_and_understood() -> None:
    answers = {
        "yes": Answer('[{"Allow": true}]'),
        "no": Answer('[{"Allow": false}]'),
        "acls-disabled": Answer("ACL support disabled", 401),
        "unknown": Answer("no such thing", 404),
        "garbage": Answer('{"Allow": true}'),
        "none": Answer("[]"),
    }

    def script(asked: Asked) -> Answer:
        (question,) = json.loads(asked.body)
        assert (asked.method, asked.path) == ("POST", "/v1/internal/acl/authorize")
        assert (question["Resource"], question["Access"]) == ("service", "read")
        return answers[question["Segment"]]

    with ScriptedAgent(script) as server:
        async with ConsulAPI(ConsulOptions(url=server.url)) as api:
            told = {name: await api.may_read(name) for name in answers}
    assert told == {
        "yes": True, "no": False, "acls-disabled": True, "unknown": None, "garbage": None, "none": None
    }  # fmt: skip


async def test_case_13_an_old_agent_that_hides_instances_without_a_word_is_found_out(watch: Watch) -> None:
    agent = Agent(entry("a"))

    def script(asked: Asked) -> Answer:
        return Answer('[{"Allow": false}]') if asked.method == "POST" else agent(asked)

    with ScriptedAgent(script) as server:
        watching = watch(server.url)
        await watching.until_ids("a")
        # Its rights are taken away, and then something changes: 200, nothing, an ordinary wake.
        agent.set()
        await eventually(lambda: watching.described["freshness"] == "stale", what="staleness")
        assert watching.ids == ["a"]
        assert "service:read" in watching.described["error"]
        assert watching.described["errors"] == {"acl_filtered": 1}
        nobody = watch(server.url, "orders")
        assert (await nobody.until(lambda told: True, "the reason")).reason is Reason.ACL_FILTERED


async def test_an_expression_that_matches_nothing_is_told_apart_from_nothing_registered(watch: Watch) -> None:
    agent = Agent(entry("a"))

    def script(asked: Asked) -> Answer:
        if asked.query.get("filter") and not asked.path.endswith("unknown"):
            return Answer("[]", headers={"X-Consul-Index": "3"})
        return Answer("[]") if asked.path.endswith("unknown") else agent(asked)

    with ScriptedAgent(script) as server:
        filtered, unknown = watch(server.url, filter="x"), watch(server.url, "unknown", filter="x")
        assert (await filtered.until(lambda told: True, "the reason")).reason is Reason.FILTERED
        assert (await unknown.until(lambda told: True, "the reason")).reason is Reason.NOT_REGISTERED
