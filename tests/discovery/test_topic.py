"""Who is told of a service's snapshots, and in what order."""

from __future__ import annotations

import threading

from chassis.core import Event, Snapshot, events
from chassis.discovery import LastKnownGood, Topic, WatchFailed


def snapshot(number: float) -> Snapshot:
    return Snapshot(service="catalog", fetched_at=number)


def test_a_listener_is_told_what_is_known_and_then_each_change() -> None:
    topic, heard = Topic("catalog"), []
    topic.publish(snapshot(1))
    topic.subscribe(heard.append)
    topic.publish(snapshot(2))
    assert heard == [snapshot(1), snapshot(2)]
    assert topic.snapshot == snapshot(2)


def test_before_the_first_snapshot_nothing_is_told() -> None:
    topic, heard = Topic("catalog"), []
    topic.subscribe(heard.append)
    assert heard == []
    assert topic.snapshot is None


def test_after_close_nothing_is_told_and_the_owner_knows_once() -> None:
    left: list[bool] = []
    topic = Topic("catalog", left=lambda topic: left.append(topic.listened_to))
    heard: list[Snapshot] = []
    first, second = topic.subscribe(heard.append), topic.subscribe(heard.append)
    topic.publish(snapshot(1))
    first.close()
    first.close()
    assert left == [True]
    topic.publish(snapshot(2))
    second.close()
    topic.publish(snapshot(3))
    assert left == [True, False]
    assert heard == [snapshot(1), snapshot(1), snapshot(2)]


def test_a_listener_may_close_itself_and_join_others() -> None:
    topic = Topic("catalog")
    heard: list[float] = []

    def once(snapshot: Snapshot) -> None:
        heard.append(snapshot.fetched_at)
        subscription.close()
        topic.subscribe(lambda snapshot: heard.append(-snapshot.fetched_at))

    subscription = topic.subscribe(once)
    topic.publish(snapshot(1))
    topic.publish(snapshot(2))
    assert heard == [1, -1, -2]


def test_a_listener_that_publishes_is_told_of_that_after_it_returned() -> None:
    topic, heard = Topic("catalog"), []

    def echo(each: Snapshot) -> None:
        if each.fetched_at < 3:
            topic.publish(snapshot(each.fetched_at + 1))
        heard.append(each.fetched_at)

    topic.subscribe(echo)
    topic.publish(snapshot(1))
    assert heard == [1, 2, 3]


def test_a_slow_listener_delays_nobody_and_gets_the_newest_last() -> None:
    topic = Topic("catalog")
    go, started = threading.Event(), threading.Event()
    slow: list[float] = []
    quick: list[float] = []

    def slowly(snapshot: Snapshot) -> None:
        started.set()
        assert go.wait(5)
        slow.append(snapshot.fetched_at)

    topic.subscribe(slowly)
    topic.subscribe(lambda snapshot: quick.append(snapshot.fetched_at))
    thread = threading.Thread(target=topic.publish, args=[snapshot(1)])
    thread.start()
    assert started.wait(5)
    topic.publish(snapshot(2))
    topic.publish(snapshot(3))
    assert quick == [2, 3]
    go.set()
    thread.join(5)
    assert slow == [1, 3]
    assert quick == [2, 3]


def test_many_publishing_threads_leave_every_listener_with_the_newest() -> None:
    topic, heard = Topic("catalog"), []
    topic.subscribe(heard.append)
    threads = [
        threading.Thread(target=lambda start=start: [topic.publish(snapshot(start + n)) for n in range(200)])
        for start in (0, 1000, 2000)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert heard[-1] is topic.snapshot
    assert len({id(each) for each in heard}) == len(heard)


def test_a_listener_that_raises_harms_no_other_and_is_told_of() -> None:
    topic, heard = Topic("catalog"), []
    happened: list[Event] = []
    unsubscribe = events.subscribe(happened.append)

    def broken(snapshot: Snapshot) -> None:
        raise RuntimeError("no")

    topic.subscribe(broken)
    topic.subscribe(heard.append)
    topic.publish(snapshot(1))
    topic.publish(snapshot(2))
    unsubscribe()
    assert heard == [snapshot(1), snapshot(2)]
    assert [each.details() for each in happened if isinstance(each, WatchFailed)] == [
        {"error": "listener: RuntimeError: no"}
    ] * 2


def test_a_step_without_change_is_not_told_but_makes_the_snapshot_young() -> None:
    topic, heard = Topic("catalog"), []
    topic.subscribe(heard.append)
    machine = LastKnownGood("catalog")
    topic.take(machine.answered([], now=1.0, woke=False))
    topic.take(machine.answered([], now=2.0, woke=False))
    assert [each.fetched_at for each in heard] == [1.0]
    assert topic.snapshot is not None
    assert topic.snapshot.fetched_at == 2.0
