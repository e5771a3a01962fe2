"""One service: further datacenters, selection, what is kept on disk, what expires, what is doubted."""

from __future__ import annotations

import asyncio
import json
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chassis.adapters.consul import ConsulDiscoveryOptions
from chassis.background import background
from chassis.core import ConfigError, Freshness, Reason, Snapshot, Source
from chassis.discovery import (
    DiscoveryExpired,
    DiscoveryStale,
    EmptyAnswerAccepted,
    EmptyAnswerHeld,
    SnapshotFileUnusable,
    SnapshotRestored,
)
from tests.support.consul_script import Agent, Place, Watch, entry
from tests.support.ports import free_port
from tests.support.scripted_agent import Answer, ScriptedAgent
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def watch() -> AsyncIterator[Watch]:
    watch = Watch()
    yield watch
    await watch.close()


def places(told: Snapshot) -> list[tuple[str, int]]:
    return [(each.id, each.priority) for each in told.instances]


# further datacenters


async def test_case_33_another_datacenter_takes_over_and_hands_back(watch: Watch) -> None:
    agent = Agent(entry("a"))
    agent.others = {"dc2": Place(entry("b", datacenter="dc2")), "dc3": Place(entry("c"), index=500)}
    with ScriptedAgent(agent) as server:
        watching = watch(server.url, datacenters=("dc2", "dc3"))
        assert places(await watching.until_ids("a")) == [("a", 0)]
        # As long as all is well here, nobody asks further away.
        assert {each.query.get("dc") for each in server.asked} == {None}
        begun = time.monotonic()
        agent.set(entry("a", status="critical"))
        told = await watching.until_ids("a", "b", "c")
        assert watching.heard[-1][0] - begun < 1
        assert places(told) == [("a", 0), ("b", 1), ("c", 2)]
        assert told.reason is None
        agent.set(entry("a"))
        back = await watching.until(lambda told: told.instances[0].status.value == "passing", "the way back")
        # The others are watched on for a while; the first tier is whole, so nobody calls them.
        assert back.reason is None

        # Each has an index of its own.
        def waiting() -> dict[str | None, str]:
            return {
                each.query.get("dc"): each.query["index"] for each in server.asked if "wait" in each.query
            }

        await eventually(lambda: {"dc2", "dc3"} <= waiting().keys(), what="both to be waited on")
        assert (waiting()["dc2"], waiting()["dc3"]) == ("10", "500")


async def test_case_33_a_datacenter_that_cannot_be_reached_disturbs_no_other(watch: Watch) -> None:
    agent = Agent(entry("a", status="critical"))
    agent.others = {"dc2": Place(), "dc3": Place(entry("c"))}
    agent.others["dc2"].override = Answer("No path to datacenter", 500)
    with ScriptedAgent(agent) as server:
        watching = watch(server.url, datacenters=("dc2", "dc3"))
        told = await watching.until_ids("a", "c")
        assert told.freshness is Freshness.FRESH
        await eventually(lambda: watching.of(DiscoveryStale), what="the trouble to be told of")
        troubled = {each.subject: each.details()["error"] for each in watching.of(DiscoveryStale)}
        assert troubled.keys() == {"catalog@dc2"}, troubled
        described = watching.described
        assert described["freshness"] == "fresh"
        assert described["error"] is None
        assert "No path to datacenter" in described["datacenters"]["dc2"]["error"]
        assert described["datacenters"]["dc3"]["error"] is None
        agent.set(entry("a"))
        await watching.until(lambda told: told.instances[0].status.value == "passing", "the own one's change")


async def test_case_33_each_datacenter_keeps_its_own_last_known_good(watch: Watch) -> None:
    agent = Agent(entry("a", status="warning"))
    far = Place(entry("b"))
    agent.others = {"dc2": far}
    with ScriptedAgent(agent) as server:
        watching = watch(server.url, datacenters=("dc2",))
        await watching.until_ids("a", "b")
        far.set(index=3)  # it came back blank
        await eventually(lambda: watching.of(EmptyAnswerHeld), what="its empty answer to be held")
        assert watching.ids == ["a", "b"]
        assert watching.newest.freshness is Freshness.FRESH
        agent.set()  # and here the last instance leaves, as an ordinary change
        await watching.until_ids("b")
        assert watching.newest.reason is None
        assert [each.subject for each in watching.of(EmptyAnswerHeld)] == ["catalog@dc2"]


async def test_with_preconnect_the_others_are_watched_always(watch: Watch) -> None:
    agent = Agent(entry("a"))
    agent.others = {"dc2": Place(entry("b"))}
    with ScriptedAgent(agent) as server:
        watching = watch(server.url, datacenters=("dc2",), preconnect=True)
        assert places(await watching.until_ids("a", "b")) == [("a", 0), ("b", 1)]


@pytest.mark.parametrize(
    "options",
    [
        {"datacenters": ("dc2", "dc2")},
        {"datacenters": ("",)},
        {"datacenters": "dc2"},
        {"tags": "v2"},
        {"tags": ("",)},
        {"max_watches": -1},
        {"expire_after": 0},
        {"idle": -1},
    ],
)
async def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        ConsulDiscoveryOptions(**options)


# selection


async def test_only_instances_with_the_wanted_meta_are_told(watch: Watch) -> None:
    agent = Agent(entry("a", meta={"version": "1"}), entry("b", meta={"version": "2", "x": "y"}))
    with ScriptedAgent(agent) as server:
        watching = watch(server.url, meta={"version": "2"})
        await watching.until_ids("b")
        agent.set(entry("a", meta={"version": "1"}))
        assert (await watching.until_ids()).reason is Reason.FILTERED


# what was known before


async def test_case_15_a_start_without_consul_goes_by_what_is_kept_on_disk(
    watch: Watch, tmp_path: Path
) -> None:
    port = free_port()
    agent = {"url": f"http://127.0.0.1:{port}"}
    before = Agent(entry("a", tags=("blue",)), entry("b"))
    options = {"snapshot_dir": str(tmp_path / "kept"), "tags": ("blue",)}
    with ScriptedAgent(before, port=port) as server:
        first = watch(server.url, **options)
        await first.until_ids("a")
        await first.close()
    (file,) = (tmp_path / "kept").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    second = watch(agent["url"], **options)
    told = await second.until_ids("a")
    assert (told.source, told.freshness, told.reason) == (Source.DISK, Freshness.STALE, None)
    assert [each.source for _, each in second.heard] == [Source.DISK]
    (event,) = second.of(SnapshotRestored)
    assert event.details()["instances"] == 1
    # Consul comes back blank, and then whole: nothing was lost in between.
    blank = Agent(index=5)
    with ScriptedAgent(blank, port=port):
        await eventually(lambda: second.of(EmptyAnswerHeld), 15, "the blank answer to be held")
        blank.set(entry("a", tags=("blue",)))
        told = await second.until(lambda told: told.source is Source.LIVE, "the live answer")
    assert all([each.id for each in told.instances] == ["a"] for _, told in second.heard)


async def test_case_15_a_consul_that_hangs_at_the_start_is_not_waited_for(
    watch: Watch, tmp_path: Path
) -> None:
    agent = Agent(entry("a"))
    hanging = False

    def script(asked: Any) -> Answer:
        end = time.monotonic() + 5
        while hanging and time.monotonic() < end:
            time.sleep(0.01)
        return agent(asked)

    with ScriptedAgent(script) as server:
        first = watch(server.url, snapshot_dir=str(tmp_path))
        await first.until_ids("a")
        await first.close()
        hanging = True
        second = watch(server.url, snapshot_dir=str(tmp_path), agent={"timeout": 4.0})
        begun = time.monotonic()
        assert (await second.until_ids("a")).source is Source.DISK
        # Before the first call, which waits for two seconds, gives up.
        assert time.monotonic() - begun < 1.8
        hanging = False
        await second.until(lambda told: told.source is Source.LIVE, "the live answer")


async def test_case_16_what_is_wrong_with_a_file_keeps_nobody_from_starting(
    watch: Watch, tmp_path: Path
) -> None:
    agent = Agent(entry("a"))
    with ScriptedAgent(agent) as server:
        first = watch(server.url, snapshot_dir=str(tmp_path))
        await first.until_ids("a")
        await first.close()
        (file,) = tmp_path.iterdir()
        file.write_text('{"schema": 0}')
        agent.override = Answer("No cluster leader", 500)
        # With another question, or it would share the first one's watch, which still waits for its answer.
        second = watch(server.url, snapshot_dir=str(tmp_path), stale=True)
        told = await second.until(lambda told: True, "the first word")
        assert (told.instances, told.reason) == ((), Reason.REGISTRY_DOWN)
        assert len(second.of(SnapshotFileUnusable)) == 1
        agent.override = None
        await second.until_ids("a")


async def test_nothing_secret_is_kept_on_disk(watch: Watch, tmp_path: Path) -> None:
    agent = Agent(entry("a"))
    with ScriptedAgent(agent) as server:
        watching = watch(
            server.url, snapshot_dir=str(tmp_path), agent={"token": "s3cret-token", "auth": "me:s3cret-word"}
        )
        await watching.until_ids("a")
        await background.run(watching.discovery.aclose, name="flush")
    (file,) = tmp_path.iterdir()
    assert "s3cret" not in file.read_text()
    assert json.loads(file.read_text())["question"]["agent"] == server.url


async def test_case_43_a_service_that_rested_begins_with_what_was_known(watch: Watch) -> None:
    agent = Agent(entry("a"))
    with ScriptedAgent(agent) as server:
        watching = watch(server.url, idle=0.05, wait=0.3)
        await watching.until_ids("a")
        watching.subscription.close()
        await eventually(lambda: watching.discovery.describe() == {}, what="the rest")
        await eventually(lambda: agent.blocked == 0, what="the last query to end")
        watching.heard.clear()
        watching.subscription = watching.subscribe()
        assert [(told.freshness, [i.id for i in told.instances]) for _, told in watching.heard] == [
            (Freshness.STALE, ["a"])
        ]
        await watching.until(lambda told: told.freshness is Freshness.FRESH, "freshness")
        assert all(told.instances for _, told in watching.heard)


# age and doubt


async def test_what_is_stale_for_too_long_expires_and_is_used_all_the_same(watch: Watch) -> None:
    agent = Agent(entry("a"))
    with ScriptedAgent(agent) as server:
        watching = watch(server.url, expire_after=0.2)
        await watching.until_ids("a")
        agent.override = Answer("No cluster leader", 500)
        told = await watching.until(lambda told: told.freshness is Freshness.EXPIRED, "expiry")
        assert [each.id for each in told.instances] == ["a"]
        assert len(watching.of(DiscoveryExpired)) == 1
        agent.override = None
        await watching.until(lambda told: told.freshness is Freshness.FRESH, "freshness")


async def test_an_emptiness_that_callers_doubt_is_believed_at_its_next_confirmation(watch: Watch) -> None:
    agent = Agent(entry("a"), index=162)
    agent.patience = 10.0
    with ScriptedAgent(agent) as server:
        watching = watch(server.url, empty_grace=600.0)
        await watching.until_ids("a")
        agent.set(index=5)
        await eventually(lambda: watching.of(EmptyAnswerHeld), what="the empty answer to be held")
        assert watching.described["empty_answer_held"]
        agent.patience = 0.3

        def waits() -> list[str]:
            return [each.query["wait"] for each in server.asked if each.query.get("index") == "5"]

        await eventually(lambda: len(waits()) == 2, what="the next queries")
        # The second would wait longer than the first if nothing were held back.
        assert waits() == ["1000ms", "1000ms"]
        watching.subscription.doubt()
        told = await watching.until_ids()
        assert told.reason is Reason.NOT_REGISTERED
        assert len(watching.of(EmptyAnswerAccepted)) == 1
        watching.subscription.doubt()


# size


async def test_case_42_a_thousand_instances_are_swapped_in_one_go(watch: Watch) -> None:
    """Parsing, comparing and telling a thousand instances holds up nobody for long."""
    entries = [entry(f"i{number:04}", port=1 + number) for number in range(1_000)]
    agent = Agent(*entries)
    with ScriptedAgent(agent) as server:
        watching = watch(server.url)
        await watching.until(lambda told: len(told.instances) == 1_000, "all of them")
        longest = 0.0

        async def heartbeat() -> None:
            nonlocal longest
            while True:
                before = time.monotonic()
                await asyncio.sleep(0)
                longest = max(longest, time.monotonic() - before)
                await asyncio.sleep(0.001)

        async def beat() -> None:
            job = asyncio.create_task(heartbeat())
            while not swapped:
                await asyncio.sleep(0.01)
            job.cancel()

        swapped = False
        beating = asyncio.create_task(background.run(beat, name="beat"))
        agent.set(*entries[1:], entry("new"))
        told = await watching.until(lambda told: told.instances[-1].id == "new", "the swap")
        assert len(told.instances) == 1_000
        swapped = True
        await beating
        # About 20 ms on one idle core; it is the heartbeat's thread too.
        assert longest < 1.0
