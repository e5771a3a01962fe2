"""How long a service is watched, and what is left of it."""

from __future__ import annotations

import asyncio

from chassis.background import background
from chassis.core import Freshness, Instance, Snapshot
from chassis.discovery import Topic, Watches
from tests.support.waiting import wait_until

A = Instance(id="a", service="catalog", host="10.0.0.1", port=80)


class Script:
    """Watches that publish one instance when they are told to, and count how often they run."""

    def __init__(self, *, answers: bool = True) -> None:
        self.begun = 0
        self.ended = 0
        self.answers = answers
        self.found_known: list[Snapshot | None] = []

    async def watch(self, topic: Topic) -> None:
        self.begun += 1
        self.found_known.append(topic.snapshot)
        if self.answers:
            topic.publish(Snapshot(service=topic.service, instances=(A,)))
        try:
            await asyncio.Event().wait()
        finally:
            self.ended += 1


def test_a_service_is_watched_on_for_a_while_when_nobody_listens() -> None:
    script = Script()
    watches = Watches(script.watch, name="script", idle=lambda service: 60.0)
    heard: list[Snapshot] = []
    watches.subscribe("catalog", lambda snapshot: None).close()
    wait_until(lambda: watches.describe().get("catalog", {}).get("instances"), what="the first snapshot")
    subscription = watches.subscribe("catalog", heard.append)
    # The watch may be about to tell it: then it is told there, and not before subscribe returns.
    wait_until(lambda: heard, what="what is known")
    assert [each.freshness for each in heard] == [Freshness.FRESH]
    assert (script.begun, script.ended) == (1, 0)
    subscription.close()
    watches.rest()
    wait_until(lambda: script.ended == 1, what="the end of the watch")


def test_who_comes_and_goes_a_thousand_times_leaves_one_task_behind() -> None:
    script = Script()
    watches = Watches(script.watch, name="comes-and-goes", idle=lambda service: 60.0)
    for _ in range(1_000):
        watches.subscribe("catalog", lambda snapshot: None).close()

    async def count() -> int:
        return sum("comes-and-goes" in each.get_name() for each in asyncio.all_tasks())

    def tasks() -> int:
        return int(background.start(count, name="count").result(5))

    assert tasks() <= 2
    watches.rest()
    wait_until(lambda: tasks() == 0, what="the end of all of them")


def test_case_43_after_the_while_the_watch_ends_and_the_next_begins_with_what_it_knew() -> None:
    script = Script()
    watches = Watches(script.watch, name="script", idle=lambda service: 0.05)
    heard: list[Snapshot] = []
    subscription = watches.subscribe("catalog", heard.append)
    wait_until(lambda: heard, what="the first snapshot")
    subscription.close()
    wait_until(lambda: script.ended == 1, what="the end of the watch")
    assert watches.describe() == {}
    script.answers = False
    heard.clear()
    subscription = watches.subscribe("catalog", heard.append)
    # Told before the source has said a word, so that the first call has somewhere to go.
    assert [(each.instances, each.freshness) for each in heard] == [((A,), Freshness.STALE)]
    wait_until(lambda: script.begun == 2, what="the second watch")
    assert script.found_known[1] == heard[0]
    subscription.close()
    watches.rest()


def test_who_comes_back_in_time_keeps_the_watch_and_the_while_begins_anew() -> None:
    script = Script()
    watches = Watches(script.watch, name="script", idle=lambda service: 0.3)
    first = watches.subscribe("catalog", lambda snapshot: None)
    first.close()
    second = watches.subscribe("catalog", lambda snapshot: None)
    wait_until(lambda: script.begun, what="the watch")
    second.close()
    third = watches.subscribe("catalog", lambda snapshot: None)
    ended = []

    async def look() -> None:
        await asyncio.sleep(0.5)
        ended.append(script.ended)

    asyncio.run(look())
    assert ended == [0]
    assert script.begun == 1
    third.close()
    wait_until(lambda: script.ended == 1, what="the end of the watch")


def test_what_is_remembered_of_ended_watches_is_bounded() -> None:
    script = Script()
    watches = Watches(script.watch, name="script")
    for number in range(1_010):
        topic = Topic(f"s{number}")
        topic.publish(Snapshot(service=topic.service, instances=(A,)))
        watched = watches.subscribe(topic.service, lambda snapshot: None)
        watches._watched[topic.service].topic.offer(Snapshot(service=topic.service, instances=(A,)))
        watched.close()
    assert len(watches._remembered) == 1_000
    assert "s0" not in watches._remembered
    assert "s1009" in watches._remembered
