"""Static addresses, several sources as one, and watchers in the background."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from chassis.core import (
    ConfigError,
    Discovery,
    Event,
    Freshness,
    Instance,
    Reason,
    ServiceSubscription,
    Snapshot,
    Source,
    events,
)
from chassis.discovery import (
    CompositeDiscovery,
    MemoryDiscovery,
    MergedDiscovery,
    StaticDiscovery,
    Topic,
    Watches,
    WatchFailed,
)
from tests.support.waiting import wait_until


def instance(name: str, service: str = "catalog") -> Instance:
    return Instance(id=name, service=service, host="10.0.0.1", port=80)


def ids(snapshot: Snapshot) -> list[str]:
    return [each.id for each in snapshot.instances]


def heard_of(discovery: Discovery, service: str) -> list[Snapshot]:
    heard: list[Snapshot] = []
    discovery.subscribe(service, heard.append)
    return heard


# static


def test_static_addresses_are_told_at_once() -> None:
    (told,) = heard_of(StaticDiscovery({"catalog": "http://a:1,http://b:1"}), "catalog")
    assert ids(told) == ["a:1", "b:1"]
    assert told.source is Source.STATIC
    assert told.freshness is Freshness.FRESH
    assert told.reason is None


def test_a_service_without_an_address_is_not_registered() -> None:
    (told,) = heard_of(StaticDiscovery({}), "catalog")
    assert told.instances == ()
    assert told.reason is Reason.NOT_REGISTERED


def test_static_instances_may_bear_everything_a_balancer_looks_at() -> None:
    backup = {"url": "http://b:1", "priority": 1, "zone": "z", "weight": 2, "status": "critical"}
    (told,) = heard_of(StaticDiscovery({"catalog": ["http://a:1", backup]}), "catalog")
    assert [(each.id, each.priority, each.zone, each.weight) for each in told.instances] == [
        ("a:1", 0, "", 1),
        ("b:1", 1, "z", 2),
    ]
    (told,) = heard_of(StaticDiscovery({"catalog": [backup]}), "catalog")
    assert told.reason is Reason.NO_PASSING


@pytest.mark.parametrize("name", ["order-history", "order_history", "Order-History"])
def test_a_service_is_found_under_the_name_an_environment_variable_can_have(name: str) -> None:
    (told,) = heard_of(StaticDiscovery({"order_history": ["http://a:1"]}), name)
    assert [(each.id, each.service, each.scheme) for each in told.instances] == [("a:1", name, "http")]
    assert told.service == name


def test_two_spellings_of_one_service_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'a-b' and 'a_b' name one service \(from x\)"):
        StaticDiscovery({"a-b": "http://a:1", "a_b": "http://b:1"}, origin="x")


def test_a_bad_static_address_names_its_setting_and_origin() -> None:
    with pytest.raises(ConfigError, match=r"services.catalog: 'a:1' has no scheme \(from chassis.toml\)"):
        StaticDiscovery({"catalog": "a:1"}, origin="chassis.toml")


def test_static_discovery_describes_what_is_listened_to() -> None:
    discovery = StaticDiscovery({"catalog": "http://a:1", "orders": "http://b:1"})
    assert discovery.describe() == {}
    subscription = discovery.subscribe("catalog", lambda snapshot: None)
    described = discovery.describe()["catalog"]
    assert described.pop("age") >= 0
    assert described == {
        "source": "static",
        "freshness": "fresh",
        "instances": [
            {
                "id": "a:1",
                "url": "http://a:1",
                "status": "passing",
                "zone": "",
                "datacenter": "",
                "priority": 0,
                "weight": 1,
                "tags": [],
            }
        ],
        "reason": None,
    }
    subscription.close()
    assert discovery.describe() == {}


def test_listeners_that_leave_at_once_take_nothing_from_one_who_comes() -> None:
    """The second one to leave finds the newcomer's topic in the place of its own."""
    discovery = MemoryDiscovery()
    told: list[Snapshot] = []
    first, second = (discovery.subscribe("catalog", lambda snapshot: None) for _ in range(2))
    leaving = threading.Thread(target=second.close)
    with discovery._lock:  # the second one waits for it, after it has left its topic
        leaving.start()
        wait_until(lambda: second.closed, what="the second one to leave")
        first.close()
        discovery.subscribe("catalog", told.append)
    leaving.join()
    discovery.put(instance("a"))
    assert [each.id for each in told[-1].instances] == ["a"]


# composite


def test_the_first_source_that_knows_a_service_is_believed() -> None:
    static, memory = StaticDiscovery({"catalog": "http://a:1"}), MemoryDiscovery()
    memory.put(instance("m"), instance("n", "orders"))
    composite = CompositeDiscovery([static, memory])
    assert [ids(each) for each in heard_of(composite, "catalog")] == [["a:1"]]
    assert [ids(each) for each in heard_of(composite, "orders")] == [["n"]]
    assert composite.describe()["orders"]["source"] == "memory"


def test_an_earlier_source_takes_over_when_it_comes_to_know_the_service_and_hands_back() -> None:
    first, second = MemoryDiscovery(), MemoryDiscovery()
    second.put(instance("second"))
    heard = heard_of(CompositeDiscovery([first, second]), "catalog")
    first.put(instance("first"))
    second.put(instance("unheard"))
    first.remove("catalog", "first")
    assert [ids(each) for each in heard] == [["second"], ["first"], ["second", "unheard"]]


def test_an_earlier_source_that_falls_silent_keeps_its_word() -> None:
    first, second = MemoryDiscovery(), StaticDiscovery({"catalog": "http://a:1"})
    first.put(instance("first"))
    heard = heard_of(CompositeDiscovery([first, second]), "catalog")
    first.stop()
    assert [(ids(each), each.freshness) for each in heard] == [
        (["first"], Freshness.FRESH),
        (["first"], Freshness.STALE),
    ]


def test_nothing_is_told_before_each_earlier_source_has_answered() -> None:
    class Late:
        """A source that answers when it is told to."""

        def __init__(self) -> None:
            self.topic = Topic("catalog")

        def subscribe(self, service: str, listener: object) -> object:
            return self.topic.subscribe(listener)  # type: ignore[arg-type]

    late = Late()
    heard = heard_of(CompositeDiscovery([late, StaticDiscovery({"catalog": "http://a:1"})]), "catalog")  # type: ignore[list-item]
    assert heard == []
    late.topic.publish(Snapshot(service="catalog", reason=Reason.NOT_REGISTERED))
    assert [ids(each) for each in heard] == [["a:1"]]


def test_of_several_reasons_for_knowing_nothing_the_telling_one_is_given() -> None:
    silent = MemoryDiscovery()
    silent.stop()
    heard = heard_of(CompositeDiscovery([StaticDiscovery({}), silent]), "catalog")
    assert [each.reason for each in heard] == [Reason.REGISTRY_DOWN]
    heard = heard_of(CompositeDiscovery([StaticDiscovery({}), StaticDiscovery({})]), "catalog")
    assert [each.reason for each in heard] == [Reason.NOT_REGISTERED]


def test_the_sources_are_left_when_the_last_listener_leaves() -> None:
    memory = MemoryDiscovery()
    composite = CompositeDiscovery([memory])
    heard: list[Snapshot] = []
    first = composite.subscribe("catalog", heard.append)
    second = composite.subscribe("catalog", lambda snapshot: None)
    first.close()
    assert "catalog" in memory.describe()
    second.close()
    assert memory.describe() == {}
    assert composite.describe() == {}
    before = len(heard)
    memory.put(instance("a"))
    assert len(heard) == before
    assert [ids(each) for each in heard_of(composite, "catalog")] == [["a"]]


class Doubted:
    """A source that tells what it is given, and counts the doubts it is told of."""

    def __init__(self, *instances: Instance) -> None:
        self.doubts = 0
        self.topic = Topic("catalog")
        self.topic.doubted = self.doubt
        if instances:
            self.topic.publish(Snapshot(service="catalog", instances=instances))

    def doubt(self) -> None:
        self.doubts += 1

    def subscribe(self, service: str, listener: Any) -> ServiceSubscription:
        return self.topic.subscribe(listener)

    def describe(self) -> Mapping[str, Any]:
        return {"catalog": {"index": 7, "instances": []}}


class Broken(Doubted):
    def subscribe(self, service: str, listener: Any) -> ServiceSubscription:
        raise RuntimeError("a defect")


def test_a_doubt_reaches_the_source_whose_word_it_is_about() -> None:
    first, second = Doubted(instance("a")), Doubted(instance("b"))
    subscription = CompositeDiscovery([first, second]).subscribe("catalog", lambda snapshot: None)
    subscription.doubt()
    assert (first.doubts, second.doubts) == (1, 0)
    first.topic.publish(Snapshot(service="catalog", reason=Reason.NOT_REGISTERED))
    subscription.doubt()
    assert (first.doubts, second.doubts) == (1, 1)
    subscription = MergedDiscovery([first, second, Doubted()]).subscribe("catalog", lambda snapshot: None)
    first.topic.publish(Snapshot(service="catalog", instances=(instance("a"),)))
    subscription.doubt()
    assert (first.doubts, second.doubts) == (2, 2)


@pytest.mark.parametrize("kind", [CompositeDiscovery, MergedDiscovery])
def test_a_source_that_fails_costs_the_others_nothing(kind: type[CompositeDiscovery]) -> None:
    happened: list[Event] = []
    unsubscribe = events.subscribe(happened.append)
    composite = kind([Broken(), StaticDiscovery({"catalog": "http://a:1"})])
    heard = heard_of(composite, "catalog")
    unsubscribe()
    assert [ids(each) for each in heard] == [["a:1"]]
    assert [each.details() for each in happened if isinstance(each, WatchFailed)] == [
        {"error": "source: RuntimeError: a defect"}
    ]


def test_a_composite_describes_what_the_source_in_use_does() -> None:
    composite = CompositeDiscovery([StaticDiscovery({}), Doubted(instance("a"))])
    composite.subscribe("catalog", lambda snapshot: None)
    assert composite.describe()["catalog"] == {"index": 7, "instances": []}


# merged


def test_merged_sources_are_told_together_and_an_address_counts_once() -> None:
    first, second = MemoryDiscovery(), MemoryDiscovery()
    first.put(Instance(id="a", service="catalog", host="10.0.0.1", port=80, zone="first"))
    second.put(
        Instance(id="again", service="catalog", host="10.0.0.1", port=80),
        Instance(id="b", service="catalog", host="10.0.0.2", port=80),
    )
    merged = MergedDiscovery([first, second])
    heard = heard_of(merged, "catalog")
    assert [(each.id, each.zone, each.priority) for each in heard[-1].instances] == [
        ("a", "first", 0),
        ("b", "", 0),
    ]
    first.remove("catalog", "a")
    assert ids(heard[-1]) == ["again", "b"]
    assert len(merged.describe()["catalog"]["sources"]) == 1


def test_a_later_source_can_be_the_fallback_of_those_before_it() -> None:
    fallback = StaticDiscovery({"catalog": [{"url": "http://f:1", "priority": 1}]})
    late = Doubted()
    heard = heard_of(MergedDiscovery([late, fallback], priorities=[0, 10]), "catalog")
    assert heard == [], "the fallback is not all there is before the others have answered"
    late.topic.publish(Snapshot(service="catalog", instances=(instance("a"),)))
    assert [(each.id, each.priority) for each in heard[-1].instances] == [("a", 0), ("f:1", 11)]
    late.topic.publish(Snapshot(service="catalog", reason=Reason.NOT_REGISTERED))
    assert [(each.id, each.priority) for each in heard[-1].instances] == [("f:1", 11)]


def test_a_merged_source_that_is_silent_from_the_beginning_keeps_no_equal_waiting() -> None:
    heard = heard_of(MergedDiscovery([Doubted(), StaticDiscovery({"catalog": "http://a:1"})]), "catalog")
    assert [ids(each) for each in heard] == [["a:1"]]


def test_a_merge_is_as_fresh_as_the_stalest_source_in_it() -> None:
    first, second = MemoryDiscovery(), MemoryDiscovery()
    first.put(instance("a"))
    heard = heard_of(MergedDiscovery([first, second]), "catalog")
    second.stop()
    assert heard[-1].freshness is Freshness.FRESH, "who knows nothing makes nothing stale"
    second.start()
    second.put(Instance(id="b", service="catalog", host="10.0.0.2", port=80))
    second.stop()
    assert (ids(heard[-1]), heard[-1].freshness) == (["a", "b"], Freshness.STALE)


def test_a_merge_of_nothing_waits_for_all_and_gives_the_telling_reason() -> None:
    silent, late = MemoryDiscovery(), Doubted()
    silent.stop()
    heard = heard_of(MergedDiscovery([StaticDiscovery({}), silent, late]), "catalog")
    assert heard == []
    late.topic.publish(Snapshot(service="catalog", reason=Reason.NOT_REGISTERED))
    assert [each.reason for each in heard] == [Reason.REGISTRY_DOWN]


@pytest.mark.parametrize("priorities", [[0], [0, 0, 0], [0, -1]])
def test_the_priorities_of_a_merge_are_checked(priorities: list[int]) -> None:
    with pytest.raises(ConfigError, match="priorities"):
        MergedDiscovery([StaticDiscovery({}), StaticDiscovery({})], priorities=priorities)


# watchers


class Script:
    """A watch that tells when it begins and ends, and publishes what it is given."""

    def __init__(self, *, failures: int = 0) -> None:
        self.begun = 0
        self.ended = threading.Event()
        self.failures = failures

    async def watch(self, topic: Topic) -> None:
        self.begun += 1
        if self.failures:
            self.failures -= 1
            raise RuntimeError("a defect")
        topic.publish(Snapshot(service=topic.service, instances=(instance("a", topic.service),)))
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


def test_one_watcher_runs_per_service_while_somebody_listens() -> None:
    script = Script()
    watches = Watches(script.watch, name="script")
    heard: list[Snapshot] = []
    first = watches.subscribe("catalog", heard.append)
    wait_until(lambda: heard, what="the first snapshot")
    second = watches.subscribe("catalog", heard.append)
    assert len(heard) == 2
    assert script.begun == 1
    first.close()
    assert not script.ended.is_set()
    assert watches.describe()["catalog"]["instances"][0]["id"] == "a"
    second.close()
    assert script.ended.wait(5)
    assert watches.describe() == {}


def test_case_43_a_watch_that_was_ended_begins_anew_with_the_next_listener() -> None:
    script = Script()
    watches = Watches(script.watch, name="script")
    watches.subscribe("catalog", lambda snapshot: None).close()
    heard: list[Snapshot] = []
    subscription = watches.subscribe("catalog", heard.append)
    wait_until(lambda: heard, what="a snapshot of the new watch")
    subscription.close()


def test_a_watch_with_a_defect_is_told_of_and_begun_anew() -> None:
    script = Script(failures=1)
    watches = Watches(script.watch, name="script")
    happened: list[Event] = []
    unsubscribe = events.subscribe(happened.append)
    heard: list[Snapshot] = []
    subscription = watches.subscribe("catalog", heard.append)
    wait_until(lambda: heard, what="the watch to begin anew")
    unsubscribe()
    subscription.close()
    assert script.begun == 2
    assert [each.details() for each in happened if isinstance(each, WatchFailed)] == [
        {"error": "watcher: RuntimeError: a defect"}
    ]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_case_40_a_forked_child_has_watchers_of_its_own() -> None:
    script = Script()
    watches = Watches(script.watch, name="script")
    heard: list[int] = []
    subscription = watches.subscribe("catalog", lambda snapshot: heard.append(os.getpid()))
    wait_until(lambda: heard, what="the parent's watcher")
    child = os.fork()
    if child == 0:
        try:
            wait_until(lambda: os.getpid() in heard, what="the child's watcher")
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert script.begun == 1
    subscription.close()
